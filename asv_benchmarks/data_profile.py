r"""Measure which smooth problems the rules and SciPy's methods solve, and in how many gradients.

    python asv_benchmarks/data_profile.py [--output DIR] [--quick] [--pairs]

It prints a table and writes data_profile.png (needs matplotlib and scikit-learn). A problem of
`smooth_problems.py` is solved at the first point where :math:`f - f^* \le 10^{-5} (f(x_0) - f^*)`.
What counts is the number of points at which f and its gradient were evaluated until then: x0 and
the trials of line searches count as well, for every method alike. A data profile is the share of
the problems solved within a number of evaluations (J. Moré & S. Wild, "Benchmarking derivative-free
optimization algorithms", SIAM J. Optim. 20, 2009).

The profile is that of methods whose tolerances are off: they go on until the problem is solved, the
budget is spent, or they find no lower point. The last column of the table is for methods as they
are called by default: who stops too early has not solved the problem.
"""

import argparse
import platform
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import scipy.optimize
from smooth_problems import PROBLEMS, SmoothProblem, by_name

import numbelief
from numbelief import SGD, AdaBelief, Adam, Momentum
from numbelief._solve import host
from numbelief.rules import Rule

BUDGET = 4000
LOOKS = (100, 300, 1000, BUDGET)
ACCURACY = 1e-5
# The share of the table that the default must solve within the budget.
REQUIRED = 0.95
DEFAULT = AdaBelief
# For each of these rules, the one rate of RATES that solves most of the table.
TUNED = (AdaBelief, Adam, Momentum, SGD)
RATES = tuple(10 ** (k / 2) for k in range(-10, 3))
# The options that turn off the tolerances of SciPy's methods.
SCIPY = {
    "L-BFGS-B": {"ftol": 0, "gtol": 0, "maxiter": BUDGET, "maxfun": BUDGET},
    "BFGS": {"gtol": 0, "maxiter": BUDGET},
    "CG": {"gtol": 0, "maxiter": BUDGET},
}
PAIRS = (1, 2, 3, 5, 8)
IN_UNITS = ("rosenbrock", "brown_dennis", "logistic_cancer")
UNITS = (("f", 1e6), ("f", 1e-6), ("x", 1e3), ("x", 1e-3))

# The number of evaluations that a problem takes, or infinity; True leaves the tolerances on.
Solver = Callable[[SmoothProblem, bool], float]


# ---- runs


def goal(problem: SmoothProblem) -> float:
    first, _ = problem(problem.x0)
    return problem.f_star + ACCURACY * (first - problem.f_star)


def by_rule(problem: SmoothProblem, tolerances: bool, rule: Rule) -> float:
    options = {"target": goal(problem), "maxiter": BUDGET}
    if not tolerances:
        options["gtol"] = 0
    res = numbelief.minimize(
        problem.fun, problem.x0, problem.args, rule, jac="inplace", options=options
    )
    return res.nfev if res.fun <= options["target"] and res.nfev <= BUDGET else inf


class Over(Exception):
    """The problem is solved, or the budget is spent."""


def by_scipy(problem: SmoothProblem, tolerances: bool, method: str) -> float:
    target, calls, solved = goal(problem), 0, False

    def fun(x):
        nonlocal calls, solved
        f, g = problem(x)
        calls += 1
        solved = f <= target
        if solved or calls == BUDGET:
            raise Over
        return f, g

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            options = {} if tolerances else SCIPY[method]
            scipy.optimize.minimize(fun, problem.x0, jac=True, method=method, options=options)
    except Over:
        pass
    return calls if solved else inf


# ---- the table


@dataclass(frozen=True)
class Row:
    """A method, and the evaluations it takes for each problem without and with tolerances."""

    name: str
    rate: str
    kind: str  # what the figure draws alike
    counts: np.ndarray
    with_tolerances: np.ndarray

    def __str__(self) -> str:
        shares = [f"{share(self.counts, look):.1%}" for look in LOOKS]
        median = np.median(self.counts)
        shares.append("∞" if median == inf else f"{median:.0f}")
        return line([self.name, self.rate, *shares, f"{share(self.with_tolerances):.1%}"])

    def settings(self) -> dict[str, np.ndarray]:
        return {"tolerances off": self.counts, "default tolerances": self.with_tolerances}


def share(counts: np.ndarray, budget: int = BUDGET) -> float:
    return float((counts <= budget).mean())


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def print_head(problems: Sequence[SmoothProblem]) -> None:
    versions = (f"{module.__name__} {module.__version__}" for module in (numbelief, np, scipy))
    print(f"{len(problems)} problems; Python {platform.python_version()}, {', '.join(versions)}.")
    print(
        "Share solved within a number of gradients, and the median of what the problems take, with "
        "tolerances off; last, the share with each method's default tolerances.\n"
    )
    looks = (f"{look}" for look in LOOKS)
    columns = ("method", "learning rate", *looks, "median", f"{BUDGET}, default tolerances")
    print(line(columns), line("---" for _ in columns), sep="\n")


def measure(
    problems: Sequence[SmoothProblem], name: str, rate: str, kind: str, solve: Solver
) -> Row:
    """The row of a method, also printed."""
    with_tolerances = np.array([solve(p, True) for p in problems])
    # Tolerances end a run and change nothing else: solved with them is solved without.
    counts = [
        solve(p, False) if count == inf else count
        for p, count in zip(problems, with_tolerances, strict=True)
    ]
    row = Row(name, rate, kind, np.array(counts), with_tolerances)
    print(row, flush=True)
    return row


def best_rate(problems: Sequence[SmoothProblem], rule: type[Rule]) -> float:
    """The rate that solves most; of several, the one that solves more in fewer evaluations."""

    def merit(rate: float) -> list[float]:
        counts = np.array([by_rule(p, False, rule(rate)) for p in problems])
        return [share(counts, look) for look in reversed(LOOKS)]

    return max(RATES, key=merit)


def measure_all(problems: Sequence[SmoothProblem]) -> list[Row]:
    rows = []

    def add(name: str, rate: str, kind: str, solve: Solver) -> None:
        rows.append(measure(problems, name, rate, kind, solve))

    add(f"**{DEFAULT.__name__}**", "**auto**, the default", "default", automatic(DEFAULT))
    for method in SCIPY:
        add(f"SciPy's {method}", "", method, partial(by_scipy, method=method))
    rules = Rule.registry.values()
    for rule in rules:
        if rule is not DEFAULT:
            add(rule.__name__, "auto", "auto", automatic(rule))
    for rule in TUNED:
        rate = best_rate(problems, rule)
        add(rule.__name__, f"{rate:.2g}, the best", "tuned", partial(by_rule, rule=rule(rate)))
    for rule in rules:
        rate = rule.default_rate
        add(rule.__name__, f"{rate:g}, the paper's", "paper", partial(by_rule, rule=rule(rate)))
    return rows


def automatic(rule: type[Rule]) -> Solver:
    return partial(by_rule, rule=rule())


def print_pairs(problems: Sequence[SmoothProblem]) -> None:
    """The table's row of the default, for other numbers of pairs."""
    for pairs in PAIRS:
        host.PAIRS = pairs
        measure(problems, f"{DEFAULT.__name__}, pairs: {pairs}", "auto", "", automatic(DEFAULT))


# ---- what else is said of them


def print_verdict(ours: Row, theirs: Row) -> None:
    """Whether the default solves as much as it must."""
    print(f"Required of the default: at least {REQUIRED:.0%}, and no less than {theirs.name}.")
    for how, counts in ours.settings().items():
        mine, other = share(counts), share(theirs.settings()[how])
        met = "met" if mine >= max(REQUIRED, other) else "not met"
        print(f"With {how}, {mine:.1%} against {other:.1%}: {met}.")


def print_unsolved(problems: Sequence[SmoothProblem], row: Row) -> None:
    for how, counts in row.settings().items():
        names = [p.name for p, count in zip(problems, counts, strict=True) if count == inf]
        print(f"Unsolved by {row.name.strip('*')}, {how}: {', '.join(names) or 'none'}.")


def print_units() -> None:
    """How many gradients the default takes with fun and x in other units."""
    print("\nGradients until solved, in other units:\n")
    columns = ("problem", "as it is", *(f"{by:g} {what}" for what, by in UNITS))
    print(line(columns), line("---" for _ in columns), sep="\n")
    for name in IN_UNITS:
        problem = by_name(name)
        counts = [in_units(problem, 1, 1)]
        for what, by in UNITS:
            counts.append(in_units(problem, *((by, 1) if what == "f" else (1, by))))
        print(line((name, *map(str, counts))))


def in_units(problem: SmoothProblem, of_fun: float, of_x: float) -> int:
    def fun(x):
        f, g = problem(x / of_x)
        return of_fun * f, of_fun / of_x * g

    options = {"target": of_fun * goal(problem), "maxiter": BUDGET, "gtol": 0}
    res = numbelief.minimize(fun, of_x * problem.x0, method=DEFAULT(), jac=True, options=options)
    assert res.fun <= options["target"], f"{problem.name} is not solved in other units"
    return res.nfev


# ---- the figure

STYLES = {
    "paper": ("rules, the paper's rate", {"color": "0.7", "linewidth": 1}),
    "tuned": ("rules, the best rate for the table", {"color": "#009e73", "linewidth": 1}),
    "auto": ("other rules, automatic rate", {"color": "#f0a868", "linewidth": 1}),
    "CG": ("SciPy's CG", {"color": "#cc79a7", "linestyle": ":", "linewidth": 1.8}),
    "BFGS": ("SciPy's BFGS", {"color": "black", "linestyle": "-.", "linewidth": 1.4}),
    "L-BFGS-B": ("SciPy's L-BFGS-B", {"color": "#0072b2", "linestyle": "--", "linewidth": 1.6}),
    "default": (
        f"{DEFAULT.__name__}, automatic rate: the default",
        {"color": "#d55e00", "linewidth": 3},
    ),
}


def draw(rows: Sequence[Row], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    evaluations = np.arange(1, BUDGET + 1)
    handles = []
    for kind, (label, style) in STYLES.items():
        for row in rows:
            if row.kind == kind:
                solved = np.searchsorted(np.sort(row.counts), evaluations, side="right")
                (drawn,) = axes.step(
                    evaluations, 100 * solved / len(row.counts), where="post", label=label, **style
                )
        handles.append(drawn)
    axes.set(xscale="log", xlim=(2, BUDGET), ylim=(0, 101))
    axes.set(xlabel="gradient evaluations", ylabel=f"solved, % of {len(rows[0].counts)} problems")
    axes.set_xticks((2, 5, 10, 30, *LOOKS), labels=map(str, (2, 5, 10, 30, *LOOKS)))
    axes.minorticks_off()
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(handles=handles[::-1], loc="upper left", frameon=False, fontsize=9)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="every tenth problem")
    parser.add_argument(
        "--pairs", action="store_true", help="only the default, with 1 to 8 pairs of its memory"
    )
    chosen = parser.parse_args()
    problems = PROBLEMS[:: 10 if chosen.quick else 1]

    print_head(problems)
    if chosen.pairs:
        print_pairs(problems)
        return
    rows = measure_all(problems)
    print()
    ours, theirs = (row for row in rows if row.kind in ("default", "L-BFGS-B"))
    print_verdict(ours, theirs)
    print_unsolved(problems, ours)
    print_unsolved(problems, theirs)
    print_units()

    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "data_profile.png"
    draw(rows, file)
    print(f"\nfigure: {file}")


if __name__ == "__main__":
    main()
