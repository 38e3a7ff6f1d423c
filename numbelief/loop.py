"""The iteration itself, written once: step, evaluate, observe.

`run` is in the part of Python that Numba compiles. Around a Python objective the interpreter runs
it, with compiled kernels inside. Everything that looks at a point (finiteness, best point, average,
history, stopping) is in `observe`, which is always compiled, so a stopping rule is added there and
nowhere else.
"""

import functools
from collections.abc import Callable
from math import inf, isfinite, nan
from typing import Any

import numpy as np
from numba import prange
from numba.extending import register_jitable
from numpy.typing import NDArray

from numbelief import kernels, native, tuning
from numbelief._compile import threads
from numbelief.kernels import (
    bits_of,
    copy,
    cut,
    evaluate_at,
    fill,
    largest,
    of_bits,
    row,
    window,
)
from numbelief.rules import Rule

# How a run stands after a point. From 0 on these are the status codes of SciPy's BFGS.
RUNNING, CONVERGED, MAXITER, PRECISION, NONFINITE = -1, 0, 1, 2, 3

# Which point a run returns.
ITERATES = {"best": 0, "last": 1, "average": 2}
BEST, LAST, AVERAGE = ITERATES.values()
# For so many steps the rates of many rows are tabulated at first.
CHUNK = 1024
# ftol compares the best value with the best value this many iterations ago.
WINDOW = 50
# So many iterations in which neither fun nor the gradient's norm changes a bit end the run.
STILL = 1000

# Bound by `kernels.lift`.
observe: Any
step: Any
evaluate: Any
borrow: Any
propose: Any
judge: Any

_SETTINGS = (("maxiter", "i8"), ("gtol", "f8"), ("ftol", "f8"), ("xtol", "f8"), ("goal", "f8"))
_FIGURES = (
    ("nit", "i8"), ("fun", "f8"), ("norm", "f8"), ("moved", "f8"), ("reach", "f8"), ("still", "i8"),
    ("best_fun", "f8"), ("best_norm", "f8"), ("best_nit", "i8"), ("window_fun", "f8"),
)  # fmt: skip

#: Settings and running figures of a run.
CONTROL = np.dtype([*_SETTINGS, *_FIGURES])
#: The names of the figures: what a resumed run takes from its file.
FIGURES = tuple(name for name, _ in _FIGURES)


def new_control(
    *, maxiter: int, gtol: float = 0.0, ftol: float = 0.0, xtol: float = 0.0, goal: float = -inf
) -> NDArray[Any]:
    """A control record before the first point; a tolerance of 0 is off, but for gtol."""
    control = np.zeros(1, CONTROL)
    start = {"maxiter": maxiter, "gtol": gtol, "ftol": ftol, "xtol": xtol, "goal": goal}
    start |= {"nit": -1, "fun": nan, "norm": nan, "moved": inf, "best_fun": inf}
    for name, value in start.items():
        control[name] = value
    return control


def run(rates, x, g, state, clock, numbers, options, watch, tuner, objective):
    """From an observed point, take one step for each rate, unless a point ends the run."""
    rates, x, g, state, clock, numbers, options, watch, tuner, objective = borrow(
        (rates, x, g, state, clock, numbers, options, watch, tuner, objective)
    )
    status = RUNNING
    for rate in rates:
        step(x, g, state, clock, numbers, rate, *options)
        fun = evaluate(x, g, *objective)
        status = observe(fun, rate, x, g, *watch)
        if status != RUNNING:
            break
    return status


def search(rates, x, g, state, clock, numbers, options, watch, tuner, objective):
    """Take as many steps with the automatic rate; see `numbelief.tuning`."""
    rates, x, g, state, clock, numbers, options, watch, tuner, objective = borrow(
        (rates, x, g, state, clock, numbers, options, watch, tuner, objective)
    )
    status = RUNNING
    for _ in range(rates.size):
        fun = watch[0]["fun"][0]
        verdict = tuning.LOST
        while verdict != tuning.STEPPED:
            if verdict == tuning.LOST:
                if not propose(fun, x, g, state, clock, numbers, options, *tuner):
                    return PRECISION
                rate = tuner[0]["rate"][0]
            fun = evaluate(x, g, *objective)
            verdict = judge(fun, x, g, state, clock, options, *tuner)
        status = observe(fun, rate, x, g, *watch)
        if status != RUNNING:
            break
    return status


def first(x, g, watch, objective):
    """Look at the first point."""
    return observe(evaluate(x, g, *objective), nan, x, g, *watch)


def choose(iterate: int, control: NDArray[Any]) -> int:
    """Which point a run that stands like this returns."""
    if not isfinite(control["best_fun"][0]):
        return LAST
    last = isfinite(control["fun"][0]) and isfinite(control["norm"][0])
    return iterate if last else BEST


def enter(k, start, arrays, watch, tuner, objective):
    """Begin row k, with a look at its first point."""
    X0, first_clock, first_control, first_tuner, _ = start
    x, g, state, clock, _ = arrays
    control, recent, best, _, _, _, _, average, previous, _, _ = watch
    block = objective[2]
    block[native.ROW], block[native.CALLS] = k, 0
    copy(row(X0, k), x)
    clock[0], control[0], tuner[0][0] = first_clock[0], first_control[0], first_tuner[0]
    fill(g, 0)
    fill(state, 0)
    fill(recent, inf)
    fill(best, 0)
    fill(average, 0)
    fill(previous, 0)
    if largest(x) < inf:
        return first(x, g, watch, objective)
    return NONFINITE


def leave(k, how, outcome, iterate, arrays, watch, objective):
    """Note what became of row k, which stands like this."""
    X, G, fun, nit, nfev, njev, status = outcome
    x, g, _, _, _ = arrays
    control, _, best, _, _, _, _, average, _, _, _ = watch
    fun[k] = control[0].fun
    which = choose(iterate, control)
    if which == BEST:
        fun[k] = control[0].best_fun
        copy(row(best, 0), x)
        copy(row(best, 1), g)
    elif which == AVERAGE:
        copy(average, x)
        fun[k] = evaluate(x, g, *objective)
    nfev[k] = njev[k] = objective[2][native.CALLS]
    nit[k], status[k] = max(control[0].nit, 0), how
    copy(x, row(X, k))
    copy(g, row(G, k))


def solve_rows(jobs, outcome, start, rates, arrays, options, watch, tuner, objective):
    """Take problems from a shared pile and solve them; return whether one needs more rates.

    ``jobs`` is (pile, stop, held, scheduled): the row to take next, whether to end early, the row
    that has come to the end of the rates (or -1), and whether each step has a rate of its own.
    ``start`` is (X0, clock, control, record, iterate), ``outcome`` the arrays that get each row's
    results. Other threads end a row by setting the maxiter of its control to 0.
    """
    jobs, outcome, start, rates, arrays, options, watch, tuner, objective = borrow(
        (jobs, outcome, start, rates, arrays, options, watch, tuner, objective)
    )
    pile, stop, held, scheduled = jobs
    X0, _, first_control, _, iterate = start
    x, g, state, clock, numbers = arrays
    control = watch[0]
    while held[0] >= 0 or not stop[0]:
        k, how = held[0], RUNNING
        if k < 0:
            k = native.take(pile)
            if k >= len(X0):
                break
            how = enter(k, start, arrays, watch, tuner, objective)
        held[0] = -1
        while how == RUNNING and not stop[0]:
            lo = control[0].nit if scheduled else 0
            if lo == rates.size:
                held[0] = k
                return True
            some = window(rates, lo, rates.size)
            how = run(some, x, g, state, clock, numbers, options, watch, tuner, objective)
        if how == MAXITER and control[0].nit < first_control[0].maxiter:
            how = RUNNING  # it was ended early
        leave(k, how, outcome, iterate, arrays, watch, objective)
    return False


@register_jitable
def projected_at(x, g, lower, upper, i):
    """Coordinate i of the projected gradient, x - clip(x - g, lower, upper)."""
    if lower is None:
        return g[i]
    else:
        return x[i] - min(max(x[i] - g[i], lower[i]), upper[i])


@register_jitable
def _largest_projected(x, g, lower, upper):
    """The largest magnitude in the projected gradient."""
    top = bits_of(x.dtype.type(0))
    for i in range(x.size):
        bits = bits_of(projected_at(x, g, lower, upper, i))
        top = bits if bits > top else top
    return of_bits(top)


@register_jitable
def _move(x, previous):
    """The largest change of a coordinate since the last point, and remember this point."""
    top = bits_of(x.dtype.type(0))
    for i in range(x.size):
        bits = bits_of(x[i] - previous[i])
        top = bits if bits > top else top
        previous[i] = x[i]
    return of_bits(top)


@register_jitable
def _norm_block(x, g, lower, upper):
    top = largest(g)
    if not top < inf:
        return inf
    if lower is None:
        return top
    else:
        return _largest_projected(x, g, lower, upper)


@register_jitable
def _note(fun, norm, rate, control, history):
    """Note the figures of the next point; are they finite?"""
    now = control[0]
    now.nit += 1
    now.still = now.still + 1 if fun == now.fun and norm == now.norm else 0
    now.fun, now.norm = fun, norm
    if history.size:
        history[now.nit, 0], history[now.nit, 1], history[now.nit, 2] = fun, norm, rate
    return isfinite(fun) and isfinite(norm)


@register_jitable
def is_better(fun, norm, best_fun, best_norm):
    """Whether a point is better than the best one so far."""
    # Of points with the same value, which is common in float32, the flattest is the best.
    return fun < best_fun or (fun == best_fun and norm < best_norm)


@register_jitable
def _is_best(control):
    """Whether the point that was noted last is the best one so far, which is noted too."""
    now = control[0]
    if is_better(now.fun, now.norm, now.best_fun, now.best_norm):
        now.best_fun, now.best_norm, now.best_nit = now.fun, now.norm, now.nit
        return True
    return False


@register_jitable
def _conclude(control, recent):
    """Remember the best value so far, and say how the run stands."""
    now = control[0]
    if now.ftol > 0:
        now.window_fun, recent[now.nit % WINDOW] = recent[now.nit % WINDOW], now.best_fun
    return _verdict(control)


@register_jitable
def _verdict(control):
    """What the tolerances say about the point that was observed last."""
    now = control[0]
    if now.norm <= now.gtol or now.fun <= now.goal:
        return CONVERGED
    if now.nit > 0 and now.xtol > 0 and now.moved <= now.xtol * (now.xtol + now.reach):
        return CONVERGED
    if now.ftol > 0 and now.nit >= WINDOW:
        size = max(max(abs(now.window_fun), abs(now.best_fun)), 1.0)
        if now.window_fun - now.best_fun <= now.ftol * size:
            return CONVERGED
    if now.nit >= now.maxiter:
        return MAXITER
    if now.still >= STILL:
        return PRECISION
    return RUNNING


@register_jitable
def _largest_projected_onto(x, g, probe, projection):
    """The largest magnitude of x - project(x - g), in the metric of the space."""
    trial = row(probe, 0)
    for i in range(x.size):
        trial[i] = x[i] - g[i]
    address, data, _ = projection
    evaluate_at(address, trial, row(probe, 1), data)
    for i in range(x.size):
        trial[i] = x[i] - trial[i]
    return largest(trial)


def _observe(fun, rate, x, g, control, recent, best, lower, upper, probe, projection,
             average, previous, history, points):  # fmt: skip
    """Look at a newly evaluated point: keep what is to be kept of it, and say how the run stands.

    ``average``, ``previous`` (needed by xtol), ``history`` and ``points`` may be empty: not kept.
    The norm is that of the projected gradient, as in L-BFGS-B. ``projection`` is that of a set
    other than a box, or None; ``probe`` then has a row of scratch memory and a row of ones.
    """
    now = control[0]
    blocks = (x.size + kernels.BLOCK - 1) // kernels.BLOCK
    norm = 0.0
    for b in prange(blocks):
        lo, hi = b * kernels.BLOCK, min(x.size, (b + 1) * kernels.BLOCK)
        x_block, g_block = window(x, lo, hi), window(g, lo, hi)
        low, high = cut(lower, lo, hi), cut(upper, lo, hi)
        norm = max(norm, _norm_block(x_block, g_block, low, high))
    if projection is not None:  # noqa: SIM102  Numba drops the branch only where it stands alone
        if norm < inf:
            norm = _largest_projected_onto(x, g, probe, projection)
    finite = _note(fun, norm, rate, control, history)
    if points.size:
        copy(x, row(points, now.nit))
    if not finite:
        return NONFINITE
    if _is_best(control):
        for b in prange(blocks):
            lo, hi = b * kernels.BLOCK, min(x.size, (b + 1) * kernels.BLOCK)
            copy(window(x, lo, hi), window(row(best, 0), lo, hi))
            copy(window(g, lo, hi), window(row(best, 1), lo, hi))
    if average.size:
        weight = x.dtype.type(1 / (now.nit + 1))
        for i in prange(x.size):
            average[i] += weight * (x[i] - average[i])
    if previous.size:
        moved = reach = 0.0
        for b in prange(blocks):
            lo, hi = b * kernels.BLOCK, min(x.size, (b + 1) * kernels.BLOCK)
            reach = max(reach, largest(window(x, lo, hi)))
            moved = max(moved, _move(window(x, lo, hi), window(previous, lo, hi)))
        now.moved, now.reach = moved, reach
    return _conclude(control, recent)


def _review(figures, rates, control, recent, history):
    """Look at points that another target has observed: the fun, norm, move and reach of each.

    They have been reached, so each counts, but for those after one that is not finite; how the run
    stands is what the first one says that ends it.
    """
    now = control[0]
    status = RUNNING
    for k in range(len(figures)):
        if not _note(figures[k, 0], figures[k, 1], rates[k], control, history):
            return NONFINITE if status == RUNNING else status
        _is_best(control)
        now.moved, now.reach = figures[k, 2], figures[k, 3]
        how = _conclude(control, recent)
        status = how if status == RUNNING else status
    return status


def _look(fun, rate, x, g, *watch):
    return observe(fun, rate, x, g, *watch)


def _evaluate(x, g, address, data, block):
    fun = evaluate_at(address, x, g, data)
    if block[native.FAILED]:
        native.leave(block[native.FAILED] == native.RAISED)
        raise native.Raised("the gradient had another length, but not when called again")
    block[native.CALLS] += 1
    return fun


@functools.cache
def compile_observe(*, parallel: bool, nogil: bool) -> Any:
    """Compile `_observe` for the CPU."""
    salt = f"{parallel:d}{nogil:d}_{kernels.source_salt()}"
    return kernels.jit(kernels.lift(_look, salt, observe=_observe_part(parallel)), nogil=nogil)


@functools.cache
def _observe_part(parallel: bool) -> Any:
    return kernels.part(_observe, parallel=parallel)


def bind(rule: Rule, evaluate: Any, *, parallel: bool, nogil: bool) -> Callable[..., int]:
    """The loop around an objective that Python calls."""
    automatic = rule.learning_rate is None

    def compile(parallel: bool) -> dict[str, Any]:
        if automatic:
            names = tuning.compile_parts(rule, parallel=parallel, nogil=nogil)
        else:
            names = {"step": kernels.compile_step(rule, parallel=parallel, nogil=nogil)}
        return {**names, "observe": compile_observe(parallel=parallel, nogil=nogil)}

    return kernels.lift(
        search if automatic else run,
        "in_python",
        borrow=lambda arrays: arrays,
        evaluate=evaluate,
        **threads.paced(compile, parallel),
    )


def compile_rows(rule: Rule) -> Any:
    """Compile `solve_rows` for objectives that are called by address."""
    kind = type(rule), len(rule.state_names), rule.learning_rate is None
    return _compile_rows(*kind)  # type: ignore[arg-type]


@functools.cache
def _compile_rows(rule: type[Rule], slots: int, automatic: bool) -> Any:
    salt = kernels.rule_salt(rule)
    evaluate, observe = kernels.part(_evaluate), _observe_part(False)
    part = functools.partial(kernels.part, inline=False)
    look = part(kernels.lift(first, evaluate=evaluate, observe=observe))
    names = {
        "borrow": native.borrow,
        "enter": kernels.part(kernels.lift(enter, first=look)),
        "run": part(_lifted_run(rule, slots, automatic, False, "")),
        "leave": kernels.part(kernels.lift(leave, evaluate=evaluate, choose=part(choose))),
    }
    name = f"{rule.__name__}_{slots}_{automatic:d}_{salt}"
    whole = kernels.lift(solve_rows, name, **names)
    return kernels.jit(whole, cache=salt is not None, nogil=True)


def compile_run(rule: Rule, *, parallel: bool) -> Any:
    """Compile the loop around an objective that is called by address.

    It takes what `run` or, for a rule without a rate, `search` takes; its ``objective`` is the
    address, the data and the block of a `numbelief.native.Objective`.
    """
    kind = type(rule), len(rule.state_names), rule.learning_rate is None
    return _compile_run(*kind, parallel)  # type: ignore[arg-type]


@functools.cache
def _compile_run(rule: type[Rule], slots: int, automatic: bool, parallel: bool) -> Any:
    salt = kernels.rule_salt(rule)
    name = f"{rule.__name__}_{slots}_{parallel:d}_{salt}"
    whole = _lifted_run(rule, slots, automatic, parallel, name)
    return kernels.jit(whole, cache=salt is not None, nogil=True)


def _lifted_run(rule: type[Rule], slots: int, automatic: bool, parallel: bool, salt: str) -> Any:
    """`run` or `search`, for machine code."""
    names = {
        "borrow": native.borrow,
        "evaluate": kernels.part(_evaluate),
        "observe": _observe_part(parallel),
    }
    if automatic:
        return kernels.lift(search, salt, **names, **tuning.parts(rule, slots, parallel))  # type: ignore[arg-type]
    names["step"] = kernels.compile_advance(rule, slots, parallel)  # type: ignore[arg-type]
    return kernels.lift(run, salt, **names)


@functools.cache
def compile_review() -> Any:
    """Compile `_review`, for points that were observed on a GPU."""
    return kernels.jit(kernels.lift(_review, kernels.source_salt()))


@functools.cache
def compile_verdict() -> Any:
    """Compile `_verdict`, for a run that is resumed at an observed point."""
    return kernels.jit(kernels.lift(_verdict, kernels.source_salt()))
