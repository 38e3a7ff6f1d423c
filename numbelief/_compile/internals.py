"""All that numbelief takes from Numba's internals.

Tried with Numba 0.61 to 0.68 (numba-cuda 0.30). What is used: the passes of the compiler, the key
and the file names of the disk cache, the class behind ``numba.cfunc``, the layout of arrays in
memory and the calling convention of compiled functions. Whoever moves to another Numba looks
here, and only here.
"""

import copy
import ctypes
import mmap
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types as nb
from numba.core import cgutils, inline_closurecall
from numba.core.ccallback import CFunc as CFunc
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.dispatcher import Dispatcher as Dispatcher
from numba.core.errors import NumbaError as NumbaError
from numba.core.ir import Block as NumbaBlock
from numba.core.registry import cpu_target
from numba.core.untyped_passes import InlineInlinables
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numba.np.numpy_support import as_dtype
from numba.np.unsafe.ndarray import to_fixed_tuple as to_fixed_tuple
from numpy.typing import NDArray

# ---- inlining ----------------------------------------------------------------------------------


class _SharingCopies:
    """Python's ``copy``, for Numba's inliner: blocks of a function go on sharing its scope.

    The inliner copies a function twice, block by block, and with each block the scope with all of
    the function's variables: half of the time of compiling our kernels.
    """

    copy = staticmethod(copy.copy)

    @staticmethod
    def deepcopy(value: Any, memo: Any = None) -> Any:
        if isinstance(value, NumbaBlock):
            memo = {id(value.scope): value.scope}
        return copy.deepcopy(value, memo)


@register_pass(mutates_CFG=True, analysis_only=False)
class _InlineOurs(InlineInlinables):  # type: ignore[misc]
    _name = "numbelief_inline"

    def run_pass(self, state: Any) -> Any:
        theirs = inline_closurecall.copy
        inline_closurecall.copy = _SharingCopies  # all compilation holds one lock
        try:
            return super().run_pass(state)
        finally:
            inline_closurecall.copy = theirs


class Compiler(CompilerBase):  # type: ignore[misc]
    """Numba's compiler, faster at functions that become part of those that call them."""

    def define_pipelines(self) -> list[Any]:
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes[:] = [
            (_InlineOurs if each is InlineInlinables else each, why) for each, why in manager.passes
        ]
        manager.finalize()
        return [manager]


# ---- the disk cache ----------------------------------------------------------------------------


def cache_by_name(compiled: Any) -> Any:
    """Let the name of a function alone tell its entry in the disk cache.

    Numba also looks at the closure, in which a compiled function never is the same in two
    processes. It numbers the files of a function's signatures: two processes that compile
    different ones at the same moment take the same number, and later one loads the other's code.
    """
    cache = compiled._cache
    cache._index_key = lambda signature, codegen: (signature, codegen.magic_tuple())
    file = cache._cache_file
    file._data_name = lambda number: f"{file._index_name[:-4]}.{uuid.uuid4().hex}.nbc"
    return compiled


def c_function(function: Any, signature: Any, *, cache: bool, **options: Any) -> Any:
    """``numba.cfunc``, with `cache_by_name`."""
    compiled = CFunc(function, (signature.args, signature.return_type), {}, options, Compiler)
    if cache:
        compiled.enable_caching()
        cache_by_name(compiled)
    compiled.compile()
    return compiled


# ---- compiled functions and their arguments in memory ------------------------------------------


def address_of_compiled(overload: Any) -> int:
    """Where the code of a compiled signature lies, for `call_compiled`."""
    address: int = overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name)
    return address


def layout_of(kind: Any) -> np.dtype[Any]:
    """How a value of a Numba type lies in memory: numbers, None, arrays, and tuples of these.

    An array is (reference count, parent, size, bytes of an element, address, shape, strides), and
    None is 0.
    """
    if isinstance(kind, nb.Array):
        count = 5 + 2 * kind.ndim
        layout: np.dtype[Any] = np.dtype([(f"f{i}", np.intp) for i in range(count)], align=True)
    elif isinstance(kind, nb.NoneType):
        layout = np.dtype(np.intp)
    elif isinstance(kind, nb.BaseTuple):
        layout = np.dtype([(f"f{i}", layout_of(each)) for i, each in enumerate(kind)], align=True)
    else:
        layout = as_dtype(kind)
    context = cpu_target.target_context
    size = context.get_abi_sizeof(context.get_data_type(kind))
    if layout.itemsize != size:
        raise TypeError(f"{kind} takes {size} bytes, not {layout.itemsize}")
    return layout


def address_of_data(array: NDArray[Any]) -> int:
    """Where an array's numbers begin; 0 for an empty one."""
    if array.size == 0:
        return 0
    try:  # a third of the time of ``array.ctypes.data``
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # read-only, not contiguous, without a format
        return array.ctypes.data


def takes_pointers(function: Any) -> bool:
    """Whether what ``numba.cfunc`` made takes a pointer."""
    return any(isinstance(kind, nb.CPointer) for kind in function._sig.args)


def options_of_cfunc(function: Any) -> dict[str, Any]:
    """What ``numba.cfunc`` was given besides the signature."""
    return dict(function._compiler.targetoptions)


# ---- numbers -----------------------------------------------------------------------------------


@intrinsic
def cast(typingctx, values, like):
    """A tuple of numbers as a tuple of numbers of the array's dtype."""
    signature = nb.UniTuple(like.dtype, len(values))(values, like)

    def codegen(context, builder, signature, args):
        converted = [
            context.cast(builder, builder.extract_value(args[0], i), kind, like.dtype)
            for i, kind in enumerate(values)
        ]
        return context.make_tuple(builder, signature.return_type, converted)

    return signature, codegen


# By the bits of a number.
TINY = {32: 2.0**-126, 64: 2.0**-1022}
EPS = {32: 2.0**-23, 64: 2.0**-52}


def _constant(values: dict[int, float]) -> Any:
    def constant(typingctx, array):
        def codegen(context, builder, signature, args):
            return context.get_constant(nb.float64, values[array.dtype.bitwidth])

        return nb.float64(array), codegen

    return constant


#: The smallest normal number of an array's dtype, and the distance from 1 to the next number, in
#: float64. ``np.finfo`` takes 0.1 s to compile.
tiny_of = intrinsic(_constant(TINY))
eps_of = intrinsic(_constant(EPS))


@intrinsic
def bits_of(typingctx, value):
    """A number's bits without its sign: integers in the order of the magnitudes, NaN above all."""
    width = value.bitwidth

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(signature.return_type)
        return builder.and_(builder.bitcast(args[0], kind), kind((1 << (width - 1)) - 1))

    return {32: nb.int32, 64: nb.int64}[width](value), codegen


@intrinsic
def of_bits(typingctx, bits):
    """The magnitude with these bits, in float64."""
    kind = {32: nb.float32, 64: nb.float64}[bits.bitwidth]

    def codegen(context, builder, signature, args):
        value = builder.bitcast(args[0], context.get_value_type(kind))
        return context.cast(builder, value, kind, nb.float64)

    return nb.float64(bits), codegen


def _choice(operator: str) -> Any:
    def choose(typingctx, a, b):
        kind = typingctx.unify_types(a, b)

        def codegen(context, builder, signature, args):
            first, second = (
                context.cast(builder, value, given, kind)
                for value, given in zip(args, signature.args, strict=True)
            )
            if isinstance(kind, nb.Float):
                wins = builder.fcmp_ordered(operator, second, first)
            else:
                wins = builder.icmp_signed(operator, second, first)
            return builder.select(wins, second, first)

        return kind(a, b), codegen

    return choose


#: What Python's ``max(a, b)`` and ``min(a, b)`` return, ``b if b > a else a``, of signed integers
#: or floats. Conditional expressions are a branch each, and the builtins take 20 ms to compile.
larger = intrinsic(_choice(">"))
smaller = intrinsic(_choice("<"))


@intrinsic
def flushed(typingctx, value, tiny):
    """0 in place of a value below a magnitude, both of one float type; NaN stays."""

    def codegen(context, builder, signature, args):
        value, tiny = args
        fabs = builder.module.declare_intrinsic("llvm.fabs", [value.type])
        below = builder.fcmp_ordered("<", builder.call(fabs, [value]), tiny)
        return builder.select(below, value.type(0), value)

    return value(value, tiny), codegen


# ---- views -------------------------------------------------------------------------------------


def _view(
    context: Any, builder: Any, kind: Any, data: Any, shape: Sequence[Any], strides: Sequence[Any]
) -> Any:
    """An array of a type that owns nothing."""
    target = make_array(kind)(context, builder)
    size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    populate_array(
        target,
        data=data,
        shape=shape,
        strides=strides,
        itemsize=context.get_constant(nb.intp, size),
        meminfo=None,
    )
    return target._getvalue()


@intrinsic
def window(typingctx, array, lo, hi):
    """The elements lo to hi of an array read row by row, as an array that owns nothing.

    A slice counts references, 10 to 20 ns each: more than the arithmetic of a step at n = 2.
    """
    result = nb.Array(array.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        source = make_array(array)(context, builder, args[0])
        data = builder.gep(source.data, [args[1]])
        shape = [builder.sub(args[2], args[1])]
        return _view(context, builder, result, data, shape, [source.itemsize])

    return result(array, nb.intp, nb.intp), codegen


@intrinsic
def row(typingctx, array, k):
    """Row k of a 2-D array read row by row, as an array that owns nothing."""
    result = nb.Array(array.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        source = make_array(array)(context, builder, args[0])
        n = builder.extract_value(source.shape, 1)
        data = builder.gep(source.data, [builder.mul(args[1], n)])
        return _view(context, builder, result, data, [n], [source.itemsize])

    return result(array, nb.intp), codegen


@intrinsic
def array_at(typingctx, address, n, kind):
    """The n numbers of a dtype at an address or a pointer, as an array that owns nothing."""
    result = nb.Array(kind.dtype, 1, "C")
    given = nb.intp if isinstance(address, nb.Integer) else address

    def codegen(context, builder, signature, args):
        pointer = context.get_data_type(result.dtype).as_pointer()
        size = context.get_abi_sizeof(context.get_data_type(result.dtype))
        if isinstance(given, nb.Integer):
            data = builder.inttoptr(args[0], pointer)
        else:
            data = builder.bitcast(args[0], pointer)
        return _view(
            context, builder, result, data, [args[1]], [context.get_constant(nb.intp, size)]
        )

    return result(given, nb.intp, kind), codegen


def _element(context: Any, builder: Any, array: Any, result: Any, value: Any, k: Any) -> Any:
    """Element k of an array, a number or an array that owns nothing."""
    source = make_array(array)(context, builder, value)
    shape = cgutils.unpack_tuple(builder, source.shape)[1:]
    stride, *strides = cgutils.unpack_tuple(builder, source.strides)
    data = cgutils.pointer_add(builder, source.data, builder.mul(k, stride))
    if not shape:
        return context.unpack_value(builder, result, data)
    return _view(context, builder, result, data, shape, strides)


@intrinsic
def strided_row(typingctx, array, k):
    """Element k of an array of two or more dimensions; a GPU's functions may return no array."""
    result = array.copy(ndim=array.ndim - 1, layout="A")

    def codegen(context, builder, signature, args):
        return _element(context, builder, array, result, *args)

    return result(array, nb.intp), codegen


@intrinsic
def strided_window(typingctx, array, lo, hi):
    """The elements lo to hi of an array of one dimension, with strides, or None of None."""
    if isinstance(array, nb.NoneType):
        return nb.none(array, lo, hi), lambda context, *_: context.get_dummy_value()
    result = array.copy(layout="A")

    def codegen(context, builder, signature, args):
        source = make_array(array)(context, builder, args[0])
        (stride,) = cgutils.unpack_tuple(builder, source.strides)
        data = cgutils.pointer_add(builder, source.data, builder.mul(args[1], stride))
        shape = [builder.sub(args[2], args[1])]
        return _view(context, builder, result, data, shape, [stride])

    return result(array, nb.intp, nb.intp), codegen


@intrinsic
def address_of(typingctx, array):
    """Where an array's first element lies."""

    def codegen(context, builder, signature, args):
        data = make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(data, context.get_value_type(nb.intp))

    return nb.intp(array), codegen


# ---- addresses ---------------------------------------------------------------------------------


@intrinsic
def call_c_of(typingctx, address, k, x, other, data):
    """Call ``double f(intptr_t k, T *x, T *other, void *data)`` at an address."""

    def codegen(context, builder, signature, args):
        address, k, *vectors, data = args
        arrays = zip(signature.args[2:4], vectors, strict=True)
        pointers = [make_array(kind)(context, builder, each).data for kind, each in arrays]
        given = [k, *pointers, builder.inttoptr(data, cgutils.voidptr_t)]
        kind = ir.FunctionType(ir.DoubleType(), [each.type for each in given])
        return builder.call(builder.inttoptr(address, kind.as_pointer()), given)

    return nb.float64(nb.intp, nb.intp, x, other, nb.intp), codegen


@intrinsic
def call_with_numbers(typingctx, address, a, b, data):
    """Call ``intptr_t f(double a, double b, void *data)`` at an address."""

    def codegen(context, builder, signature, args):
        address, *given = args
        word = context.get_value_type(nb.intp)
        kind = ir.FunctionType(word, [ir.DoubleType(), ir.DoubleType(), word])
        return builder.call(builder.inttoptr(address, kind.as_pointer()), given)

    return nb.intp(nb.intp, nb.float64, nb.float64, nb.intp), codegen


@intrinsic
def call_compiled(typingctx, address, kind, args):
    """Call the compiled function at an address: whether it raised, and what it returned.

    What it raised is Python's exception of this thread from then on; `leave` passes it on.
    """
    inner = kind.instance_type.signature
    result = nb.Tuple((nb.boolean, inner.return_type))

    def codegen(context, builder, signature, values):
        convention = context.call_conv
        callee = convention.get_function_type(inner.return_type, inner.args).as_pointer()
        given = [builder.extract_value(values[2], i) for i in range(len(inner.args))]
        status, returned = convention.call_function(
            builder, builder.inttoptr(values[0], callee), inner.return_type, inner.args, given
        )
        with builder.if_then(status.is_error, likely=False):
            python = context.get_python_api(builder)
            gil = python.gil_ensure()
            convention.raise_error(builder, python, status)
            python.gil_release(gil)
        return context.make_tuple(builder, result, [status.is_error, returned])

    return result(nb.intp, kind, args), codegen


@intrinsic
def stays_apart(typingctx):
    """Let the function that this stands in never be merged with those that call it.

    A sum that may be reordered has other bits where LLVM knows more of its arguments.
    """

    def codegen(context, builder, signature, args):
        # What is to be merged with its caller asks the same of all that it calls.
        builder.function.attributes.discard("alwaysinline")
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return nb.void(), codegen


@intrinsic
def leave(typingctx, condition):
    """Leave compiled code with the exception that is set, on a condition."""

    def codegen(context, builder, signature, args):
        with builder.if_then(args[0], likely=False):
            context.call_conv.return_exc(builder)
        return context.get_dummy_value()

    return nb.void(nb.boolean), codegen


@intrinsic
def pointer(typingctx, address, kind):
    """An address, or a pointer to anything, as a pointer of a type."""
    given = nb.intp if isinstance(address, nb.Integer) else address

    def codegen(context, builder, signature, args):
        target = context.get_value_type(signature.return_type)
        if isinstance(given, nb.Integer):
            return builder.inttoptr(args[0], target)
        return builder.bitcast(args[0], target)

    return kind.instance_type(given, kind), codegen


@intrinsic
def load(typingctx, pointer):
    """The value at a pointer."""

    # Not a plain load: a bool has another width in memory than compiled code computes with.
    def codegen(context, builder, signature, args):
        return context.unpack_value(builder, pointer.dtype, args[0])

    return pointer.dtype(pointer), codegen


@intrinsic
def number_at(typingctx, address, i):
    """The i-th float64 at an address; an array's index could be negative, and so not vectorize."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], context.get_data_type(nb.float64).as_pointer())
        return builder.load(builder.gep(pointer, [args[1]]))

    return nb.float64(nb.intp, nb.intp), codegen


def always(value: float) -> Any:
    """A function of an address and an index, as `number_at`, that returns a constant."""

    def constant(typingctx, address, i):
        def codegen(context, builder, signature, args):
            return context.get_constant(nb.float64, value)

        return nb.float64(nb.intp, nb.intp), codegen

    return intrinsic(constant)


@intrinsic
def fetch_and_add(typingctx, counter):
    """The number in an array of one, which grows by one for whoever asks next in any thread."""

    def codegen(context, builder, signature, args):
        data = make_array(counter)(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, data.type.pointee(1), "monotonic")

    return counter.dtype(counter), codegen


@intrinsic
def pick_rows(typingctx, args, row):
    """A tuple of arguments, with a row of each array in a named tuple that ``has_rows``."""
    result = nb.Tuple([row_type(kind) for kind in args])

    def codegen(context, builder, signature, values):
        picked = []
        for i, (kind, target) in enumerate(zip(args, result, strict=True)):
            value = builder.extract_value(values[0], i)
            if target != kind:
                rows = builder.extract_value(value, 0)
                value = _element(context, builder, kind[0], target, rows, values[1])
            picked.append(value)
        return context.make_tuple(builder, result, picked)

    return result(args, nb.intp), codegen


def row_type(kind: Any) -> Any:
    """What `pick_rows` makes of an argument of this type."""
    if not hasattr(getattr(kind, "instance_class", None), "has_rows"):
        return kind
    return kind[0].dtype if kind[0].ndim == 1 else kind[0].copy(ndim=kind[0].ndim - 1)


# ---- memory ------------------------------------------------------------------------------------


@intrinsic
def copy_bytes(typingctx, target, source, count):
    """Copy ``count`` bytes between two addresses."""

    def codegen(context, builder, signature, args):
        target, source = (builder.inttoptr(each, cgutils.voidptr_t) for each in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], ir.Constant(args[2].type, 1))
        return context.get_dummy_value()

    return nb.void(nb.intp, nb.intp, nb.intp), codegen


@intrinsic
def prefetch(typingctx, address):
    """Let the processor fetch the memory at an address, and go on meanwhile."""

    def codegen(context, builder, signature, args):
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[number] * 3])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], kind)
        read, near, data = number(0), number(3), number(1)
        builder.call(fetch, [builder.inttoptr(args[0], cgutils.voidptr_t), read, near, data])
        return context.get_dummy_value()

    return nb.void(nb.intp), codegen


@intrinsic
def give_back(typingctx, address, length):
    """Let the system take the pages of a mapped file, which a later read finds again."""

    def codegen(context, builder, signature, args):
        if hasattr(mmap, "MADV_DONTNEED"):
            number = ir.IntType(32)
            kind = ir.FunctionType(number, [cgutils.voidptr_t, args[1].type, number])
            advise = cgutils.get_or_insert_function(builder.module, kind, "madvise")
            start = builder.inttoptr(args[0], cgutils.voidptr_t)
            builder.call(advise, [start, args[1], number(mmap.MADV_DONTNEED)])
        return context.get_dummy_value()

    return nb.void(nb.intp, nb.intp), codegen
