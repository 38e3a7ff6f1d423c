r"""Choose AdaBelief's default epsilons by measurement, and print the table.

    python asv_benchmarks/adabelief_epsilon.py [--quick]

Without noise in the gradient the belief s sinks until only the stored epsilon is left,
:math:`\epsilon_{root}/(1-\beta_2)`: a small one lets the step grow without bound, a large one turns
the rule into momentum wherever gradients are small. So each pair of epsilons runs on problems of
both kinds, over a grid of learning rates, from several starts, for as many steps as `minimize`
takes by default. Every objective comes in three units, since a user's may be in any.

A run without noise is solved when its best point, which `minimize` returns, has closed all but 10⁻⁶
of the first gap to the minimum. A run ends well when its last tenth, on average, is within 10⁻²;
with noise that is what counts as solved. It diverged if its last value is above its first, or not
finite.
"""

import argparse
import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.optimize
from sklearn.datasets import load_breast_cancer

from numbelief import AdaBelief, Optimizer

# (eps_root, eps), and who uses the pair.
EPSILONS = {
    (1e-6, 1e-8): "",
    (1e-8, 1e-8): "paper, final version",
    (1e-10, 1e-8): "",
    (1e-12, 1e-8): "",
    (1e-14, 1e-14): "adabelief-tf",
    (1e-16, 1e-8): "",
    (1e-16, 1e-16): "optax, adabelief-pytorch",
    (0.0, 1e-4): "",
    (0.0, 1e-8): "paper, first version",
}
RATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SCALES = (1e-3, 1.0, 1e3)
STARTS = 4
# Standard deviation of the noise, over the root mean square of the first gradient.
NOISE = {"noiseless": 0.0, "noisy": 0.1}

Objective = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


# ---- problems


@dataclass(frozen=True)
class Problem:
    """An objective of the rows of an array, starting points, and its minimum.

    ``sample`` draws a stochastic gradient, for a problem that brings its own noise.
    """

    objective: Objective
    starts: np.ndarray
    minimum: float = 0.0
    sample: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None

    @property
    def kinds(self) -> list[str]:
        return ["noisy"] if self.sample else list(NOISE)


def quadratic(rng: np.random.Generator, condition: float, n: int = 10) -> Problem:
    turn = np.linalg.qr(rng.standard_normal((n, n)))[0]
    hessian = turn * np.logspace(0, -np.log10(condition), n) @ turn.T

    def objective(x):
        g = x @ hessian
        return 0.5 * (x * g).sum(1), g

    return Problem(objective, rng.standard_normal((STARTS, n)))


def rosenbrock(rng: np.random.Generator) -> Problem:
    def objective(x):
        a, b = x.T
        r = b - a * a
        return (1 - a) ** 2 + 100 * r**2, np.stack([-2 * (1 - a) - 400 * a * r, 200 * r], 1)

    return Problem(objective, [-1.2, 1.0] + 0.2 * rng.standard_normal((STARTS, 2)))


def beale(rng: np.random.Generator) -> Problem:
    constants = np.array([[1.5], [2.25], [2.625]])

    def objective(x):
        a, b = x.T
        powers = np.stack([b, b * b, b * b * b])
        slopes = a * np.stack([np.ones_like(b), 2 * b, 3 * b * b])
        r = constants - a * (1 - powers)
        return (r * r).sum(0), 2 * np.stack([(r * (powers - 1)).sum(0), (r * slopes).sum(0)], 1)

    return Problem(objective, [1.0, 0.0] + 0.5 * rng.standard_normal((STARTS, 2)))


def slope(rng: np.random.Generator, n: int = 5) -> Problem:
    """Pseudo-Huber loss from afar: a long way along a nearly constant gradient."""

    def objective(x):
        root = np.sqrt(1 + x * x)
        return (root - 1).sum(1), x / root

    return Problem(objective, 30 * rng.standard_normal((STARTS, n)))


def well(rng: np.random.Generator, n: int = 5) -> Problem:
    """A Gaussian well: who steps too far lands on flat ground and stays there."""

    def objective(x):
        depth = np.exp(-0.5 * (x**2).sum(1))
        return 1 - depth, x * depth[:, None]

    directions = rng.standard_normal((STARTS, n))
    return Problem(objective, 2 * directions / np.linalg.norm(directions, axis=1, keepdims=True))


def poisson(rng: np.random.Generator, n: int = 5, rows: int = 50) -> Problem:
    """Poisson regression: exponential growth on one side."""
    features = rng.standard_normal((rows, n))
    counts = rng.poisson(np.exp(features @ rng.standard_normal(n)))

    def objective(x):
        z = x @ features.T
        rate = np.exp(z)
        return (rate - counts * z).mean(1), (rate - counts) @ features / rows

    starts = 0.1 * rng.standard_normal((STARTS, n))
    return Problem(objective, starts, least(objective, starts[0]))


def logistic(rng: np.random.Generator, batch: int = 0, l2: float = 1e-3) -> Problem:
    """Logistic regression on an eighth of the breast cancer data: all of it, or mini-batches."""
    data, target = load_breast_cancer(return_X_y=True)
    data = ((data - data.mean(0)) / data.std(0))[::8]
    signed = np.hstack([data, np.ones((len(data), 1))]) * (2 * target[::8, None] - 1)

    def objective(x):
        margins = x @ signed.T
        value = np.logaddexp(0, -margins).mean(1) + 0.5 * l2 * (x**2).sum(1)
        return value, -(expit(-margins) @ signed) / len(signed) + l2 * x

    def sample(x, rng):
        rows = signed[rng.integers(len(signed), size=(len(x), batch))]
        weights = expit(-(rows @ x[:, :, None])[:, :, 0])
        return -(weights[:, None] @ rows)[:, 0] / batch + l2 * x

    starts = 0.1 * rng.standard_normal((STARTS, signed.shape[1]))
    return Problem(objective, starts, least(objective, starts[0]), sample if batch else None)


def expit(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def least(objective: Objective, start: np.ndarray) -> float:
    """The minimum of a smooth convex objective, by BFGS."""
    value, gradient = (lambda x, i=i: objective(x[None])[i][0] for i in (0, 1))
    return scipy.optimize.minimize(value, start, jac=gradient, options={"gtol": 1e-9}).fun


PROBLEMS = {
    "quadratic, condition 1": functools.partial(quadratic, condition=1.0),
    "quadratic, condition 1e2": functools.partial(quadratic, condition=1e2),
    "quadratic, condition 1e4": functools.partial(quadratic, condition=1e4),
    "Rosenbrock": rosenbrock,
    "Beale": beale,
    "slope": slope,
    "well": well,
    "Poisson regression": poisson,
    "logistic regression": logistic,
    "logistic regression, mini-batches": functools.partial(logistic, batch=8),
}


# ---- runs


def gaps(problem: Problem, rule: AdaBelief, steps: int) -> Iterator[tuple[str, np.ndarray]]:
    """By kind: what is left of the first gap in the best point, in the last tenth and at the end.

    Each is of shape (scales, starts). A rule works coordinate by coordinate, so that all kinds,
    scales and starts run as the rows of one array.
    """
    shape = (len(problem.kinds), len(SCALES), *problem.starts.shape)
    noise = np.reshape([NOISE[kind] for kind in problem.kinds], (-1, 1, 1, 1))
    scale = np.reshape(SCALES, (-1, 1, 1))
    noise, scale, x = (
        np.broadcast_to(a, shape).reshape(-1, shape[-1]).copy()
        for a in (noise, scale, problem.starts)
    )
    first, g = problem.objective(x)
    noise *= np.sqrt((g**2).mean(1, keepdims=True))
    optimizer = Optimizer(rule, x.reshape(-1))
    rng = np.random.default_rng(1)
    best, late, tail = first, 0.0, max(1, steps // 10)
    for t in range(1, steps + 1):
        ending = t > steps - tail
        g = problem.sample(x, rng) if problem.sample else g + noise * rng.standard_normal(g.shape)
        optimizer.step((scale * g).reshape(-1))
        if ending or not problem.sample:
            value, g = problem.objective(x)
            best = np.fmin(best, value)
            late = late + ending * value / tail
    left = (np.stack([best, late, value]) - problem.minimum) / (first - problem.minimum)
    yield from zip(problem.kinds, np.moveaxis(left.reshape(3, *shape[:-1]), 1, 0), strict=True)


def measure(name: str, pair: tuple[float, float], steps: int) -> dict[str, np.ndarray]:
    """By kind: whether runs were solved, ended well, diverged, (3, rates, scales, starts)."""
    problem = PROBLEMS[name](np.random.default_rng(0))
    verdicts: dict[str, list[np.ndarray]] = {kind: [] for kind in problem.kinds}
    with np.errstate(over="ignore", invalid="ignore"):
        for rate in RATES:
            rule = AdaBelief(rate, eps_root=pair[0], eps=pair[1])
            for kind, (best, late, last) in gaps(problem, rule, steps):
                ended_well = late <= 1e-2
                solved = ended_well if kind == "noisy" else best <= 1e-6
                verdicts[kind].append(np.stack([solved, ended_well, ~(last <= 1)]))
    return {kind: np.stack(each, 1) for kind, each in verdicts.items()}


# ---- the table


def shares(runs: np.ndarray) -> list[float]:
    """What the table says of the runs of one kind, (problems, 3, rates, scales, starts)."""
    solved, ended_well, diverged = np.moveaxis(runs, 1, 0)
    at_best = solved.mean(3).max(1)
    at_default = solved[:, RATES.index(AdaBelief.default_rate)]
    return [float(a.mean()) for a in (at_best, at_default, solved, ended_well, diverged)]


COLUMNS = (
    "eps_root", "eps", "used by",
    "noiseless: best rate", "rate 1e-3", "all rates", "ends well", "diverged",
    "noisy: best rate", "rate 1e-3", "all rates", "diverged",
)  # fmt: skip


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few steps: only shows that it runs")
    steps = 50 if parser.parse_args().quick else 10_000
    tasks = [(name, pair, steps) for name, pair in itertools.product(PROBLEMS, EPSILONS)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        results = dict(zip(tasks, pool.starmap(measure, tasks, chunksize=1), strict=True))

    table = {}
    print(f"Share of the runs, of {steps} steps each, that were solved, ended well, diverged:\n")
    print(line(COLUMNS), line("---" for _ in COLUMNS), sep="\n")
    for pair, user in EPSILONS.items():
        runs = [results[name, pair, steps] for name in PROBLEMS]
        quiet, noisy = (
            shares(np.stack([run[kind] for run in runs if kind in run])) for kind in NOISE
        )
        table[pair] = quiet, noisy
        figures = (f"{share:.1%}" for share in (*quiet, *noisy[:3], noisy[4]))
        print(line((f"{pair[0]:g}", f"{pair[1]:g}", user, *figures)))

    default = AdaBelief()
    here = (default.eps_root, default.eps)
    best = max(table, key=lambda pair: table[pair][0][2] + table[pair][1][2])
    print(f"\nOver all rates, {describe(best, table)}; the default, {describe(here, table)}.")


def describe(pair: tuple[float, float], table: dict) -> str:
    quiet, noisy = table[pair]
    return (
        f"eps_root={pair[0]:g} with eps={pair[1]:g}, solves {quiet[2]:.1%} without and "
        f"{noisy[2]:.1%} with noise"
    )


if __name__ == "__main__":
    main()
