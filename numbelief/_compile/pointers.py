"""Functions called by address, so that a loop that is compiled once can call any of them.

Everything that is called so is a C function of one of two signatures::

    double f(intptr_t n, T *x, T *other, void *data)     T is double or float
    intptr_t f(double a, double b, void *data)

``data`` is the address of what it needs besides: a tuple that `Stored` wrote there, or a block of
further addresses. Nobody who calls it has to know the types of that, Python least of all: it takes
Numba some 50 ns to find out that of an array, and 1 us that of a named tuple.
"""

import ctypes
import functools
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types as nb

from numbelief._compile.internals import (
    address_of_compiled,
    address_of_data,
    call_c_of,
    layout_of,
    load,
    pointer,
)
from numbelief._compile.jit import compile_c

_VECTORS: Any = (ctypes.c_double, ctypes.c_ssize_t, *[ctypes.c_void_p] * 3)
_NUMBERS: Any = (ctypes.c_ssize_t, ctypes.c_double, ctypes.c_double, ctypes.c_void_p)
#: The first signature for calls from Python.
PROTOTYPE = ctypes.CFUNCTYPE(*_VECTORS)
# By whether the GIL is released.
_OF_VECTORS = {True: PROTOTYPE, False: ctypes.PYFUNCTYPE(*_VECTORS)}
_OF_NUMBERS = {True: ctypes.CFUNCTYPE(*_NUMBERS), False: ctypes.PYFUNCTYPE(*_NUMBERS)}


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
    `call_c` takes.
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
    return _OF_VECTORS[nogil](address)


def numbers_from_python(address: int, *, nogil: bool) -> Any:
    """What `compile_for_numbers` made, for Python to call."""
    return _OF_NUMBERS[nogil](address)


def call_c(address, x, other, data):
    """Call what `compile_for_vectors` made for x of shape (n,)."""
    return call_c_of(address, x.size, x, other, data)


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


class Layout:
    """The types of what `Stored` has; the same object for the same types.

    Attributes
    ----------
    pointer : numba type
        Of a pointer to it, which `loaded` takes.
    words : struct.Struct
        How it lies in memory.
    """

    def __init__(self, kind: Any) -> None:
        self.pointer = nb.CPointer(kind)
        self.words = _words_of(layout_of(kind))

    def __repr__(self) -> str:
        return repr(self.pointer)


#: Of numbers of these kinds, in the module struct.
_CODES = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I",
    "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


def _words_of(layout: np.dtype[Any]) -> struct.Struct:
    """The numbers of a layout, one after the other, with the gaps between them."""

    def numbers(layout: np.dtype[Any], at: int) -> Iterator[tuple[int, np.dtype[Any]]]:
        for each, offset, *_ in (layout.fields or {}).values():
            yield from numbers(each, at + offset)
        if layout.kind == "c":
            part = np.dtype(f"f{layout.itemsize // 2}")
            yield from ((at, part), (at + part.itemsize, part))
        elif layout.kind != "V":
            yield at, layout

    form, end = "=", 0
    for at, number in numbers(layout, 0):
        form += f"{at - end}x{_CODES[number.str[1:]]}"
        end = at + number.itemsize
    return struct.Struct(f"{form}{layout.itemsize - end}x")


_layout_of_type = functools.cache(Layout)
# By what `_take_apart` notes: ``numba.typeof`` takes 5 us for an array, the hash of its type 10.
_LAYOUTS: dict[Any, Layout] = {}


def _take_apart(values: tuple[Any, ...], looks: list[Any], words: list[Any]) -> None:
    """Note what tells the Numba types of the values in a tuple, and the words that they take."""
    looks += type(values), len(values)
    for value in values:
        if isinstance(value, np.ndarray):
            looks += type(value), value.dtype, value.ndim, value.flags.num
            data = address_of_data(value)
            words += (0, 0, value.size, value.itemsize, data, *value.shape, *value.strides)
        elif isinstance(value, tuple):
            _take_apart(value, looks, words)
        elif value is None:
            looks.append(None)
            words.append(0)
        elif type(value) in (bool, float) or (type(value) is int and abs(value) < 1 << 63):
            looks.append(type(value))
            words.append(value)
        else:
            looks.append(numba.typeof(value))
            words += (value.real, value.imag) if np.iscomplexobj(value) else (value,)


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
    layout : Layout
    """

    def __init__(self, *values: Any) -> None:
        self._values = values
        looks: list[Any] = []
        words: list[Any] = []
        _take_apart(values, looks, words)
        key = tuple(looks)
        if key not in _LAYOUTS:
            _LAYOUTS[key] = _layout_of_type(numba.typeof(values))
        self.layout = _LAYOUTS[key]
        size = self.layout.words.size
        self._memory = np.empty(size // 8 + 1, np.int64)
        self.layout.words.pack_into(self._memory.data, 0, *words)
        self.address = address_of_data(self._memory)
