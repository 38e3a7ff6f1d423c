"""What is kept of each point, and what it says of the run: best point, history, stopping tests.

`observe_template` looks at a point on the CPU; `review` at points that another target has observed.
A stopping test is added to `verdict_of`, and nowhere else.
"""

import functools
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from numbelief._compile.arrays import BLOCK, clip_to_bounds, copy, largest
from numbelief._compile.internals import bits_of, larger, of_bits, row, smaller, window
from numbelief._compile.jit import jit, key_of, part
from numbelief._compile.pointers import Layout, call_c, compile_for_numbers, loaded
from numbelief._compile.template import bind, named
from numbelief._solve.options import Options
from numbelief._step.state import Region

# The run's status after a point. From 0 on these are the status codes of SciPy's BFGS.
RUNNING, CONVERGED, MAXITER, PRECISION, NONFINITE = -1, 0, 1, 2, 3

# Which point a run returns.
ITERATES = {"best": 0, "last": 1, "average": 2}
BEST, LAST, AVERAGE = ITERATES.values()
# ftol compares the best value with the best value this many iterations ago.
WINDOW = 50
# After STILL iterations in which neither fun nor the gradient's norm changed a bit the run ends.
STILL = 1000

# Files name these: "goal" is the option target.
_SETTINGS = (("maxiter", "i8"), ("gtol", "f8"), ("ftol", "f8"), ("xtol", "f8"), ("goal", "f8"))
_FIGURES = (
    ("nit", "i8"), ("fun", "f8"), ("norm", "f8"), ("moved", "f8"), ("reach", "f8"), ("still", "i8"),
    ("best_fun", "f8"), ("best_norm", "f8"), ("best_nit", "i8"), ("window_fun", "f8"),
)  # fmt: skip

#: Settings and running figures of a run; a checkpoint holds it.
CONTROL = np.dtype([*_SETTINGS, *_FIGURES])
#: The names of the figures: what a resumed run takes from its file.
FIGURES = tuple(name for name, _ in _FIGURES)


class Watch(NamedTuple):
    """What a loop keeps of the points that it sees.

    Attributes
    ----------
    control : ndarray of shape (1,), of dtype CONTROL
    recent : ndarray of shape (WINDOW,), float64
        The best values of the last iterations, in turns.
    best : ndarray of shape (2, n)
        The best point, and its gradient.
    average : ndarray of shape (n,), or empty
        The mean of all points.
    previous : ndarray of shape (n,), or empty
        The last point; needed by xtol.
    history : ndarray of shape (m, 3), float64, or empty
        fun, the gradient's norm and the rate of each iteration.
    points : ndarray of shape (m, n), or empty
        Each point.
    region : Region
        Where they may lie.
    """

    control: Any
    recent: Any
    best: Any
    average: Any
    previous: Any
    history: Any
    points: Any
    region: Any


def new_control(settings: Options) -> NDArray[Any]:
    """A control record before the first point; a tolerance of 0 is off, except for gtol."""
    control = np.zeros(1, CONTROL)
    start: dict[str, float] = {
        name: getattr(settings, name) for name in ("maxiter", "gtol", "ftol", "xtol")
    }
    start |= {"goal": settings.target, "nit": -1, "fun": nan, "norm": nan, "moved": inf,
              "best_fun": inf}  # fmt: skip
    for name, value in start.items():
        control[name] = value
    return control


def which_point(iterate, best_fun, fun, norm):
    """Which point a run returns whose control has these figures."""
    if not isfinite(best_fun):
        return LAST
    return iterate if isfinite(fun) and isfinite(norm) else BEST


# ---- at a block --------------------------------------------------------------------------------


def projected_gradient(x, g, lower, upper, i):
    """Coordinate i of the projected gradient, x - clip(x - g, lower, upper)."""
    return x[i] - clip_to_bounds(x[i] - g[i], lower[i], upper[i])


def _norm_template(BOUNDED):
    """The largest magnitude in the projected gradient of a block; inf where it is not finite."""

    def norm_of_block(x, g, lower, upper, lo, hi):
        g = window(g, lo, hi)
        top = largest(g)
        if not top < inf:
            return inf
        if BOUNDED:
            x, lower, upper = window(x, lo, hi), window(lower, lo, hi), window(upper, lo, hi)
            bits = bits_of(x.dtype.type(0))
            for i in range(x.size):
                other = bits_of(projected_gradient(x, g, lower, upper, i))
                bits = other if other > bits else bits
            return of_bits(bits)
        return top

    return norm_of_block


def _largest_of_block(x, lo, hi):
    """The largest magnitude between lo and hi."""
    return largest(window(x, lo, hi))


def _move_of_block(x, previous, lo, hi):
    """The largest change of a coordinate since the last point, and remember this point."""
    x, previous = window(x, lo, hi), window(previous, lo, hi)
    top = bits_of(x.dtype.type(0))
    for i in range(x.size):
        bits = bits_of(x[i] - previous[i])
        top = bits if bits > top else top
        previous[i] = x[i]
    return of_bits(top)


def _projected_norm(x, g, region):
    """The largest magnitude of x - project(x - g), in the metric of the space."""
    trial = row(region.probe, 0)
    for i in range(x.size):
        trial[i] = x[i] - g[i]
    call_c(region.projection.address, trial, row(region.probe, 1), region.projection.data)
    for i in range(x.size):
        trial[i] = x[i] - trial[i]
    return largest(trial)


# ---- at a point --------------------------------------------------------------------------------


def note(fun, norm, rate, control, history):
    """Note the figures of the next point; are they finite?"""
    now = control[0]
    now.nit += 1
    now.still = now.still + 1 if fun == now.fun and norm == now.norm else 0
    now.fun = fun
    now.norm = norm
    if history.size:
        history[now.nit, 0] = fun
        history[now.nit, 1] = norm
        history[now.nit, 2] = rate
    return isfinite(fun) and isfinite(norm)


def is_better(fun, norm, best_fun, best_norm):
    """Whether a point is better than the best one so far."""
    # Of points with the same value, which is common in float32, the flattest is the best.
    return fun < best_fun or (fun == best_fun and norm < best_norm)


def note_best(control):
    """Whether the point that was noted last is the best one so far, which is noted too."""
    now = control[0]
    if is_better(now.fun, now.norm, now.best_fun, now.best_norm):
        now.best_fun = now.fun
        now.best_norm = now.norm
        now.best_nit = now.nit
        return True
    return False


def conclude(control, recent):
    """Remember the best value so far, and return the run's status."""
    now = control[0]
    if now.ftol > 0:
        k = now.nit % WINDOW
        now.window_fun = recent[k]
        recent[k] = now.best_fun
    return verdict_of(control)


def verdict_of(control):
    """What the tolerances say about the point that was observed last."""
    now = control[0]
    if now.norm <= now.gtol or now.fun <= now.goal:
        return CONVERGED
    if now.nit > 0 and now.xtol > 0 and now.moved <= now.xtol * (now.xtol + now.reach):
        return CONVERGED
    if now.ftol > 0 and now.nit >= WINDOW:
        size = larger(larger(abs(now.window_fun), abs(now.best_fun)), 1.0)
        if now.window_fun - now.best_fun <= now.ftol * size:
            return CONVERGED
    if now.nit >= now.maxiter:
        return MAXITER
    if now.still >= STILL:
        return PRECISION
    return RUNNING


def observe_template(norm_of_block, largest_of_block, move_of_block, PROJECTED):
    """Look at a newly evaluated point: keep what is to be kept of it, and return the run's status.

    The norm is that of the projected gradient, as in L-BFGS-B.
    """

    def observe(fun, rate, x, g, watch):
        # A named tuple does not get into a parallel loop.
        control, recent, best, average, previous, history, points, region = watch
        lower, upper = region.lower, region.upper
        now = control[0]
        blocks = (x.size + BLOCK - 1) // BLOCK
        norm = 0.0
        for b in prange(blocks):
            lo = b * BLOCK
            # Numba knows how to join maxima by this name only.
            norm = max(norm, norm_of_block(x, g, lower, upper, lo, smaller(x.size, lo + BLOCK)))
        if PROJECTED:  # noqa: SIM102
            if norm < inf:
                norm = _projected_norm(x, g, region)
        finite = note(fun, norm, rate, control, history)
        if points.size:
            copy(x, row(points, now.nit))
        if not finite:
            return NONFINITE
        if note_best(control):
            for b in prange(blocks):
                lo = b * BLOCK
                hi = smaller(x.size, lo + BLOCK)
                copy(window(x, lo, hi), window(row(best, 0), lo, hi))
                copy(window(g, lo, hi), window(row(best, 1), lo, hi))
        if average.size:
            weight = x.dtype.type(1 / (now.nit + 1))
            for i in prange(x.size):
                average[i] += weight * (x[i] - average[i])
        if previous.size:
            moved = reach = 0.0
            for b in prange(blocks):
                lo = b * BLOCK
                hi = smaller(x.size, lo + BLOCK)
                reach = max(reach, largest_of_block(x, lo, hi))
                moved = max(moved, move_of_block(x, previous, lo, hi))
            now.moved = moved
            now.reach = reach
        return conclude(control, recent)

    return observe


def review(figures, rates, control, recent, history):
    """Look at points that another target has observed: the fun, norm, move and reach of each.

    They have been reached, so each counts, except those after one that is not finite; the run's
    status is what the first one says that ends it.
    """
    now = control[0]
    status = RUNNING
    for k in range(len(figures)):
        if not note(figures[k, 0], figures[k, 1], rates[k], control, history):
            return NONFINITE if status == RUNNING else status
        note_best(control)
        now.moved = figures[k, 2]
        now.reach = figures[k, 3]
        how = conclude(control, recent)
        status = how if status == RUNNING else status
    return status


# ---- compilation -------------------------------------------------------------------------------


def bind_observe(region: Region, *, parallel: bool = False) -> Any:
    """`observe` for a kind of region, as plain Python."""
    norm = bind(_norm_template, BOUNDED=region.lower is not None)
    blocks = {
        "norm_of_block": norm,
        "largest_of_block": _largest_of_block,
        "move_of_block": _move_of_block,
    }
    if parallel:  # Numba finds the maxima of a parallel loop around calls only
        blocks = {name: part(block, allocates=False) for name, block in blocks.items()}
    return bind(observe_template, PROJECTED=region.projection is not None, **blocks)


def kind_of_region(region: Region) -> Region:
    """What kernels depend on: a region with True in place of what is not None."""
    return Region(*(None if each is None else True for each in region))


@functools.cache
def compile_observe(kind: Region, layout: Layout, parallel: bool) -> Any:
    """Compile `observe` as a C function of (fun, rate, data), for a `kind_of_region`.

    ``layout`` is that of (x, g, watch), which lie at ``data``.
    """
    key, observe = key_of("observe", parallel, layout), observe_part(kind, parallel)
    stored = bind(_stored_template, key, observe=observe, LAYOUT=layout.pointer)
    return compile_for_numbers(stored, allocates=parallel)


def _stored_template(observe, LAYOUT):
    def stored_observe(fun, rate, data):
        x, g, watch = loaded(data, LAYOUT)
        return observe(fun, rate, x, g, watch)

    return stored_observe


@functools.cache
def observe_part(kind: Region, parallel: bool) -> Any:
    """`observe` for compiled loops, with or without threads."""
    observe = bind_observe(kind, parallel=parallel)
    return part(observe, parallel=True) if parallel else observe


@functools.cache
def compile_review() -> Any:
    """Compile `review`, for points that were observed on a GPU."""
    return jit(named(review, key_of()), allocates=False)


@functools.cache
def compile_verdict() -> Any:
    """Compile `verdict_of`, for a run that is resumed at an observed point."""
    return jit(named(verdict_of, key_of()), allocates=False)
