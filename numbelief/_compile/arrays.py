"""Arithmetic on arrays for compiled code: plain functions, and sums in blocks of a fixed order.

The plain functions become part of whatever text calls them (see `numbelief._compile.jit`). Sums are
taken over blocks of one size, and then over the blocks in order, so that they have the same bits on
any number of threads.
"""

import functools
from math import inf, sqrt
from typing import Any

import numpy as np
from numba import prange

from numbelief._compile.internals import (
    bits_of,
    larger,
    of_bits,
    smaller,
    stays_apart,
    window,
)
from numbelief._compile.jit import jit, key_of, part
from numbelief._compile.template import bind

# 16 Ki elements a block: as fast as larger ones at n = 2e7, and balanced from small n on.
BLOCK = 1 << 14
# Sums are taken over blocks of this size.
SUM_BLOCK = 1 << 12


def clip_to_bounds(value, lower, upper):
    """The nearest number between bounds."""
    return smaller(larger(value, lower), upper)


def copy(source, target):
    """Assign one array of shape (n,) to another; for slices, Numba looks for an overlap."""
    for i in range(source.size):
        target[i] = source[i]


def fill(array, value):
    """Assign a value to a contiguous array of any shape."""
    flat = window(array, 0, array.size)
    for i in range(flat.size):
        flat[i] = value


def largest(a):
    """The largest magnitude in an array of shape (n,), in float64, or NaN if there is one.

    By way of integers, whose maximum LLVM vectorizes: 9 times faster at n = 1000.
    """
    top = bits_of(a.dtype.type(0))
    for i in range(a.size):
        bits = bits_of(a[i])
        top = bits if bits > top else top
    return of_bits(top)


def dot_of_block(a, b):
    """The inner product of arrays of one block, in float64."""
    # Four sums, because one alone waits for itself; unlike with fastmath it is the same sum
    # wherever it is compiled.
    s0 = s1 = s2 = s3 = 0.0
    end = a.size - a.size % 4
    for i in range(0, end, 4):
        s0 += np.float64(a[i]) * b[i]
        s1 += np.float64(a[i + 1]) * b[i + 1]
        s2 += np.float64(a[i + 2]) * b[i + 2]
        s3 += np.float64(a[i + 3]) * b[i + 3]
    for i in range(end, a.size):
        s0 += np.float64(a[i]) * b[i]
    return (s0 + s1) + (s2 + s3)


def dot_template(dot_of_block):
    """The inner product of two arrays of shape (n,)."""

    def dot(a, b):
        if a.size <= SUM_BLOCK:
            return dot_of_block(a, b)
        sums = np.empty((a.size + SUM_BLOCK - 1) // SUM_BLOCK)
        for k in prange(sums.size):
            lo = k * SUM_BLOCK
            hi = smaller(a.size, lo + SUM_BLOCK)
            sums[k] = dot_of_block(window(a, lo, hi), window(b, lo, hi))
        total = 0.0
        for each in sums:
            total += each
        return total

    return dot


def add_multiple(a, factor, b):
    """Add a multiple of b to a, both of shape (n,) and one dtype."""
    c = a.dtype.type(factor)
    for i in prange(a.size):
        a[i] += c * b[i]


def sum_of_squares(a, lo, hi, factor):
    """The squares of factor * a between lo and hi, summed in float64 in any order."""
    stays_apart()
    total = 0.0
    for value in window(a, lo, hi):
        total += (np.float64(value) * factor) ** 2
    return total


def norm_template(sum_of_squares):
    """The Euclidean norm of an array of shape (n,), in float64."""

    def norm(a):
        sums = np.empty((a.size + SUM_BLOCK - 1) // SUM_BLOCK)
        unit = 1.0
        while True:
            for b in prange(sums.size):
                lo = b * SUM_BLOCK
                sums[b] = sum_of_squares(a, lo, smaller(a.size, lo + SUM_BLOCK), 1 / unit)
            total = 0.0
            for each in sums:
                total += each
            if total < inf or unit > 1 or np.isnan(total):
                return unit * sqrt(total)
            unit = larger(unit, largest(a))  # the squares overflow: measure in units of the largest

    return norm


@functools.cache
def compile_dot(*, parallel: bool) -> Any:
    """`dot_template`'s function, for compiled code."""
    dot = bind(dot_template, dot_of_block=part(dot_of_block, allocates=False))
    return part(dot, parallel=parallel)


@functools.cache
def compile_add_multiple(*, parallel: bool) -> Any:
    """`add_multiple`, for compiled code."""
    return part(add_multiple, parallel=parallel, allocates=parallel)


@functools.cache
def compile_norm(*, parallel: bool) -> Any:
    """`norm_template`'s function, for Python and for compiled code."""
    # Reordering inside a block lets the sum use vectors; each block is still summed one way.
    squares = part(sum_of_squares, fastmath={"reassoc"}, allocates=False)
    key = f"{parallel:d}_{key_of()}"
    return jit(bind(norm_template, key, sum_of_squares=squares), parallel=parallel)


# ---- at each coordinate ------------------------------------------------------------------------


# A function that takes any number of vectors could not become part of the text that calls it.
def _loop2(at):
    def each(a, b):
        for i in range(a.size):
            at(i, a, b)

    return each


def _loop3(at):
    def each(a, b, c):
        for i in range(a.size):
            at(i, a, b, c)

    return each


def _loop5(at):
    def each(a, b, c, d, e):
        for i in range(a.size):
            at(i, a, b, c, d, e)

    return each


def _loop6(at):
    def each(a, b, c, d, e, f):
        for i in range(a.size):
            at(i, a, b, c, d, e, f)

    return each


_LOOPS = {2: _loop2, 3: _loop3, 5: _loop5, 6: _loop6}


def loop_over(at: Any) -> Any:
    """A loop over the coordinates, for a CPU."""
    return bind(_LOOPS[at.__code__.co_argcount - 1], at=at)
