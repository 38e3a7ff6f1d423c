"""Compile a rule for the CPU: the only file that knows Numba's CPU options.

A rule is plain Python over numbers (see ``rules.py``). The templates below are plain Python over
arrays that call names which do not exist here (``update``, ``load``, ``Coefficients`` ...).
``lift`` copies a template and binds those names to one rule, and Numba compiles the copy; no source
text is generated. Serial and parallel kernels come from one text: ``prange`` over blocks is an
ordinary loop unless it is compiled with ``parallel=True``. Nothing is reordered and no fused
multiply-add is allowed, so every kernel gives the same bits on any number of threads.
"""

import functools
import hashlib
import os
import sys
import types
import uuid
from collections import namedtuple
from collections.abc import Callable
from math import inf, sqrt
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange
from numba import types as nb
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable
from numba.np.arrayobj import make_array, populate_array
from numba.np.unsafe.ndarray import to_fixed_tuple

from numbelief import schedules
from numbelief._compile.jit import package_salt
from numbelief.rules import Rule

# 16 Ki elements a block: as fast as larger ones at n = 2e7, and balanced from small n on.
BLOCK = 1 << 14
# Sums are taken over blocks of this size, and then over the blocks in order, on any thread count.
SUM_BLOCK = 1 << 12
# From this size on "auto" steps in parallel: where two idle cores are about even with one, 25 µs
# (asv_benchmarks/benchmarks/kernels.py, Crossover). Beside busy processes, threads pay later.
PARALLEL_FROM = int(os.environ.get("NUMBELIEF_PARALLEL_FROM", 1 << 15))
# From this size on a kernel releases the GIL. Below, waiting to take it back costs more than the
# step: another thread may hold it for its whole 5 ms turn.
RELEASE_GIL_FROM = 1 << 14

#: What a step carries from one to the next besides the slots: the decays and 1 - decay**t.
CLOCK = np.dtype([("t", "i8"), ("beta1", "f8"), ("beta2", "f8"), ("bias1", "f8"), ("bias2", "f8")])

# Why a step refuses its gradient, before it has changed anything.
STEPPED, SHARES_X, SHARES_STATE = range(3)

# `update` and its caller see these besides the hyperparameters and the rule's scalars.
_COMMON = ("zero", "one", "tiny")


# ---- templates ---------------------------------------------------------------------------------
# Bound by `lift`: the rule's functions, tuples of its numbers, what depends on its number of slots,
# and the templates that other templates call.
update: Any
coefficients: Any
decay: Any
Hyperparameters: Any
Coefficients: Any
COUNT: int
rows: Any
load: Any
store: Any
updated: Any
element: Any
apply_block: Any
norms_block: Any
sum_squares: Any
norm_of: Any
extras_of: Any
begin: Any
advance: Any


@intrinsic
def _cast(typingctx, values, like):
    """Turn a tuple of numbers into a tuple of numbers of the array's dtype."""
    signature = nb.UniTuple(like.dtype, len(values))(values, like)

    def codegen(context, builder, signature, args):
        cast = [
            context.cast(builder, builder.extract_value(args[0], i), kind, like.dtype)
            for i, kind in enumerate(values)
        ]
        return context.make_tuple(builder, signature.return_type, cast)

    return signature, codegen


@intrinsic
def window(typingctx, array, lo, hi):
    """The elements lo to hi of an array read row by row, as an array that owns nothing.

    A slice counts references, 10 to 20 ns each: more than the arithmetic of a step at n = 2.
    """
    result = nb.Array(array.dtype, 1, "C")
    signature = result(array, nb.intp, nb.intp)

    def codegen(context, builder, signature, args):
        source = make_array(array)(context, builder, args[0])
        target = make_array(result)(context, builder)
        populate_array(
            target,
            data=builder.gep(source.data, [args[1]]),
            shape=[builder.sub(args[2], args[1])],
            strides=[source.itemsize],
            itemsize=source.itemsize,
            meminfo=None,
        )
        return target._getvalue()

    return signature, codegen


@intrinsic
def evaluate_at(typingctx, address, x, other, data):
    """Call ``double f(intptr_t n, T *x, T *other, void *data)`` at an address."""

    def codegen(context, builder, signature, args):
        address, x, other, data = args
        x = make_array(signature.args[1])(context, builder, x)
        other = make_array(signature.args[2])(context, builder, other)
        n = builder.extract_value(x.shape, 0)
        given = [n, x.data, other.data, builder.inttoptr(data, cgutils.voidptr_t)]
        kind = ir.FunctionType(ir.DoubleType(), [each.type for each in given])
        return builder.call(builder.inttoptr(address, kind.as_pointer()), given)

    return nb.float64(nb.intp, x, other, nb.intp), codegen


@intrinsic
def bits_of(typingctx, value):
    """A number's bits without its sign: integers in the order of the magnitudes, NaN above all."""
    width = value.bitwidth

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(signature.return_type)
        return builder.and_(builder.bitcast(args[0], kind), kind((1 << (width - 1)) - 1))

    return {32: nb.int32, 64: nb.int64}[width](value), codegen


@intrinsic
def _of_bits(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return {32: nb.float32, 64: nb.float64}[bits.bitwidth](bits), codegen


@register_jitable
def of_bits(bits):
    """The magnitude with these bits, in float64."""
    return np.float64(_of_bits(bits))


@register_jitable
def largest(a):
    """The largest magnitude in an array, or NaN if there is one.

    By way of integers, whose maximum LLVM vectorizes: 9 times faster at n = 1000.
    """
    top = bits_of(a.dtype.type(0))
    for i in range(a.size):
        bits = bits_of(a[i])
        top = bits if bits > top else top
    return of_bits(top)


@register_jitable
def copy(source, target):
    """Assign one array to another; with slices, Numba would look for an overlap each time."""
    for i in range(source.size):
        target[i] = source[i]


@register_jitable
def fill(array, value):
    """Assign a value to an array of any shape."""
    flat = window(array, 0, array.size)
    for i in range(flat.size):
        flat[i] = value


@register_jitable
def row(array, k):
    """Row k of a 2-D array."""
    n = array.shape[1]
    return window(array, k * n, (k + 1) * n)


@register_jitable
def _overlap(a, b):
    if a.size == 0 or b.size == 0:
        return False
    a_start, b_start = a.ctypes.data, b.ctypes.data
    return a_start < b_start + b.size * b.itemsize and b_start < a_start + a.size * a.itemsize


@register_jitable
def _flush(value, c):
    # Arithmetic on denormal numbers is up to a hundred times slower on x86.
    return c.zero if abs(value) < c.tiny else value


@register_jitable
def limit(value, lower, upper, i):
    """A value between the bounds of coordinate i, which may be None."""
    if lower is None:
        return value
    else:
        return min(max(value, lower[i]), upper[i])


@register_jitable
def cut(array, lo, hi):
    """A window of an array that may be None."""
    if array is None:
        return None
    else:
        return window(array, lo, hi)


@register_jitable
def _cut_row(array, k, lo, hi):
    """A window of a row of an array that may be None."""
    if array is None:
        return None
    else:
        return window(row(array, k), lo, hi)


@register_jitable
def _note(array, i, value):
    if array is not None:
        array[i] = value


# What a step does not use is None, and costs nothing: Numba drops the branch. With all of it
# compiled in, a step on 2e7 numbers took 1.2 instead of 1.0x times the memory limit.


@register_jitable
def _times(value, factor):
    if factor is None:
        return value
    else:
        return value * factor


@register_jitable
def _scaled(rate, scale, i):
    """The rate of coordinate i, whose share of the base rate scale tells."""
    if scale is None:
        return rate
    else:
        return rate * scale[i]


@register_jitable
def _kept(x, keep, scale, i, one):
    """What the decoupled decay leaves of coordinate i."""
    if keep is None:
        return x
    elif scale is None:
        return x * keep
    else:
        return x * (one - scale[i] * (one - keep))


@register_jitable
def _clipped(value, most):
    if most is None:
        return value
    else:
        return min(max(value, -most), most)


@register_jitable
def _decayed(g, x, l2):
    if l2 is None:
        return g
    else:
        return g + l2 * x


@register_jitable
def _prepared(g, x, clip, max_value, l2):
    """Clip the gradient, then add the coupled decay."""
    return _decayed(_clipped(_times(g, clip), max_value), x, l2)


# Where what is None decides the type of a result, the choice is Numba's to make by type.


def _real(value, given, like):
    """In compiled code: the value in the array's dtype, or None if `given` is None."""


@overload(_real)
def _real_by_type(value, given, like):
    if isinstance(given, nb.NoneType):
        return lambda value, given, like: None
    return lambda value, given, like: like.dtype.type(value)


@register_jitable
def shrinking(norm, most):
    """The factor that brings a norm down to the most that it may be, or 1."""
    return most / max(norm, most)


@register_jitable
def trust(of_x, of_direction):
    """LAMB's ratio of two norms, of their squares; 1 where either is 0."""
    known = of_x > 0 and of_direction > 0
    return sqrt(of_x) / sqrt(of_direction) if known else 1.0


def _scale(g, max_norm, norm_of):
    """In compiled code: the factor that brings the gradient's norm down to max_norm, or 1."""


@overload(_scale)
def _scale_by_type(g, max_norm, norm_of):
    if isinstance(max_norm, nb.NoneType):
        return lambda g, max_norm, norm_of: 1.0
    return lambda g, max_norm, norm_of: shrinking(norm_of(g), max_norm)


def project(x, trace, projection):
    """In compiled code: move x into its set, in the metric of the step that trace tells of.

    ``projection`` is None, or (address, data, left): those of a `numbelief.projections.Projector`,
    and where the largest distance that it left is noted.
    """


@overload(project)
def _project_by_type(x, trace, projection):
    if isinstance(projection, nb.NoneType):
        return lambda x, trace, projection: None

    def move(x, trace, projection):
        address, data, left = projection
        left[0] = max(left[0], evaluate_at(address, x, row(trace, 0), data))

    return move


@register_jitable
def anchor_at(x, slow, i, lower, upper):
    """Let the slow weight of coordinate i start where x does, but within its bounds."""
    slow[i] = limit(x[i], lower, upper, i)


@register_jitable
def synchronize_at(x, slow, i, weight, lower, upper):
    """Move the slow weight of coordinate i towards x, and x to it."""
    slow[i] = x[i] = limit(slow[i] + weight * (x[i] - slow[i]), lower, upper, i)


@register_jitable
def _anchor(x, state, t, lower, upper, lookahead, lo, hi):
    """Let the slow weights of a Lookahead start where x does, but within its bounds."""
    if lookahead is not None:  # noqa: SIM102  Numba drops the branch only where it stands alone
        if t == 1:
            slow = _slot(state, len(state) - 1, lo, hi)
            for i in range(x.size):
                anchor_at(x, slow, i, lower, upper)


@register_jitable
def _synchronize(x, state, t, lower, upper, lookahead, lo, hi):
    """Every k steps: move the slow weights towards x, and x to them."""
    if lookahead is not None:
        k, alpha = lookahead
        if t % k == 0:
            slow = _slot(state, len(state) - 1, lo, hi)
            weight = x.dtype.type(alpha)
            for i in range(x.size):
                synchronize_at(x, slow, i, weight, lower, upper)


@register_jitable
def _finish(x, state, t, trace, projection, lookahead):
    """Project x, and only then synchronize: what lies between two points of a set is in it."""
    project(x, trace, projection)
    if projection is not None:  # noqa: SIM102
        if lookahead is not None:
            if t == 1:
                slow, ones = row(state, len(state) - 1), row(trace, 1)
                fill(ones, 1)  # nothing reads the directions of a Lookahead
                address, data, left = projection
                left[0] = max(left[0], evaluate_at(address, slow, ones, data))
            _synchronize(x, state, t, None, None, lookahead, 0, x.size)


def _updated(x, g, slots, i, c, extras):
    """What the rule makes of coordinate i, where it is x and g: direction, rate, slots."""
    clip, max_value, _, l2 = extras
    return update(x, _prepared(g, x, clip, max_value, l2), c, *load(slots, i))


def _element(x, g, slots, i, c, extras, ratio, lower, upper, rates, directions, scale):
    """Step coordinate i."""
    _, _, keep, _ = extras
    old = x[i]  # read before any slot is written: a GPU cannot tell that they do not overlap
    new = updated(old, g[i], slots, i, c, extras)
    store(slots, i, new, c)
    rate = _scaled(_times(new[1], ratio), scale, i)
    _note(rates, i, rate)
    _note(directions, i, new[0])
    x[i] = limit(_kept(old, keep, scale, i, c.one) - rate * new[0], lower, upper, i)


def _apply_block(
    x, g, state, t, values, extras, ratio,
    lower, upper, trace, projection, scale, lookahead, lo, hi,
):  # fmt: skip
    c = Coefficients(*values)  # a named tuple does not get into a parallel loop
    # Slices, because a loop over range(lo, hi) does not vectorize.
    x, g, slots = window(x, lo, hi), window(g, lo, hi), rows(state, lo, hi)
    lower, upper, scale = cut(lower, lo, hi), cut(upper, lo, hi), cut(scale, lo, hi)
    rates, directions = _cut_row(trace, 0, lo, hi), _cut_row(trace, 1, lo, hi)
    _anchor(x, state, t, lower, upper, lookahead, lo, hi)
    for i in range(x.size):
        element(x, g, slots, i, c, extras, ratio, lower, upper, rates, directions, scale)
    if projection is None:  # while the block is in the cache
        _synchronize(x, state, t, lower, upper, lookahead, lo, hi)


def _norms_block(x, g, state, values, extras, lo, hi):
    """Sums of squares of x and of the direction that the coming update will take."""
    c = Coefficients(*values)
    x, g, slots = window(x, lo, hi), window(g, lo, hi), rows(state, lo, hi)
    of_x = of_direction = 0.0
    for i in range(x.size):
        direction = updated(x[i], g[i], slots, i, c, extras)[0]
        of_x += np.float64(x[i]) ** 2
        of_direction += np.float64(direction) ** 2
    return of_x, of_direction


def _sum_squares(a, lo, hi, factor):
    total = 0.0
    for value in window(a, lo, hi):
        total += (np.float64(value) * factor) ** 2
    return total


def _norm(a):
    """Euclidean norm, in float64, with the same bits on any number of threads."""
    sums = np.empty((a.size + SUM_BLOCK - 1) // SUM_BLOCK)
    unit = 1.0
    while True:
        for b in prange(sums.size):
            sums[b] = sum_squares(a, b * SUM_BLOCK, min(a.size, (b + 1) * SUM_BLOCK), 1 / unit)
        total = 0.0
        for part in sums:
            total += part
        if total < inf or unit > 1 or np.isnan(total):
            return unit * sqrt(total)
        unit = max(unit, largest(a))  # the squares overflow: measure in units of the largest


@register_jitable
def _refusal(x, g, state):
    if _overlap(g, x):
        return SHARES_X
    if _overlap(g, state):
        return SHARES_STATE
    return STEPPED


def _begin(x, clock, numbers, rate):
    """Advance the clock; return the values of its step's coefficients."""
    now = clock[0]
    now.t += 1
    # 1 - beta**t without a power (25 ns each) and without cancellation at small t.
    now.bias1 = now.beta1 * now.bias1 + (1 - now.beta1)
    now.bias2 = now.beta2 * now.bias2 + (1 - now.beta2)
    values = to_fixed_tuple(numbers, COUNT)
    h = Hyperparameters(*values)
    scalars = coefficients(h, rate, now.t, now.bias1, now.bias2)
    common = (0.0, 1.0, np.finfo(x.dtype).tiny)
    return _cast(values + scalars + common, x)


def _extras(x, g, numbers, rate, decays, max_norm, max_value):
    """What scales and clips the gradient and decays x; None for what is not used."""
    keep, l2 = decay(Hyperparameters(*to_fixed_tuple(numbers, COUNT)), rate)
    return (
        _real(_scale(g, max_norm, norm_of), max_norm, x),
        _real(max_value, max_value, x),
        _real(keep, decays, x),
        _real(l2, decays, x),
    )


def _announce(values, decays, clock, numbers, rate):
    """Begin a step that another target takes: note its numbers in the dtype of x."""
    begun = begin(values, clock, numbers, rate)
    for i in range(values.size):
        values[i] = begun[i]
    decays[0], decays[1] = decay(Hyperparameters(*to_fixed_tuple(numbers, COUNT)), rate)


def _advance(
    x, g, state, clock, numbers, rate,
    decays, max_norm, max_value, lower, upper, trace, projection, edges, owner, scale, lookahead,
):  # fmt: skip
    """One step of an elementwise rule."""
    values = begin(x, clock, numbers, rate)
    t = clock[0].t
    extras = extras_of(x, g, numbers, rate, decays, max_norm, max_value)
    for b in prange((x.size + BLOCK - 1) // BLOCK):
        lo, hi = b * BLOCK, min(x.size, (b + 1) * BLOCK)
        apply_block(
            x, g, state, t, values, extras, None,
            lower, upper, trace, projection, scale, lookahead, lo, hi,
        )  # fmt: skip
    _finish(x, state, t, trace, projection, lookahead)


def _advance_layerwise(
    x, g, state, clock, numbers, rate,
    decays, max_norm, max_value, lower, upper, trace, projection, edges, owner, scale, lookahead,
):  # fmt: skip
    """One step of a rule that scales each segment's step to the size of its parameters.

    Two passes over memory instead of a temporary: the first only takes the norms. Block b runs
    from edges[b] to edges[b + 1] and lies within the segment owner[b].
    """
    values = begin(x, clock, numbers, rate)
    t = clock[0].t
    extras = extras_of(x, g, numbers, rate, decays, max_norm, max_value)
    sums = np.empty((owner.size, 2))
    for b in prange(owner.size):
        sums[b, 0], sums[b, 1] = norms_block(x, g, state, values, extras, edges[b], edges[b + 1])
    totals = np.zeros((owner[-1] + 1, 2))
    for b in range(owner.size):
        totals[owner[b], 0] += sums[b, 0]
        totals[owner[b], 1] += sums[b, 1]
    for b in prange(owner.size):
        ratio = _cast((trust(totals[owner[b], 0], totals[owner[b], 1]),), x)[0]
        lo, hi = edges[b], edges[b + 1]
        apply_block(
            x, g, state, t, values, extras, ratio,
            lower, upper, trace, projection, scale, lookahead, lo, hi,
        )  # fmt: skip
    _finish(x, state, t, trace, projection, lookahead)


def _step(x, g, state, clock, numbers, rate, *options):
    """One step along a gradient that the caller owns."""
    refusal = _refusal(x, g, state)
    if refusal == STEPPED:
        advance(x, g, state, clock, numbers, rate, *options)
    return refusal


# What depends on the number of slots: their rows between lo and hi, the values at i, storing new
# values (an update returns direction, rate, slots...).
_SLOTS: dict[int, tuple[Callable[..., Any], ...]] = {
    0: (
        lambda state, lo, hi: (),
        lambda slots, i: (),
        lambda slots, i, new, c: None,
    ),
    1: (
        lambda state, lo, hi: (_slot(state, 0, lo, hi),),
        lambda slots, i: (slots[0][i],),
        lambda slots, i, new, c: _put(slots[0], i, new[2], c),
    ),
    2: (
        lambda state, lo, hi: (_slot(state, 0, lo, hi), _slot(state, 1, lo, hi)),
        lambda slots, i: (slots[0][i], slots[1][i]),
        lambda slots, i, new, c: (
            _put(slots[0], i, new[2], c),
            _put(slots[1], i, new[3], c),
        ),
    ),
    3: (
        lambda state, lo, hi: (
            _slot(state, 0, lo, hi),
            _slot(state, 1, lo, hi),
            _slot(state, 2, lo, hi),
        ),
        lambda slots, i: (slots[0][i], slots[1][i], slots[2][i]),
        lambda slots, i, new, c: (
            _put(slots[0], i, new[2], c),
            _put(slots[1], i, new[3], c),
            _put(slots[2], i, new[4], c),
        ),
    ),
}


@register_jitable
def _slot(state, k, lo, hi):
    return window(row(state, k), lo, hi)


@register_jitable
def _put(slot, i, value, c):
    slot[i] = _flush(value, c)


# ---- compilation -------------------------------------------------------------------------------


def lift(template: Any, salt: str = "", **names: Any) -> types.FunctionType:
    """Copy a template with its unbound names bound.

    The salt goes into the name under which Numba caches the machine code on disk: Numba notices an
    edit of the template's file only, not of a rule's.

    Without a salt the name is like no other. Machine code from the disk brings its inner functions
    along, and of two functions of one name the linker takes the first: two processes that number
    their functions alike would give a rule the slots of another one.
    """
    lifted = types.FunctionType(
        template.__code__,
        {**template.__globals__, **names},
        template.__name__,
        template.__defaults__,
        tuple(types.CellType(cell.cell_contents) for cell in template.__closure__ or ()),
    )
    lifted.__qualname__ = f"{template.__qualname__}_{salt or uuid.uuid4().hex}"
    return lifted


def jit(function: Any, *, cache: bool = True, **options: Any) -> Any:
    """Compile for the CPU, with a disk cache where one can be written.

    ``error_model="numpy"`` is what lets LLVM vectorize a division.
    """
    options = {"error_model": "numpy", **options}
    if cache:
        try:
            return _safely_cached(numba.njit(cache=True, **options)(function))
        except RuntimeError:  # no writable place for the cache
            pass
    return numba.njit(**options)(function)


def _safely_cached(compiled: Any) -> Any:
    """Let two processes compile at once.

    Numba numbers the files of a function's signatures. Two processes that compile different ones
    at the same moment take the same number, and later one loads the other's machine code.
    """
    file = compiled._cache._cache_file
    file._data_name = lambda number: f"{file._index_name[:-4]}.{uuid.uuid4().hex}.nbc"
    return compiled


def compile_c(function: Any, signature: Any) -> Any:
    """Compile a C function for the CPU, with a disk cache where one can be written."""
    try:
        return numba.cfunc(signature, cache=True)(function)
    except RuntimeError:  # no writable place for the cache
        return numba.cfunc(signature)(function)


def part(function: Any, *, parallel: bool = False, inline: bool = True, **options: Any) -> Any:
    """Compile what only compiled code calls, in line where it is not parallel.

    Whatever takes long to compile and is called at several places should not be in line.
    """
    inline = inline and not parallel
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return jit(function, cache=False, parallel=parallel, forceinline=inline, **wrappers, **options)


@functools.cache
def compile_norm(*, parallel: bool) -> Any:
    """The Euclidean norm of an array, compiled for the CPU."""
    # Reordering inside a block lets the sum use vectors; each block is still summed one way.
    squares = part(_sum_squares, inline=False, fastmath={"reassoc"})
    return jit(lift(_norm, f"{parallel:d}_{source_salt()}", sum_squares=squares), parallel=parallel)


def compile_step(rule: Rule, *, parallel: bool, nogil: bool) -> Any:
    """Compile one step of a rule for the CPU.

    Parameters
    ----------
    rule : Rule
        Hyperparameters are arguments of the kernel; only the class and the number of slots matter.
    parallel : bool
        Spread the blocks over Numba's threads.
    nogil : bool
        Release the GIL during the step.

    Returns
    -------
    callable
        ``step(x, g, state, clock, numbers, rate, *options)``, with the options of an `Optimizer`,
        updates x, state (one row a slot) and clock in place and returns STEPPED, or why it refused.
    """
    slots = len(rule.state_names)
    return _compile_step(type(rule), slots, parallel, nogil)  # type: ignore[arg-type]


@functools.cache
def _compile_step(rule: type[Rule], slots: int, parallel: bool, nogil: bool) -> Any:
    salt = rule_salt(rule)
    step = lift(
        _step,
        f"{rule.__name__}_{slots}_{parallel:d}{nogil:d}_{salt}",
        advance=compile_advance(rule, slots, parallel),  # type: ignore[arg-type]
    )
    return jit(step, cache=salt is not None, nogil=nogil)


@functools.cache
def compile_advance(rule: type[Rule], slots: int, parallel: bool, inline: bool = True) -> Any:
    """A step without its checks, for loops whose arrays nobody else holds."""
    advance = lift(
        _advance_layerwise if rule.layerwise else _advance,
        extras_of=_extras_of(rule, parallel),  # type: ignore[arg-type]
        **_parts(rule, slots),  # type: ignore[arg-type]
    )
    return part(advance, parallel=parallel, inline=inline)


@functools.cache
def compile_announce(rule: type[Rule]) -> Any:
    """The part of a step that runs on the host when another target takes it.

    Returns
    -------
    callable
        ``announce(values, decays, clock, numbers, rate)`` advances the clock, and fills values with
        the fields of a rule's ``c``, and decays with what its ``decay`` returns.
    """
    numbers, _ = _tuples(rule)  # type: ignore[arg-type]
    salt = rule_salt(rule)
    announce = lift(
        _announce,
        f"{rule.__name__}_{salt}",
        begin=_parts(rule, len(rule.slots))["begin"],  # type: ignore[arg-type]
        decay=_adopt(rule.decay),
        Hyperparameters=numbers,
        COUNT=len(numbers._fields),
    )
    return jit(announce, cache=salt is not None)


@functools.cache
def _extras_of(rule: type[Rule], parallel: bool) -> Any:
    numbers, _ = _tuples(rule)  # type: ignore[arg-type]
    extras = lift(
        _extras,
        decay=_adopt(rule.decay),
        norm_of=compile_norm(parallel=parallel),
        Hyperparameters=numbers,
        COUNT=len(numbers._fields),
    )
    return part(extras, inline=False)


@functools.cache
def _parts(rule: type[Rule], slots: int) -> dict[str, Any]:
    """What all kernels of a rule are made of, compiled once a process for all of them."""
    rows, load, store = map(_adopt, _SLOTS[slots])
    numbers, coefficients = _tuples(rule)  # type: ignore[arg-type]
    # A dispatcher, so that the freedom to reorder stays with the sums of _norms_block.
    update = part(_adopt(rule.update), inline=False)
    updated, element = map(register_jitable, _coordinate(update, load, store))
    bound = {"rows": rows, "Coefficients": coefficients}
    parts = {
        "begin": lift(
            _begin,
            coefficients=_adopt(rule.coefficients),
            Hyperparameters=numbers,
            COUNT=len(numbers._fields),
        ),
        "apply_block": lift(_apply_block, element=element, **bound),
    }
    functions = {name: part(function) for name, function in parts.items()}
    norms_block = lift(_norms_block, updated=updated, **bound)
    return {**functions, "norms_block": part(norms_block, inline=False, fastmath={"reassoc"})}


def _coordinate(update: Any, load: Any, store: Any) -> tuple[Any, Any]:
    """What a kernel of any target does to one coordinate: `_updated` and `_element` of a rule."""
    updated = lift(_updated, update=update, load=load)
    return updated, lift(_element, updated=updated, store=store)


@functools.cache
def _tuples(rule: type[Rule]) -> tuple[Any, Any]:
    """The types of h and c, after a look at how the rule is declared."""
    name = rule.__name__
    if "__dataclass_fields__" not in vars(rule):
        raise TypeError(f"{name} must be decorated with @dataclass(frozen=True)")
    if len(rule.slots_if) > 1 or len(rule.slots) + len(rule.slots_if) > max(_SLOTS):
        raise ValueError(f"{name} may have {max(_SLOTS)} slots, of which one may be in slots_if")
    names = rule.number_names()
    everything = names + rule.scalars + _COMMON
    if len({*everything}) < len(everything):
        twice = {n for n in everything if everything.count(n) > 1}
        raise ValueError(f"{name} gives c a name twice: {', '.join(sorted(twice))}")
    return (
        namedtuple("Hyperparameters", names),
        namedtuple("Coefficients", everything),
    )


tabulate = schedules.table


def never_decays(rule: Rule) -> bool:
    """Whether weight decay, as the rule does it, leaves x and the gradient as they are."""
    numbers, _ = _tuples(type(rule))  # type: ignore[arg-type]
    return bool(rule.decay(numbers(**rule.numbers), 1.0) == (1.0, 0.0))


def rehearse(rule: Rule) -> None:
    """Run a rule once on plain numbers, where a mistake of its author has a readable error."""
    name = type(rule).__name__
    numbers, coefficients = _tuples(type(rule))  # type: ignore[arg-type]
    slots = len(rule.state_names)
    h = numbers(**rule.numbers)
    try:
        scalars = rule.coefficients(h, 0.1, 1, 0.5, 0.5)
        if not isinstance(scalars, tuple) or len(scalars) != len(rule.scalars):
            raise TypeError(
                f"{name}.coefficients must return the {len(rule.scalars)} numbers {rule.scalars}, "
                f"got {scalars!r}"
            )
        c = coefficients(*h, *scalars, *(0.5 for _ in _COMMON))
        returned = rule.update(1.0, 1.0, c, *(0.5 for _ in range(slots)))
    except (ArithmeticError, ValueError):  # only these numbers were not the rule's kind
        return
    if not isinstance(returned, tuple) or len(returned) < 2 + slots:
        raise TypeError(
            f"{name}.update must return the direction, the rate and {slots} slots, got {returned!r}"
        )


@functools.cache
def source_salt(*files: str) -> str:
    """A short hash of the numbelief files whose text ends up in all machine code, and of others."""
    return package_salt()


def rule_salt(rule: type[Rule]) -> str | None:
    """A short hash of a rule and of all that its functions use; None if that cannot be told."""
    if rule.is_built_in():
        return source_salt()
    parts = [source_salt(), repr((rule.number_names(), rule.scalars, rule.slots, rule.slots_if))]
    seen = set()

    def known(value: Any) -> bool:
        """Add a value that machine code may depend on."""
        if isinstance(value, (tuple, list)):
            return all(map(known, value))
        if isinstance(value, types.ModuleType):
            parts.append(value.__name__)
            return value.__name__ in ("math", "numpy")
        if hasattr(value, "py_func"):  # a helper that the user compiled
            parts.append(repr(value.targetoptions))
            value = value.py_func
        if isinstance(value, types.FunctionType):
            if value in seen:
                return True
            seen.add(value)
            # Machine code from the disk imports the modules of the functions in it.
            if value.__module__ not in sys.modules:
                return False
            parts.append(value.__module__)
            parts.extend(repr((code.co_code, code.co_names)) for code in _codes(value.__code__))
            return known(value.__defaults__) and known(_used(value))
        parts.append(repr(value))
        plain = (bool, int, float, str, type(None), np.number, types.BuiltinFunctionType)
        return isinstance(value, plain)

    if not all(map(known, (rule.update, rule.coefficients, rule.decay))):
        return None
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """The code of a function and of the functions inside it."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [code, *(each for const in inner for each in _codes(const))]


def _used(function: types.FunctionType) -> list[Any]:
    """The constants, globals and closure variables of a function."""
    codes = _codes(function.__code__)
    consts = [c for code in codes for c in code.co_consts if not isinstance(c, types.CodeType)]
    names = [name for code in codes for name in code.co_names if name in function.__globals__]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [*consts, *(function.__globals__[name] for name in names), *cells]


def _adopt(function: Any, compile: Any = register_jitable, **names: Any) -> Any:
    """A plain function as compiled code may call it, with the plain functions that it calls.

    The names are bound in all of them.
    """
    adopted: dict[Any, Any] = {}

    def adopt(value: Any) -> Any:
        if not isinstance(value, types.FunctionType):
            return value
        if value not in adopted:
            mine = adopted[value] = lift(value, **names)
            used = {name for code in _codes(value.__code__) for name in code.co_names}
            for name in used & mine.__globals__.keys() - names.keys():
                mine.__globals__[name] = adopt(mine.__globals__[name])
            for cell in mine.__closure__ or ():
                cell.cell_contents = adopt(cell.cell_contents)
            adopted[value] = compile(mine)
        return adopted[value]

    return adopt(function)
