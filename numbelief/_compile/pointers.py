"""Functions called by address, so that a loop that is compiled once can call any of them.

Everything that is called so is a C function of one of two signatures::

    double f(intptr_t n, T *x, T *other, void *data)     T is double or float
    intptr_t f(double a, double b, void *data)

``data`` is the address of what it needs besides: a tuple that `Stored` wrote there, or a block of
further addresses. Nobody who calls it has to know the types of that, Python least of all: it takes
Numba some 50 ns to find out that of an array, and 1 us that of a named tuple.
"""

import ctypes
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types as nb

from numbelief._compile.internals import (
    address_of_compiled,
    in_memory,
    layout_of,
    load,
    pointer,
)
from numbelief._compile.jit import compile_c

_VECTORS: Any = (ctypes.c_double, ctypes.c_ssize_t, *[ctypes.c_void_p] * 3)
_NUMBERS: Any = (ctypes.c_ssize_t, ctypes.c_double, ctypes.c_double, ctypes.c_void_p)
#: The first signature for calls from Python.
PROTOTYPE = ctypes.CFUNCTYPE(*_VECTORS)


def compile_for_vectors(
    function: Any,
    number: Any,
    data: Any = nb.voidptr,
    *,
    cache: bool = True,
    allocates: bool = True,
) -> Any:
    """Compile ``f(n, x, other, data)``, with a key in its name, for x of a Numba number type.

    ``data`` is the type of the pointer that it sees. Its attribute ``address`` is what
    `numbelief._compile.internals.call_c` takes.
    """
    vector = nb.CPointer(number)
    signature = nb.float64(nb.intp, vector, vector, data)
    return compile_c(function, signature, cache=cache, allocates=allocates)


def compile_for_numbers(function: Any, *, cache: bool = True, allocates: bool = True) -> Any:
    """Compile ``f(a, b, data)``, with a key in its name; it sees an address as data.

    Its attribute ``address`` is what `numbelief._compile.internals.call_with_numbers` takes.
    """
    signature = nb.intp(nb.float64, nb.float64, nb.intp)
    return compile_c(function, signature, cache=cache, allocates=allocates)


def vectors_from_python(address: int, *, nogil: bool) -> Any:
    """What `compile_for_vectors` made, for Python to call with addresses in place of arrays."""
    return (ctypes.CFUNCTYPE if nogil else ctypes.PYFUNCTYPE)(*_VECTORS)(address)


def numbers_from_python(address: int, *, nogil: bool) -> Any:
    """What `compile_for_numbers` made, for Python to call."""
    return (ctypes.CFUNCTYPE if nogil else ctypes.PYFUNCTYPE)(*_NUMBERS)(address)


def loaded(address, kind):
    """What lies at an address that `Stored` has; ``kind`` is a pointer type."""
    return load(pointer(address, kind))


class Addressed(NamedTuple):
    """A compiled function for code that calls it by address, and is not compiled together with it.

    Code that Numba links to a function is optimized together with it, over and over again. The call
    itself is `numbelief._compile.internals.call_compiled`, which costs 2 to 5 ns.

    Attributes
    ----------
    address : int
    kind : numba type
        Of the function.
    """

    address: int
    kind: Any


def addressed(compiled: Any, *arguments: Any) -> Addressed:
    """What `numbelief._compile.jit.jit` made, compiled for the types of some arguments."""
    kinds = tuple(map(numba.typeof, arguments))
    compiled.compile(kinds)
    overload = compiled.overloads[kinds]
    return Addressed(address_of_compiled(overload), nb.FunctionType(overload.signature))


class Stored:
    """A tuple of numbers, arrays and tuples in memory, as compiled code lays it out.

    Parameters
    ----------
    *values
        What is stored. The arrays are kept alive, not copied.

    Attributes
    ----------
    address : int
        Where it lies.
    kind : numba type
        Of a pointer to it, which `loaded` takes.
    """

    def __init__(self, *values: Any) -> None:
        self._values = values
        looks = _looks(values)
        if looks not in _KINDS:
            _KINDS[looks] = numba.typeof(values)
        kind = _KINDS[looks]
        layout = layout_of(kind)
        self.kind = nb.CPointer(kind)
        self._memory = np.array([in_memory(values)], layout) if layout.itemsize else np.zeros(1)
        self.address: int = self._memory.ctypes.data


#: The types of what was stored, by `_looks`: ``numba.typeof`` takes 5 us for an array.
_KINDS: dict[Any, Any] = {}


def _looks(value: Any) -> Any:
    """What tells the Numba type of a value, as far as that needs no look at Numba."""
    if isinstance(value, tuple):
        return (type(value), *map(_looks, value))
    if type(value) is np.ndarray:
        return value.dtype, value.ndim, value.flags.num
    if value is None or type(value) in (float, bool):
        return type(value)
    return numba.typeof(value)
