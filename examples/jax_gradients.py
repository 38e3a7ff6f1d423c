"""The same ``minimize`` with a gradient by JAX and one by hand: the same minimum.

A softmax regression on scikit-learn's 1797 digits, with an L2 term that makes its minimum unique.
JAX needs the loss only: ``jax.jit(jax.value_and_grad(loss))`` is a function for ``jac=True``, and
``minimize`` converts the JAX array that it returns. JAX computes in float32 unless it is told
otherwise, before its first array; numbelief keeps the dtype of x0.

There is no published finding here. The run agrees if no weight of the two minima differs by more
than 1e-8.

    python examples/jax_gradients.py [--output FOLDER]

Needs JAX, scikit-learn and matplotlib. Writes jax_gradients.png.
"""

import argparse
import pathlib
import sys

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import log_softmax
from sklearn.datasets import load_digits

from numbelief import minimize
from numbelief.plotting import COLORS

try:
    import jax
except ImportError:
    sys.exit("this example needs JAX: pip install jax")
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

DECAY = 0.1


def digits():
    """Images with a constant 1, and their labels as rows of 0 and 1."""
    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels / 16, np.ones(len(pixels))]), np.eye(10)[labels]


def loss(x, images, labels):
    """The loss in JAX, which finds the gradient itself."""
    w = x.reshape(-1, 10)
    log_p = jax.nn.log_softmax(images @ w)
    return -(labels * log_p).sum() / len(images) + DECAY / 2 * (x @ x)


def by_hand(x, images, labels):
    """The loss and its gradient in NumPy."""
    w = x.reshape(-1, 10)
    log_p = log_softmax(images @ w, axis=1)
    value = -(labels * log_p).sum() / len(images) + DECAY / 2 * (x @ x)
    return value, (images.T @ (np.exp(log_p) - labels) / len(images) + DECAY * w).ravel()


def draw(results, path):
    """How each run comes down, and the weights of three digits that they agree on."""
    figure, panels = plt.subplots(
        1, 4, figsize=(12, 3.4), layout="constrained", width_ratios=(2, 1, 1, 1)
    )
    lowest = min(result.fun for result in results.values())
    for (name, result), color, dashes in zip(results.items(), COLORS, ("-", "--"), strict=False):
        gap = np.maximum(result.history.fun - lowest, 1e-16)
        panels[0].semilogy(gap, dashes, color=color, label=name, linewidth=2)
    panels[0].set(xlabel="iteration", ylabel="loss $-$ minimum")
    panels[0].grid(True, color="0.9", linewidth=0.8)
    panels[0].legend(frameon=False)
    w = results["JAX"].x.reshape(-1, 10)[:-1]
    for axes, digit in zip(panels[1:], (0, 3, 7), strict=True):
        shown = axes.imshow(w[:, digit].reshape(8, 8), cmap="PuOr", vmin=-0.4, vmax=0.4)
        axes.set(title=f"weights of {digit}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=panels[1:], shrink=0.8)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="FOLDER")
    parser.add_argument("--full", action="store_true", help="no difference: it is short")
    chosen = parser.parse_args()
    data = digits()
    on_device = tuple(jnp.asarray(each) for each in data)
    with_jax = jax.jit(jax.value_and_grad(loss))
    functions = {
        "JAX": lambda x: with_jax(x, *on_device),
        "by hand": lambda x: by_hand(x, *data),
    }
    x0 = np.zeros(10 * data[0].shape[1])
    results = {}
    print(f"{'gradient':10s}{'loss':>20s}{'iterations':>12s}{'evaluations':>13s}")
    for name, function in functions.items():
        result = minimize(function, x0, jac=True, tol=1e-10, options={"history": True})
        results[name] = result
        print(f"{name:10s}{result.fun:20.15f}{result.nit:12d}{result.nfev:13d}")
    apart = abs(results["JAX"].x - results["by hand"].x).max()
    print(f"\nlargest difference of a weight: {apart:.1e}")
    print(f"the same minimum: {'yes' if apart < 1e-8 else 'no'}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / "jax_gradients.png"
    draw(results, path)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    main()
