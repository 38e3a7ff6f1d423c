"""Compiled objectives as addresses, so that a loop compiled once can call any of them.

A loop that knew the user's function would be compiled again for each one, which takes seconds. So
the loop calls a C function of one signature::

    double evaluate(intptr_t n, T *x, T *grad, void *data)     T is double or float

It returns the value at x and fills grad. A ``scipy.LowLevelCallable`` of this signature is called
as it is. For functions made by ``numba.njit``, an adapter of this signature is compiled once for
the types of their arguments (not for each function) and kept on disk; its ``data`` is a block of
addresses: of the functions, of the arguments, of a copy of x.
"""

import copy
import ctypes
import functools
import hashlib
import inspect
import re
from collections import namedtuple
from typing import Any, NoReturn

import numba
import numpy as np
from numba import carray
from numba import types as nb
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.extending import intrinsic, register_jitable
from numba.np.arrayobj import make_array
from numpy.typing import NDArray
from scipy import LowLevelCallable

from numbelief import kernels

# The words of a block.
FUN, JAC, ARGS, ROW, COPY, FAILED, CALLS, WORDS = range(8)
# What may be in the word FAILED: fun or jac raised, and Python's exception is set in this thread;
# the gradient is not as long as x.
RAISED, MISSHAPEN = 1, 2

#: An argument of which each of many problems gets its own row.
PerRow = namedtuple("PerRow", "data")


class Raised(Exception):
    """The objective failed; Python calls it again at the same point to see how."""


# Bound by `kernels.lift`.
FUN_TYPE: Any
JAC_TYPE: Any
fresh: Any
opened: Any
ARGS_POINTER: Any
NUMBER_POINTER: Any


# ---- in compiled code --------------------------------------------------------------------------


@intrinsic
def borrow(typingctx, value):
    """The same arrays, also those in tuples, without their reference counts; the caller keeps them.

    Counting references takes 10 ns an array, more than the arithmetic of a step at n = 2.
    """

    def strip(context, builder, kind, llvm):
        if isinstance(kind, nb.Array):
            array = make_array(kind)(context, builder, llvm)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            return array._getvalue()
        if isinstance(kind, nb.BaseTuple):
            for i, each in enumerate(kind):
                bare = strip(context, builder, each, builder.extract_value(llvm, i))
                llvm = builder.insert_value(llvm, bare, i)
        return llvm

    def codegen(context, builder, signature, args):
        return strip(context, builder, value, args[0])

    return value(value), codegen


@intrinsic
def take(typingctx, pile):
    """The number in an array of one, which grows by one for whoever asks next in any thread."""

    def codegen(context, builder, signature, args):
        place = make_array(pile)(context, builder, args[0]).data
        return builder.atomic_rmw("add", place, place.type.pointee(1), "monotonic")

    return pile.dtype(pile), codegen


@intrinsic
def _pointer(typingctx, address, kind):
    """An address as a pointer of a type."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return kind.instance_type(nb.intp, kind), codegen


@intrinsic
def _load(typingctx, pointer):
    """The value at a pointer."""

    # Not a plain load: a bool has another width in memory than compiled code computes with.
    def codegen(context, builder, signature, args):
        return context.unpack_value(builder, pointer.dtype, args[0])

    return pointer.dtype(pointer), codegen


@intrinsic
def _store(typingctx, address, value):
    """Put a value at an address."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], context.get_data_type(value).as_pointer())
        context.pack_value(builder, value, args[1], pointer)
        return context.get_dummy_value()

    return nb.void(nb.intp, value), codegen


@intrinsic
def _call(typingctx, address, kind, args):
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
def leave(typingctx, condition):
    """Leave compiled code with the exception that is set, on a condition."""

    def codegen(context, builder, signature, args):
        with builder.if_then(args[0], likely=False):
            context.call_conv.return_exc(builder)
        return context.get_dummy_value()

    return nb.void(nb.boolean), codegen


@intrinsic
def _of_row(typingctx, args, row):
    """The arguments, with the row of each that is `PerRow`."""
    result = nb.Tuple([_row_type(kind) for kind in args])

    def codegen(context, builder, signature, values):
        picked = []
        for i, (kind, target) in enumerate(zip(args, result, strict=True)):
            value = builder.extract_value(values[0], i)
            if target != kind:
                rows = builder.extract_value(value, 0)
                value = context.compile_internal(
                    builder, lambda a, i: a[i], target(kind[0], nb.intp), [rows, values[1]]
                )
            picked.append(value)
        return context.make_tuple(builder, result, picked)

    return result(args, nb.intp), codegen


def _row_type(kind: Any) -> Any:
    """What a function gets of an argument of this type."""
    if getattr(kind, "instance_class", None) is not PerRow:
        return kind
    return kind[0].dtype if kind[0].ndim == 1 else kind[0].copy(ndim=kind[0].ndim - 1)


def _fresh(block, n, x):
    """A copy of x, which a function may change, as it may in Python."""
    copy = carray(_pointer(block[COPY], NUMBER_POINTER), n)
    for i in range(n):
        copy[i] = x[i]
    return copy


def _opened(data):
    """The words of a block, and the arguments that it leads to."""
    block = carray(data, WORDS, np.intp)
    return block, _of_row(_load(_pointer(block[ARGS], ARGS_POINTER)), block[ROW])


def _inplace(n, x, g, data):
    block, args = opened(data)
    g = carray(g, n)
    for i in range(n):  # a coordinate that fun forgets must not pass for a gradient
        g[i] = np.nan
    x = fresh(block, n, carray(x, n))
    failed, value = _call(block[FUN], FUN_TYPE, (x, g) + args)  # noqa: RUF005
    block[FAILED] = failed
    return np.float64(value)


def _together(n, x, g, data):
    block, args = opened(data)
    x = fresh(block, n, carray(x, n))
    failed, pair = _call(block[FUN], FUN_TYPE, (x,) + args)  # noqa: RUF005
    block[FAILED] = RAISED if failed else MISSHAPEN if pair[1].size != n else 0
    if not block[FAILED]:
        carray(g, n)[:] = pair[1]
    return np.float64(pair[0])


def _separate(n, x, g, data):
    block, args = opened(data)
    x = carray(x, n)
    failed, value = _call(block[FUN], FUN_TYPE, (fresh(block, n, x),) + args)  # noqa: RUF005
    block[FAILED] = failed
    if not failed:
        failed, gradient = _call(block[JAC], JAC_TYPE, (fresh(block, n, x),) + args)  # noqa: RUF005
        block[FAILED] = RAISED if failed else MISSHAPEN if gradient.size != n else 0
        if not block[FAILED]:
            carray(g, n)[:] = gradient
    return np.float64(value)


_FORMS = {"inplace": _inplace, True: _together, "separate": _separate}


def _keep(address, args):
    _store(address, borrow(args))


# ---- recognition -------------------------------------------------------------------------------


def is_compiled(function: Any) -> bool:
    """Whether a loop in machine code can call this function."""
    return isinstance(function, (Dispatcher, CFunc, LowLevelCallable))


def is_fixed(function: Any, count: int) -> bool:
    """Whether a compiled function takes so many arguments without help from a default or a star."""
    if not isinstance(function, Dispatcher):
        return True
    parameters = inspect.signature(function.py_func).parameters.values()
    plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    return plain and (len(parameters) == count or all(p.default is p.empty for p in parameters))


def is_parallel(*functions: Any) -> bool:
    """Whether one of these runs on threads of its own."""
    options = (getattr(each, "targetoptions", {}) for each in functions)
    return any(bool(each.get("parallel")) for each in options)


def is_c_function(function: Any) -> bool:
    """Whether this is a C function of the loop's own signature, or claims to be one."""
    if isinstance(function, CFunc):
        return any(isinstance(kind, nb.CPointer) for kind in function._sig.args)  # type: ignore[attr-defined]
    return isinstance(function, LowLevelCallable)


class CFunction:
    """A C function of the loop's signature, called from Python as ``fun(x, grad)``.

    Parameters
    ----------
    function : scipy.LowLevelCallable or numba cfunc
        See the top of this file for its signature.
    dtype : numpy.dtype
        Of x and grad.

    Raises
    ------
    TypeError
        The function has another signature.
    """

    def __init__(self, function: Any, dtype: Any) -> None:
        self._keep = function
        if isinstance(function, CFunc):
            function = LowLevelCallable(function.ctypes)
        number = {"float64": "double", "float32": "float"}[dtype.name]
        expected = f"double (intptr_t n, {number} *x, {number} *grad, void *data)"
        kinds = re.split(r"[(,)]", re.sub(r"\b(const|n|x|grad|data)\b", "", function.signature))
        kinds = [re.sub(r"\s", "", kind) for kind in kinds]
        wanted = ["double", kinds[1], f"{number}*", f"{number}*", "void*", ""]
        if kinds != wanted or kinds[1] not in _POINTER_SIZED:
            raise TypeError(
                f"a C function must have the signature '{expected}', got '{function.signature}'"
            )
        capsule = tuple.__getitem__(function, 0)
        name = _capsule("Name", ctypes.c_char_p)(capsule)
        self.address = _capsule("Pointer", ctypes.c_void_p, ctypes.c_char_p)(capsule, name)
        self.data = _capsule("Context", ctypes.c_void_p)(capsule) or 0
        prototype = ctypes.CFUNCTYPE(
            ctypes.c_double, ctypes.c_ssize_t, *[ctypes.c_void_p] * 3, use_errno=False
        )
        self._function = prototype(self.address)

    def __call__(self, x: NDArray[Any], grad: NDArray[Any]) -> float:
        """The value at x; grad is filled."""
        value: float = self._function(x.size, x.ctypes.data, grad.ctypes.data, self.data)
        return value


_POINTER_SIZED = {"intptr_t", "npy_intp", "Py_ssize_t", "ssize_t", "ptrdiff_t"}
_POINTER_SIZED |= {"long" if ctypes.sizeof(ctypes.c_long) == 8 else "longlong", "int64_t"}


def _capsule(what: str, result: Any, *given: Any) -> Any:
    name = f"PyCapsule_Get{what}"
    return ctypes.PYFUNCTYPE(result, ctypes.py_object, *given)((name, ctypes.pythonapi))


def as_dispatcher(function: Any) -> Any:
    """A function that numba.njit or numba.cfunc made, as one that compiles for any arguments."""
    if isinstance(function, CFunc):
        return _compiled_anew(function, ())
    if not isinstance(function, Dispatcher) or getattr(function, "_can_compile", True):
        return function
    return _compiled_anew(function, _version(function))


def _version(function: Any) -> Any:
    """Another value each time that a function is compiled, as by recompile()."""
    return tuple(each.entry_point for each in function.overloads.values()) or object()


# So many functions are remembered, for those who minimize the same one again and again.
@functools.lru_cache(maxsize=128)
def _compiled_anew(function: Any, version: Any) -> Any:
    if isinstance(function, CFunc):
        options = function._compiler.targetoptions  # type: ignore[attr-defined]
        return numba.jit(**options)(function.__wrapped__)
    return numba.jit(**function.targetoptions)(function.py_func)


# ---- compilation -------------------------------------------------------------------------------


class Objective:
    """A compiled objective, ready to be called by address.

    Parameters
    ----------
    fun, jac : compiled functions
        jac is None where fun gives the gradient, too.
    form : {"inplace", True, "separate"}
        How the gradient arrives; see `numbelief.minimize`.
    args : tuple
        Further arguments: numbers, arrays and tuples of these, or `PerRow` of an array.
    dtype : numpy.dtype
        Of x.

    Raises
    ------
    TypeError
        A function does not compile for these arguments, or returns something else than it should.
    """

    def __init__(self, fun: Any, jac: Any, form: Any, args: tuple[Any, ...], dtype: Any) -> None:
        self._functions = fun, jac
        self._c_function = isinstance(fun, CFunction)
        if self._c_function:
            self.address = fun.address
            return
        number = numba.from_dtype(dtype)
        kinds = tuple(map(_argument_type, args))
        versions = tuple(map(_version, (fun, jac) if form == "separate" else (fun,)))
        linked = _link(fun, jac, form, number, kinds, versions)
        self._adapter, self._compiled, self._size = linked
        self._addresses = [*map(_address, self._compiled), 0][:2]
        self.address = self._adapter.address
        self._store(args)

    def _store(self, args: tuple[Any, ...]) -> None:
        self._args = args  # the arrays whose addresses are stored
        self._stored = np.zeros(self._size // 8 + 1, np.int64)
        _keeper()(self._stored.ctypes.data, args)

    def on(self, args: tuple[Any, ...]) -> "Objective":
        """The same with other arguments of the same types."""
        other = copy.copy(self)
        other._store(args)
        return other

    def block(self, n: int) -> tuple[int, NDArray[np.intp], Any]:
        """What one thread calls the objective with: data, its block, and what must stay alive."""
        block = np.zeros(WORDS, np.intp)
        if self._c_function:
            return self._functions[0].data, block, None
        copy = np.zeros(n)
        block[[FUN, JAC]] = self._addresses
        block[ARGS] = self._stored.ctypes.data
        block[COPY] = copy.ctypes.data
        return block.ctypes.data, block, (self, copy)


@functools.lru_cache(maxsize=128)
def _link(
    fun: Any, jac: Any, form: Any, number: Any, types: Any, versions: Any
) -> tuple[Any, list[Any], int]:
    """Compile the functions; return their adapter, their machine code and the size of the args."""
    x = nb.Array(number, 1, "C")
    seen = tuple(map(_row_type, types))
    given = {"x": x, "grad": x} if form == "inplace" else {"x": x}
    value = "float64" if number == nb.float64 else "float64 or float32"
    returns = f"({value}, {x})" if form is True else value
    for i, kind in enumerate(types):
        if isinstance(kind, _Unknown):
            _refuse("fun", given, seen, returns, f"args[{i}] is {kind.found}")
    kinds = nb.Tuple(types)
    first = _compile(fun, "fun", given, seen, returns)
    kind = first.signature.return_type
    if form is True:
        pair = isinstance(kind, nb.BaseTuple) and len(kind) == 2
        fits = pair and _is_value(kind[0], number) and _is_gradient(kind[1], number)
    else:
        fits = _is_value(kind, number)
    if not fits:
        _refuse("fun", given, seen, returns, f"it returns {kind}")
    compiled, names = [first], {"FUN_TYPE": nb.FunctionType(first.signature)}
    if form == "separate":
        second = _compile(jac, "jac", given, seen, str(x))
        kind = second.signature.return_type
        if not _is_gradient(kind, number):
            _refuse("jac", given, seen, str(x), f"it returns {kind}")
        compiled.append(second)
        names["JAC_TYPE"] = nb.FunctionType(second.signature)
    return _adapter(form, number, kinds, **names), compiled, _size(kinds)


def _argument_type(value: Any) -> Any:
    """The type of an argument that can be stored as it is, or `_Unknown`."""
    try:
        kind = numba.typeof(value)
    except (ValueError, NumbaError):
        kind = None

    def plain(kind: Any) -> bool:
        if isinstance(kind, nb.BaseTuple):
            return all(map(plain, kind))
        return isinstance(kind, (nb.Number, nb.Boolean, nb.Array))

    return kind if plain(kind) else _Unknown(_described(value))


class _Unknown(namedtuple("_Unknown", "found")):
    """In place of the type of an argument that compiled code cannot get."""

    def __str__(self) -> str:
        return "a number, an array or a tuple of these"


def _described(value: Any) -> str:
    if isinstance(value, PerRow):
        return f"per_row of {_described(value.data)}"
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype}"
    return f"of type {type(value).__name__}"


def _compile(function: Any, name: str, given: dict[str, Any], args: Any, returns: str) -> Any:
    kinds = (*given.values(), *args)
    try:
        function.compile(kinds)
        return function.overloads[kinds]
    except Exception as error:
        _refuse(name, given, args, returns, told(error))


def told(error: Exception) -> str:
    """What Numba says of a function that does not compile, without its colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line for line in plain.splitlines() if line.strip()]
    return "Numba says:\n  " + "\n  ".join(lines[:12])


def _refuse(name: str, given: dict[str, Any], args: Any, returns: str, reason: str) -> NoReturn:
    listed = [f"{key}: {kind}" for key, kind in given.items()]
    listed += [f"args[{i}]: {kind}" for i, kind in enumerate(args)]
    raise TypeError(
        f"the compiled {name} must be {name}({', '.join(listed)}) -> {returns}; {reason}\n"
        "(options={'compiled': False} runs Python's loop around it)"
    ) from None


def _is_value(kind: Any, number: Any) -> bool:
    return kind in (nb.float64, number)


def _is_gradient(kind: Any, number: Any) -> bool:
    return isinstance(kind, nb.Array) and kind.ndim == 1 and kind.dtype == number


@functools.cache
def _keeper() -> Any:
    return kernels.jit(kernels.lift(_keep, kernels.source_salt()))


def _address(compiled: Any) -> int:
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return address


def _size(kind: Any) -> int:
    context = cpu_target.target_context
    size: int = context.get_abi_sizeof(context.get_data_type(kind))
    return size


@functools.cache
def _adapter(form: Any, number: Any, args: Any, **names: Any) -> Any:
    """The C function that calls functions of these types."""
    names |= {"ARGS_POINTER": nb.CPointer(args), "NUMBER_POINTER": nb.CPointer(number)}
    salt = hashlib.sha256(repr((names, kernels.source_salt())).encode()).hexdigest()[:16]
    # Not a global of this file, so that each adapter has its own types.
    for template in (_fresh, _opened):
        lifted = kernels.lift(template, salt, **names)
        names[template.__name__[1:]] = register_jitable(lifted)
    adapter = kernels.lift(_FORMS[form], salt, **names)
    pointer = nb.CPointer(number)
    return kernels.compile_c(adapter, nb.float64(nb.intp, pointer, pointer, nb.voidptr))
