"""Projections in compiled code, called by address.

A loop that projects its iterate is compiled once for all sets, so it calls a C function::

    double project(intptr_t n, T *x, T *steps, void *data)     T is double or float

that moves x to the point of the set with the least sum of (new - old)**2 / steps, and returns how
far x is from the set: 0 up to rounding, unless the set cannot be reached. ``data`` is where `Words`
lie: addresses of the set's arrays and of scratch memory, so that a call allocates nothing and one
block of words serves one thread.

A step of 0 is an infinite weight: the coordinate stays where it is, as long as the others alone can
reach the set. Everything is computed in float64, whatever T is.
"""

from collections.abc import Callable, Sequence
from math import inf, nan
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.arrays import clip_to_bounds
from numbelief._compile.internals import array_at, eps_of, smaller
from numbelief._compile.jit import key_of
from numbelief._compile.pointers import PROTOTYPE, compile_for_vectors, loaded
from numbelief._compile.template import bind

# Rounding errors of a sum of n terms, in units of the sum of their magnitudes: those of the terms,
# in the dtype of x, and those of adding them up.
TERM_ULPS, SUM_ULPS = 2, 16
EPS = float(np.finfo(np.float64).eps)
# A gap of at most this many rounding errors of y is not worth another search.
ROUNDED = 64
# Each takes up what rounding left of the constraint; the first one nearly always suffices.
REFINEMENTS = 9
# At least this many coordinates give a multiplier to a percent, which saves most passes over all.
SAMPLE = 1 << 13


# ---- what compiled projections share -------------------------------------------------------------


class Words(NamedTuple):
    """What a compiled projection finds at ``data``: addresses, and a number; see `Projector`."""

    #: Memory for numbers and for integers.
    scratch: int = 0
    integers: int = 0
    #: The set's numbers, and its arrays.
    numbers: int = 0
    first: int = 0
    second: int = 0
    #: What the set is made of.
    table: int = 0
    rows: int = 0


def rounding(x):
    """The rounding error to allow for, per magnitude added up."""
    return TERM_ULPS * eps_of(x) + SUM_ULPS * EPS


def give_up(x):
    """What is not finite has no projection."""
    for i in range(x.size):
        x[i] = nan
    return nan


def unit_of(value):
    """A power of two near a number, to measure numbers of that size in."""
    if value > 0:
        return 2.0 ** clip_to_bounds(np.floor(np.log2(value)), -1000.0, 1000.0)
    return 1.0


def scaled_step(step, scale, heavy):
    """A step in units of 1 / scale, or the number in place of 0, for what is not to move."""
    return step * scale if step > 0 else heavy


def lightest_step(steps):
    """The smallest step above 0, or infinity, and whether there is one of 0."""
    least, fixed = inf, False
    for step in steps:
        fixed |= step == 0
        least = smaller(least, np.float64(step) if step > 0 else inf)
    return least, fixed


def heavy_step(least, scale):
    """The scaled step of what was to stay, where it has to move after all.

    It weighs that much more than the heaviest of what may move.
    """
    return least * scale * 2.0**-60 if least < inf else 1.0


# ---- compilation -------------------------------------------------------------------------------

_WORDS = nb.CPointer(nb.NamedUniTuple(nb.intp, len(Words._fields), Words))


def _c_template(project, kind):
    def projection(n, x, steps, data):
        return project(array_at(x, n, kind), array_at(steps, n, kind), loaded(data, _WORDS))

    return projection


class Projection:
    """How to project onto a kind of set, as an attribute of its class; compiled when needed.

    Parameters
    ----------
    template : callable
        Makes the plain function ``project(x, steps, words)`` when called with the names.
    **names
        What the template calls.
    """

    def __init__(self, template: Callable[..., Any], **names: Any) -> None:
        self._template, self._names = template, names
        self._compiled: dict[Any, Any] = {}

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = owner.__module__, owner.__qualname__, name

    def compiled(self, dtype: np.dtype[Any]) -> Any:
        """The C function for x of a dtype."""
        if dtype not in self._compiled:
            number = numba.from_dtype(dtype)
            project = self._template(**self._names)
            function = bind(_c_template, key_of(self._name), project=project, kind=number)
            # The key has numbelief's text only.
            cache = self._name[0].startswith("numbelief.")
            self._compiled[dtype] = compile_for_vectors(
                function, number, cache=cache, allocates=False
            )
        return self._compiled[dtype]


class Projector:
    """A projection onto one set, in place, for loops in compiled code and for one thread.

    Parameters
    ----------
    projection : Projection
        That of the set's kind.
    n : int
        Number of coordinates.
    dtype : numpy.dtype
        Of x and of the steps: float64 or float32.
    arrays : sequence of arrays
        Of the set, at most two, as the projection wants them.
    numbers : sequence of float
        Of the set.
    scratch, integers : int
        How many numbers and integers the projection needs to work.
    table : sequence of tuples of int
        What the projection wants to know of the parts that the set is made of.
    rows : int
        How many equations, parts or constraints there are.
    keep : any
        What the table has addresses of.

    Attributes
    ----------
    address, data : int
        The C function, see the top of this file, and its data.
    """

    def __init__(
        self,
        projection: Projection,
        n: int,
        dtype: Any,
        *,
        arrays: Sequence[NDArray[Any]] = (),
        numbers: Sequence[float] = (),
        scratch: int = 0,
        integers: int = 0,
        table: Sequence[tuple[int, ...]] = (),
        rows: int = 0,
        keep: Any = None,
    ) -> None:
        self.n, self.dtype = n, np.dtype(dtype)
        function = projection.compiled(self.dtype)
        memory = dict(zip(("first", "second"), arrays, strict=False))
        if scratch:
            memory["scratch"] = np.empty(scratch)
        if integers:
            memory["integers"] = np.empty(integers, np.intp)
        if numbers:
            memory["numbers"] = np.array(numbers, np.float64)
        if table:
            memory["table"] = np.array(table, np.intp)
        addresses: dict[str, int] = {name: array.ctypes.data for name, array in memory.items()}
        words = np.array(Words(**addresses, rows=rows), np.intp)
        self._keep = function, words, memory, keep
        self.address: int = function.address
        self.data: int = words.ctypes.data
        self._function = PROTOTYPE(self.address)

    def __call__(self, x: NDArray[Any], steps: NDArray[Any]) -> float:
        """Move x to the nearest point of the set; return how far it is from the set then."""
        for name, array in (("x", x), ("steps", steps)):
            fits = array.dtype == self.dtype and array.shape == (self.n,)
            if not (fits and array.flags.c_contiguous):
                raise ValueError(
                    f"{name} must be a contiguous array of {self.n} {self.dtype.name} numbers, "
                    f"got {array.dtype.name} of shape {array.shape}"
                )
        if not x.flags.writeable:
            raise ValueError("x must be writable, got a read-only array")
        left: float = self._function(self.n, x.ctypes.data, steps.ctypes.data, self.data)
        return left
