"""What a step takes besides x and the gradient, by name."""

from typing import Any, NamedTuple

import numpy as np

#: What a step carries to the next besides the slots: beta1 and beta2, and 1 - beta**t of both.
TIMESTEP = np.dtype(
    [("t", "i8"), ("beta1", "f8"), ("beta2", "f8"), ("bias1", "f8"), ("bias2", "f8")]
)


class StepState(NamedTuple):
    """What steps change besides x.

    Attributes
    ----------
    slots : ndarray of shape (k, n), of the dtype of x
        One row for each of the rule's slots, and a last one for the slow weights of a `Lookahead`.
    timestep : ndarray of shape (1,), of dtype TIMESTEP
        The number of the last step, and the bias corrections.
    numbers : ndarray of shape (h,), float64
        The rule's hyperparameters.
    """

    slots: Any
    timestep: Any
    numbers: Any


class Projection(NamedTuple):
    """A set that each step ends in: what `numbelief.sets` calls a projector, for compiled code.

    Attributes
    ----------
    address, data : int
        Of a C function ``f(n, x, rates, data)`` that moves x and returns how far it stays away.
    left : ndarray of shape (1,), float64
        The largest such distance so far.
    """

    address: int
    data: int
    left: Any


class Synchronization(NamedTuple):
    """The numbers of a `Lookahead`: its period, and the share of a move."""

    period: int
    share: float


class StepOptions(NamedTuple):
    """What a step may do besides the rule's update. What is None is left out of its kernel.

    Attributes
    ----------
    decays : True or None
        Whether the rule's weight decay changes anything.
    max_norm, max_value : float or None
        Limits of the gradient.
    lower, upper : ndarray of shape (n,) or None
        Bounds.
    last_step : ndarray of shape (2, n) or None
        Gets the rates and the directions of each step.
    projection : Projection or None
        The set that x stays in; needs ``last_step``.
    edges, owner : ndarray of int64 or None
        For a layerwise rule: block b runs from edges[b] to edges[b + 1], in segment owner[b].
    scale : ndarray of shape (n,) or None
        Each coordinate's rate as a share of the largest.
    lookahead : Synchronization or None
    """

    decays: Any = None
    max_norm: Any = None
    max_value: Any = None
    lower: Any = None
    upper: Any = None
    last_step: Any = None
    projection: Any = None
    edges: Any = None
    owner: Any = None
    scale: Any = None
    lookahead: Any = None


class Scaling(NamedTuple):
    """The numbers of the `StepOptions` at a coordinate, in the dtype of x.

    Attributes
    ----------
    clip : float
        The factor of the gradient that ``max_norm`` asks for.
    max_value : float
        Its largest magnitude then.
    keep, l2 : float
        The factor of x that weight decay leaves, and the one that it adds to the gradient.
    """

    clip: Any = 1.0
    max_value: Any = 1.0
    keep: Any = 1.0
    l2: Any = 0.0


class BlockOptions(NamedTuple):
    """The arrays of the `StepOptions` at a block of coordinates.

    They go through parallel loops as a plain tuple: a named one does not get into them.
    """

    lower: Any = None
    upper: Any = None
    last_step: Any = None
    scale: Any = None


class Work(NamedTuple):
    """What a step with threads tells its blocks, which it calls by address.

    Attributes
    ----------
    size : int
        n.
    run, block, norms : int
        Addresses of the loop over the blocks, of what steps one, and of what takes its norms for a
        layerwise rule.
    values, scaling : ndarray, of the dtype of x
        Those of the rule's coefficients, and of `Scaling`.
    sums : ndarray of shape (blocks, 2), float64, or None
    ratios : ndarray of shape (segments,), of the dtype of x, or None
        For a layerwise rule.
    """

    size: int
    run: int
    block: int
    norms: int
    values: Any
    scaling: Any
    sums: Any
    ratios: Any


class Region(NamedTuple):
    """Where x may be. What is None is left out of a kernel.

    Attributes
    ----------
    lower, upper : ndarray of shape (n,) or None
        Bounds.
    projection : Projection or None
        A set other than a box; then also
    last_step : ndarray of shape (2, n) or None
        The rates and directions of the last step, and
    probe : ndarray of shape (2, n) or None
        Scratch memory, and a row of ones.
    """

    lower: Any = None
    upper: Any = None
    projection: Any = None
    last_step: Any = None
    probe: Any = None
