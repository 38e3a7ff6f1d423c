"""The steps of an epoch, written once: gather a batch, evaluate, note, step, average.

As `numbelief._solve.loop`, the text is compiled whole around compiled functions, and run by Python,
with the same compiled parts, around functions that Python calls.
"""

import functools
from math import inf, isfinite
from typing import Any, NamedTuple

from numba import prange

from numbelief._compile import threads
from numbelief._compile.arrays import largest
from numbelief._compile.internals import smaller, window
from numbelief._compile.jit import jit, key_of, part
from numbelief._compile.pointers import (
    Layout,
    Stored,
    compile_for_numbers,
    loaded,
    numbers_from_python,
)
from numbelief._compile.template import bind, named
from numbelief._objective.compiled import Call, evaluate
from numbelief._solve.data import gather
from numbelief._step.call import StoredStep
from numbelief._step.state import StepState
from numbelief._step.template import call_step


class Means(NamedTuple):
    """The means of the points that an epoch keeps; one that is not kept is empty.

    Attributes
    ----------
    fading : ndarray of shape (n,), or empty
        The exponential moving average.
    decay : float
        Its decay per step.
    mean : ndarray of shape (n,), or empty
        The mean from a step on.
    start : int
        That step.
    """

    fading: Any
    decay: float
    mean: Any
    start: int


class BatchObjective(NamedTuple):
    """What compiled code evaluates batches with.

    Attributes
    ----------
    order : ndarray of int64
        The rows of the epoch.
    size : int
        Of a batch.
    pieces : ndarray of shape (parts, 7), int64
        Those of `numbelief._solve.data.Batches`.
    whole, last : Call
        For a batch of that size, and for a last one that is shorter.
    """

    order: Any
    size: int
    pieces: Any
    whole: Call
    last: Call


def epoch_template(evaluate, note, step, average):
    """Take a step for each rate, on the batches from ``first`` on; return how many were taken.

    The loop ends before the step of a batch whose loss or gradient is not finite.
    """

    def epoch(first, rates, x, g, state, options, losses, means, objective):
        for k in range(rates.size):
            fun = evaluate(first + k, x, g, objective)
            if not note(first + k, fun, g, losses):
                return k
            step(x, g, state, rates[k], options)
            average(x, state, means)
        return rates.size

    return epoch


def note(k, fun, g, losses):
    """Keep the loss of batch k; whether it and the gradient are finite."""
    losses[k] = fun
    return isfinite(fun) and largest(g) < inf


def follow(mean, x, share):
    """Move a mean of shape (n,) towards x by a share of the way."""
    c = x.dtype.type(share)
    for i in prange(x.size):
        mean[i] += c * (x[i] - mean[i])


def average_template(follow):
    """Let the means of the points follow."""

    def average(x, state, means):
        t = state.timestep[0].t
        if means.fading.size:
            follow(means.fading, x, 1 - means.decay)
        if means.mean.size and t >= means.start:
            follow(means.mean, x, 1 / (t - means.start + 1))

    return average


def evaluate_batch(k, x, g, objective):
    """The loss of batch k at x; g is filled."""
    order, size = objective.order, objective.size
    lo = k * size
    hi = smaller(lo + size, order.size)
    gather(window(order, lo, hi), objective.pieces)
    call = objective.whole
    if hi - lo < size:
        call = objective.last
    return evaluate(x, g, call)


# ---- compilation -------------------------------------------------------------------------------


def epoch_in_python(
    step: StoredStep, x: Any, g: Any, state: StepState, means: Means, evaluate: Any,
    *, parallel: bool, nogil: bool,
) -> Any:  # fmt: skip
    """The loop around an objective that Python calls, ``evaluate(k, x, g, objective)``."""
    stored = Stored(x, state, means)
    averages = bool(means.fading.size or means.mean.size)

    def compiled(parallel: bool) -> dict[str, Any]:
        parts: dict[str, Any] = {"step": step.along(x, g, parallel=parallel, nogil=nogil)}
        if averages:
            address = _compile_average(stored.layout, parallel).address
            average = numbers_from_python(address, nogil=nogil)
            parts["average"] = lambda: average(0.0, 0.0, stored.address)
        return parts

    names = ("step", "average") if averages else ("step",)
    parts = threads.paced(compiled, names, parallel)
    take_step, average = parts["step"], parts.get("average", lambda: None)
    return epoch_template(
        evaluate=evaluate,
        note=_compile_note(),
        step=lambda x, g, state, rate, options: take_step(rate),
        average=lambda x, state, means: average(),
    )


@functools.cache
def _compile_note() -> Any:
    return jit(named(note, key_of()), allocates=False)


@functools.cache
def _compile_average(layout: Layout, parallel: bool) -> Any:
    average = bind(average_template, follow=_follow(parallel))
    key = key_of("average", layout, parallel)
    stored = bind(_stored_average_template, key, average=average, LAYOUT=layout.pointer)
    return compile_for_numbers(stored, allocates=False)


def _stored_average_template(average, LAYOUT):
    def stored_average(_, other, data):
        x, state, means = loaded(data, LAYOUT)
        average(x, state, means)
        return 0

    return stored_average


def _follow(parallel: bool) -> Any:
    # Numba loses what a parallel loop writes to an array that comes out of a tuple.
    return part(follow, parallel=True) if parallel else follow


def _stored_epoch_template(epoch, LAYOUT):
    """`epoch` with all but the rates and the objective in memory."""

    def stored_epoch(first, rates, data, objective):
        x, g, state, step, losses, means = loaded(data, LAYOUT)
        return epoch(first, rates, x, g, state, step, losses, means, objective)

    return stored_epoch


def _step_at_address(x, g, state, rate, step):
    call_step(x, g, rate, step)


@functools.cache
def compile_epoch(layout: Layout, *, parallel: bool) -> Any:
    """Compile ``epoch(first, rates, data, objective)`` around a `BatchObjective`.

    Once for each dtype: a batch takes so much longer than a call that steps are called by address.
    ``layout`` is that of (x, g, state, step, losses, means), which lie at ``data``, with a
    `StepCall`.
    """
    epoch = bind(
        epoch_template,
        evaluate=evaluate_batch,
        note=note,
        average=bind(average_template, follow=_follow(parallel)),
        step=_step_at_address,
    )
    key = key_of(parallel, layout)
    stored = bind(_stored_epoch_template, key, epoch=epoch, LAYOUT=layout.pointer)
    return jit(stored, nogil=True, allocates=False)
