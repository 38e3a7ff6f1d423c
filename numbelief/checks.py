"""What users pass, checked and converted: numbers, points, gradients, values."""

import operator
from math import inf, isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray


def integer(name: str, value: Any, low: int = 0) -> int:
    """An integer of at least 0, or 1."""
    if isinstance(value, float) and value.is_integer():  # maxiter=1e5
        value = int(value)
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        kind = ValueError if isinstance(value, float) else TypeError
        raise kind(f"{name} must be an integer of at least {low}, got {value!r}")
    if number < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")
    return min(number, 1 << 62)  # a counter of 64 bits never gets there


def real(name: str, value: Any, low: float) -> float:
    """A number of at least low; infinity is one, NaN is not."""
    refused = isinstance(value, (bool, str)) or np.iscomplexobj(value) or np.ndim(value) > 0
    if refused or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number below 1.8e308, got a larger integer") from None
    if isnan(number) or number < low:
        least = "" if low == -inf else f" of at least {low:g}"
        raise ValueError(f"{name} must be a number{least}, got {value!r}")
    return number


def positive(name: str, value: Any) -> float:
    """A number above 0."""
    number = real(name, value, -inf)
    if number <= 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return number


def flag(name: str, value: Any) -> bool:
    """True or False, also as 1 or 0."""
    if not isinstance(value, (bool, np.bool_, int)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in known:
        words = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        raise ValueError(f"{name} must be {words}, got {value!r}")
    return value


def limit(name: str, value: Any) -> float | None:
    """A number above 0, or None for no limit, which infinity is as well."""
    number = None if value is None else positive(name, value)
    return None if number == inf else number


def refuse_masked(name: str, value: Any) -> None:
    """Raise TypeError for a masked array: NumPy would take what lies below the mask."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: fill it, or leave those entries out")


def as_parameters(x: Any) -> NDArray[Any]:
    """A plain view of the caller's array, after checking that kernels can write to it."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be a NumPy array, got {type(x).__name__}")
    refuse_masked("x", x)
    if x.dtype not in (np.float32, np.float64) or not x.dtype.isnative:
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"x must have one dimension and not be empty, got shape {x.shape}")
    if not x.flags.c_contiguous:
        raise ValueError("x must be C-contiguous, got a strided view: pass a copy")
    if not x.flags.writeable:
        raise ValueError("x must be writable, got a read-only array")
    return x.view(np.ndarray)


def as_first_point(x0: Any) -> NDArray[Any]:
    """A copy of x0 that the run may write to."""
    given = _as_floats(x0, "x0")
    if given.ndim > 1:
        raise ValueError(f"'x0' must only have one dimension, got shape {given.shape}")
    if given.size == 0:
        raise ValueError("x0 must not be empty")
    if not np.isfinite(given).all():
        i = int(np.argmin(np.isfinite(given)))
        raise ValueError(f"x0 must be finite, got {given.flat[i]} at index {i}")
    return np.atleast_1d(given)


def as_first_points(X0: Any) -> NDArray[Any]:
    """A copy of X0, one first point a row."""
    given = _as_floats(X0, "X0")
    if given.ndim != 2 or given.size == 0:
        raise ValueError(f"X0 must have shape (B, n), with B and n at least 1, got {given.shape}")
    return given


def _as_floats(value: Any, name: str) -> NDArray[Any]:
    """A contiguous copy, in float32 where the value is, else in float64."""
    given = as_array(value, name)
    if given.dtype.kind in "iub":
        given = given.astype(np.float64)
    if given.dtype.newbyteorder("=") not in (np.float32, np.float64):
        raise TypeError(
            f"{name} must hold float32, float64 or integer numbers, got dtype {given.dtype}"
        )
    return np.array(given, dtype=given.dtype.newbyteorder("="), order="C")


def as_gradient(grad: Any, x: NDArray[Any], name: str) -> NDArray[Any]:
    """Copy what a user calls a gradient into a new array like x.

    Raises
    ------
    TypeError
        It is None, complex, or not numbers.
    ValueError
        It has another shape than x.
    """
    array = as_reals(grad, name)
    if array.shape != x.shape and not (x.size == 1 and array.ndim == 0):
        raise ValueError(f"{name} must have the shape of x, {x.shape}, got {array.shape}")
    with np.errstate(over="ignore"):  # beyond float32 is inf, which callers look for
        return np.array(array, dtype=x.dtype, order="C").reshape(x.shape)


def as_reals(value: Any, name: str) -> NDArray[Any]:
    """What NumPy makes of a user's value, which must hold real numbers."""
    array = as_array(value, name)
    if array.dtype.kind not in "fiub":
        got = "None" if value is None else f"dtype {array.dtype}"
        raise TypeError(f"{name} must hold real numbers, got {got}")
    return array


def as_array(value: Any, name: str) -> NDArray[Any]:
    """What NumPy, or DLPack where NumPy cannot, makes of a user's value."""
    refuse_masked(name, value)
    if hasattr(value, "detach"):  # a PyTorch tensor that still carries its graph
        value = value.detach()
    try:
        return np.asarray(value)
    except (TypeError, RuntimeError, ValueError) as error:
        try:
            return np.from_dlpack(value)
        except Exception:
            raise TypeError(
                f"{name} must be convertible to a NumPy array, got {type(value).__name__}: {error}"
            ) from error


def as_scalar(value: Any, name: str = "fun") -> float:
    """What a function returned as a float.

    Raises
    ------
    TypeError
        It is not a real number.
    ValueError
        It has more than one element.
    """
    if isinstance(value, float):  # numpy.float64 is one too
        return float(value)
    array = as_array(value, f"the value of {name}")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must return a real number, got {value!r}")
    if array.size != 1:
        raise ValueError(f"{name} must return a scalar, got shape {array.shape}")
    return float(array.reshape(())[()])


def as_bound(name: str, value: Any) -> NDArray[np.float64]:
    """Numbers other than NaN."""
    bound = as_reals(value, name).astype(np.float64)
    if np.isnan(bound).any():
        raise ValueError(f"{name} must not be NaN, got {value!r}")
    return bound


def as_finite(name: str, value: Any) -> NDArray[np.float64]:
    """Finite numbers."""
    array = as_reals(value, name)
    refuse_infinite(name, array)
    return array.astype(np.float64)


def refuse_infinite(name: str, array: NDArray[Any]) -> None:
    """Raise ValueError where a number is infinite or NaN."""
    finite = np.isfinite(array)
    if not finite.all():
        i = int(np.argmin(finite))
        raise ValueError(f"{name} must be finite, got {array.flat[i]} at index {i}")


def as_number(name: str, value: Any) -> float:
    """One finite number."""
    array = as_finite(name, value)
    if array.ndim > 0:
        raise TypeError(f"{name} must be a number, got shape {array.shape}")
    return float(array)


def as_nonnegative(name: str, value: Any) -> float:
    """One finite number of at least 0."""
    number = as_number(name, value)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {number:g}")
    return number


def as_point(name: str, value: Any) -> NDArray[Any]:
    """A copy of a point, of float32 or float64."""
    given = as_reals(value, name)
    if given.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {given.shape}")
    refuse_infinite(name, given)
    return np.array(given, dtype=np.float32 if given.dtype == np.float32 else np.float64)
