"""Schedules: the papers' formulas, written out again."""

import math

import pytest

from numbelief import schedules
from numbelief.checkpoint import _describe_rate, _restore_rate

STEPS = range(1, 200)


def sgdr(t, high, low, period, factor):
    """Equation 5 of the paper, restart by restart."""
    current = t - 1
    while current >= period:
        current -= period
        period *= factor
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * current / period))


def cosine(t):
    share = min(t - 1, 50) / 50
    return 0.01 + 0.5 * (0.1 - 0.01) * (1 + math.cos(math.pi * share))


CASES = {
    "constant": (schedules.constant(0.1), lambda t: 0.1),
    "inverse_sqrt": (schedules.inverse_sqrt(0.1), lambda t: 0.1 / t**0.5),
    "step_decay": (schedules.step_decay(0.1, 0.5, 30), lambda t: 0.1 * 0.5 ** ((t - 1) // 30)),
    "exponential": (schedules.exponential(0.1, 0.99), lambda t: 0.1 * 0.99 ** (t - 1)),
    "cosine": (schedules.cosine(0.1, 50, floor=0.01), cosine),
    "sgdr": (schedules.sgdr(0.1, 10), lambda t: sgdr(t, 0.1, 0, 10, 1)),
    "sgdr doubling": (
        schedules.sgdr(0.1, 10, T_mult=2, floor=0.01), lambda t: sgdr(t, 0.1, 0.01, 10, 2),
    ),
    "warmup": (
        schedules.warmup(schedules.exponential(0.1, 0.9), 20),
        lambda t: 0.1 * t / 20 if t <= 20 else 0.1 * 0.9 ** (t - 21),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_formula(case):
    schedule, formula = CASES[case]
    assert [schedule(t) for t in STEPS] == pytest.approx([formula(t) for t in STEPS], rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_a_schedule_survives_a_file(case):
    schedule, _ = CASES[case]
    assert _restore_rate(_describe_rate(schedule)) == schedule


def test_sgdr_restarts_on_the_right_step():
    schedule = schedules.sgdr(1.0, T_0=10, T_mult=2)
    assert [t for t in STEPS if schedule(t) == 1.0] == [1, 11, 31, 71, 151]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: schedules.constant("a"), TypeError, "rate must be a real number, got 'a'"),
        (lambda: schedules.constant(-1.0), ValueError, "rate must be finite and at least 0"),
        (lambda: schedules.inverse_sqrt(math.nan), ValueError, "rate must be finite"),
        (lambda: schedules.sgdr(1.0, 0), ValueError, "T_0 must be at least 1, got 0"),
        (lambda: schedules.cosine(1.0, 0), ValueError, "steps must be at least 1, got 0"),
        (lambda: schedules.step_decay(1.0, 0.5, 2.5), ValueError, "every must be a whole number"),
        (lambda: schedules.warmup(0.1, 3), TypeError, "schedule must be callable, got 0.1"),
        (lambda: schedules.cosine(abs, 3), TypeError, "rate must be a real number"),
        (lambda: schedules.step_decay(1.0, math.inf, 5), ValueError, "factor must be finite"),
    ],
)
def test_bad_numbers(make, error, message):
    with pytest.raises(error, match=message):
        make()
