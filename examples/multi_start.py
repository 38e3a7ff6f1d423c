"""Ten thousand starts on a landscape of 693 minima, and which of them each start reaches.

The function is that of problem 4 of the SIAM hundred-dollar, hundred-digit challenge (Trefethen
2002; Bornemann et al. 2004, "The SIAM 100-Digit Challenge", chapter 4),

    f(x, y) = exp(sin 50x) + sin(60 exp y) + sin(70 sin x) + sin(sin 80y) - sin(10 (x + y))
              + (x^2 + y^2) / 4,

whose lowest value is -3.306868647475... In the square [-1, 1]^2 its gradient vanishes at 2720
points, of which 693 are minima; only one is the lowest. A gradient leads to some minimum, not to
the lowest, so the simplest global search is to start everywhere and take the best. That needs many
local searches, and none of them by hand: ``minimize_many`` takes all starts at once, finds a
learning rate for each, and keeps every point within the bounds.

The left picture shows the minima reached, each sized by the number of starts that ended there. The
right one magnifies the part around the lowest: each start, coloured by the value of the minimum
that it reaches, and a line to it. Most starts roll into a basin nearby; some, whose first steps are
long, cross ridges. A small fixed rate (``method=AdaBelief(learning_rate=1e-3)``) keeps them
nearby, with twenty times as many evaluations.

Needs matplotlib. Writes multi_start.png.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numba
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from numbelief import minimize_many

STARTS, MINIMA, LOWEST = 10_000, 693, -3.306868647475237
WINDOW = 0.25  # half the width of the part that is magnified


@numba.njit
def landscape(x, y):
    """The function of the challenge."""
    waves = np.exp(np.sin(50 * x)) + np.sin(60 * np.exp(y)) + np.sin(70 * np.sin(x))
    waves += np.sin(np.sin(80 * y)) - np.sin(10 * (x + y))
    return waves + (x**2 + y**2) / 4


@numba.njit
def fun(p, grad):
    """The same with its gradient, as minimize_many calls it."""
    x, y = p
    both = 10 * np.cos(10 * (x + y))
    u = 60 * np.exp(y)
    grad[0] = 50 * np.cos(50 * x) * np.exp(np.sin(50 * x)) - both + x / 2
    grad[0] += 70 * np.cos(x) * np.cos(70 * np.sin(x))
    grad[1] = u * np.cos(u) + 80 * np.cos(80 * y) * np.cos(np.sin(80 * y)) - both + y / 2
    return landscape(x, y)


def distinct(points, apart=1e-4):
    """The points that are at least so far apart, in order, and which of them each point is."""
    found = np.empty((0, 2))
    which = np.empty(len(points), int)
    for i, point in enumerate(points):
        near = np.flatnonzero(abs(found - point).max(axis=1) < apart)
        which[i] = near[0] if near.size else len(found)
        if not near.size:
            found = np.vstack([found, point])
    return found, which


def draw(starts, minima, which, path):
    """The minima of the whole square, and the starts and minima of the part around the lowest."""
    values, drawn = landscape(*minima.T), np.bincount(which)
    colors = {"cmap": "turbo", "vmin": values.min(), "vmax": np.percentile(values, 99)}
    figure, (whole, part) = plt.subplots(1, 2, figsize=(13.5, 6.4), layout="constrained")
    for axes, half, margin in ((whole, 1, 0.04), (part, WINDOW, 0)):
        line = np.linspace(-half, half, 601)
        height = landscape(*np.meshgrid(line, line))
        axes.imshow(height, cmap="Greys", alpha=0.4, extent=(-half, half) * 2, origin="lower")
        limits = -half - margin, half + margin
        axes.set(xlim=limits, ylim=limits, xlabel="x", ylabel="y", aspect="equal")

    dots = whole.scatter(*minima.T, s=2 * drawn, c=values, **colors)
    whole.add_patch(Rectangle((-WINDOW, -WINDOW), 2 * WINDOW, 2 * WINDOW, fill=False, linewidth=2))
    whole.set_title(f"{len(minima)} minima, each sized by the number of starts that end there")

    part.contour(line, line, height, levels=18, colors="0.6", linewidths=0.5, linestyles="solid")
    here = abs(starts).max(axis=1) < WINDOW
    lines = np.stack([starts[here], minima[which[here]]], axis=1)
    part.add_collection(LineCollection(lines, colors="black", linewidths=0.6, alpha=0.35))
    part.scatter(
        *starts[here].T, s=18, c=values[which[here]], **colors, linewidths=0, zorder=3,
        label="start, coloured by the minimum that it reaches",
    )  # fmt: skip
    part.scatter(
        *minima.T, s=70, c=values, **colors, edgecolors="black", linewidths=1.3, zorder=4,
        label="minimum",
    )  # fmt: skip
    part.set_title(f"the square in the middle: {here.sum()} starts, and where they end")
    for axes in (whole, part):
        (best,) = axes.plot(
            *minima[values.argmin()], "*", color="white", mec="black", markersize=22, zorder=5
        )
    best.set_label("the lowest")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.colorbar(
        dots, ax=(whole, part), label="value of the minimum", extend="max", shrink=0.85, aspect=30
    )
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="DIR")
    chosen = parser.parse_args()

    starts = np.random.default_rng(0).uniform(-1, 1, (STARTS, 2))
    for call in ("first call, with compilation", "second call"):
        began = time.perf_counter()
        res = minimize_many(fun, starts, jac="inplace", bounds=[(-1, 1), (-1, 1)])
        print(f"{call:30s}{time.perf_counter() - began:8.3f} s")
    print(f"{res.message} A start took {res.nfev.mean():.0f} evaluations in the mean.\n")

    print(f"best: start {res.best.index} ends at ({res.best.x[0]:.9f}, {res.best.x[1]:.9f})")
    print(f"with the value {res.best.fun:.12f}; the true minimum is {LOWEST:.12f}")
    starts, (minima, which) = starts[res.success], distinct(res.x[res.success])
    edge = abs(minima).max(axis=1) == 1
    print(
        f"{np.sum(~edge)} of the {MINIMA} minima inside the square were reached, "
        f"and {edge.sum()} points of its edge\n"
    )
    print(f"{'the lowest':>12s}{'x':>12s}{'y':>12s}{'starts':>9s}")
    values, drawn = landscape(*minima.T), np.bincount(which)
    for i in np.argsort(values)[:6]:
        print(f"{values[i]:12.6f}{minima[i, 0]:12.6f}{minima[i, 1]:12.6f}{drawn[i]:9d}")

    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "multi_start.png"
    draw(starts, minima, which, file)
    print(f"\nfigure: {file}")


if __name__ == "__main__":
    main()
