"""The steps of an epoch, written once: gather a batch, evaluate, note, step, average.

As `numbelief.loop.run`, the text is compiled whole around compiled functions, and run by Python,
with the same compiled parts, around functions that Python calls.
"""

import functools
import hashlib
import pathlib
from math import inf, isfinite
from typing import Any

from llvmlite import ir
from numba import prange
from numba import types as nb
from numba.core import cgutils
from numba.extending import intrinsic

from numbelief import kernels, native
from numbelief.kernels import evaluate_at
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


@intrinsic
def _copy_bytes(typingctx, target, source, count):
    """Copy so many bytes between two addresses."""

    def codegen(context, builder, signature, args):
        target, source = (builder.inttoptr(each, cgutils.voidptr_t) for each in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], ir.Constant(args[2].type, 1))
        return context.get_dummy_value()

    return nb.void(nb.intp, nb.intp, nb.intp), codegen


def _evaluate(k, x, g, order, size, pieces, address, data, blocks):
    """The loss of batch k at x; g is filled.

    ``pieces`` tells of each part of the data where its rows lie, how far apart, where they go, and
    how long they are. The second of ``data`` and ``blocks`` is for a last batch that is shorter.
    """
    lo, hi = k * size, min((k + 1) * size, order.size)
    for part in range(pieces.shape[0]):
        source, stride, target, length = pieces[part]
        for i in range(lo, hi):
            _copy_bytes(target + (i - lo) * length, source + order[i] * stride, length)
    which = 0 if hi - lo == size else 1
    fun = evaluate_at(address, x, g, data[which])
    if blocks[which][native.FAILED]:
        raise native.Raised
    blocks[which][native.CALLS] += 1
    return fun


# ---- compilation -------------------------------------------------------------------------------


@functools.cache
def _salt() -> str:
    text = pathlib.Path(__file__).read_bytes() + kernels.source_salt().encode()
    return hashlib.sha256(text).hexdigest()[:16]


def bind(rule: Rule, evaluate: Any, *, parallel: bool, nogil: bool) -> Any:
    """The loop around an objective that Python calls, as ``evaluate(k, x, g)``."""
    return kernels.lift(
        epoch,
        "in_python",
        borrow=lambda arrays: arrays,
        evaluate=evaluate,
        note=_compile_part(_note, False),
        average=_compile_part(_average, parallel),
        step=kernels.compile_step(rule, parallel=parallel, nogil=nogil),
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
