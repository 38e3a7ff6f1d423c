"""Terms that several theorems have, and products where 0 times infinity is 0."""

from math import sqrt
from typing import Any

import numpy as np

from numbelief.online.audit import Audit, Vector
from numbelief.online.theorems.base import Terms


def product(*factors: Any) -> Any:
    """A product in which 0 times infinity is 0: nothing is at stake there, whatever the weight."""
    product: Any = np.float64(1.0)
    for factor in factors:
        product = np.where((product == 0) | (np.asarray(factor) == 0), 0.0, product * factor)
    return product


def inverse(value: Any) -> Any:
    """1 / value, infinite at 0."""
    return np.float64(1.0) / np.asarray(value, dtype=np.float64)


def adaptive_terms(run: Audit, distance: Vector, gradients: Vector) -> Terms:
    """What AdaBelief and AMSGrad share, with the momentum of a constant beta1."""
    alpha, beta = run.alpha, run.beta1
    widened = 1 / (1 - beta) if run.decay < 1 else 1.0
    ends = (run.extent() * abs(run.sums["direction"])).sum(1)
    return {
        "distance": product(widened * np.sqrt(run.t) / 2, distance.sum(1), inverse(alpha)),
        "gradients": product(alpha, gradients),
        "momentum": beta / (1 - beta) * ends,
    }


def sum_of_weights(run: Audit, eps_root: float, eps: float) -> Vector:
    """The third term for a beta1 that decays, sum beta1_t D_i^2 H_{t,i} / (2 (1 - beta1))."""
    squares, beta = run.extent() ** 2, run.beta1
    fading = beta * run.decay ** np.arange(run.result.rounds)
    weights = run.at(np.cumsum(product(fading, inverse(run.rates()))))
    constant = product(sqrt(eps_root) + eps, weights)
    sums = product(squares, run.sums["belief"] + constant[:, None])
    return np.asarray(sums.sum(1) / (2 * (1 - beta)))
