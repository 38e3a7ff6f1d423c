"""The iteration itself, written once: step, evaluate, observe.

`run` is in the part of Python that Numba compiles. Around a Python objective the interpreter runs
it, with compiled kernels inside. Everything that looks at a point (finiteness, best point, average,
history, stopping) is in `observe`, which is always compiled, so a stopping rule is added there and
nowhere else.
"""

import functools
from collections.abc import Callable, Iterable
from math import inf, isfinite, nan
from typing import Any

import numpy as np
from numba import prange
from numba.extending import register_jitable
from numpy.typing import NDArray

from numbelief import kernels

# How a run stands after a point. From 0 on these are the status codes of SciPy's BFGS.
RUNNING, CONVERGED, MAXITER, PRECISION, NONFINITE = -1, 0, 1, 2, 3

# ftol compares the best value with the best value this many iterations ago.
WINDOW = 50
# So many iterations in which neither fun nor the gradient's norm changes a bit end the run.
STILL = 1000

# Bound by `kernels.lift`.
largest: Any
largest_projected: Any
move: Any
norm_block: Any

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


def run(
    evaluate: Callable[..., float],
    step: Callable[..., int],
    observe: Callable[..., int],
    rates: Iterable[float],
    x: NDArray[Any],
    g: NDArray[Any],
    state: NDArray[Any],
    clock: NDArray[Any],
    numbers: NDArray[Any],
    options: tuple[Any, ...],
    watch: tuple[Any, ...],
) -> int:
    """From an observed point, take one step for each rate, unless a point ends the run."""
    status = RUNNING
    for rate in rates:
        step(x, g, state, clock, numbers, rate, *options)
        fun = evaluate(x, g)
        status = observe(fun, rate, x, g, *watch)
        if status != RUNNING:
            break
    return status


@register_jitable
def _all_finite(a):
    finite = True
    for i in range(a.size):
        finite &= abs(a[i]) < inf
    return finite


def _largest(a):
    """The largest magnitude in an array without NaN."""
    top = a.dtype.type(0)
    for i in range(a.size):
        top = max(top, abs(a[i]))
    return top


def _largest_projected(x, g, lower, upper):
    """The largest magnitude of x - clip(x - g, lower, upper), in arrays without NaN."""
    top = x.dtype.type(0)
    for i in range(x.size):
        top = max(top, abs(x[i] - min(max(x[i] - g[i], lower[i]), upper[i])))
    return top


def _move(x, previous):
    """The largest change of a coordinate since the last point, and remember this point."""
    top = x.dtype.type(0)
    for i in range(x.size):
        top = max(top, abs(x[i] - previous[i]))
        previous[i] = x[i]
    return top


@register_jitable
def _norm_block(x, g, lower, upper, lo, hi):
    if not _all_finite(g[lo:hi]):
        return inf
    if lower is None:
        return np.float64(largest(g[lo:hi]))
    else:
        return np.float64(largest_projected(x[lo:hi], g[lo:hi], lower[lo:hi], upper[lo:hi]))


@register_jitable
def _verdict(control):
    """What the tolerances say about the point that was observed last."""
    now = control[0]
    if now.norm <= now.gtol or now.fun <= now.goal:
        return CONVERGED
    if now.nit > 0 and now.xtol > 0 and now.moved <= now.xtol * (now.xtol + now.reach):
        return CONVERGED
    if now.ftol > 0 and now.nit >= WINDOW:
        size = max(abs(now.window_fun), abs(now.best_fun), 1.0)
        if now.window_fun - now.best_fun <= now.ftol * size:
            return CONVERGED
    if now.nit >= now.maxiter:
        return MAXITER
    if now.still >= STILL:
        return PRECISION
    return RUNNING


def _observe(fun, rate, x, g, control, recent, best, lower, upper, average, previous, history):
    """Look at a newly evaluated point: keep what is to be kept of it, and say how the run stands.

    ``average``, ``previous`` (needed by xtol) and ``history`` may be None. The norm is that of the
    projected gradient, as in L-BFGS-B.
    """
    now = control[0]
    now.nit += 1
    blocks = (x.size + kernels.BLOCK - 1) // kernels.BLOCK
    norm = 0.0
    for b in prange(blocks):
        lo, hi = b * kernels.BLOCK, min(x.size, (b + 1) * kernels.BLOCK)
        norm = max(norm, norm_block(x, g, lower, upper, lo, hi))
    now.still = now.still + 1 if fun == now.fun and norm == now.norm else 0
    now.fun, now.norm = fun, norm
    if history is not None:
        history[0, now.nit], history[1, now.nit], history[2, now.nit] = fun, norm, rate
    if not (isfinite(fun) and isfinite(norm)):
        return NONFINITE
    # Of points with the same value, which is common in float32, the flattest is the best.
    if fun < now.best_fun or (fun == now.best_fun and norm < now.best_norm):
        now.best_fun, now.best_norm, now.best_nit = fun, norm, now.nit
        for b in prange(blocks):
            lo, hi = b * kernels.BLOCK, min(x.size, (b + 1) * kernels.BLOCK)
            best[0, lo:hi] = x[lo:hi]
            best[1, lo:hi] = g[lo:hi]
    if average is not None:
        weight = x.dtype.type(1 / (now.nit + 1))
        for i in prange(x.size):
            average[i] += weight * (x[i] - average[i])
    if previous is not None:
        moved = reach = 0.0
        for b in prange(blocks):
            lo, hi = b * kernels.BLOCK, min(x.size, (b + 1) * kernels.BLOCK)
            reach = max(reach, np.float64(largest(x[lo:hi])))
            moved = max(moved, np.float64(move(x[lo:hi], previous[lo:hi])))
        now.moved, now.reach = moved, reach
    now.window_fun, recent[now.nit % WINDOW] = recent[now.nit % WINDOW], now.best_fun
    return _verdict(control)


@functools.cache
def compile_observe(*, parallel: bool, nogil: bool) -> Any:
    """Compile `_observe` for the CPU."""
    # A maximum has the same bits in any order. These flags let it use vectors; they are allowed
    # only because each function is called on numbers already known to be finite.
    ordered: dict[str, Any] = {"cache": False, "fastmath": {"nnan", "nsz"}}
    largest = kernels.jit(_largest, **ordered)
    block = kernels.lift(
        _norm_block,
        "",
        largest=largest,
        largest_projected=kernels.jit(_largest_projected, **ordered),
    )
    observe = kernels.lift(
        _observe,
        f"{parallel:d}{nogil:d}_{kernels.source_salt()}",
        norm_block=kernels.jit(block, cache=False),
        largest=largest,
        move=kernels.jit(_move, **ordered),
    )
    return kernels.jit(observe, parallel=parallel, nogil=nogil)


@functools.cache
def compile_verdict() -> Any:
    """Compile `_verdict`, for a run that is resumed at an observed point."""
    return kernels.jit(kernels.lift(_verdict, kernels.source_salt()))
