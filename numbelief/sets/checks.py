"""What users pass to sets, checked and converted."""

from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief.checks import as_reals


def freeze(target: Any, **values: Any) -> None:
    """Assign to the fields of a frozen dataclass: arrays as read-only copies."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = np.array(value, order="C")
            value.flags.writeable = False
        object.__setattr__(target, name, value)


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


def as_center(value: Any) -> NDArray[np.float64]:
    """A point, or one number for all of its coordinates."""
    center = as_finite("center", value)
    if center.ndim > 1 or center.size == 0:
        raise ValueError(f"center must be a number or have shape (n,), got {center.shape}")
    return center


def as_normal(value: Any) -> NDArray[np.float64]:
    """The normal of a hyperplane."""
    normal = as_finite("normal", value)
    if normal.ndim != 1 or normal.size == 0:
        raise ValueError(f"normal must have shape (n,), got {normal.shape}")
    if not normal.any():
        raise ValueError("normal must not be zero, got only zeros")
    return normal


def as_point(name: str, value: Any) -> NDArray[Any]:
    """A copy of a point, of float32 or float64."""
    given = as_reals(value, name)
    if given.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {given.shape}")
    refuse_infinite(name, given)
    return np.array(given, dtype=np.float32 if given.dtype == np.float32 else np.float64)


def steps_of(metric: Any, n: int, dtype: Any) -> NDArray[Any]:
    """1 / metric, in units of the largest of them, which cannot overflow."""
    weights = as_reals(metric, "metric").astype(np.float64, copy=False)
    if weights.shape not in ((), (n,)):
        raise ValueError(f"metric must have shape ({n},), got {weights.shape}")
    least = weights.min()
    if not (least > 0 and weights.max() < inf):  # NaN is the minimum, where there is one
        refuse_infinite("metric", weights)
        i = int(np.argmin(weights))
        raise ValueError(f"metric must be above 0, got {weights.flat[i]} at index {i}")
    steps: NDArray[Any] = np.divide(least, np.broadcast_to(weights, (n,)))
    return steps.astype(dtype, copy=False)
