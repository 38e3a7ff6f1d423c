"""Compile plain Python for an NVIDIA GPU; `load` says what is missing where that cannot be."""

import functools
import warnings
from typing import Any

import numba
import numpy as np
from numba import types as nb

from numbelief._compile import internals
from numbelief._compile.template import adopt
from numbelief._gpu import INSTALL

# Threads in a thread block, a power of two.
THREADS = 256
# Thread blocks for each multiprocessor, at most: a few times as many as are resident at once.
BLOCKS_PER_MULTIPROCESSOR = 32
#: Numba's simulator runs kernels without a GPU, on arrays that are those of the host.
SIMULATED = bool(numba.config.ENABLE_CUDASIM)


@functools.cache
def load() -> Any:
    """``numba.cuda``, after checking that it can run kernels here.

    Raises
    ------
    RuntimeError
        One of CUDA's packages, or the GPU, is missing.
    """
    from numba import cuda

    if not cuda.is_available():
        raise RuntimeError(
            "no GPU can be used here: numba-cuda finds no NVIDIA GPU with its driver, or not the "
            f"packages of CUDA ({INSTALL}); the driver says: "
            f"{' '.join(str(cuda.cuda_error() or 'nothing').split())}"
        )
    return cuda


def _larger(a, b):
    """Python's max: CUDA's own drops a NaN."""
    return b if b > a else a


def _smaller(a, b):
    """Python's min."""
    return b if b < a else a


def _flushed(value, tiny):
    return value * 0 if abs(value) < tiny else value


def device(function: Any) -> Any:
    """A plain function as others on the card may call it."""
    from numba import cuda

    return cuda.jit(device=True)(function)


@functools.cache
def names_on_card() -> dict[str, Any]:
    """What takes the place of the CPU's intrinsics in functions for the card."""
    larger, smaller = device(_larger), device(_smaller)
    names = {"max": larger, "min": smaller, "larger": larger, "smaller": smaller}
    if SIMULATED:
        return internals.IN_PYTHON | names
    return names | {"flushed": device(_flushed)}


def for_card(function: Any, **names: Any) -> Any:
    """A plain function, with what it calls, for the card; it itself is not compiled."""
    return adopt(function, device, **(names_on_card() | names))


def kind_of(value: Any) -> Any:
    """The Numba type of a kernel's argument."""
    if value is None:
        return nb.none
    if isinstance(value, tuple):
        return nb.Tuple([kind_of(each) for each in value])
    if not hasattr(value, "dtype"):
        return {int: nb.int64, float: nb.float64}[type(value)]
    kind = numba.from_dtype(value.dtype)
    return nb.Array(kind, 1, "C") if value.shape else kind


class NoneIsNothing:
    """Lets a launch pass None: a kernel has a pointer in its place, and does not read it."""

    @staticmethod
    def prepare_args(kind: Any, value: Any, **_: Any) -> tuple[Any, Any]:
        return (nb.uintp, 0) if value is None else (kind, value)


def compile_kernel(kernel: Any, kinds: tuple[Any, ...]) -> Any:
    """A kernel for types of arguments: with these known, a launch does not look for them."""
    options = {} if SIMULATED else {"extensions": [NoneIsNothing]}
    return load().jit(nb.void(*kinds), **options)(kernel)


def configured(kernel: Any, blocks: int, threads: int, stream: Any = 0, shared: int = 0) -> Any:
    """A kernel with its launch, which arguments complete."""
    with warnings.catch_warnings():  # that so few blocks leave most of the card idle
        warnings.simplefilter("ignore")
        return kernel[blocks, threads, stream, shared]


def most_blocks() -> int:
    """Thread blocks of a launch, at most."""
    multiprocessors = 1 if SIMULATED else load().get_current_device().MULTIPROCESSOR_COUNT
    return int(multiprocessors * BLOCKS_PER_MULTIPROCESSOR)
