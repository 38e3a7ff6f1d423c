"""Data as mini-batches: what the user gave, the order of its rows, and the gathering of a batch."""

import contextlib
import functools
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from numbelief import _checkpoint as checkpoint
from numbelief._compile.internals import copy_bytes, give_back, prefetch, smaller
from numbelief._compile.jit import jit, key_of
from numbelief._compile.template import named
from numbelief.checks import as_array, as_reals, refuse_masked

# Pages of a memory-mapped file count as memory of the process until they are given back to the
# system. A map of _KEPT bytes may stay.
_KEPT = 1 << 28
# Of larger ones, they are given back every _STRETCH rows: to read one may map a huge page, of 2 MB.
_STRETCH = _KEPT >> 21
# So many rows stand for all of them in a fingerprint.
_SAMPLE = 64
# Bytes of a row that are fetched while the one before is copied, and those of a cache line. 1e5
# rows of 3 kB: 1.4 instead of 1.7 times as long as copying them in order.
_AHEAD, _LINE = 512, 64


class Order:
    """Which rows make up each epoch: a function of the seed and the number of the epoch.

    Parameters
    ----------
    rows : int
        Rows of the data.
    seed : None, int, sequence of int, SeedSequence, BitGenerator or Generator
        As `numpy.random.default_rng` takes it.
    shuffle, replacement : bool
        As in `numbelief.minimize_stochastic`.
    weights : array_like of shape (rows,), optional
        How likely each row is.
    """

    def __init__(
        self, rows: int, seed: Any, shuffle: bool, replacement: bool, weights: Any
    ) -> None:
        for name, value in (("shuffle", shuffle), ("replacement", replacement)):
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        if not shuffle and (replacement or weights is not None):
            what = "replacement=True" if replacement else "weights"
            raise ValueError(f"{what} draws rows at random, which shuffle=False forbids")
        if weights is not None and not replacement:
            raise ValueError(
                "weights are chances of being drawn, and need replacement=True: without it each "
                "row comes once in an epoch"
            )
        self.random = bool(shuffle)
        self.replacement = bool(replacement)
        self.weights = None if weights is None else _as_weights(weights, rows)
        self.rows = rows
        #: Rows of an epoch.
        self.size = rows
        try:
            #: What the epochs' generators are seeded with, besides their number.
            self.entropy = int(np.random.default_rng(seed).integers(1 << 63))
        except (TypeError, ValueError) as error:
            message = f"seed must be as numpy.random.default_rng takes it: {error}"
            raise type(error)(message) from None

    def of(self, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch, counted from 0, in their order."""
        if not self.random:
            return np.arange(self.rows)
        sequence = np.random.SeedSequence(self.entropy, spawn_key=(epoch,))
        random = np.random.Generator(np.random.PCG64(sequence))
        if not self.replacement:
            return random.permutation(self.rows)
        if self.weights is None:
            return random.integers(self.rows, size=self.rows)
        ends = np.cumsum(self.weights)
        return np.searchsorted(ends / ends[-1], random.random(self.rows), side="right")


def _as_weights(weights: Any, rows: int) -> NDArray[np.float64]:
    given = as_reals(weights, "weights")
    if given.shape != (rows,):
        raise ValueError(f"weights must have one number for each of {rows} rows, got {given.shape}")
    wrong = ~(np.isfinite(given) & (given >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"weights must be finite and at least 0, got {given[row]} for row {row}")
    if not given.any():
        raise ValueError("weights must not all be 0")
    return given / float(given.max())  # so that no sum overflows


def gather(rows, pieces):
    """Copy rows of each part of the data to where a batch lies; see `Batches`."""
    for part in range(pieces.shape[0]):
        source, stride, target = pieces[part, 0], pieces[part, 1], pieces[part, 2]
        length, map_start, map_length = pieces[part, 3], pieces[part, 4], pieces[part, 5]
        for i in range(rows.size):
            if map_length > 0:
                if pieces[part, 6] == _STRETCH:
                    give_back(map_start, map_length)
                    pieces[part, 6] = 0
                pieces[part, 6] += 1
            # The processor sees by itself that a row goes on, but not where the next one begins.
            following = source + rows[smaller(i + 1, rows.size - 1)] * stride
            for k in range(0, smaller(length, _AHEAD), _LINE):
                prefetch(following + k)
            copy_bytes(target + i * length, source + rows[i] * stride, length)


@functools.cache
def _compile_gather() -> Any:
    return jit(named(gather, key_of()), nogil=True)


class Batches:
    """The data, and the memory into which the rows of a batch are gathered.

    Parameters
    ----------
    data : tuple
        Arrays, `scipy.sparse` CSR, or objects with ``__len__`` and index-array ``__getitem__``, of
        one leading length. Anything else alone stands for a tuple of one.
    name : str
        The argument's name, for messages.

    Attributes
    ----------
    rows : int
        The leading length.
    pieces : ndarray of shape (parts, 7) or None
        For compiled code: where each part's rows lie, how far apart, where they go, and how long
        they are; start and length of the map that they lie in, or 0; and how many of them were read
        since its pages were given back. None where a part is not made of rows of adjacent bytes; of
        no parts where a batch is all rows.
    """

    def __init__(self, data: Any, name: str = "data") -> None:
        parts = parts_of(data, name)
        self._parts = tuple(_as_rows(part, f"{name}[{i}]") for i, part in enumerate(parts))
        self.rows = common_length([_length(part) for part in self._parts], name)
        self._name = name
        self._are_arrays = all(isinstance(part, np.ndarray) for part in self._parts)
        self._whole: tuple[Any, ...] | None = None
        self._buffers: tuple[Any, ...] | None = None
        self.pieces: NDArray[np.int64] | None = None
        self._maps = tuple(map(_file_map, self._parts))

    def whole(self) -> tuple[Any, ...]:
        """All rows, in their order, not to be written to."""
        return tuple(map(_whole, self._parts))

    def begin(self, size: int | None) -> None:
        """Get ready for batches of ``size`` rows, or for one that is always all of them (None)."""
        self._whole = self._buffers = self.pieces = None
        if size is None:
            self._whole = self.whole()
            if self._are_arrays and all(part.dtype.isnative for part in self._parts):
                self.pieces = np.zeros((0, 7), np.int64)
        elif self._are_arrays:
            shapes = ((size, *part.shape[1:]) for part in self._parts)
            self._buffers = tuple(map(np.empty, shapes, (part.dtype for part in self._parts)))
            if all(map(_is_plain, self._parts)):
                self.pieces = np.array(
                    [
                        (*_where(part), buffer.ctypes.data, buffer[0].nbytes, *_extent(mapped), 0)
                        for part, buffer, mapped in zip(
                            self._parts, self._buffers, self._maps, strict=True
                        )
                    ]
                )

    def draw(self, rows: NDArray[np.int64]) -> None:
        """Learn the rows of the epoch that begins, of which nothing is needed before `take`."""

    def take(self, rows: NDArray[np.int64]) -> tuple[Any, ...]:
        """These rows of each part, not to be written to, in memory that the next call may use."""
        if self._whole is not None:
            return self._whole
        if self._buffers is None:
            return tuple(_picked(part, rows) for part in self._parts)
        batch = tuple(buffer[: len(rows)] for buffer in self._buffers)
        if self.pieces is not None:
            _compile_gather()(rows, self.pieces)
            return tuple(map(_locked, batch))
        for part, target, mapped in zip(self._parts, batch, self._maps, strict=True):
            stretch = len(rows) if mapped is None else _STRETCH
            for lo in range(0, len(rows), stretch):
                some = rows[lo : lo + stretch]
                # Not np.take, which would first copy a part that is not contiguous, all of it.
                target[lo : lo + len(some)] = part[some]
                self._give_back()
        return tuple(map(_locked, batch))

    def _give_back(self) -> None:
        for mapped in self._maps:
            if mapped is not None:
                mapped.madvise(mmap.MADV_DONTNEED)

    def not_finite(self, rows: NDArray[np.int64]) -> list[str]:
        """Which of these rows hold a number that is not finite, by part."""
        found = []
        for i, part in enumerate(self._parts):
            for lo in range(0, len(rows), _SAMPLE):
                some = rows[lo : lo + _SAMPLE]
                wrong = some[_are_wrong(_picked(part, some), len(some))]
                found += [f"row {row} of {self._name}[{i}]" for row in wrong]
                self._give_back()
        return found

    @functools.cached_property
    def fingerprint(self) -> str | None:
        """What tells the data from others: the types, the length, and some rows."""
        rows = sample_of(self.rows)
        arrays = (array for part in self._parts for array in _arrays_in(_picked(part, rows)))
        found = checkpoint.fingerprint((self.rows, *arrays))
        self._give_back()
        return found


def sample_of(rows: int) -> NDArray[np.int64]:
    """The rows that stand for all ``rows`` in a fingerprint."""
    return np.unique(np.linspace(0, rows - 1, _SAMPLE).astype(np.int64))


def parts_of(data: Any, name: str) -> tuple[Any, ...]:
    """Data as the tuple of its parts."""
    parts = data if isinstance(data, tuple) else (data,)
    if not parts:
        raise ValueError(f"{name} must hold at least one array, got an empty tuple")
    return parts


def common_length(lengths: list[int], name: str) -> int:
    """The leading length of all parts."""
    if len({*lengths}) > 1:
        raise ValueError(f"the arrays of {name} must have one leading length, got {lengths}")
    if lengths[0] == 0:
        raise ValueError(f"{name} must not be empty, got arrays of length 0")
    return lengths[0]


def _as_rows(part: Any, name: str) -> Any:
    """A part of the data in a form whose rows an array of indices picks."""
    if scipy.sparse.issparse(part):
        if part.format != "csr":
            raise TypeError(f"{name} must be in CSR format, got {part.format}: use .tocsr()")
        if not part.has_canonical_format:  # SciPy would sort it in place, which is not allowed here
            part = part.copy()
            part.sum_duplicates()
        return part
    refuse_masked(name, part)
    if isinstance(part, (list, tuple, memoryview)) or hasattr(part, "iloc"):
        try:
            part = as_array(part, name)
        except TypeError as error:
            raise TypeError(f"{error} (several arrays are given as a tuple of them)") from None
    if isinstance(part, np.ndarray):
        if part.ndim == 0:
            raise ValueError(f"{name} must have rows, got a scalar")
        if part.dtype.kind == "O":
            raise TypeError(f"{name} must hold numbers of one dtype, got dtype object")
        # A plain view: what np.memmap and np.matrix do besides is not wanted here.
        return part.view(np.ndarray)
    if not (hasattr(part, "__len__") and hasattr(part, "__getitem__")) or isinstance(
        part, (str, bytes, dict)
    ):
        raise TypeError(
            f"{name} must be an array, a CSR matrix, or have __len__ and __getitem__ for an array "
            f"of indices, got {type(part).__name__}"
        )
    return part


def _length(part: Any) -> int:
    return int(part.shape[0]) if hasattr(part, "shape") else len(part)


def _locked(array: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def _whole(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return _locked(part)
    if scipy.sparse.issparse(part):
        arrays = tuple(map(_locked, (part.data, part.indices, part.indptr)))
        return type(part)(arrays, shape=part.shape, copy=False)
    return _picked(part, np.arange(_length(part)))


def _picked(part: Any, rows: NDArray[np.int64]) -> Any:
    """Some rows of a part, not to be written to where NumPy can see to it."""
    picked = part[rows]
    if scipy.sparse.issparse(picked):
        for array in (picked.data, picked.indices, picked.indptr):
            array.flags.writeable = False
    elif isinstance(picked, np.ndarray):
        picked = _locked(picked)
    return picked


def _are_wrong(batch: Any, count: int) -> NDArray[np.bool_]:
    """Which of ``count`` rows hold a number that is not finite."""
    wrong = np.zeros(count, bool)
    if scipy.sparse.issparse(batch):
        owner = np.repeat(np.arange(count), np.diff(batch.indptr))
        wrong[owner[~np.isfinite(batch.data)]] = True
        return wrong
    for values in _arrays_in(batch):
        if values.dtype.kind in "fc" and values.shape[:1] == (count,):
            wrong |= ~np.isfinite(values.reshape(count, -1)).all(axis=1)
    return wrong


def _arrays_in(value: Any) -> Iterator[NDArray[Any]]:
    """The arrays that rows of a part of the data are made of, as far as NumPy can tell."""
    if scipy.sparse.issparse(value):
        yield from (value.data, value.indices, value.indptr)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _arrays_in(value[key])
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _arrays_in(each)
    else:
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            array = as_array(value, "data")
            if array.dtype.names:
                for name in array.dtype.names:
                    yield from _arrays_in(array[name])
            elif array.dtype.kind != "O":
                yield array


def _where(part: NDArray[Any]) -> tuple[int, int]:
    """The address of an array's rows, and how far apart they are."""
    return part.ctypes.data, part.strides[0]


def _extent(mapped: mmap.mmap | None) -> tuple[int, int]:
    """Where a map begins, and how long it is."""
    if mapped is None:
        return 0, 0
    return np.frombuffer(mapped, np.uint8).ctypes.data, len(mapped)


def _is_plain(part: NDArray[Any]) -> bool:
    """Whether the bytes of each row are adjacent, as compiled code copies them."""
    return part.dtype.isnative and part[:1].flags.c_contiguous


def _file_map(part: Any) -> mmap.mmap | None:
    """The large mapped file that an array looks into, if its pages may be given back."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None
    shared = False
    while isinstance(part, np.ndarray):
        # Pages of another map may hold what was written to it, and nothing else does.
        shared = shared or getattr(part, "mode", None) in ("r", "r+", "w+")
        part = part.base
    large = isinstance(part, mmap.mmap) and len(part) >= _KEPT
    return part if large and shared else None
