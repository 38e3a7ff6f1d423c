"""Vectors of numbers of any size: no square overflows or vanishes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def power_of_two(value: Any) -> Any:
    """The power of two at or below a magnitude, between 2**-1000 and 2**1000; 1 for 0."""
    exponent = np.frexp(value)[1] - 1
    return np.where(np.asarray(value) > 0, np.ldexp(1.0, np.clip(exponent, -1000, 1000)), 1.0)


def norm(x: NDArray[np.float64]) -> float:
    """The Euclidean norm."""
    scale = power_of_two(np.abs(x).max())
    return float(scale * np.linalg.norm(x / scale))


def scaled_hyperplane(
    normal: NDArray[np.float64], offset: float
) -> tuple[NDArray[np.float64], float]:
    """The same hyperplane with a normal of a size of 1."""
    scale = power_of_two(np.abs(normal).max())
    return normal / scale, float(offset / scale)
