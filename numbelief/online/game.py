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

from numbelief._compile.internals import call_c, without_refcounts
from numbelief._compile.jit import jit, key_of
from numbelief._compile.template import bind
from numbelief._objective.compiled import FAILED, ROW, Raised
from numbelief._step.template import call_step
from numbelief.online.losses.compiled import dot
from numbelief.online.review import copy_to_row

TOTALS = np.dtype(
    [
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
    clock, numbers : ndarray
        Of the `StepState` of the rule.
    position : int
        Of beta1 among the numbers; -1 if it does not decay.
    factor : float
    """

    clock: Any
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


# ---- in compiled code --------------------------------------------------------------------------


def evaluate(t, x, g, objective):
    """The loss, a `Call`, at x of the round after t others; g is filled."""
    block = objective.block
    block[ROW] = t
    fun = call_c(objective.address, x, g, objective.data)
    if block[FAILED]:
        raise Raised  # called again from Python, it names the round
    return fun


def write_down(fun, t, rate, x, g, record):
    """Keep what is wanted of a round, and return the rate of its step, or -1 to end the game."""
    totals = record.totals[0]
    inner = dot(g, x)
    if not (isfinite(fun) and isfinite(inner)):
        return -1.0
    record.loss[t] = fun
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
        fading.clock[0].beta1 *= fading.factor


def round_template(write_down):
    """Play a round that was evaluated; False if its loss or gradient is not finite."""

    def play_round(fun, t, rate, x, g, step, reviewer, fading, record):
        rate = write_down(fun, t, rate, x, g, record)
        if rate < 0:
            return False
        if reviewer.address != 0:
            copy_to_row(x, reviewer.before, 0)
        call_step(x, g, rate, step)
        if reviewer.address != 0:
            round = reviewer.round[0]
            round.t = t
            round.rate = rate
            call_c(reviewer.address, x, g, reviewer.data)
        fade(fading)
        return True

    return play_round


def game_template(evaluate, play_round, without_refcounts):
    """Play a round for each rate, after ``first`` others; return the number of those played.

    The game ends before a round whose loss or gradient is not finite.
    """

    def game(first, rates, x, g, objective, step, reviewer, fading, record):
        rates, x, g, objective, step, reviewer, fading, record = without_refcounts(
            (rates, x, g, objective, step, reviewer, fading, record)
        )
        for k in range(rates.size):
            t = first + k
            fun = evaluate(t, x, g, objective)
            if not play_round(fun, t, rates[k], x, g, step, reviewer, fading, record):
                return k
        return rates.size

    return game


# ---- compilation -------------------------------------------------------------------------------


@functools.cache
def compile_game() -> Any:
    """The game around losses at an address."""
    game = bind(
        game_template,
        key_of(),
        evaluate=evaluate,
        play_round=bind(round_template, write_down=write_down),
        without_refcounts=without_refcounts,
    )
    return jit(game, nogil=True, allocates=False)


def game_in_python(evaluate: Any) -> Any:
    """The game around losses that Python calls."""
    return bind(
        game_template,
        evaluate=evaluate,
        play_round=_compile_round(),
        without_refcounts=lambda arrays: arrays,
    )


@functools.cache
def _compile_round() -> Any:
    return jit(bind(round_template, key_of(), write_down=write_down), allocates=False)
