"""Compile plain Python for an NVIDIA GPU; `load` says what is missing where that cannot be."""

import functools
from typing import Any

import numba
from numba import cuda
from numba import types as nb

from numbelief._compile.internals import EPS, TINY
from numbelief._compile.template import adopt
from numbelief._gpu import INSTALL

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
    if not cuda.is_available():
        raise RuntimeError(
            "no GPU can be used here: numba-cuda finds no NVIDIA GPU with its driver, or not the "
            f"packages of CUDA ({INSTALL}); the driver says: "
            f"{' '.join(str(cuda.cuda_error() or 'nothing').split())}"
        )
    return cuda


# ---- functions ---------------------------------------------------------------------------------

#: What Python runs in place of the CPU's intrinsics, where it runs the text of kernels itself.
IN_PYTHON: dict[str, Any] = {
    "larger": lambda a, b: b if b > a else a,
    "smaller": lambda a, b: b if b < a else a,
    "flushed": lambda value, tiny: tiny - tiny if abs(value) < tiny else value,
    "row": lambda array, k: array[k],
    "window": lambda array, lo, hi: array[lo:hi],
    "cast": lambda values, like: tuple(map(like.dtype.type, values)),
    "tiny_of": lambda array: TINY[8 * array.dtype.itemsize],
    "eps_of": lambda array: EPS[8 * array.dtype.itemsize],
    "bits_of": lambda value: abs(value).view(f"i{value.itemsize}"),
    "of_bits": lambda bits: float(bits.view(f"f{bits.itemsize}")),
    "to_fixed_tuple": lambda values, count: tuple(values),
    "stays_apart": lambda: None,
}


def device(function: Any) -> Any:
    """A plain function as others on the card may call it."""
    return cuda.jit(device=True)(function)


@functools.cache
def _builtins() -> dict[str, Any]:
    # As in Python: CUDA's own drop a NaN.
    return {"max": device(IN_PYTHON["larger"]), "min": device(IN_PYTHON["smaller"])}


@functools.cache
def _names() -> dict[str, Any]:
    """What takes the place of the CPU's intrinsics in functions for the card."""
    builtins = _builtins()
    names = {**builtins, "larger": builtins["max"], "smaller": builtins["min"]}
    if SIMULATED:
        return IN_PYTHON | names
    return names | {name: device(IN_PYTHON[name]) for name in ("flushed", "stays_apart")}


def for_card(function: Any, **names: Any) -> Any:
    """A plain function, with what it calls, for the card; it itself is not compiled.

    It may not call one that returns an array that it has made.
    """
    return adopt(function, device, **_names() | names)


def of_rule(function: Any) -> Any:
    """A function of a rule for the card: what it calls is its author's, except max and min."""
    return device(adopt(function, device, **_builtins()))


# ---- kernels -----------------------------------------------------------------------------------


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


class _NoneIsNothing:
    """Lets a launch pass None: a kernel has a pointer in its place, and does not read it."""

    @staticmethod
    def prepare_args(kind: Any, value: Any, **_: Any) -> tuple[Any, Any]:
        return (nb.uintp, 0) if value is None else (kind, value)


def compile_kernel(kernel: Any, kinds: tuple[Any, ...] | None = None) -> Any:
    """A kernel of what `for_card` made.

    Parameters
    ----------
    kernel : function
    kinds : tuple of numba types, optional
        Those of its arguments: with these known, a launch does not look for them.
    """
    options = {} if SIMULATED else {"extensions": [_NoneIsNothing]}
    signature = () if kinds is None else (nb.void(*kinds),)
    return load().jit(*signature, **options)(kernel)
