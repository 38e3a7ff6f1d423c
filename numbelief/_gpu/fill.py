"""The one kernel that a card needs by itself: let all of an array be a number."""

import functools
from typing import Any

from numba import cuda

from numbelief._gpu import compile as gpu


def fill(array, value):
    """Let each coordinate of an array of shape (n,) be a value."""
    i = cuda.grid(1)
    while i < array.size:
        array[i] = value
        i += cuda.gridsize(1)


@functools.cache
def _compile_fill(kinds: tuple[Any, ...]) -> Any:
    return gpu.compile_kernel(gpu.for_card(fill), kinds)


def launch_fill(array: Any, value: Any, stream: Any) -> None:
    """Queue it."""
    arguments = array, value
    blocks = min(-(-array.size // gpu.THREADS), gpu.most_blocks())
    kernel = _compile_fill(tuple(map(gpu.kind_of, arguments)))
    gpu.configured(kernel, blocks, gpu.THREADS, stream)(*arguments)
