"""Compiled objectives as addresses, so that a loop compiled once can call any of them.

A loop that knew the user's function would be compiled again for each one, which takes seconds. So
the loop calls a C function of one signature (see `numbelief._compile.pointers`)::

    double evaluate(intptr_t n, T *x, T *grad, void *data)     T is double or float

It returns the value at x and fills grad. A ``scipy.LowLevelCallable`` of this signature is called
as it is. For functions made by ``numba.njit``, an adapter of this signature is compiled once for
the types of their arguments (not for each function) and kept on disk; its ``data`` is a block of
addresses: of the functions, of the arguments, of a copy of x.
"""

import copy
import ctypes
import enum
import functools
import inspect
import re
from collections import namedtuple
from typing import Any, NamedTuple, NoReturn

import numba
import numpy as np
from numba import carray
from numba import types as nb
from numpy.typing import NDArray
from scipy import LowLevelCallable

from numbelief._compile.internals import (
    CFunc,
    Dispatcher,
    NumbaError,
    address_of_compiled,
    address_of_data,
    array_at,
    call_compiled,
    leave,
    options_of_cfunc,
    pick_rows,
    pointer,
    row_type,
    takes_pointers,
)
from numbelief._compile.jit import key_of, part
from numbelief._compile.pointers import (
    PROTOTYPE,
    Stored,
    call_c,
    compile_for_vectors,
    loaded,
)
from numbelief._compile.template import bind

# The words of a block.
FUN, JAC, ARGS, ROW, COPY, FAILED, CALLS, WORDS = range(8)
# What may be in the word FAILED: fun or jac raised, and Python's exception is set in this thread;
# the gradient is not as long as x.
RAISED, MISSHAPEN = 1, 2


class PerRow(NamedTuple):
    """An argument of which each of many problems gets its own row."""

    data: Any

    def has_rows(self) -> None:
        """By this name `numbelief._compile.internals.pick_rows` knows it."""


class Form(enum.Enum):
    """How the gradient arrives; see ``jac`` of `numbelief.minimize`."""

    SEPARATE = "separate"
    TOGETHER = "together"
    INPLACE = "inplace"
    #: In place, by a function of numbelief's own, which fills all of grad, leaves x as it is and
    #: does not raise: it becomes part of the C function.
    TRUSTED = "trusted"
    DIFFERENCES = "differences"


class Raised(Exception):
    """The objective failed; Python calls it again at the same point to see how."""


class Call(NamedTuple):
    """What compiled code calls an objective with: one for each thread.

    Attributes
    ----------
    address, data : int
        Of the C function.
    block : ndarray of shape (WORDS,)
        The words that `data` leads to.
    """

    address: int
    data: int
    block: Any


# ---- in compiled code --------------------------------------------------------------------------


def evaluate(x, g, objective):
    """The value of an objective, a `Call`, at x; g is filled. Both have shape (n,)."""
    fun = call_c(objective.address, x, g, objective.data)
    block = objective.block
    if block[FAILED]:
        leave(block[FAILED] == RAISED)
        raise Raised("the gradient had another length, but not when called again")
    block[CALLS] += 1
    return fun


def fresh_template(NUMBER_POINTER):
    """A copy of x, which a function may change, as it may in Python."""

    def fresh(block, n, x):
        copy = carray(pointer(block[COPY], NUMBER_POINTER), n)
        for i in range(n):
            copy[i] = x[i]
        return copy

    return fresh


def opened_template(ARGS_POINTER):
    """The words of a block, and the arguments that it leads to."""

    def opened(data):
        block = array_at(data, WORDS, nb.intp)
        return block, pick_rows(loaded(block[ARGS], ARGS_POINTER), block[ROW])

    return opened


def inplace_template(fresh, opened, FUN_TYPE):
    """``fun(x, grad, *args) -> value``."""

    def inplace(n, x, g, data):
        block, args = opened(data)
        g = carray(g, n)
        for i in range(n):  # a coordinate that fun forgets must not pass for a gradient
            g[i] = np.nan
        x = fresh(block, n, carray(x, n))
        failed, value = call_compiled(block[FUN], FUN_TYPE, (x, g) + args)  # noqa: RUF005
        block[FAILED] = failed
        return np.float64(value)

    return inplace


def trusted_template(fun, opened, NUMBER):
    """``fun(x, grad, *args) -> value`` without guards."""

    def trusted(n, x, g, data):
        _, args = opened(data)
        return np.float64(fun(array_at(x, n, NUMBER), array_at(g, n, NUMBER), *args))

    return trusted


def together_template(fresh, opened, FUN_TYPE):
    """``fun(x, *args) -> (value, gradient)``."""

    def together(n, x, g, data):
        block, args = opened(data)
        x = fresh(block, n, carray(x, n))
        failed, pair = call_compiled(block[FUN], FUN_TYPE, (x,) + args)  # noqa: RUF005
        block[FAILED] = RAISED if failed else MISSHAPEN if pair[1].size != n else 0
        if not block[FAILED]:
            carray(g, n)[:] = pair[1]
        return np.float64(pair[0])

    return together


def separate_template(fresh, opened, FUN_TYPE, JAC_TYPE):
    """``fun(x, *args) -> value`` and ``jac(x, *args) -> gradient``."""

    def separate(n, x, g, data):
        block, args = opened(data)
        x = carray(x, n)
        failed, value = call_compiled(block[FUN], FUN_TYPE, (fresh(block, n, x),) + args)  # noqa: RUF005
        block[FAILED] = failed
        if not failed:
            failed, gradient = call_compiled(
                block[JAC],
                JAC_TYPE,
                (fresh(block, n, x),) + args,  # noqa: RUF005
            )
            block[FAILED] = RAISED if failed else MISSHAPEN if gradient.size != n else 0
            if not block[FAILED]:
                carray(g, n)[:] = gradient
        return np.float64(value)

    return separate


_TEMPLATES: dict[Form, Any] = {
    Form.INPLACE: inplace_template,
    Form.TOGETHER: together_template,
    Form.SEPARATE: separate_template,
}


# ---- recognition -------------------------------------------------------------------------------


def is_compiled(function: Any) -> bool:
    """Whether a loop in compiled code can call this function."""
    return isinstance(function, (Dispatcher, CFunc, LowLevelCallable))


def is_fixed(function: Any, count: int) -> bool:
    """Whether a compiled function takes `count` arguments without help from a default or a star."""
    if not isinstance(function, Dispatcher):
        return True
    parameters = _parameters(function.py_func)
    plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    return plain and (len(parameters) == count or all(p.default is p.empty for p in parameters))


# For those who minimize the same function again and again: 10 us.
@functools.lru_cache(maxsize=128)
def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def is_parallel(*functions: Any) -> bool:
    """Whether one of these runs on threads of its own."""
    options = (getattr(each, "targetoptions", {}) for each in functions)
    return any(bool(each.get("parallel")) for each in options)


def is_c_function(function: Any) -> bool:
    """Whether this is a C function of the loop's own signature, or claims to be one."""
    if isinstance(function, CFunc):
        return takes_pointers(function)
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
        self._function = PROTOTYPE(self.address)

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


# For those who minimize the same function again and again.
@functools.lru_cache(maxsize=128)
def _compiled_anew(function: Any, version: Any) -> Any:
    if isinstance(function, CFunc):
        return numba.jit(**options_of_cfunc(function))(function.__wrapped__)
    return numba.jit(**function.targetoptions)(function.py_func)


# ---- compilation -------------------------------------------------------------------------------


class Objective:
    """A compiled objective, ready to be called by address.

    Parameters
    ----------
    fun, jac : compiled functions
        jac is None where fun gives the gradient, too.
    form : Form
        Any except finite differences.
    args : tuple
        Further arguments: numbers, arrays and tuples of these, or `PerRow` of an array.
    dtype : numpy.dtype
        Of x.

    Raises
    ------
    TypeError
        A function does not compile for these arguments, or returns something else than it should.
    """

    def __init__(self, fun: Any, jac: Any, form: Form, args: tuple[Any, ...], dtype: Any) -> None:
        self._functions = fun, jac
        self._c_function = isinstance(fun, CFunction)
        if self._c_function:
            self.address = fun.address
            return
        number = numba.from_dtype(dtype)
        kinds = tuple(map(_argument_type, args))
        if form is Form.TRUSTED:
            self._adapter, self._addresses = _link_trusted(fun, number, kinds), [0, 0]
        else:
            versions = tuple(map(_version, (fun, jac) if form is Form.SEPARATE else (fun,)))
            self._adapter, self._addresses = _link(fun, jac, form, number, kinds, versions)
        self.address = self._adapter.address
        self._store(args)

    def _store(self, args: tuple[Any, ...]) -> None:
        self._stored = Stored(*args)

    def on(self, args: tuple[Any, ...]) -> "Objective":
        """The same with other arguments of the same types."""
        other = copy.copy(self)
        other._store(args)
        return other

    def call(self, n: int) -> tuple[Call, Any]:
        """What one thread calls the objective with, and what must stay alive meanwhile."""
        block = np.zeros(WORDS, np.intp)
        if self._c_function:
            return Call(self.address, self._functions[0].data, block), self
        copy = np.zeros(n)
        block[[FUN, JAC]] = self._addresses
        block[ARGS] = self._stored.address
        block[COPY] = address_of_data(copy)
        return Call(self.address, address_of_data(block), block), (self, copy)


@functools.lru_cache(maxsize=128)
def _link(
    fun: Any, jac: Any, form: Any, number: Any, types: Any, versions: Any
) -> tuple[Any, list[Any]]:
    """Compile the functions; return their adapter, and the addresses of their code."""
    x = nb.Array(number, 1, "C")
    seen = tuple(map(row_type, types))
    given = {"x": x, "grad": x} if form is Form.INPLACE else {"x": x}
    value = "float64" if number == nb.float64 else "float64 or float32"
    returns = f"({value}, {x})" if form is Form.TOGETHER else value
    for i, kind in enumerate(types):
        if isinstance(kind, _Unknown):
            _refuse("fun", given, seen, returns, f"args[{i}] is {kind.found}")
    kinds = nb.Tuple(types)
    first = _compile(fun, "fun", given, seen, returns)
    kind = first.signature.return_type
    if form is Form.TOGETHER:
        pair = isinstance(kind, nb.BaseTuple) and len(kind) == 2
        fits = pair and _is_value(kind[0], number) and _is_gradient(kind[1], number)
    else:
        fits = _is_value(kind, number)
    if not fits:
        _refuse("fun", given, seen, returns, f"it returns {kind}")
    compiled, names = [first], {"FUN_TYPE": nb.FunctionType(first.signature)}
    if form is Form.SEPARATE:
        second = _compile(jac, "jac", given, seen, str(x))
        kind = second.signature.return_type
        if not _is_gradient(kind, number):
            _refuse("jac", given, seen, str(x), f"it returns {kind}")
        compiled.append(second)
        names["JAC_TYPE"] = nb.FunctionType(second.signature)
    addresses = [*map(address_of_compiled, compiled), 0][:2]
    return _adapter(form, number, kinds, **names), addresses


@functools.cache
def _link_trusted(fun: Any, number: Any, types: Any) -> Any:
    """Compile a function of numbelief's own, which has a key in its name, as a C function."""
    opened = bind(opened_template, ARGS_POINTER=nb.CPointer(nb.Tuple(types)))
    key = key_of(fun.py_func.__qualname__, number, types)
    inlined = part(fun.py_func, inlined=True, allocates=False)
    trusted = bind(trusted_template, key, fun=inlined, opened=opened, NUMBER=number)
    return compile_for_vectors(trusted, number, allocates=False)


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
def _adapter(form: Any, number: Any, args: Any, **names: Any) -> Any:
    """The C function that calls functions of these types."""
    key = key_of(form, number, args, *names.items())
    opened = bind(opened_template, ARGS_POINTER=nb.CPointer(args))
    fresh = bind(fresh_template, NUMBER_POINTER=nb.CPointer(number))
    adapter = bind(_TEMPLATES[form], key, fresh=fresh, opened=opened, **names)
    return compile_for_vectors(adapter, number)
