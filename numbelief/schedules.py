r"""Learning-rate schedules: the number of a step, counted from 1, to its learning rate.

A schedule is a small frozen dataclass with a lower-case name, made like a function call and given
as ``learning_rate``; any callable of one integer works too, as long as it depends on nothing else:
`numbelief.minimize` may ask for the rates of some steps ahead. Where a published schedule counts
from 0, the first step is its 0. Each schedule is one static function ``at(t, *numbers)`` in plain
arithmetic, which `table` compiles, so that a run's rates need no Python.

>>> from numbelief import schedules
>>> rate = schedules.warmup(schedules.inverse_sqrt(0.1), steps=2)
>>> [round(rate(t), 4) for t in (1, 2, 5, 10)]
[0.05, 0.1, 0.05, 0.0333]

`warmup`, `per_epoch` and `chain` take other schedules, which may be functions of one's own. `plot`
shows what comes out.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from numbelief._compile.jit import jit, key_of, part
from numbelief._compile.template import bind

__all__ = [
    "chain",
    "constant",
    "cosine",
    "exponential",
    "inverse_sqrt",
    "per_epoch",
    "plot",
    "sgdr",
    "step_decay",
    "table",
    "warmup",
]


# ---- what a field may be -----------------------------------------------------------------------


def _nonnegative(name: str, value: Any) -> float:
    kind = type(value).__name__
    if kind.startswith(("bool", "complex", "str")) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number below 1.8e308, got a larger integer") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")
    return number


def _at_least_one(name: str, value: Any) -> float:
    number = _nonnegative(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return number


def _whole(name: str, value: Any) -> int:
    number = _nonnegative(name, value)
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return int(number)


def _count(name: str, value: Any) -> int:
    _at_least_one(name, value)
    return _whole(name, value)


def _callable(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {value!r}")
    return value


# Metadata of fields; one without is a number of at least 0.
AT_LEAST_ONE = {"check": _at_least_one}
COUNT = {"check": _count}
COUNT_OR_NONE = {"check": _whole}
SCHEDULE = {"check": _callable}


# ---- the schedules -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """What the schedules share: their registry, checks of their fields, and tables of rates.

    A subclass defines `at`; one that is made of other schedules has `__call__` and `table` instead.
    """

    registry: ClassVar[dict[str, type["Schedule"]]] = {}

    def __init_subclass__(cls) -> None:
        Schedule.registry[cls.__name__] = cls

    def __post_init__(self) -> None:
        for f in fields(self):
            check = f.metadata.get("check", _nonnegative)
            object.__setattr__(self, f.name, check(f.name, getattr(self, f.name)))

    @property
    def numbers(self) -> tuple[float, ...]:
        """What `at` takes after t."""
        return tuple(float(getattr(self, f.name)) for f in fields(self))

    def __call__(self, t: int) -> float:
        return float(self.at(t, *self.numbers))

    def table(self, first: int, count: int) -> NDArray[np.float64]:
        """The rates of the steps first, first + 1, ..., ``count`` of them."""
        rates = np.empty(count)
        _compile_table(type(self))(rates, first, *self.numbers)  # type: ignore[arg-type]
        return rates

    @staticmethod
    def at(t, *numbers):
        raise NotImplementedError("a schedule defines at(t, *numbers)")


@dataclass(frozen=True)
class constant(Schedule):
    r"""The same rate at every step: :math:`\alpha_t = \alpha`.

    >>> constant(0.1)(7)
    0.1
    """

    rate: float

    @staticmethod
    def at(t, rate):
        return rate


@dataclass(frozen=True)
class inverse_sqrt(Schedule):
    r"""The rate of the regret theorems: :math:`\alpha_t = \alpha/\sqrt t`.

    >>> inverse_sqrt(0.1)(4)
    0.05
    """

    rate: float

    @staticmethod
    def at(t, rate):
        return rate / math.sqrt(t)


@dataclass(frozen=True)
class step_decay(Schedule):
    r"""Multiply by a factor every k steps: :math:`\alpha\gamma^{\lfloor (t-1)/k \rfloor}`.

    >>> [step_decay(1.0, factor=0.5, every=2)(t) for t in (1, 2, 3)]
    [1.0, 1.0, 0.5]
    """

    rate: float
    factor: float
    every: int = field(metadata=COUNT)

    @staticmethod
    def at(t, rate, factor, every):
        return rate * math.pow(factor, (t - 1) // every)


@dataclass(frozen=True)
class exponential(Schedule):
    r"""Multiply by a factor every step: :math:`\alpha\gamma^{t-1}`.

    >>> exponential(1.0, factor=0.5)(3)
    0.25
    """

    rate: float
    factor: float

    @staticmethod
    def at(t, rate, factor):
        return rate * math.pow(factor, t - 1)


@dataclass(frozen=True)
class cosine(Schedule):
    r"""Half a cosine from rate to floor over the first steps, then the floor.

    :math:`\alpha_{min} + \tfrac12(\alpha - \alpha_{min})(1 + \cos(\pi \min(t-1, T)/T))`

    >>> [round(cosine(1.0, steps=2)(t), 3) for t in (1, 2, 3, 4)]
    [1.0, 0.5, 0.0, 0.0]
    """

    rate: float
    steps: int = field(metadata=COUNT)
    floor: float = 0.0

    @staticmethod
    def at(t, rate, steps, floor):
        share = min(t - 1, steps) / steps
        return floor + 0.5 * (rate - floor) * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class sgdr(Schedule):
    r"""Cosine annealing with warm restarts (Loshchilov & Hutter, arXiv 1608.03983, equation 5).

    :math:`\eta_{min} + \tfrac12(\eta_{max} - \eta_{min})(1 + \cos(\pi T_{cur}/T_i))`, restarted at
    :math:`T_{cur} = T_i`, with :math:`T_{i+1} = T_{mult} T_i`. ``rate`` and ``floor`` are
    :math:`\eta_{max}` and :math:`\eta_{min}`; :math:`T_{cur}` is 0 at the first step. Of a period
    that ends between two steps, the next one takes over the rest.

    >>> [round(sgdr(1.0, T_0=2, T_mult=2)(t), 3) for t in (1, 2, 3, 5, 7)]
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """

    rate: float
    T_0: int = field(metadata=COUNT)
    T_mult: float = field(default=1.0, metadata=AT_LEAST_ONE)
    floor: float = 0.0

    @staticmethod
    def at(t, rate, T_0, T_mult, floor):
        past, period = t - 1.0, T_0
        if T_mult == 1:
            past %= period
        # 50 * 1.1 is above 55 by a rounding. A whole number is exact, up to 2**53 steps.
        share = 1.0 if T_mult == math.floor(T_mult) else 1 - 1e-12
        while past >= period * share:
            past -= period
            period *= T_mult
        return floor + 0.5 * (rate - floor) * (1 + math.cos(math.pi * past / period))


@dataclass(frozen=True)
class warmup(Schedule):
    r"""A straight line to the first rate of a schedule, then the schedule from its second step.

    Step t of the first ``steps`` has the rate :math:`\alpha_1 t/\mathrm{steps}`: the last of them
    is the schedule's first. Without steps it is the schedule.

    >>> [warmup(exponential(1.0, 0.5), steps=4)(t) for t in (1, 4, 5)]
    [0.25, 1.0, 0.5]
    """

    schedule: Callable[[int], float] = field(metadata=SCHEDULE)
    steps: int = field(metadata=COUNT_OR_NONE)

    def __call__(self, t: int) -> float:
        if t < self.steps:
            return self.schedule(1) * t / self.steps
        return self.schedule(t - max(self.steps - 1, 0))

    def table(self, first: int, count: int) -> NDArray[np.float64]:
        rates, before = np.empty(count), max(self.steps - 1, 0)
        early = max(0, min(count, before + 1 - first))
        if early:
            rising = np.arange(first, first + early) / self.steps
            rates[:early] = table(self.schedule, 1, 1) * rising
        rates[early:] = table(self.schedule, max(first - before, 1), count - early)
        return rates


@dataclass(frozen=True)
class per_epoch(Schedule):
    r"""A schedule counted in epochs of k steps: :math:`\alpha_{1 + \lfloor (t-1)/k \rfloor}`.

    >>> [per_epoch(exponential(1.0, 0.5), steps=3)(t) for t in (1, 3, 4, 7)]
    [1.0, 1.0, 0.5, 0.25]
    """

    schedule: Callable[[int], float] = field(metadata=SCHEDULE)
    steps: int = field(metadata=COUNT)

    def __call__(self, t: int) -> float:
        return self.schedule(1 + (t - 1) // self.steps)

    def table(self, first: int, count: int) -> NDArray[np.float64]:
        begun, ended = (1 + (t - 1) // self.steps for t in (first, first + count - 1))
        epochs = 1 + np.arange(first - 1, first - 1 + count) // self.steps
        return table(self.schedule, begun, ended + 1 - begun)[epochs - begun]


@dataclass(frozen=True)
class chain(Schedule):
    r"""One schedule for the first steps, then another one from its own first step.

    >>> [chain(constant(1.0), 2, exponential(0.5, 0.5))(t) for t in (1, 2, 3, 4)]
    [1.0, 1.0, 0.5, 0.25]
    """

    first: Callable[[int], float] = field(metadata=SCHEDULE)
    steps: int = field(metadata=COUNT_OR_NONE)
    then: Callable[[int], float] = field(metadata=SCHEDULE)

    def __call__(self, t: int) -> float:
        return self.first(t) if t <= self.steps else self.then(t - self.steps)

    def table(self, first: int, count: int) -> NDArray[np.float64]:
        rates = np.empty(count)
        early = max(0, min(count, self.steps + 1 - first))
        rates[:early] = table(self.first, first, early)
        rates[early:] = table(self.then, max(first - self.steps, 1), count - early)
        return rates


# ---- tables and pictures -----------------------------------------------------------------------


def table(schedule: Callable[[int], float], first: int, count: int) -> NDArray[np.float64]:
    """The rates of consecutive steps: without Python if the schedule is one of this module.

    Parameters
    ----------
    schedule : callable
        A schedule, or a function of your own, which is called once a step.
    first, count : int
        The first step, counted from 1, and how many there are.

    Returns
    -------
    ndarray of shape (count,), float64

    Raises
    ------
    ValueError
        A function of your own returned something other than a finite number of at least 0.

    Examples
    --------
    >>> from numbelief import schedules
    >>> schedules.table(schedules.exponential(1.0, factor=0.5), first=2, count=3)
    array([0.5  , 0.25 , 0.125])
    """
    if isinstance(schedule, Schedule):
        return schedule.table(first, count)
    rates = np.empty(count)
    for i in range(count):
        rates[i] = _checked_rate(schedule, first + i)
    return rates


def _checked_rate(schedule: Callable[[int], float], t: int) -> float:
    given = schedule(t)
    try:
        rate = float(given)
        valid = math.isfinite(rate) and rate >= 0
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"learning_rate({t}) must be a finite number of at least 0, got {given!r}")
    return rate


def table_template(at):
    """Fill an array with the rates of the steps from the first on."""

    def fill_table(rates, first, *numbers):
        for i in range(rates.size):
            rates[i] = at(first + i, *numbers)

    return fill_table


@functools.cache
def _compile_table(schedule: type[Schedule]) -> Any:
    at = part(schedule.at, inlined=True)  # which Numba cannot make part of a text that has *numbers
    if schedule.__module__ != __name__:  # the key tells of numbelief's own text only
        return jit(bind(table_template, at=at), cache=False)
    return jit(bind(table_template, f"{schedule.__name__}_{key_of()}", at=at))


def plot(schedule: Any, steps: int, *, ax: Any = None) -> Any:
    """Draw the learning rates of the first steps (needs matplotlib).

    Parameters
    ----------
    schedule : callable or dict of str to callable
        One schedule, or several by the names in the legend.
    steps : int
        Number of steps, at least 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure if it is not given.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn into.

    Raises
    ------
    ImportError
        Matplotlib is not installed.
    TypeError
        A schedule is not callable, or steps not a whole number.
    ValueError
        steps is below 1, there is no schedule, or one returns something other than a finite number
        of at least 0.

    Examples
    --------
    >>> from numbelief import schedules
    >>> shown = {"one": schedules.cosine(0.1, steps=100), "restarts": schedules.sgdr(0.1, T_0=25)}
    >>> schedules.plot(shown, 100).get_ylabel()  # doctest: +SKIP
    'learning rate'
    """
    from numbelief import plotting  # it imports this module

    return plotting.rates(schedule, steps, ax)
