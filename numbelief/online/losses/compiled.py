"""What compiled code does with losses: play one round, and add up many.

Templates around ``loss(z, y)``, see `numbelief.online.losses.Losses`. In all of them x, grad and
gradient have shape (n,), the features a have shape (n,) for one round and (T, n) for all, and the
targets y are a number or (T,), or (T, n) where there are no features.
"""

import functools
import types
from typing import Any

import numpy as np

from numbelief._compile.arrays import SUM_BLOCK
from numbelief._compile.internals import row, smaller, window
from numbelief._compile.jit import jit, key_of, part
from numbelief._compile.template import bind


def _dot(a, x):
    total = 0.0
    for i in range(x.size):
        total += np.float64(a[i]) * np.float64(x[i])
    return total


# Only where the sum may be reordered does it use vectors, and then it is the same for all callers.
dot = part(_dot, fastmath={"reassoc"}, allocates=False)


def target_of(y, t):
    """The target of a round, or 0 if there are no targets."""
    if y is None:
        return 0.0
    else:
        return np.float64(y[t])


# ---- one round ---------------------------------------------------------------------------------


def features_template(loss):
    """``fun(x, grad, a)`` returns the loss of a margin, and fills grad."""

    def round_of_features(x, grad, a):
        value, slope, _ = loss(dot(window(a, 0, a.size), x), 0.0)
        for i in range(x.size):
            grad[i] = slope * a[i]
        return value

    return round_of_features


def targets_template(loss):
    """The same with a target, ``fun(x, grad, a, y)``."""

    def round_of_targets(x, grad, a, y):
        value, slope, _ = loss(dot(window(a, 0, a.size), x), np.float64(y))
        for i in range(x.size):
            grad[i] = slope * a[i]
        return value

    return round_of_targets


def coordinates_template(loss):
    """The same for a sum over the coordinates, ``fun(x, grad, y)`` with y of shape (n,)."""

    def round_of_coordinates(x, grad, y):
        total = 0.0
        for i in range(x.size):
            value, slope, _ = loss(np.float64(x[i]), np.float64(y[i]))
            total += value
            grad[i] = slope
        return total

    return round_of_coordinates


# ---- many rounds -------------------------------------------------------------------------------
# Sums are taken over blocks of rounds: 3e6 terms one by one lose 3 digits.


def total_of_features_template(loss):
    """The sum of the first ``upto`` losses of a margin; its gradient is added to ``gradient``."""

    def total_of_features(x, gradient, upto, a, y):
        total = 0.0
        for first in range(0, upto, SUM_BLOCK):
            block = 0.0
            for t in range(first, smaller(first + SUM_BLOCK, upto)):
                features = row(a, t)
                value, slope, _ = loss(dot(features, x), target_of(y, t))
                block += value
                for i in range(x.size):
                    gradient[i] += slope * features[i]
            total += block
        return total

    return total_of_features


def total_of_coordinates_template(loss):
    """The same for sums over the coordinates."""

    def total_of_coordinates(x, gradient, upto, y):
        total = 0.0
        for first in range(0, upto, SUM_BLOCK):
            block = 0.0
            for t in range(first, smaller(first + SUM_BLOCK, upto)):
                for i in range(x.size):
                    value, slope, _ = loss(x[i], np.float64(y[t, i]))
                    block += value
                    gradient[i] += slope
            total += block
        return total

    return total_of_coordinates


def along_template(one_round):
    """The losses of a sequence of points, one a round, from one table of data."""

    def along(points, costs, grad, data):
        for t in range(costs.size):
            costs[t] = one_round(row(points, t), grad, row(data, t))

    return along


def along_targets_template(one_round):
    """The same from features and targets."""

    def along_targets(points, costs, grad, a, y):
        for t in range(costs.size):
            costs[t] = one_round(row(points, t), grad, row(a, t), y[t])

    return along_targets


def model_template(loss):
    """The slopes and curvatures at many z; the sum of the losses, three times."""

    def model(z, y, width, slope, curvature):
        total = 0.0
        for k in range(z.size):
            value, slope[k], curvature[k] = loss(z[k], target_of(y, k))
            total += value
        return total, total, total

    return model


def model_of_corners_template(loss, smoothed):
    """The same of losses with corners: the sums of losses, of tangents, of rounded losses."""

    def model_of_corners(z, y, width, slope, curvature):
        total = tangent = merit = 0.0
        for k in range(z.size):
            total += loss(z[k], target_of(y, k))[0]
            linear, rounded, slope[k], curvature[k] = smoothed(z[k], target_of(y, k), width)
            tangent += linear
            merit += rounded
        return total, tangent, merit

    return model_of_corners


# ---- callbacks ---------------------------------------------------------------------------------


def callback_template(function):
    """``fun(x, grad, t)`` around ``function(t, x) -> loss, gradient``."""

    def round_of_callback(x, grad, t):
        value, gradient = function(t, x)
        if np.shape(gradient) != x.shape:  # else it would be spread over the coordinates
            raise ValueError("function must return a gradient of the shape of x")
        values = np.asarray(gradient).flat  # a slice takes 1 s to compile
        for i in range(x.size):
            grad[i] = values[i]
        return value

    return round_of_callback


def total_of_callback_template(one_round):
    """The sum of the losses of the rounds ``begin`` + 1 to ``begin + upto``, and its gradient."""

    def total_of_callback(x, gradient, begin, upto):
        total, grad = 0.0, np.empty_like(x)
        for first in range(0, upto, SUM_BLOCK):
            block = 0.0
            for t in range(first, smaller(first + SUM_BLOCK, upto)):
                block += one_round(x.copy(), grad, begin + t + 1)
                gradient += grad
            total += block
        return total

    return total_of_callback


# ---- compilation -------------------------------------------------------------------------------


@functools.cache
def compile_loss(template: Any, kind: Any, **names: Any) -> Any:
    """Complete a template for a class of losses, and compile it.

    What a user wrote is a function of its own, which may be any that Numba knows, and is not kept
    on disk.
    """
    if kind.is_built_in():
        whole = bind(template, f"{kind.__name__}_{key_of()}", **names)
        return jit(whole, allocates=False)
    for name, value in names.items():
        if isinstance(value, types.FunctionType):
            names[name] = part(value)
    return jit(bind(template, **names), cache=False)


def compile_callback(function: Any) -> tuple[Any, Any]:
    """One round of a compiled function, and the sum of many; nothing is compiled before a call."""
    one_round = jit(bind(callback_template, function=function), cache=False)
    return one_round, jit(bind(total_of_callback_template, one_round=one_round), cache=False)
