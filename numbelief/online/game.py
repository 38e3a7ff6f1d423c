"""The rounds of an online game, written once: evaluate, look, step, review.

As `numbelief.loop.run`, the text is compiled whole around compiled losses, and run by Python, with
the same compiled parts, around losses that Python calls. What a bound needs of every round is
summed up by `review`, on request only: a game that is played is not slowed down by it, and a game
that was played can be replayed.
"""

import functools
import hashlib
from math import inf, isfinite, nan, sqrt
from typing import Any

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from numbelief import kernels, native
from numbelief.kernels import copy, evaluate_at, row
from numbelief.online import losses as losses_file
from numbelief.online.losses import dot
from numbelief.rules import Rule

# Rows of sums and figures, the numbers that a review adds up for each coordinate and for all.
(VARIATION, WEIGHT, STEP, DRIFT, DIRECTION, IDLE, BEFORE, POINT, G1, G2, G4, G1_FADING, G2_FADING,
 LARGEST, BELIEF, ROWS) = range(16)  # fmt: skip
(QUADRATIC, CURVATURE, LONGEST, RANGE, RATE, WEIGHTS_GROW, SLOTS_GROW, LEAST_SLOT, FROZEN, STRAY,
 BETA1, DECAY, FIGURES) = range(13)  # fmt: skip

# Bound by `kernels.lift`.
borrow: Any
evaluate: Any
look: Any
remember: Any
step: Any
review: Any
fade: Any
advance: Any


def game(first, rates, x, g, state, clock, numbers, options, kept, audit, fading, objective):
    """Play a round for each rate, from the one after the first so many; return how many were.

    ``kept`` and ``audit`` are what `look` and `review` write to. The game ends before a round whose
    loss or gradient is not finite.
    """
    rates, x, g, state, clock, numbers, options, kept, audit, fading, objective = borrow(
        (rates, x, g, state, clock, numbers, options, kept, audit, fading, objective)
    )
    for k in range(rates.size):
        t = first + k
        fun = evaluate(t, x, g, *objective)
        rate = look(fun, t, rates[k], x, g, *kept)
        if rate < 0:
            return k
        remember(x, *audit)
        step(x, g, state, clock, numbers, rate, *options)
        review(t, rate, x, g, state, options[5], *audit)
        fade(clock, numbers, *fading)
    return rates.size


def _look(fun, t, rate, x, g, scale, losses, totals, gradient, at, place, sums, path, gradients):
    """Keep what is to be kept of a round, and return the rate of its step, or -1 to end the game.

    ``totals`` has the sums of <g, x> and, where it is needed, of |g|^2; ``at`` the rounds whose
    sums are kept, in rows of ``sums``, and ``place`` the next of them. With a ``scale`` above 0 the
    rate is scale over sqrt(2 sum |g|^2).
    """
    inner = dot(g, x)
    if not (isfinite(fun) and isfinite(inner)):
        return -1.0
    losses[t] = fun
    totals[0] += inner
    for i in range(x.size):
        gradient[i] += g[i]
    if path.size:
        copy(x, row(path, t))
    if gradients.size:
        copy(g, row(gradients, t))
    if t + 1 == at[place[0]]:
        n = x.size
        mine = row(sums, place[0])
        mine[0] = totals[0]
        for i in range(n):
            mine[1 + i] = gradient[i]
        place[0] += 1
    if scale > 0:
        totals[1] += dot(g, g)
        return scale / sqrt(2 * totals[1]) if totals[1] > 0 else 0.0
    return rate


def _remember(x, before, *audit):
    copy(x, before)


def _review(t, rate, x, g, state, trace, before, sums, figures, slots, *kept):
    """Add a round to the sums of the bounds; ``before`` is the point that it was played at."""
    _review_step(g, trace, before, sums, figures)
    _review_slots(rate, state, sums, figures, slots)
    _review_gradient(t, rate, x, g, before, sums, figures)
    _keep_review(t, sums, figures, slots, *kept)


def _review_weights(t, rate, x, g, state, trace, before, sums, figures, slots, *kept):
    """The same for exponential weights, which take no steps."""
    _review_gradient(t, rate, x, g, before, sums, figures)
    _keep_review(t, sums, figures, slots, *kept)


@register_jitable
def _review_step(g, trace, before, sums, figures):
    eta, d = row(trace, 0), row(trace, 1)
    beta1 = figures[BETA1]
    quadratic = curvature = stray = 0.0
    grows = True
    frozen = 0
    for i in range(g.size):
        old, direction = sums[WEIGHT, i], np.float64(d[i])
        # A coordinate with a step of 0 does not move: any weight will do, and the last one does.
        # But where it had a direction, its weight was infinite, and any later step has grown.
        weight = 1 / np.float64(eta[i]) if eta[i] > 0 else old
        change = weight - old
        sums[VARIATION, i] += max(change, 0.0)
        sums[DRIFT, i] += change * before[i]
        curvature += change * np.float64(before[i]) ** 2
        sums[WEIGHT, i], sums[STEP, i] = weight, eta[i]
        grows = grows and change >= 0 and (eta[i] <= 0 or sums[IDLE, i] == 0)
        quadratic += direction * direction * eta[i]
        if eta[i] <= 0:
            frozen += 1
            sums[IDLE, i] += abs(direction)
        past, new = beta1 * sums[DIRECTION, i], (1 - beta1) * g[i]
        # Slots below the smallest normal number are flushed to 0: no error to speak of.
        stray = max(stray, abs(direction - past - new) / (abs(past) + abs(new) + 1e-290))
        sums[DIRECTION, i] = direction
    figures[QUADRATIC] += quadratic
    figures[CURVATURE] += curvature
    figures[FROZEN] += 0 < frozen < g.size
    figures[STRAY] = max(figures[STRAY], stray)
    if not grows:
        figures[WEIGHTS_GROW] = 0.0


@register_jitable
def _review_slots(rate, state, sums, figures, slots):
    # The last slot is the one under the root: the second moment, or its maximum.
    if state.shape[0] > 1:
        last = row(state, state.shape[0] - 1)
        slot = row(slots, state.shape[0] - 1)
        for i in range(last.size):
            if last[i] < slot[i]:
                figures[SLOTS_GROW] = 0.0
            figures[LEAST_SLOT] = min(figures[LEAST_SLOT], np.float64(last[i]))
            if rate > 0:
                sums[BELIEF, i] += figures[BETA1] * sqrt(max(np.float64(last[i]), 0.0)) / rate
    for k in range(state.shape[0]):
        copy(row(state, k), row(slots, k))


@register_jitable
def _review_gradient(t, rate, x, g, before, sums, figures):
    root = 1 / sqrt(t + 1.0)
    squares, low, high = 0.0, inf, -inf
    for i in range(g.size):
        sums[BEFORE, i], sums[POINT, i] = before[i], x[i]
        value = np.float64(g[i])
        low, high = min(low, value), max(high, value)
        size, square = abs(value), value * value
        squares += square
        sums[G1, i] += size
        sums[G2, i] += square
        sums[G4, i] += square * square
        sums[G1_FADING, i] += size * root
        sums[G2_FADING, i] += square * root
        sums[LARGEST, i] = max(sums[LARGEST, i], size)
    figures[LONGEST] = max(figures[LONGEST], sqrt(squares))
    figures[RANGE] = max(figures[RANGE], high - low)
    figures[RATE] = rate


@register_jitable
def _keep_review(t, sums, figures, slots, at, place, kept, kept_figures, kept_slots):
    if t + 1 == at[place[0]]:
        j = place[0]
        copy(kernels.window(sums, 0, sums.size), row(kept, j))
        copy(figures, row(kept_figures, j))
        copy(kernels.window(slots, 0, slots.size), row(kept_slots, j))
        place[0] += 1
    figures[BETA1] *= figures[DECAY]


def _skip(*ignored):
    return None


def _fade(clock, numbers, index, factor):
    """Let beta1 decay, as the theorems have it."""
    if index >= 0:
        numbers[index] *= factor
        clock[0].beta1 *= factor


def _evaluate(t, x, g, address, data, block):
    block[native.ROW] = t
    fun = evaluate_at(address, x, g, data)
    if block[native.FAILED]:
        raise native.Raised  # called again from Python, it names the round
    return fun


def _hedge(x, g, state, clock, numbers, rate, *options):
    """Exponential weights: x is proportional to x0 exp(-rate L) with the sum L of gradients.

    ``state`` has L and the logarithm of x0, ``numbers`` the sum of x.
    """
    sums, start = row(state, 0), row(state, 1)
    top = -inf
    for i in range(x.size):
        sums[i] += g[i]
        x[i] = start[i] - rate * sums[i]
        top = max(top, x[i])
    total = 0.0
    for i in range(x.size):
        x[i] = np.exp(x[i] - top)
        total += x[i]
    for i in range(x.size):
        x[i] *= numbers[0] / total


# ---- compilation -------------------------------------------------------------------------------


def _salt() -> str:
    return kernels.source_salt(__file__, losses_file.__file__)


def compile_game(rule: Rule | None, *, audited: bool, evaluate: Any = None) -> Any:
    """The game of a rule (None: exponential weights), in Python around a Python ``evaluate``."""
    kind, slots = (None, 2) if rule is None else (type(rule), len(rule.state_names))
    if evaluate is None:
        return _compile_game(kind, slots, audited)  # type: ignore[arg-type]
    parts = {name: kernels.jit(part) for name, part in _parts(kind, audited).items()}
    return kernels.lift(
        game,
        "in_python",
        borrow=lambda arrays: arrays,
        evaluate=evaluate,
        step=_whole_step(kind, slots),  # type: ignore[arg-type]
        **parts,
    )


def _parts(kind: type[Rule] | None, audited: bool) -> dict[str, Any]:
    names = {"look": _look, "fade": _fade, "remember": _skip, "review": _skip}
    if audited:
        names |= {"remember": _remember, "review": _review_weights if kind is None else _review}
    return {name: kernels.lift(each, f"{audited:d}_{_salt()}") for name, each in names.items()}


def _step(kind: type[Rule] | None, slots: int) -> Any:
    if kind is None:
        return kernels.part(_hedge)
    return kernels.compile_advance(kind, slots, False)  # type: ignore[arg-type]


@functools.cache
def _whole_step(kind: type[Rule] | None, slots: int) -> Any:
    salt = _salt_of(kind)
    name = "Hedge" if kind is None else kind.__name__
    whole = kernels.lift(_take_step, f"{name}_{slots}_{salt}", advance=_step(kind, slots))
    return kernels.jit(whole, cache=salt is not None)


def _take_step(*arguments):
    return advance(*arguments)


def _salt_of(kind: type[Rule] | None) -> str | None:
    rule = "" if kind is None else kernels.rule_salt(kind)
    return None if rule is None else hashlib.sha256((rule + _salt()).encode()).hexdigest()[:16]


@functools.cache
def _compile_game(kind: type[Rule] | None, slots: int, audited: bool) -> Any:
    salt = _salt_of(kind)
    name = "Hedge" if kind is None else kind.__name__
    whole = kernels.lift(
        game,
        f"{name}_{slots}_{audited:d}_{salt}",
        borrow=native.borrow,
        evaluate=kernels.part(_evaluate),
        step=_step(kind, slots),
        **{key: kernels.part(each) for key, each in _parts(kind, audited).items()},
    )
    return kernels.jit(whole, cache=salt is not None, nogil=True)


def hedge_arrays(x0: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
    """State, clock and numbers of exponential weights that begin at x0."""
    state = np.zeros((2, x0.size))
    with np.errstate(divide="ignore"):
        state[1] = np.log(x0)
    return state, np.zeros(1, kernels.CLOCK), np.array([x0.sum()])


def new_audit(
    n: int, slots: int, at: NDArray[np.int64], beta1: float, decay: float
) -> tuple[Any, ...]:
    """What `review` writes to: before, sums, figures, slots, and their values at some rounds."""
    figures = np.zeros(FIGURES)
    figures[[WEIGHTS_GROW, SLOTS_GROW]] = 1.0
    figures[LEAST_SLOT] = inf
    figures[[BETA1, DECAY]] = beta1, decay
    count = len(at)
    return (
        np.zeros(n),
        np.zeros((ROWS, n)),
        figures,
        np.zeros((slots, n)),
        at,
        np.zeros(1, np.int64),
        np.full((count, ROWS * n), nan),
        np.full((count, FIGURES), nan),
        np.full((count, slots * n), nan),
    )
