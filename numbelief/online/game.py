"""The rounds of an online game, written once: evaluate, write down, step, review.

The text is compiled whole around compiled losses, and run by Python around losses that Python
calls, with the same compiled rounds. Losses, steps and reviews are called by address, so that it is
compiled once for all of them.
"""

import functools
from math import isfinite, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbelief._compile.jit import jit, key_of
from numbelief._compile.pointers import (
    Layout,
    Stored,
    call_c,
    compile_for_numbers,
    loaded,
    numbers_from_python,
)
from numbelief._compile.template import bind
from numbelief._objective.compiled import FAILED, ROW, Raised
from numbelief._step.template import call_step
from numbelief.online.losses.compiled import dot
from numbelief.online.review import copy_to_row

TOTALS = np.dtype(
    [
        ("played", "i8"),  # rounds so far
        ("inner", "f8"),  # the sum of <g, x>
        ("squares", "f8"),  # the sum of |g|^2, with a scale only
        ("next_row", "i8"),  # the next checkpoint
    ]
)


class Record(NamedTuple):
    """What is written down of a game of T rounds.

    Attributes
    ----------
    scale : float
        Above 0, the rate of a round is scale / sqrt(2 sum |g|^2).
    loss : ndarray of shape (T,)
        What was lost in each round.
    totals : ndarray of shape (1,), of dtype TOTALS
    gradient : ndarray of shape (n,)
        The sum of the gradients.
    checkpoints : ndarray of int64
        The numbers of rounds after which the sums are kept, and -1.
    inner_at, gradient_at : ndarray
        The sums of <g, x> and of the gradients, with a row for each checkpoint.
    path, gradients : ndarray of shape (T, n) or (0, n)
        The points and the gradients of all rounds, where these are wanted.
    """

    scale: float
    loss: Any
    totals: Any
    gradient: Any
    checkpoints: Any
    inner_at: Any
    gradient_at: Any
    path: Any
    gradients: Any


class Fading(NamedTuple):
    """A beta1 that decays from round to round, as the theorems have it.

    Attributes
    ----------
    timestep, numbers : ndarray
        Of the `StepState` of the rule.
    position : int
        Of beta1 among the numbers; -1 if it does not decay.
    factor : float
    """

    timestep: Any
    numbers: Any
    position: int
    factor: float


def new_record(
    rounds: int, n: int, checkpoints: NDArray[np.int64], scale: float, **kept: bool
) -> Record:
    """The record of a game that begins, of which path and gradients are kept if they are true."""
    count = len(checkpoints) - 1
    return Record(
        scale=scale,
        loss=np.zeros(rounds),
        totals=np.zeros(1, TOTALS),
        gradient=np.zeros(n),
        checkpoints=checkpoints,
        inner_at=np.zeros(count),
        gradient_at=np.zeros((count, n)),
        **{name: np.zeros((rounds if wanted else 0, n)) for name, wanted in kept.items()},
    )


class Round(NamedTuple):
    """What a round is played with.

    Attributes
    ----------
    x, g : ndarray of shape (n,)
        The point, and the gradient there.
    step : StepCall
    reviewer : Reviewer
    fading : Fading
    record : Record
    """

    x: Any
    g: Any
    step: Any
    reviewer: Any
    fading: Fading
    record: Record


# ---- in compiled code --------------------------------------------------------------------------


def evaluate(t, x, g, objective):
    """The loss, a `Call`, at x of the round after t others; g is filled."""
    block = objective.block
    block[ROW] = t
    fun = call_c(objective.address, x, g, objective.data)
    if block[FAILED]:
        raise Raised  # called again from Python, it names the round
    return fun


def write_down(fun, rate, x, g, record):
    """Keep what is wanted of a round, and return the rate of its step, or -1 to end the game."""
    totals = record.totals[0]
    t = totals.played
    inner = dot(g, x)
    if not (isfinite(fun) and isfinite(inner)):
        return -1.0
    record.loss[t] = fun
    totals.played = t + 1
    totals.inner += inner
    for i in range(x.size):
        record.gradient[i] += g[i]
    if record.path.size:
        copy_to_row(x, record.path, t)
    if record.gradients.size:
        copy_to_row(g, record.gradients, t)
    j = totals.next_row
    if t + 1 == record.checkpoints[j]:
        record.inner_at[j] = totals.inner
        copy_to_row(record.gradient, record.gradient_at, j)
        totals.next_row += 1
    if record.scale > 0:
        totals.squares += dot(g, g)
        return record.scale / sqrt(2 * totals.squares) if totals.squares > 0 else 0.0
    return rate


def fade(fading):
    """Let beta1 decay."""
    if fading.position >= 0:
        fading.numbers[fading.position] *= fading.factor
        fading.timestep[0].beta1 *= fading.factor


def play_round(fun, rate, round):
    """Play a round that was evaluated; False if its loss or gradient is not finite."""
    x, g, step, reviewer, fading, record = round
    t = record.totals[0].played
    rate = write_down(fun, rate, x, g, record)
    if rate < 0:
        return False
    if reviewer.address != 0:
        copy_to_row(x, reviewer.before, 0)
    call_step(x, g, rate, step)
    if reviewer.address != 0:
        now = reviewer.round[0]
        now.t = t
        now.rate = rate
        call_c(reviewer.address, x, g, reviewer.data)
    fade(fading)
    return True


def game_template(evaluate, play_round):
    """Play a round for each rate, after ``first`` others; return the number of those played.

    The game ends before a round whose loss or gradient is not finite.
    """

    def game(first, rates, x, g, round, objective):
        for k in range(rates.size):
            fun = evaluate(first + k, x, g, objective)
            if not play_round(fun, rates[k], round):
                return k
        return rates.size

    return game


# ---- compilation -------------------------------------------------------------------------------


@functools.cache
def compile_game(layout: Layout) -> Any:
    """Compile ``game(first, rates, data, objective)`` around losses at an address.

    ``layout`` is that of a `Round`, which lies at ``data``.
    """
    game = bind(game_template, evaluate=evaluate, play_round=play_round)
    stored = bind(_stored_game_template, key_of(layout), game=game, LAYOUT=layout.pointer)
    return jit(stored, nogil=True, allocates=False)


def _stored_game_template(game, LAYOUT):
    def stored_game(first, rates, data, objective):
        round = loaded(data, LAYOUT)[0]
        return game(first, rates, round.x, round.g, round, objective)

    return stored_game


def game_in_python(evaluate: Any, stored: Stored) -> Any:
    """The same around losses that Python calls; a `Round` is stored."""
    address = _compile_round(stored.layout).address
    play = numbers_from_python(address, nogil=False)
    game = bind(
        game_template,
        evaluate=evaluate,
        play_round=lambda fun, rate, round: play(fun, rate, stored.address),
    )
    return lambda first, rates, x, g: game(first, rates, x, g, None, None)


@functools.cache
def _compile_round(layout: Layout) -> Any:
    stored = bind(_stored_round_template, key_of("round", layout), LAYOUT=layout.pointer)
    return compile_for_numbers(stored, allocates=False)


def _stored_round_template(LAYOUT):
    def stored_round(fun, rate, data):
        return play_round(fun, rate, loaded(data, LAYOUT)[0])

    return stored_round
