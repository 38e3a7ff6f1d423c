"""The steps of an epoch, written once: gather a batch, evaluate, note, step, average.

As `numbelief.loop.run`, the text is compiled whole around compiled functions, and run by Python,
with the same compiled parts, around functions that Python calls.
"""

import functools
from math import inf, isfinite
from typing import Any

from numba import prange

from numbelief import batches, kernels, native
from numbelief._compile import threads
from numbelief.batches import gather
from numbelief.kernels import evaluate_at, window
from numbelief.rules import Rule

# Bound by `kernels.lift`.
borrow: Any
evaluate: Any
note: Any
step: Any
average: Any


def epoch(first, rates, x, g, state, clock, numbers, options, losses, averages, objective):
    """Take a step for each rate, on the batches from ``first`` on; return how many were taken.

    The loop ends before the step of a batch whose loss or gradient is not finite.
    """
    rates, x, g, state, clock, numbers, options, losses, averages, objective = borrow(
        (rates, x, g, state, clock, numbers, options, losses, averages, objective)
    )
    for k in range(rates.size):
        fun = evaluate(first + k, x, g, *objective)
        if not note(first + k, fun, g, losses):
            return k
        step(x, g, state, clock, numbers, rates[k], *options)
        average(x, clock, *averages)
    return rates.size


def _note(k, fun, g, losses):
    """Keep the loss of batch k; whether it and the gradient are finite."""
    losses[k] = fun
    return isfinite(fun) and kernels.largest(g) < inf


def _average(x, clock, fading, decay, mean, start):
    """Keep the means of the points: fading by ``decay`` a step, and even from step ``start`` on.

    A mean that is not kept is an empty array.
    """
    t = clock[0].t
    if fading.size:
        share = x.dtype.type(1 - decay)
        for i in prange(x.size):
            fading[i] += share * (x[i] - fading[i])
    if mean.size and t >= start:
        share = x.dtype.type(1 / (t - start + 1))
        for i in prange(x.size):
            mean[i] += share * (x[i] - mean[i])


def _evaluate(k, x, g, order, size, pieces, address, data, blocks):
    """The loss of batch k at x; g is filled.

    ``pieces`` are those of `numbelief.batches.Batches`. The second of ``data`` and ``blocks`` is
    for a last batch that is shorter.
    """
    lo, hi = k * size, min((k + 1) * size, order.size)
    gather(window(order, lo, hi), pieces)
    which = 0 if hi - lo == size else 1
    fun = evaluate_at(address, x, g, data[which])
    failed = blocks[which][native.FAILED]
    if failed:
        native.leave(failed == native.RAISED)
        raise native.Raised("the gradient had another length, but not when called again")
    blocks[which][native.CALLS] += 1
    return fun


# ---- compilation -------------------------------------------------------------------------------


def _salt() -> str:
    return kernels.source_salt(__file__, batches.__file__)


def bind(rule: Rule, evaluate: Any, *, parallel: bool, nogil: bool) -> Any:
    """The loop around an objective that Python calls, as ``evaluate(k, x, g)``."""

    def compile(parallel: bool) -> dict[str, Any]:
        return {
            "step": kernels.compile_step(rule, parallel=parallel, nogil=nogil),
            "average": _compile_part(_average, parallel),
        }

    return kernels.lift(
        epoch,
        "in_python",
        borrow=lambda arrays: arrays,
        evaluate=evaluate,
        note=_compile_part(_note, False),
        **threads.paced(compile, parallel),
    )


@functools.cache
def _compile_part(part: Any, parallel: bool) -> Any:
    return kernels.jit(kernels.lift(part, f"{parallel:d}_{_salt()}"), parallel=parallel)


def compile_epoch(rule: Rule, *, parallel: bool) -> Any:
    """Compile the loop around an objective that is called by address."""
    return _compile_epoch(type(rule), len(rule.state_names), parallel)  # type: ignore[arg-type]


@functools.cache
def _compile_epoch(rule: type[Rule], slots: int, parallel: bool) -> Any:
    salt = kernels.rule_salt(rule)
    whole = kernels.lift(
        epoch,
        f"{rule.__name__}_{slots}_{parallel:d}_{salt}_{_salt()}",
        borrow=native.borrow,
        evaluate=kernels.part(_evaluate),
        note=kernels.part(_note),
        average=kernels.part(_average, parallel=parallel),
        step=kernels.compile_advance(rule, slots, parallel),  # type: ignore[arg-type]
    )
    return kernels.jit(whole, cache=salt is not None, nogil=True)
