"""Projections in compiled code, called by address.

A loop that projects its iterate is compiled once for all sets, so it calls a C function::

    double project(intptr_t n, T *x, T *steps, void *data)     T is double or float

that moves x to the point of the set with the least sum of (new - old)**2 / steps, and returns how
far x is from the set: 0 up to rounding, unless the set cannot be reached. ``data`` is the address of
`Words`: of the set's arrays, and of scratch memory, so that a call allocates nothing and one block of
words serves one thread.

A step of 0 is an infinite weight: the coordinate stays where it is, as long as the others alone can
reach the set. Everything is computed in float64, whatever T is.
"""

import functools
from collections.abc import Callable, Sequence
from math import inf, nan
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.arrays import clip_to_bounds, smaller
from numbelief._compile.internals import eps_of, load
from numbelief._compile.jit import key_of, part
from numbelief._compile.pointers import PROTOTYPE, compile_for_address
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
    """What a compiled projection finds at ``data``: addresses, and a number."""

    #: Memory for numbers, and for integers.
    scratch: int
    index: int
    #: The set's numbers, and its arrays.
    numbers: int
    first: int
    second: int
    #: Rows of integers: see `Projector`.
    table: int
    #: How many equations, parts or constraints there are.
    count: int


def rounding(x):
    """The rounding error to allow for, per magnitude added up."""
    return TERM_ULPS * eps_of(x) + SUM_ULPS * EPS


def give_up(x):
    """What is not finite has no projection."""
    for i in range(x.size):
        x[i] = nan
    return nan


def unit_of(value):
    """A power of two near a number, to measure in: whatever is of that size can be divided by it."""
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


def _c_template(project):
    def projection(n, x, steps, data):
        return project(numba.carray(x, n), numba.carray(steps, n), load(data))

    return projection


class Projection:
    """How to project onto one kind of set, compiled once it is needed.

    Parameters
    ----------
    template : callable
        Makes the plain function ``project(x, steps, words)`` when called with the names.
    **names : function
        What tells this kind of set from others with the same template: functions of a module.
    """

    def __init__(self, template: Callable[..., Any], **names: Any) -> None:
        self._template, self._names = template, names

    @functools.cache  # noqa: B019  they are few, and live as long as their modules
    def compiled(self, number: Any) -> Any:
        """The C function for x of a Numba number type."""
        used = [self._template, *self._names.values()]
        key = key_of([(each.__module__, each.__qualname__) for each in used], [*self._names])
        function = bind(_c_template, key, project=part(self._template(**self._names)))
        words = nb.NamedUniTuple(nb.intp, len(Words._fields), Words)
        return compile_for_address(function, number, nb.CPointer(words))


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
    scratch, index : int
        How many numbers and integers the projection needs to work.
    table : sequence of tuples of int
        What the projection wants to know of the parts that the set is made of.
    count : int
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
        index: int = 0,
        table: Sequence[tuple[int, ...]] = (),
        count: int = 0,
        keep: Any = None,
    ) -> None:
        self.n, self.dtype = n, np.dtype(dtype)
        function = projection.compiled(numba.from_dtype(self.dtype))
        first, second, *_ = *arrays, np.empty(0), np.empty(0)
        memory = (
            np.empty(scratch),
            np.empty(index, np.intp),
            np.array(numbers, np.float64),
            first,
            second,
            np.array(table, np.intp),
        )
        words = np.array(Words(*(each.ctypes.data for each in memory), count), np.intp)
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
