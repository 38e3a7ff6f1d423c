"""The AdaBelief paper's two-dimensional functions: paths, distances, and its three cases.

Figure 3 of Zhuang et al. (arXiv 2010.07468) follows SGD with momentum, Adam and AdaBelief over six
functions and says that AdaBelief reaches the optimum the fastest in all of them. This file repeats
it with the settings of github.com/seiyab/adabelief-toy-examples-pytorch, a reproduction by someone
else: rate 1e-3 for every rule, decays 0.9 and 0.999 (on |x|/10 + |y|, 0.3 and 0.3), an SGD that
averages its gradients with the first decay, so that the rates compare, and the starting points
(except that of |x|/10 + |y|). Epsilon is the paper's 1e-8. Beale and Rosenbrock are steep where
they start: there SGD is thrown across the picture.

* At that common rate the claim holds: AdaBelief is near the optimum first, or is nearest at the
  end. Where gradients keep their sign, s shrinks, and its step grows far beyond the rate. For the
  same reason it wanders more once it has arrived: on |x|/10 + |y| Adam ends nearer.
* Equal rates are not equal steps. With each rule at its own best rate (the second table) the lead
  over Adam, up to 60 times, shrinks to a fifth or less, and on |x| + |y| AdaBelief is the slowest.

Figure 1 and table 1 of the paper sort steps by the size of the gradient and of the curvature, and
say which rules take the large or small (L, S) step that an ideal optimizer would. The third table
feeds such gradients to the rules. AdaBelief does as the paper says. Two other entries need a word:
Adam's step in case 3 is not smaller than in case 1, which the paper calls large (Adam's step does
not depend on the gradient's scale: only next to AdaBelief's is it small), and the L of SGD in
case 2 is plain SGD's, since momentum averages an oscillating gradient away.

Needs matplotlib. Writes two_dimensional_paths.png.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from numbelief import SGD, AdaBelief, Adam, Momentum, Optimizer

RATE, LOOKS = 1e-3, (1000, 3000, 10_000)
RATES = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
NEAR, HORIZON = 0.05, 3500


def sign(value):
    """-1, 0 or 1."""
    return (value > 0) - (value < 0)


def beale(x, y):
    """Beale's function: four corners, a flat cross between them, a narrow valley."""
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def beale_gradient(x, y):
    """Its gradient."""
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
    by_x = 2 * (a * (y - 1) + b * (y**2 - 1) + c * (y**3 - 1))
    return by_x, 2 * x * (a + 2 * b * y + 3 * c * y**2)


def rosenbrock(x, y):
    """Rosenbrock's function: a curved valley with a nearly flat floor."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def rosenbrock_gradient(x, y):
    """Its gradient."""
    return -2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)


class Problem(NamedTuple):
    """A function of x and y, its gradient, and where to start, end and look."""

    name: str
    fun: Callable
    gradient: Callable
    start: tuple
    optimum: tuple = (0, 0)
    half_width: float = 3
    betas: tuple = (0.9, 0.999)


PROBLEMS = (
    Problem(
        "|x| + |y|",
        lambda x, y: abs(x) + abs(y),
        lambda x, y: (sign(x), sign(y)),
        start=(-2.5, 0.1),
    ),
    Problem(
        "|x+y| + |x-y|/10",
        lambda x, y: abs(x + y) + abs(x - y) / 10,
        lambda x, y: (sign(x + y) + sign(x - y) / 10, sign(x + y) - sign(x - y) / 10),
        start=(2.5, 0),
    ),
    Problem(
        "(x+y)² + (x-y)²/10",
        lambda x, y: (x + y) ** 2 + (x - y) ** 2 / 10,
        lambda x, y: (2 * (x + y) + (x - y) / 5, 2 * (x + y) - (x - y) / 5),
        start=(2.5, 0),
    ),
    Problem(
        "|x|/10 + |y|",
        lambda x, y: abs(x) / 10 + abs(y),
        lambda x, y: (sign(x) / 10, sign(y)),
        start=(-2.5, 1),
        betas=(0.3, 0.3),
    ),
    Problem("Beale", beale, beale_gradient, (-2.5, -2.5), (3, 0.5), half_width=4),
    Problem("Rosenbrock", rosenbrock, rosenbrock_gradient, (-4, -4), (1, 1), half_width=6),
)

RULES = {
    "SGD": lambda rate, b1, b2: Momentum(learning_rate=rate * (1 - b1), momentum=b1),
    "Adam": lambda rate, b1, b2: Adam(learning_rate=rate, beta1=b1, beta2=b2),
    "AdaBelief": lambda rate, b1, b2: AdaBelief(learning_rate=rate, beta1=b1, beta2=b2),
}


def walk(rule, problem, steps):
    """The points of a run; NaN after it has left for infinity."""
    point = np.array(problem.start, dtype=float)
    optimizer = Optimizer(rule, point)
    path = np.full((steps + 1, 2), np.nan)
    for t in range(steps + 1):
        x, y = path[t] = point.tolist()
        if not abs(x) + abs(y) < 1e6:
            break
        optimizer.step(np.array(problem.gradient(x, y), dtype=float))
    return path


def distance(path, problem):
    """How far each point of a path is from the optimum."""
    return np.hypot(*(path - problem.optimum).T)


def arrival(path, problem):
    """The step from which on a path stays near the optimum, or infinity."""
    away = np.flatnonzero(~(distance(path, problem) < NEAR))
    step = away[-1] + 1 if away.size else 0
    return step if step < len(path) - 100 else np.inf


def print_distances(paths):
    """Distances at the common rate; * marks the nearest."""
    print(f"distance to the optimum, every learning rate {RATE:g} (* nearest)")
    print(f"{'':20s}{'steps':>7s}" + "".join(f"{name:>13s}" for name in RULES))
    wins = 0
    for problem in PROBLEMS:
        for steps in LOOKS:
            found = [distance(paths[problem.name, rule], problem)[steps] for rule in RULES]
            cells = (f"{d:12.1e}{'*' if d == min(found) else ' '}" for d in found)
            name = problem.name if steps == LOOKS[0] else ""
            print(f"{name:20s}{steps:7d}" + "".join(cells))
            wins += found[-1] == min(found)
    print(f"AdaBelief is nearest in {wins} of {len(PROBLEMS) * len(LOOKS)} rows")


def print_arrivals(paths):
    """Steps to come near and stay, at the common rate and at the best one."""
    print(f"\nsteps until it stays within {NEAR} of the optimum ('-': not in time)")
    print(f"{'':20s}{f'rate {RATE:g}, {LOOKS[-1]} steps':^36s}   "
          f"{f'best rate of {RATES[0]:g} to {RATES[-1]:g}, {HORIZON} steps':^42s}")  # fmt: skip
    print(f"{'':20s}" + "".join(f"{name:>12s}" for name in RULES) + "   "
          + "".join(f"{name:>14s}" for name in RULES))  # fmt: skip
    for problem in PROBLEMS:
        common, best = [], []
        for name, rule in RULES.items():
            common.append((arrival(paths[problem.name, name], problem), None))
            runs = (walk(rule(rate, *problem.betas), problem, HORIZON) for rate in RATES)
            best.append(min(zip((arrival(run, problem) for run in runs), RATES, strict=True)))
        cells = [
            "-" if step == np.inf else f"{step}" if rate is None else f"{step} at {rate:<4g}"
            for step, rate in common + best
        ]
        print(f"{problem.name:20s}" + "".join(f"{cell:>12s}" for cell in cells[:3]) + "   "
              + "".join(f"{cell:>14s}" for cell in cells[3:]))  # fmt: skip


def print_cases(steps=2000):
    """The step that each rule takes after many gradients of one kind."""
    cases = {
        "1  small gradient, small curvature": (lambda t: 0.01 * (1 + 0.01 * (-1) ** t), "LSLL"),
        "2  large gradient, large curvature": (lambda t: (-1.0) ** t, "SLSS"),
        "3  large gradient, small curvature": (lambda t: 1 + 0.01 * (-1) ** t, "LLSL"),
    }
    rules = {"SGD": SGD(1.0), "Adam": Adam(1.0), "AdaBelief": AdaBelief(1.0)}
    rules["momentum SGD"] = Momentum(learning_rate=0.1)
    print(f"\nstep in units of the learning rate, after {steps} steps [what the paper says]")
    print(f"{'case':37s}{'ideal':>6s}" + "".join(f"{name:>14s}" for name in rules))
    for case, (stream, letters) in cases.items():
        cells = []
        for (_, rule), letter in zip(rules.items(), letters[1:] + " ", strict=True):
            x = np.zeros(1)
            optimizer = Optimizer(rule, x)
            for t in range(steps):
                before = x[0]
                optimizer.step(np.array([stream(t)]))
            note = f" [{letter}]" if letter != " " else ""
            cells.append(f"{abs(x[0] - before):.3f}{note}")
        print(f"{case:37s}{f'[{letters[0]}]':>6s}" + "".join(f"{cell:>14s}" for cell in cells))


def draw(paths, file):
    """The paths over the contours of their functions."""
    styles = {
        "SGD": {"color": "#009e73", "linewidth": 3.6, "marker": "s", "markersize": 11},
        "Adam": {"color": "#56b4e9", "linewidth": 2.6, "marker": "^", "markersize": 9},
        "AdaBelief": {"color": "#d55e00", "linewidth": 1.3, "marker": "o", "markersize": 6},
    }
    figure, grid = plt.subplots(2, 3, figsize=(11, 7.6), layout="constrained")
    for axes, problem in zip(grid.flat, PROBLEMS, strict=True):
        w = problem.half_width
        x, y = np.meshgrid(np.linspace(-w, w, 401), np.linspace(-w, w, 401))
        height = np.log10(problem.fun(x, y) + 1e-2)
        axes.contour(x, y, height, levels=16, colors="0.75", linewidths=0.7, linestyles="solid")
        for rule, style in styles.items():
            path = paths[problem.name, rule]
            axes.plot(*path.T, markevery=[LOOKS[0]], mec="black", label=rule, **style)
        axes.plot(*problem.start, "o", color="white", mec="black", markersize=9)
        axes.plot(*problem.optimum, "x", color="black", markersize=10, mew=2.5)
        axes.set(xlim=(-w, w), ylim=(-w, w), title=problem.name, aspect="equal")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{LOOKS[-1]} steps at learning rate {RATE:g}, from the circle to the cross; "
        f"the marks show where each rule is after {LOOKS[0]}"
    )
    figure.savefig(file, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(), metavar="DIR")
    chosen = parser.parse_args()

    paths = {
        (problem.name, name): walk(rule(RATE, *problem.betas), problem, LOOKS[-1])
        for problem in PROBLEMS
        for name, rule in RULES.items()
    }
    print_distances(paths)
    print_arrivals(paths)
    print_cases()

    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "two_dimensional_paths.png"
    draw(paths, file)
    print(f"\nfigure: {file}")


if __name__ == "__main__":
    main()
