"""Functions called by address, so that a loop that is compiled once can call any of them.

Everything that a loop calls so has one signature::

    double f(intptr_t n, T *x, T *other, void *data)     T is double or float

``data`` is the address of what it needs besides: a tuple that `Stored` wrote there, or a block of
further addresses.
"""

import ctypes
import functools
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types as nb

from numbelief._compile.internals import (
    address_of_compiled,
    load,
    pointer,
    size_of,
    store,
    without_refcounts,
)
from numbelief._compile.jit import compile_c, jit, key_of
from numbelief._compile.template import named


def compile_for_address(
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


#: The same signature for calls from Python.
PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_ssize_t, *[ctypes.c_void_p] * 3)


def loaded(address, kind):
    """What lies at an address that `Stored` has; ``kind`` is a pointer type."""
    return load(pointer(address, kind))


def _store(address, values):
    store(address, without_refcounts(values))


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
    values : tuple
        What is stored. The arrays are kept alive, not copied.

    Attributes
    ----------
    address : int
        Where it lies.
    kind : numba type
        Of a pointer to it, which `loaded` takes.
    """

    def __init__(self, values: tuple[Any, ...]) -> None:
        self._values = values
        kind = numba.typeof(values)
        self.kind = nb.CPointer(kind)
        self._memory = np.zeros(size_of(kind) // 8 + 1, np.int64)
        self.address: int = self._memory.ctypes.data
        _compiled_store(kind)(self.address, values)


@functools.cache
def _compiled_store(kind: Any) -> Any:
    # One for each type: to load one of several, Numba would import the modules of all their types.
    return jit(named(_store, key_of(kind)), allocates=False)
