"""Data on a GPU as mini-batches: what `numbelief._solve.data` is for arrays there.

An epoch's row numbers, drawn on the host as for a CPU, are copied to the card; a kernel gathers the
rows of a batch into memory that fun gets as arrays of the user's library.
"""

import functools
from math import prod
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from numbelief import _checkpoint as checkpoint
from numbelief import _interop as interop
from numbelief._gpu import launch
from numbelief._gpu.card import view
from numbelief._gpu.compile import load
from numbelief._gpu.launch import kernel_at
from numbelief._gpu.vectors import CardVectors, duplicate
from numbelief._solve.data import common_length, parts_of, sample_of

# ---- kernels -----------------------------------------------------------------------------------


def each_word_template(at):
    """Do something at each word of the rows in some places of the order.

    A row has ``length`` words, which ``2 ** shift`` neighbouring threads share.
    """

    def each_word(order, first, count, length, shift, arguments):
        # Nothing is divided, as a range with a step would: it takes a GPU a hundred instructions.
        width = 1 << shift
        k = cuda.grid(1) >> shift
        while k < count:
            row = order[first + k]
            word = cuda.grid(1) & (width - 1)
            while word < length:
                at(k, row * length + word, k * length + word, *arguments)
                word += width
            k += cuda.gridsize(1) >> shift

    return each_word


def _gather_at(k, i, j, source, target):
    target[j] = source[i]


def _mark_at(k, i, j, source, exponent, marks):
    # Infinities and NaN are the numbers whose exponents have all bits set.
    if source[i] & exponent == exponent:
        marks[k] = 1


# ---- batches -----------------------------------------------------------------------------------


class CardBatches:
    """Data on a GPU, and the memory there into which the rows of a batch are gathered.

    Parameters
    ----------
    data : tuple of device array
        C-contiguous arrays of numbers, of one leading length. An array alone stands for a tuple of
        one.
    vectors : CardVectors
        Those of x.
    name : str
        The argument's name, for messages.

    Attributes
    ----------
    rows : int
        The leading length.
    vectors : CardVectors
    """

    def __init__(self, data: Any, vectors: CardVectors, name: str = "data") -> None:
        self.vectors, self._name = vectors, name
        self._card = vectors.card
        self._parts = parts_of(data, name)
        self._views = [_as_rows(part, f"{name}[{i}]") for i, part in enumerate(self._parts)]
        self.rows = common_length([seen.shape[0] for seen in self._views], name)
        self._order: Any = None
        self._size, self._count = self.rows, 0
        self._batches: dict[int, tuple[Any, ...]] = {}
        self._moves: list[tuple[int, Any, Any]] = []
        load().synchronize()  # the data may be made on another stream than x0's

    def whole(self) -> tuple[Any, ...]:
        """All rows, in their order."""
        return self._parts

    def begin(self, size: int | None) -> None:
        """Get ready for batches of ``size`` rows, or for one that is always all of them (None)."""
        if size is None:
            return
        self._size = size
        buffers = []
        for i, (part, seen) in enumerate(zip(self._parts, self._views, strict=True)):
            buffer = duplicate(_first_rows(part, size), f"{self._name}[{i}]")
            length = prod(seen.shape[1:]) * seen.dtype.itemsize
            if length:
                source, target = self._card.words(length, part, buffer)
                self._moves.append((length // source.dtype.itemsize, source, target))
            buffers.append(buffer)
        self._batches[size] = tuple(buffers)
        load().synchronize()  # the library of the data has made the buffers, on its stream

    def draw(self, rows: NDArray[np.int64]) -> None:
        """Let the epoch that begins have these rows, as many as the one before."""
        self._count = len(rows)
        if not self._batches:
            return
        if self._order is None:
            self._order = self._card.array(rows)
        else:
            self._card.assign(self._order, rows)

    def take(self, k: int) -> tuple[Any, ...]:
        """Batch k of the epoch, in memory that the next call uses."""
        if not self._batches:
            return self._parts
        lo = k * self._size
        count = min(self._size, self._count - lo)
        for length, source, target in self._moves:
            self._each_word(_gather_at, self._order, lo, count, length, source, target)
        if count not in self._batches:  # the last one
            whole = self._batches[self._size]
            self._batches[count] = tuple(_first_rows(buffer, count) for buffer in whole)
        return self._batches[count]

    def not_finite(self, rows: NDArray[np.int64]) -> list[str]:
        """Which of these rows hold a number that is not finite, by part.

        A byte for each of them comes to the host.
        """
        found: list[str] = []
        order = self._card.array(rows)
        for i, (part, seen) in enumerate(zip(self._parts, self._views, strict=True)):
            real = np.finfo(seen.dtype).dtype if seen.dtype.kind in "fc" else None
            length = prod(seen.shape[1:])
            if real is None or not length:
                continue
            length *= seen.dtype.itemsize // real.itemsize
            (words,) = self._card.words(real.itemsize, part)
            exponent = np.array(np.inf, real).view(words.dtype)[()]
            marks = self._card.array(np.zeros(len(rows), np.uint8))
            self._each_word(_mark_at, order, 0, len(rows), length, words, exponent, marks)
            wrong = rows[self._card.host(marks) != 0]
            found += [f"row {row} of {self._name}[{i}]" for row in wrong]
        return found

    @functools.cached_property
    def fingerprint(self) -> str | None:
        """What tells the data from others, as that of the same `Batches`."""
        rows = sample_of(self.rows)
        samples = []
        for seen in self._views:
            sample = np.empty((len(rows), *seen.shape[1:]), seen.dtype)
            for k, row in enumerate(rows.tolist() if sample.size else ()):
                sample[k] = self._card.host(seen[row : row + 1])[0]
            samples.append(sample)
        return checkpoint.fingerprint((self.rows, *samples))

    def _each_word(
        self, at: Any, order: Any, first: int, count: int, length: int, *arguments: Any
    ) -> None:
        shift = min(length - 1, launch.THREADS - 1).bit_length()
        kernel = kernel_at(each_word_template, at)
        self.vectors.launcher.spread(
            count << shift, kernel, order, first, count, length, shift, arguments
        )


def _first_rows(array: Any, count: int) -> Any:
    if getattr(array, "__cuda_ndarray__", False) is True and not array.size:
        # Of an array without memory, Numba makes no slices.
        return load().device_array((count, *array.shape[1:]), array.dtype)
    return array[:count]


def _as_rows(part: Any, name: str) -> Any:
    """A part of the data as kernels take it."""
    if not interop.is_device_array(part):
        raise TypeError(
            f"{name} must be an array on the GPU, as x0 is, got {type(part).__name__}: "
            f"pass one such as cupy.asarray({name}), several as a tuple"
        )
    seen = view(part, name)
    if not seen.shape:
        raise ValueError(f"{name} must have rows, got a scalar")
    return seen
