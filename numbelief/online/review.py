"""What the bounds need of every round, added up.

A game that is played is not slowed down by it: a game that was played is played again, and then
each round is reviewed.
"""

import functools
from math import inf, sqrt
from typing import Any, NamedTuple

import numpy as np
from numba import types as nb
from numpy.typing import NDArray

from numbelief._compile.arrays import copy
from numbelief._compile.internals import (
    address_of,
    array_at,
    copy_bytes,
    larger,
    row,
    smaller,
    window,
)
from numbelief._compile.jit import key_of
from numbelief._compile.pointers import Layout, Stored, compile_for_vectors, loaded
from numbelief._compile.template import bind
from numbelief.online.steps import Steps

#: What is added up for each coordinate. The weight is 1 / step, and the direction m that of the
#: last step.
SUMS = np.dtype(
    [
        ("variation", "f8"),  # of the weight upwards
        ("weight", "f8"),
        ("step", "f8"),
        ("drift", "f8"),  # changes of the weight times x
        ("direction", "f8"),
        ("idle", "f8"),  # |m| where the step was 0
        ("before", "f8"),  # the point of the last round
        ("point", "f8"),  # and the one after it
        ("g1", "f8"),  # |g|
        ("g2", "f8"),  # g^2
        ("g4", "f8"),  # g^4
        ("g1_by_root", "f8"),  # |g| / sqrt(t)
        ("g2_by_root", "f8"),  # g^2 / sqrt(t)
        ("largest", "f8"),  # |g|
        ("belief", "f8"),  # beta1_t sqrt(last slot) / rate
    ]
)

#: What is added up for all coordinates.
FIGURES = np.dtype(
    [
        ("quadratic", "f8"),  # step m^2
        ("curvature", "f8"),  # changes of the weights times x^2
        ("longest", "f8"),  # Euclidean norm of a gradient
        ("range", "f8"),  # of the coordinates of a gradient
        ("rate", "f8"),  # the last
        ("weights_grow", "i8"),  # whether no weight ever fell
        ("slots_grow", "i8"),  # whether the last slot never fell
        ("least_slot", "f8"),  # the least number in the last slot
        ("frozen", "i8"),  # rounds in which some coordinates had a step of 0, but not all
        ("stray", "f8"),  # how far a direction was from the average of gradients, of its size
        ("beta1", "f8"),  # of the next round
        ("decay", "f8"),  # its factor
    ]
)


#: What the game tells of a round.
ROUND = np.dtype([("t", "i8"), ("rate", "f8")])


class Review(NamedTuple):
    """Sums over the rounds, and their values after some of them.

    Attributes
    ----------
    last_step : ndarray of shape (2, n) or (0, n)
        Rates and directions of the step that is reviewed; see `numbelief.online.steps.Steps`.
    slots : ndarray of shape (k, n)
        What the step keeps.
    before : ndarray of shape (n,)
        The point that the round was played at.
    sums : ndarray of shape (n,), of dtype SUMS
    figures : ndarray of shape (1,), of dtype FIGURES
    old_slots : ndarray of shape (k, n)
        The slots one step ago; at the end, the last ones.
    checkpoints : ndarray of int64
        The numbers of rounds after which the sums are kept, and -1.
    next_row : ndarray of shape (1,), int64
        The next of them.
    sums_at, figures_at, slots_at : ndarray
        What was kept, with a row for each checkpoint.
    """

    last_step: Any
    slots: Any
    before: Any
    sums: Any
    figures: Any
    old_slots: Any
    checkpoints: Any
    next_row: Any
    sums_at: Any
    figures_at: Any
    slots_at: Any


class Reviewer(NamedTuple):
    """A review at an address; 0 for a game that is not reviewed.

    Attributes
    ----------
    address, data : int
        Of a C function ``f(n, x, g, data)``, see `numbelief._compile.pointers`.
    round : ndarray of shape (1,), of dtype ROUND
        Gets what the review must know besides.
    before : ndarray of shape (n,)
        Gets the point that the round is played at.
    """

    address: int
    data: int
    round: Any
    before: Any


#: In a game that is not reviewed.
NO_REVIEWER = Reviewer(0, 0, np.zeros(1, ROUND), np.zeros(0))


def new_review(steps: Steps, checkpoints: NDArray[np.int64], beta1: float, decay: float) -> Review:
    """A review before the first round."""
    slots = steps.state.slots
    (k, n), count = slots.shape, len(checkpoints) - 1
    figures = np.zeros(1, FIGURES)
    figures["weights_grow"] = figures["slots_grow"] = 1
    figures["least_slot"] = inf
    figures["beta1"], figures["decay"] = beta1, decay
    return Review(
        last_step=steps.last_step,
        slots=slots,
        before=np.zeros(n),
        sums=np.zeros(n, SUMS),
        figures=figures,
        old_slots=np.zeros((k, n)),
        checkpoints=checkpoints,
        next_row=np.zeros(1, np.int64),
        sums_at=np.zeros((count, n), SUMS),
        figures_at=np.zeros(count, FIGURES),
        slots_at=np.zeros((count, k, n)),
    )


def reviewer_of(review: Review) -> tuple[Reviewer, Any]:
    """What the game calls for a review, and what must stay alive meanwhile."""
    round = np.zeros(1, ROUND)
    stored = Stored(review, round)
    compiled = _compile_review(stored.layout)
    return Reviewer(compiled.address, stored.address, round, review.before), stored


@functools.cache
def _compile_review(layout: Layout) -> Any:
    review = bind(review_template, key_of(layout), LAYOUT=layout.pointer, NUMBER=nb.float64)
    return compile_for_vectors(review, nb.float64, allocates=False)


# ---- in compiled code --------------------------------------------------------------------------


def review_template(LAYOUT, NUMBER):
    """Add a round that ended at x."""

    def review_round(n, x, g, data):
        x, g = array_at(x, n, NUMBER), array_at(g, n, NUMBER)
        review, round = loaded(data, LAYOUT)
        if review.last_step.size > 0:
            _review_step(g, review)
            _review_slots(round[0].rate, review)
        _review_gradient(x, g, round[0], review)
        _keep(round[0].t, review)
        return 0.0

    return review_round


def _review_step(g, review):
    steps, directions, before = row(review.last_step, 0), row(review.last_step, 1), review.before
    now = review.figures[0]
    beta1 = now.beta1
    quadratic = curvature = stray = 0.0
    grows = True
    frozen = 0
    for i in range(g.size):
        mine = review.sums[i]
        step, direction = steps[i], directions[i]
        # A coordinate with a step of 0 does not move: any weight will do, and the last one does.
        # But where it had a direction, its weight was infinite, and any later step has grown.
        weight = 1 / step if step > 0 else mine.weight
        change = weight - mine.weight
        mine.variation += larger(change, 0.0)
        mine.drift += change * before[i]
        curvature += change * (before[i] * before[i])
        mine.weight = weight
        mine.step = step
        grows = grows and change >= 0 and (step <= 0 or mine.idle == 0)
        quadratic += direction * direction * step
        if step <= 0:
            frozen += 1
            mine.idle += abs(direction)
        past, new = beta1 * mine.direction, (1 - beta1) * g[i]
        # Slots below the smallest normal number are flushed to 0: no error to speak of.
        off = abs(direction - past - new) / (abs(past) + abs(new) + 1e-290)
        stray = larger(stray, off)
        mine.direction = direction
    now.quadratic += quadratic
    now.curvature += curvature
    now.frozen += 0 < frozen < g.size
    now.stray = larger(now.stray, stray)
    if not grows:
        now.weights_grow = 0


def _review_slots(rate, review):
    now, count = review.figures[0], len(review.slots)
    # The last slot is the one under the root: the second moment, or its maximum.
    if count > 1:
        last, old = row(review.slots, count - 1), row(review.old_slots, count - 1)
        for i in range(last.size):
            if last[i] < old[i]:
                now.slots_grow = 0
            now.least_slot = smaller(now.least_slot, last[i])
            if rate > 0:
                review.sums[i].belief += now.beta1 * sqrt(larger(last[i], 0.0)) / rate
    copy(window(review.slots, 0, review.slots.size), window(review.old_slots, 0, review.slots.size))


def _review_gradient(x, g, round, review):
    now = review.figures[0]
    root = 1 / sqrt(round.t + 1.0)
    squares, low, high = 0.0, inf, -inf
    for i in range(g.size):
        mine = review.sums[i]
        mine.before = review.before[i]
        mine.point = x[i]
        low, high = smaller(low, g[i]), larger(high, g[i])
        size, square = abs(g[i]), g[i] * g[i]
        squares += square
        mine.g1 += size
        mine.g2 += square
        mine.g4 += square * square
        mine.g1_by_root += size * root
        mine.g2_by_root += square * root
        mine.largest = larger(mine.largest, size)
    now.longest = larger(now.longest, sqrt(squares))
    now.range = larger(now.range, high - low)
    now.rate = round.rate


def _keep(t, review):
    j = review.next_row[0]
    if t + 1 == review.checkpoints[j]:
        copy_to_row(review.sums, review.sums_at, j)
        copy_to_row(review.figures, review.figures_at, j)
        copy_to_row(review.old_slots, review.slots_at, j)
        review.next_row[0] += 1
    now = review.figures[0]
    now.beta1 *= now.decay


def copy_to_row(array, table, j):
    """Assign an array of shape (n,) to row j of a table, or any array to its element j."""
    size = array.size * array.itemsize
    copy_bytes(address_of(table) + j * size, address_of(array), size)
