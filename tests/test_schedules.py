"""Schedules: the papers' formulas, written out again."""

import bisect
import functools
import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest

from numbelief import SGD, Optimizer, schedules
from numbelief._checkpoint import _describe_rate, _restore_rate
from numbelief.schedules import COUNT, Schedule, table

STEPS = range(1, 200)


@functools.cache
def restarts(period, factor):
    """Where the periods of equation 5 begin, counted from 0 and exactly: T_0, T_0 + T_1 ..."""
    factor = Fraction(str(factor))
    return [0, *accumulate(period * factor**i for i in range(150))]


def sgdr(t, high, low, period, factor):
    """Equation 5 of the paper, its T_cur and T_i exactly."""
    begins = restarts(period, factor)
    i = bisect.bisect(begins, t - 1) - 1
    share = (t - 1 - begins[i]) / (begins[i + 1] - begins[i])
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * share))


def cosine(t):
    share = min(t - 1, 50) / 50
    return 0.01 + 0.5 * (0.1 - 0.01) * (1 + math.cos(math.pi * share))


CASES = {
    "no warmup": (
        schedules.warmup(schedules.exponential(0.1, 0.9), 0), lambda t: 0.1 * 0.9 ** (t - 1),
    ),
    "nothing, and then": (
        schedules.chain(schedules.constant(9.0), 0, schedules.exponential(0.1, 0.9)),
        lambda t: 0.1 * 0.9 ** (t - 1),
    ),
    "constant": (schedules.constant(0.1), lambda t: 0.1),
    "inverse_sqrt": (schedules.inverse_sqrt(0.1), lambda t: 0.1 / t**0.5),
    "step_decay": (schedules.step_decay(0.1, 0.5, 30), lambda t: 0.1 * 0.5 ** ((t - 1) // 30)),
    "exponential": (schedules.exponential(0.1, 0.99), lambda t: 0.1 * 0.99 ** (t - 1)),
    "cosine": (schedules.cosine(0.1, 50, floor=0.01), cosine),
    "sgdr": (schedules.sgdr(0.1, 10), lambda t: sgdr(t, 0.1, 0, 10, 1)),
    "sgdr doubling": (
        schedules.sgdr(0.1, 10, T_mult=2, floor=0.01), lambda t: sgdr(t, 0.1, 0.01, 10, 2),
    ),
    "sgdr growing by half": (
        schedules.sgdr(0.1, 10, T_mult=1.5), lambda t: sgdr(t, 0.1, 0, 10, 1.5),
    ),
    "warmup": (
        schedules.warmup(schedules.exponential(0.1, 0.9), 20),
        lambda t: 0.1 * t / 20 if t <= 20 else 0.1 * 0.9 ** (t - 20),
    ),
    "per epoch": (
        schedules.per_epoch(schedules.inverse_sqrt(0.1), 7),
        lambda t: 0.1 / (1 + (t - 1) // 7) ** 0.5,
    ),
    "chain": (
        schedules.chain(schedules.constant(0.1), 30, schedules.exponential(0.05, 0.9)),
        lambda t: 0.1 if t <= 30 else 0.05 * 0.9 ** (t - 31),
    ),
    "all of them": (
        schedules.warmup(
            schedules.chain(
                schedules.per_epoch(schedules.step_decay(0.1, 0.5, 2), 5),
                30,
                schedules.warmup(schedules.sgdr(0.2, 10), 4),
            ),
            8,
        ),
        lambda t: (
            0.1 * t / 8 if t <= 8
            else 0.1 * 0.5 ** ((t - 8) // 10) if t <= 37
            else 0.2 * (t - 37) / 4 if t <= 41
            else sgdr(t - 40, 0.2, 0, 10, 1)
        ),
    ),
    "epochs of a chain": (
        schedules.per_epoch(
            schedules.chain(schedules.constant(1.0), 3, schedules.inverse_sqrt(0.5)), 10
        ),
        lambda t: 1.0 if t <= 30 else 0.5 / (1 + (t - 31) // 10) ** 0.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_formula(case):
    schedule, formula = CASES[case]
    assert [schedule(t) for t in STEPS] == pytest.approx([formula(t) for t in STEPS], rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_a_table_holds_what_the_calls_give(case):
    schedule, _ = CASES[case]
    calls = np.array([schedule(t) for t in STEPS])
    for first, count in ((1, 199), (1, 1), (8, 1), (30, 40), (50, 150), (199, 1), (20, 0)):
        rates = table(schedule, first, count)
        assert rates.dtype == np.float64
        np.testing.assert_allclose(rates, calls[first - 1 : first - 1 + count], rtol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_a_schedule_survives_a_file(case):
    schedule, _ = CASES[case]
    assert _restore_rate(json.loads(json.dumps(_describe_rate(schedule)))) == schedule


def one_over(t):
    return 1 / t


def test_functions_of_ones_own_are_parts_too():
    mine = schedules.warmup(
        schedules.chain(schedules.per_epoch(one_over, 2), 4, schedules.chain(one_over, 2, abs)), 2
    )
    expected = [0.5, 1, 1, 1 / 2, 1 / 2, 1, 1 / 2, 1, 2, 3]
    assert [mine(t) for t in range(1, 11)] == expected
    assert table(mine, 1, 10).tolist() == expected
    assert table(mine, 7, 2).tolist() == expected[6:8]
    with pytest.raises(ValueError, match="is your own function 'one_over'.*pass rule="):
        _restore_rate(_describe_rate(mine))
    bad = schedules.per_epoch(lambda t: -1.0 if t == 2 else 0.5, 3)
    with pytest.raises(ValueError, match=r"learning_rate\(2\) must be a finite number"):
        table(bad, 1, 5)


def half(x):
    return x / 2


def test_a_schedule_of_ones_own_is_one_class():
    try:

        @dataclass(frozen=True)
        class linear(Schedule):
            rate: float
            steps: int = field(metadata=COUNT)

            @staticmethod
            def at(t, rate, steps):
                return half(rate * 2) * max(0, 1 - (t - 1) / steps)

        mine = schedules.warmup(linear(1.0, steps=4), 2)
        assert [mine(t) for t in range(1, 8)] == [0.5, 1, 0.75, 0.5, 0.25, 0, 0]
        assert table(mine, 2, 4).tolist() == [1, 0.75, 0.5, 0.25]
        assert _restore_rate(json.loads(json.dumps(_describe_rate(mine)))) == mine
        with pytest.raises(ValueError, match="steps must be a whole number, got 2.5"):
            linear(1.0, 2.5)
    finally:
        Schedule.registry.pop("linear", None)


def test_an_optimizer_steps_by_epochs():
    x = np.array([10.0])
    opt = Optimizer(SGD(schedules.per_epoch(schedules.exponential(1.0, 0.5), 2)), x)
    for _ in range(5):
        opt.step(np.ones(1))
    assert x.tolist() == [10 - 1 - 1 - 0.5 - 0.5 - 0.25]


@pytest.mark.parametrize(
    ("period", "factor"),
    [(10, 1), (7, 1), (10, 2), (1, 2), (10, 1.5), (3, 1.5), (50, 1.1), (100, 1.1), (20, 1.2)],
)
def test_sgdr_restarts_on_the_right_step(period, factor):
    """The first step of a period is the first whose T_cur, counted on, is at least T_i."""
    schedule = schedules.sgdr(1.0, T_0=period, T_mult=factor)
    rates = [schedule(t) for t in range(1, 1001)]
    risen = [1, *(t for t in range(2, 1001) if rates[t - 1] > rates[t - 2])]
    expected = [math.ceil(begin) + 1 for begin in restarts(period, factor) if begin < 999]
    if period > 1:
        assert risen == expected
    for begin in restarts(period, factor):
        if begin <= 999 and begin.denominator == 1:
            assert rates[int(begin)] == pytest.approx(1.0, abs=1e-12)


def test_sgdr_restarts_in_numbers():
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
        (lambda: schedules.per_epoch(0.1, 3), TypeError, "schedule must be callable, got 0.1"),
        (lambda: schedules.per_epoch(abs, 0), ValueError, "steps must be at least 1, got 0"),
        (lambda: schedules.chain(0.1, 3, abs), TypeError, "first must be callable, got 0.1"),
        (lambda: schedules.chain(abs, 3, 0.1), TypeError, "then must be callable, got 0.1"),
        (lambda: schedules.chain(abs, 2.5, abs), ValueError, "steps must be a whole number"),
    ],
)
def test_bad_numbers(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- pictures


@pytest.fixture
def plt():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def test_plot_draws_labelled_lines(plt):
    shown = {"falls": schedules.exponential(0.1, 0.9), "own": one_over}
    axes = schedules.plot(shown, 20)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "learning rate")
    falls, own = axes.get_lines()
    assert (falls.get_label(), own.get_label()) == ("falls", "own")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["falls", "own"]
    assert falls.get_xdata().tolist() == list(range(1, 21))
    np.testing.assert_allclose(falls.get_ydata(), [0.1 * 0.9**t for t in range(20)])
    np.testing.assert_allclose(own.get_ydata(), [1 / t for t in range(1, 21)])


def test_plot_draws_where_it_is_told(plt):
    _, mine = plt.subplots()
    assert schedules.plot(schedules.constant(0.1), 5, ax=mine) is mine
    schedules.plot(one_over, 5, ax=mine)
    assert [line.get_label() for line in mine.get_lines()] == ["constant(rate=0.1)", "one_over"]


def test_plot_refuses():
    with pytest.raises(TypeError, match="a schedule must be callable, got 0.1 as 'a'"):
        schedules.plot({"a": 0.1}, 5)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        schedules.plot(one_over, 0)
    with pytest.raises(TypeError, match="steps must be an integer"):
        schedules.plot(one_over, "5")
    with pytest.raises(ValueError, match="give at least one schedule"):
        schedules.plot({}, 5)


def test_plot_without_matplotlib():
    script = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = None
from numbelief import schedules
try:
    schedules.plot(schedules.constant(0.1), 5)
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "plots need matplotlib: pip install numbelief[plot]\n"
