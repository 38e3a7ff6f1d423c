"""Compare numbelief with its peers and print the README's speed table.

    python asv_benchmarks/benchmarks/peers.py [--quick] [--only whole_loops many ...]

All contestants run in this process, in turns, on the same numbers with the same hyperparameters and
the same number of threads; figures are medians. Peers that are not installed are left out. --quick
only shows that everything runs.
"""

import argparse
import contextlib
import datetime
import importlib.util
import io
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import numba
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # as asv does

import numbelief
from benchmarks import loops, online, sets, stochastic
from benchmarks.common import (
    Step,
    first_call,
    iteration_overhead,
    numbers,
    ratio,
    side_by_side,
    traffic,
)
from benchmarks.kernels import lookahead_steps
from benchmarks.minimize import lbfgsb, run

RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
BETAS = {"beta1": BETA1, "beta2": BETA2}
THREADS = numba.config.NUMBA_NUM_THREADS


# ---- contestants: a function of x and the gradient that returns the step


@dataclass(frozen=True)
class Contestant:
    setup: Callable[[np.ndarray, np.ndarray], Step]
    needs: str = "numba"

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None


def numbelief_step(rule: numbelief.Rule, x, g, **options) -> Step:
    return partial(numbelief.Optimizer(rule, x, **options).step, g)


def traffic_limit(x, g) -> Step:
    return partial(traffic, x, g, np.zeros((2, x.size), x.dtype))


def torch_step(make, x, g) -> Step:
    """One flat parameter whose .grad is set; make(parameters, torch) returns the optimizer."""
    import torch

    torch.set_num_threads(THREADS)
    parameter = torch.nn.Parameter(torch.tensor(x))
    parameter.grad = torch.tensor(g)
    return make([parameter], torch).step


def torch_adam(parameters, torch, **options):
    return torch.optim.Adam(parameters, RATE, (BETA1, BETA2), EPS, **options)


def adabelief_pytorch(parameters, torch):
    from adabelief_pytorch import AdaBelief

    with contextlib.redirect_stdout(io.StringIO()):
        return AdaBelief(
            parameters, RATE, (BETA1, BETA2), EPS,
            rectify=False, weight_decouple=False, print_change_log=False,
        )  # fmt: skip


def optax_adabelief(x, g) -> Step:
    """Jitted, and with parameters and state donated, so that they may be updated in place."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import optax

    rule = optax.adabelief(RATE, BETA1, BETA2, eps=EPS, eps_root=EPS)
    parameters, gradient = jax.numpy.array(x), jax.numpy.array(g)
    state = rule.init(parameters)

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(parameters, state, gradient):
        updates, state = rule.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state

    def step():
        nonlocal parameters, state
        parameters, state = jax.block_until_ready(update(parameters, state, gradient))

    return step


def numpy_adabelief(x, g) -> Step:
    """As one writes it by hand: in place where that comes naturally."""
    m, s, t = np.zeros_like(x), np.zeros_like(x), 0

    def step():
        nonlocal x, m, s, t
        t += 1
        m *= BETA1
        m += (1 - BETA1) * g
        s *= BETA2
        s += (1 - BETA2) * (g - m) ** 2 + EPS
        x -= RATE / (1 - BETA1**t) * m / (np.sqrt(s / (1 - BETA2**t)) + EPS)

    return step


OURS = numbelief.AdaBelief(RATE, **BETAS, eps=EPS, eps_root=EPS)
LIMIT = "a kernel with the same memory traffic"
FUSED = "`torch.optim.Adam(fused=True)`"
CONTESTANTS = {
    "AdaBelief": Contestant(partial(numbelief_step, OURS)),
    "Adam": Contestant(partial(numbelief_step, numbelief.Adam(RATE, **BETAS, eps=EPS))),
    LIMIT: Contestant(traffic_limit),
    FUSED: Contestant(partial(torch_step, partial(torch_adam, fused=True)), "torch"),
    "`torch.optim.Adam`": Contestant(partial(torch_step, torch_adam), "torch"),
    "jitted, donated optax": Contestant(optax_adabelief, "optax"),
    "adabelief-pytorch": Contestant(partial(torch_step, adabelief_pytorch), "adabelief_pytorch"),
    "NumPy": Contestant(numpy_adabelief),
}


def compete(names: list[str], n: int, **timing) -> dict[str, np.ndarray]:
    """Seconds per step, float32, of those contestants that are installed."""
    g = numbers(n, seed=1)
    entered = [name for name in names if CONTESTANTS[name].installed]
    steps = {name: CONTESTANTS[name].setup(numbers(n), g) for name in entered}
    return side_by_side(steps, **timing)


# How many times faster than them AdaBelief has to be.
OTHER_ADABELIEFS = {"jitted, donated optax": 4, "adabelief-pytorch": 10, "NumPy": 15}


# ---- the table


@dataclass(frozen=True)
class Row:
    """A line of the table; what is required is a largest or a smallest value of the figure."""

    work: str
    measured: str
    figure: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        required, met = "", ""
        if self.at_most is not None:
            required, met = f"at most {self.at_most:g}", self.figure <= self.at_most
        if self.at_least is not None:
            required, met = f"at least {self.at_least:g}", self.figure >= self.at_least
        unit = f" {self.unit}".rstrip()
        verdict = {True: "yes", False: "**no**"}.get(met, "")
        figure = f"{self.figure:.3g}" if self.figure < 1000 else f"{self.figure:,.0f}"
        return (
            f"| {self.work} | {self.measured} | {figure}{unit} "
            f"| {required}{unit if required else ''} | {verdict} |"
        )


HEAD = "| work | measured | figure | required | met |\n| --- | --- | --- | --- | --- |"


def slower(seconds, name: str, other: str, work: str, unit: str = "ms", **required) -> Row:
    """A row on how many times the other's time one contestant takes."""
    return Row(work, versus(seconds, name, other, unit), ratio(seconds, name, other), **required)


def faster(seconds, name: str, other: str, work: str, unit: str = "ms", **required) -> Row:
    """A row on how many times faster than the other one contestant is."""
    return Row(work, versus(seconds, name, other, unit), ratio(seconds, other, name), **required)


def versus(seconds, name: str, other: str, unit: str) -> str:
    scale = {"ms": 1e3, "µs": 1e6}[unit]
    own, others = (scale * np.median(seconds[who]) for who in (name, other))
    return f"{own:.3g} against {others:.3g} {unit}"


def large_steps(quick: bool) -> Iterator[Row]:
    n = 1_000_000 if quick else 20_000_000
    names = ["AdaBelief", "Adam", LIMIT, FUSED, *OTHER_ADABELIEFS]
    seconds = compete(names, n, calls=3, rounds=3 if quick else 21)
    for other, bound in ((LIMIT, 1.10), (FUSED, 1.05)):
        for name in ("AdaBelief", "Adam"):
            if other in seconds:
                work = f"{name} step, float32, n = {n:.0e}: time over that of {other}"
                yield slower(seconds, name, other, work, at_most=bound)
    for other, bound in OTHER_ADABELIEFS.items():
        if other in seconds:
            work = f"the same AdaBelief: times faster than {other}"
            yield faster(seconds, "AdaBelief", other, work, at_least=bound)


def small_steps(quick: bool) -> Iterator[Row]:
    names = ["AdaBelief", "`torch.optim.Adam`", "adabelief-pytorch"]
    seconds = compete(names, 1000, calls=100 if quick else 1000, rounds=3 if quick else 21)
    microseconds = 1e6 * float(np.median(seconds["AdaBelief"]))
    yield Row("`Optimizer.step`, n = 1000", "", microseconds, "µs", at_most=6)
    for other in names[1:]:
        if other in seconds:
            work = f"the same: times faster than {other}"
            yield faster(seconds, "AdaBelief", other, work, "µs", at_least=20)


def crossover(quick: bool) -> Iterator[Row]:
    """The worst ratio over n of "auto" to the better of the two kernels."""
    worst = (0.0, 0)
    for n in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 500_000, 600_000, 1_000_000):
        g = numbers(n, seed=1)
        targets = ("serial", "parallel", "auto")
        steps = {target: numbelief_step(OURS, numbers(n), g, target=target) for target in targets}
        calls = max(10, 2_000_000 // n)
        seconds = side_by_side(steps, calls=calls, rounds=3 if quick else 21)
        better = min(targets[:2], key=lambda target: np.median(seconds[target]))
        worst = max(worst, (ratio(seconds, "auto", better), n))
    work = 'n from 1e3 to 1e6: time of `target="auto"` over the better of serial and parallel'
    yield Row(work, f"worst at n = {worst[1]:.0e}", worst[0], at_most=1.15)


def minimize_overhead(quick: bool) -> Iterator[Row]:
    rounds = 3 if quick else 21
    scipys = iteration_overhead(lbfgsb, rounds)
    work = "`minimize`, n = 2, Python objective: added to the user's functions per iteration"
    measured = f"SciPy's L-BFGS-B: {scipys:.3g} µs"
    yield Row(work, measured, iteration_overhead(run, rounds), "µs", at_most=15)


def second_process(quick: bool) -> Iterator[Row]:
    first_call()  # fills the cache
    calls = [first_call() for _ in range(1 if quick else 9)]
    whole, beyond = map(statistics.median, zip(*calls, strict=True))
    work = "second process: import numbelief and a first `minimize` call, n = 2, kernels cached"
    yield Row(work, "", whole, "s", at_most=1.2)
    yield Row("of which beyond importing numba", "", beyond, "s", at_most=0.3)


def whole_loops(quick: bool) -> Iterator[Row]:
    others = {
        "jax": "the same: times faster than `jax.lax.while_loop` around optax",
        "jax that looks": "the same, where that loop has the value, best point and test, too",
        "torch": "the same: times faster than a PyTorch loop around Adam",
    }
    needs = {"jax": "optax", "jax that looks": "optax", "torch": "torch"}
    others = {name: work for name, work in others.items() if importlib.util.find_spec(needs[name])}
    for n in loops.SIZES:
        if n > 2:
            others.pop("torch", None)
        iterations = 1000 if quick else max(1000, 2_000_000 // (n + 20))
        times = loops.nanoseconds(["numbelief", *others], n, iterations, 1 if quick else 15)
        work = f"whole loop compiled, AdaBelief on Rosenbrock, n = {n}: an iteration"
        ours = float(np.median(times["numbelief"]))
        yield Row(work, "", ours, "ns", at_most=60 if n == 2 else None)
        for name, work in others.items():
            theirs = float(np.median(times[name]))
            measured = f"{ours:.3g} against {theirs:,.3g} ns"
            least = {"jax": 1.5, "torch": 1000}.get(name)
            yield Row(work, measured, ratio(times, name, "numbelief"), at_least=least)
    loops.new_objective()
    beyond = statistics.median(loops.new_objective() for _ in range(5))
    work = "a new objective after the first: beyond compiling the objective itself"
    yield Row(work, "", beyond, "ms", at_most=50)


def many(quick: bool) -> Iterator[Row]:
    count = 1000 if quick else 10_000
    X0, some = loops.starts(count), loops.starts(count // 20)
    ours = loops.seconds_of(loops.many_fits, X0) / count
    solved = loops.share_solved(loops.many_fits(X0))
    work = f"{count:,} Rosenbrock fits to gtol 1e-6 by `minimize_many`"
    yield Row(work, f"{solved:.1%} solved", 1 / ours, "fits/s")
    theirs = loops.seconds_of(loops.scipy_fits, some, rounds=3) / len(some)
    solved = loops.share_solved(loops.scipy_fits(some))
    measured = f"SciPy {1 / theirs:,.0f} fits/s, {solved:.1%} solved"
    work = "the same: times faster than a loop over SciPy's L-BFGS-B"
    yield Row(work, measured, theirs / ours, at_least=20)
    if importlib.util.find_spec("optax"):
        best = 0.0, 0.0, 0.0
        for rate in (0.02, 0.05, 0.1):
            solve = loops.vmapped(rate)
            solved = loops.share_solved(solve(X0))
            seconds = loops.seconds_of(solve, X0, rounds=3) / count
            best = max(best, (round(solved, 3), 1 / seconds, rate))
        measured = f"vmap {best[1]:,.0f} fits/s at the best rate {best[2]}, {best[0]:.1%} solved"
        work = "the same: times faster than `jax.vmap` of the optax loop"
        yield Row(work, measured, 1 / (best[1] * ours), at_least=4)
    count = 10_000 if quick else 100_000
    result = loops.pixel_fits(count)
    ours = loops.seconds_of(loops.pixel_fits, count, rounds=3) / count
    work = f"{count:,} three-parameter decay fits, one a row of data"
    yield Row(work, f"{result.success.mean():.2%} converged", 1 / ours, "fits/s")
    theirs = loops.seconds_of(loops.curve_fits, 300, rounds=3) / 300
    work = "the same: times faster than a loop over `scipy.optimize.curve_fit`"
    yield Row(work, f"SciPy {1 / theirs:,.0f} fits/s", theirs / ours)
    work = "`minimize_many` on 10,000 Rosenbrock fits: two cores over one"
    yield Row(work, "", loops.scaling(rounds=3 if quick else 15), at_least=1.8)


def projections(quick: bool) -> Iterator[Row]:
    limits = sets.Limits()
    for name, most in (("simplex", 5), ("l1 ball", 5), ("ball", 12)):
        for metric in ("none", "extreme"):
            other = "a pass over memory" if name == "ball" else "`np.sort`"
            weights = "" if metric == "none" else ", weights over 10^±16"
            work = (
                f"projection onto the {name}, n = 1e6, float64{weights}: times as long as {other}"
            )
            yield Row(work, "", limits.track_ratio(name, metric), at_most=most)


def games(quick: bool) -> Iterator[Row]:
    rounds = 30_000 if quick else 3_000_000
    seconds = loops.seconds_of(online.one_dimensional, rounds, rounds=3)
    yield Row(f"online game, Adam, {rounds:,} one-dimensional rounds", "", seconds, "s", at_most=2)
    game = online.logistic(1000 if quick else 100_000)
    for place in ("box", "ball"):
        seconds = side_by_side(game.steps(place), calls=1, rounds=5)
        work = (
            f"online game, AdaBelief, {game.losses.rounds:,} rounds of logistic loss, n = 100, "
            f"in a {place}: times as long as its gradients alone"
        )
        yield slower(seconds, "play", "gradients", work, at_most=3)
        if place == "box":
            work = "the certified regret curve of that game: times as long as the game"
            yield slower(seconds, "regret", "play", work)


def batches(quick: bool) -> Iterator[Row]:
    makers = {
        "numbelief": ("numbelief", stochastic.numbelief_epochs),
        "torch": ("torch", stochastic.torch_epochs),
        "scikit-learn": ("sklearn", stochastic.sklearn_epochs),
    }
    steps = {
        name: make() for name, (needs, make) in makers.items() if importlib.util.find_spec(needs)
    }
    seconds = side_by_side(steps, calls=1, rounds=1 if quick else 9)
    seconds = {name: each / stochastic.EPOCHS for name, each in seconds.items()}
    work = (
        "an epoch of softmax regression, 5,000 x 784 float32, batch 128, AdaBelief in machine "
        "code: times faster than PyTorch with `Adam(fused=True)`"
    )
    if "torch" in seconds:
        yield faster(seconds, "numbelief", "torch", work, at_least=2)
    if "scikit-learn" in seconds:
        work = "the same: times faster than scikit-learn's SGDClassifier"
        yield faster(seconds, "numbelief", "scikit-learn", work)
    steps = stochastic.gathering(2_000 if quick else 100_000)
    seconds = side_by_side(steps, calls=1, rounds=1 if quick else 9)
    work = "an epoch of random batches of 128 out of 1e5 x 784 float32: over copies in order"
    yield slower(seconds, "gathered", "shuffled copy", work, at_most=1.3)
    steps = stochastic.shuffling(2_000 if quick else 100_000)
    seconds = side_by_side(steps, calls=1, rounds=1 if quick else 5)
    work = "an epoch of softmax regression on these rows at random: over one on a shuffled copy"
    yield slower(seconds, "gathered", "shuffled copy", work, at_most=1.3)
    size = 0.3 if quick else 8.0
    work = f"an epoch over a memory-mapped file of {size:g} GB: peak memory of the process"
    yield Row(work, "", stochastic.mapped_peak(size), "MB", at_most=1000)
    seconds = side_by_side(stochastic.network(), calls=1 if quick else 10, rounds=1 if quick else 9)
    share = ratio(seconds, "optimizer", "step")
    work = "the optimizer's share of a step of a NumPy network with two layers of 1000 units"
    yield Row(work, "", share, at_most=0.1)
    for size in (400, 1000):
        found = side_by_side(stochastic.beside(size), calls=1, rounds=1 if quick else 7)
        ms = {
            name: float(np.median(each)) / stochastic.PRODUCTS * 1e3 for name, each in found.items()
        }
        auto, *others = ms["auto"], ms["serial"], ms["parallel"]
        work = (
            f"a product of {size} x {size} matrices and a step, n = 1.8e6: over the better target"
        )
        measured = f"auto {auto:.3g}, serial {others[0]:.3g}, parallel {others[1]:.3g} ms"
        yield Row(work, measured, auto / min(others))


def lookahead(quick: bool) -> Iterator[Row]:
    n = 200_000 if quick else 20_000_000
    for name in ("AdaBelief", "Adam"):
        steps = lookahead_steps(name.lower(), n)
        seconds = side_by_side(steps, calls=5, rounds=1 if quick else 9)
        work = (
            f"{name} with Lookahead, k = 5, float32, n = {n:.0e}: a step, averaged, over that of "
            "the rule alone"
        )
        yield slower(seconds, "lookahead", "inner", work, at_most=1.15)


TABLE = (
    large_steps, small_steps, crossover, minimize_overhead, second_process, whole_loops, many,
    projections, games, lookahead, batches,
)  # fmt: skip


def machine() -> str:
    """Where and with what the table was made, for the line above it."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    needs = ("numpy", "numba", "scipy", "torch", "jax", "optax", "adabelief_pytorch")
    packages = [f"{name} {version(name)}" for name in needs if importlib.util.find_spec(name)]
    return (
        f"{cpu}, {os.cpu_count()} cores, {THREADS} threads; "
        f"Python {platform.python_version()}, numbelief {numbelief.__version__}, "
        f"{', '.join(packages)}; {datetime.date.today()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    names = [rows.__name__ for rows in TABLE]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="parts to run")
    given = parser.parse_args()
    quick = given.quick
    print(machine(), end="\n\n")
    if quick:
        print("A quick run: these figures say nothing.\n")
    print(HEAD)
    for rows in TABLE:
        for row in rows(quick) if rows.__name__ in given.only else ():
            print(row, flush=True)


if __name__ == "__main__":
    main()
