"""What is kept of each point: its figures, the best point, the mean of all, the history."""

import functools
from math import inf
from typing import Any, NamedTuple

from numba import prange

from numbelief._compile.arrays import BLOCK, clip_to_bounds, copy, largest
from numbelief._compile.internals import bits_of, of_bits, row, smaller, window
from numbelief._compile.jit import key_of, part
from numbelief._compile.pointers import Layout, call_c, compile_for_numbers, loaded
from numbelief._compile.template import bind
from numbelief._solve.stopping import NONFINITE, conclude, note, note_best
from numbelief._step.state import Region


class Watch(NamedTuple):
    """What a loop keeps of the points that it sees.

    Attributes
    ----------
    control : ndarray of shape (1,), of dtype `numbelief._solve.stopping.CONTROL`
    recent : ndarray of shape (WINDOW,), float64
        The best values of the last iterations, cyclically.
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
