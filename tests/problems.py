"""Smooth test problems with known minima, shared by the tests of minimize."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TestProblem:
    """An objective with its gradient, a start and its minimum."""

    __test__ = False

    name: str
    fun: Any
    grad: Any
    x0: NDArray[np.float64]
    minimum: NDArray[np.float64]
    rate: float


_SCALES = np.array([1.0, 3.0, 10.0])


def _quadratic(x):
    return float((_SCALES * (x - 1) ** 2).sum() / 2)


def _quadratic_grad(x):
    return (_SCALES * (x - 1)).astype(x.dtype)


def rosenbrock(x):
    return float((1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2)


def rosenbrock_grad(x):
    gap = x[1] - x[0] ** 2
    return np.array([-2 * (1 - x[0]) - 400 * gap * x[0], 200 * gap], dtype=x.dtype)


def _beale_terms(x):
    return [c - x[0] * (1 - x[1] ** k) for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))]


def _beale(x):
    return float(sum(t**2 for t in _beale_terms(x)))


def _beale_grad(x):
    a, b, c = _beale_terms(x)
    first = -2 * (a * (1 - x[1]) + b * (1 - x[1] ** 2) + c * (1 - x[1] ** 3))
    second = 2 * x[0] * (a + 2 * b * x[1] + 3 * c * x[1] ** 2)
    return np.array([first, second], dtype=x.dtype)


QUADRATIC = TestProblem(
    "quadratic", _quadratic, _quadratic_grad, np.array([3.0, -2.0, 0.5]), np.ones(3), 0.05
)
ROSENBROCK = TestProblem(
    "rosenbrock", rosenbrock, rosenbrock_grad, np.array([-1.2, 1.0]), np.ones(2), 0.02
)
BEALE = TestProblem("beale", _beale, _beale_grad, np.array([1.0, 1.0]), np.array([3.0, 0.5]), 0.02)

PROBLEMS = [QUADRATIC, ROSENBROCK, BEALE]
