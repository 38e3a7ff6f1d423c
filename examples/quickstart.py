"""Learn handwritten digits: AdaBelief, Adam, momentum and L-BFGS-B through one ``minimize`` call.

The data are the 1797 images of 8 by 8 pixels that ship inside scikit-learn; a quarter is kept for
testing. The model is L2-regularized multi-class logistic regression: with the pixels a (and a
constant 1) of an image, its label k, and a weight vector w_c for each of the ten digits,

    loss(w) = mean over images of (log sum_c exp(w_c . a) - w_k . a)  +  decay / 2 * |w|^2.

The loss is strictly convex, so every method is after the same 650 numbers, and its gradient takes
two lines of NumPy. A rule of numbelief is a ``method`` of ``scipy.optimize.minimize``, so the call
in ``compete`` is the same, letter by letter, for all four; only the progress bar is an option that
SciPy's own methods do not know. (``numbelief.minimize`` is that call without SciPy in between.)

The learning rates were chosen on the training loss alone: of 0.01, 0.03, 0.1, 0.3, 1, 3 and 10, the
one that reaches the tolerance in the fewest iterations; ``--rates`` repeats the search. L-BFGS-B
has a line search and needs no rate. On a smooth problem of this size it should win, and it does,
with half the gradients: first-order rules are for noisy gradients and for many more unknowns. The
rules are compiled before the clock starts; Numba keeps the result on disk for the next time.

Needs scikit-learn, matplotlib and tqdm. Writes quickstart.png.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from numbelief import AdaBelief, Adam, Momentum

DECAY = 1e-3
OPTIONS = {"maxiter": 2000, "gtol": 1e-5, "ftol": 0.0}  # ftol 0: only the gradient decides
CONTESTANTS = {
    "AdaBelief": AdaBelief(learning_rate=0.3),
    "Adam": Adam(learning_rate=0.3),
    "Momentum SGD": Momentum(learning_rate=3.0),
    "L-BFGS-B": "L-BFGS-B",
}


def digits():
    """Training images, training labels, test images, test labels."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.column_stack([pixels / 16, np.ones(len(pixels))])
    split = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    return split[0], split[2], split[1], split[3]


def loss(weights, images, labels):
    """The regularized mean negative log likelihood, and its gradient."""
    w = weights.reshape(10, -1)
    scores = images @ w.T
    scores -= scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    value = -log_p[np.arange(len(labels)), labels].mean() + DECAY / 2 * (w**2).sum()
    surplus = np.exp(log_p) - (labels[:, None] == np.arange(10))
    return value, (surplus.T @ images / len(labels) + DECAY * w).ravel()


def accuracy(weights, images, labels):
    """The share of images whose highest score is that of their label."""
    return (np.argmax(images @ weights.reshape(10, -1).T, axis=1) == labels).mean()


def compete(method, data, **extra):
    """Minimize with a method; return SciPy's result, every loss evaluated, and the seconds."""
    losses = []

    def watched(weights, *args):
        value, gradient = loss(weights, *args)
        losses.append(value)
        return value, gradient

    start = np.zeros(10 * data[0].shape[1])
    began = time.perf_counter()
    with threadpool_limits(1, "blas"):  # products this small only wait for a second thread
        result = minimize(watched, start, data, method=method, jac=True, options=OPTIONS | extra)
    return result, losses, time.perf_counter() - began


def search_rates(data):
    """Print the iterations that each rule needs at each learning rate."""
    rates = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    print(f"iterations to a gradient below {OPTIONS['gtol']:g} ('-': not in {OPTIONS['maxiter']})")
    print(f"{'learning rate':14s}" + "".join(f"{rate:>8g}" for rate in rates))
    for name, rule in CONTESTANTS.items():
        if isinstance(rule, str):
            continue
        results = [compete(type(rule)(learning_rate=rate), data)[0] for rate in rates]
        print(f"{name:14s}" + "".join(f"{r.nit if r.success else '-':>8}" for r in results))


def draw(traces, best, path):
    """Plot the gap to the lowest loss against the number of gradients."""
    styles = {"AdaBelief": ("#d55e00", "-"), "Adam": ("#0072b2", "--")}
    styles |= {"Momentum SGD": ("#009e73", "-."), "L-BFGS-B": ("black", ":")}
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, losses in traces.items():
        gap = np.minimum.accumulate(losses) - best
        color, dashes = styles[name]
        axes.loglog(np.arange(1, len(gap) + 1), gap, dashes, color=color, linewidth=1.8, label=name)
    axes.set(
        xlabel="gradient evaluations",
        ylabel="best loss so far $-$ minimum",
        title="Logistic regression on handwritten digits (1347 images, 650 weights)",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="DIR")
    parser.add_argument("--rates", action="store_true", help="only search for learning rates")
    chosen = parser.parse_args()
    train_images, train_labels, test_images, test_labels = digits()
    train, test = (train_images, train_labels), (test_images, test_labels)
    if chosen.rates:
        search_rates(train)
        return

    rows, traces = [], {}
    for name, method in CONTESTANTS.items():
        print(name, flush=True)
        bar = {} if isinstance(method, str) else {"progress": True}
        compete(method, train, maxiter=1)  # compile
        result, traces[name], seconds = compete(method, train, **bar)
        rows.append((name, result, seconds))
    best = compete("L-BFGS-B", train, maxiter=10_000, gtol=1e-9)[0].fun

    print(f"\nminimum {best:.9f}, {len(train_labels)} training and {len(test_labels)} test images")
    print(f"{'method':14s}{'rate':>6s}{'loss':>13s}{'loss - min':>12s}{'test accuracy':>15s}"
          f"{'iterations':>12s}{'gradients':>11s}{'time':>9s}")  # fmt: skip
    for name, result, seconds in rows:
        rate = getattr(CONTESTANTS[name], "learning_rate", "")
        print(f"{name:14s}{rate:>6}{result.fun:13.9f}{result.fun - best:12.1e}"
              f"{accuracy(result.x, *test):15.4f}{result.nit:12d}{result.njev:11d}"
              f"{seconds:7.2f} s")  # fmt: skip

    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "quickstart.png"
    draw(traces, best, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
