"""Launches of kernels, and those over the coordinates of vectors."""

import functools
import warnings
from typing import Any

from numba import cuda

from numbelief._compile.template import bind
from numbelief._gpu.compile import SIMULATED, compile_kernel, for_card, kind_of, load

# Threads in a thread block, a power of two.
THREADS = 256
# Thread blocks for each multiprocessor, at most: a few times as many as are resident at once.
BLOCKS_PER_MULTIPROCESSOR = 32
# Thread blocks that take part in a reduction, at most: each block of the next launch reads what all
# of them found.
PARTS = 1024
# The sums of a step are taken over blocks of this size, and then over the blocks in order.
SUM_BLOCK = 1 << 12


def most_blocks() -> int:
    """Thread blocks of a launch, at most."""
    multiprocessors = 1 if SIMULATED else load().get_current_device().MULTIPROCESSOR_COUNT
    return int(multiprocessors * BLOCKS_PER_MULTIPROCESSOR)


def configured(kernel: Any, blocks: int, threads: int, stream: Any = 0, shared: int = 0) -> Any:
    """A kernel with its launch, which arguments complete."""
    with warnings.catch_warnings():  # that so few blocks leave most of the card idle
        warnings.simplefilter("ignore")
        return kernel[blocks, threads, stream, shared]


def each_template(at):
    """Do something at each coordinate: ``at(i, *vectors)``."""

    def each(vectors):
        i = cuda.grid(1)
        while i < vectors[0].size:
            at(i, *vectors)
            i += cuda.gridsize(1)

    return each


def copy_at(i, source, target):
    """Copy coordinate i."""
    target[i] = source[i]


def fill_at(i, array, value):
    """Let coordinate i be a value."""
    array[i] = value


@functools.cache
def kernel_at(template: Any, at: Any) -> Any:
    """The kernel of a template that takes what is done at a coordinate; always the same one."""
    return bind(template, at=at)


@functools.cache
def compiled(kernel: Any, kinds: tuple[Any, ...]) -> Any:
    """A kernel, of plain Python, compiled for arguments of some types."""
    return compile_kernel(for_card(kernel), kinds)


class Launcher:
    """Launches of kernels on vectors of n coordinates, compiled for the arguments that come.

    Parameters
    ----------
    n : int
        How many coordinates.
    stream : stream or 0
        Where they are queued.

    Attributes
    ----------
    parts : int
        Thread blocks that take part in a reduction.
    """

    def __init__(self, n: int, stream: Any) -> None:
        self._n, self._stream = n, stream
        self.parts = min(-(-n // THREADS), PARTS)
        self._most_blocks = most_blocks()
        self._launches: dict[tuple[Any, ...], Any] = {}

    def each(self, at: Any, *vectors: Any) -> None:
        """Do something at each coordinate: ``at(i, *vectors)``; numbers may follow the vectors."""
        self.map(kernel_at(each_template, at), vectors)

    def map(self, kernel: Any, *arguments: Any) -> None:
        """Launch as many blocks as there is work for."""
        self.spread(self._n, kernel, *arguments)

    def reduce(self, kernel: Any, *arguments: Any) -> None:
        """Launch as many blocks as there are parts."""
        self._launch(kernel, self.parts, arguments)

    def conclude(self, kernel: Any, *arguments: Any) -> None:
        """Launch one block."""
        self._launch(kernel, 1, arguments)

    def spread(self, work: int, kernel: Any, *arguments: Any) -> None:
        """Launch at most as many blocks as ``work`` threads take."""
        self._launch(kernel, min(-(-work // THREADS), self._most_blocks), arguments)

    def _launch(self, kernel: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
        key = (kernel, blocks, *map(_sort_of, arguments))
        launch = self._launches.get(key)
        if launch is None:
            made = compiled(kernel, tuple(map(kind_of, arguments)))
            launch = configured(made, blocks, THREADS, self._stream, 8 * THREADS)
            self._launches[key] = launch
        launch(*arguments)


def _sort_of(value: Any) -> Any:
    """What tells the compiled forms of a kernel apart."""
    if type(value) is tuple:
        return tuple(map(_sort_of, value))
    return getattr(value, "dtype", type(value))
