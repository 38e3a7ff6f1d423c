"""When a run ends: its settings, the figures of its points, and what these say.

A stopping test is a field of `Tolerances` and a look at the figures in `verdict_of`. A figure that
no test has needed before is a field of CONTROL, which `note` fills.
"""

import functools
from dataclasses import dataclass, fields
from math import inf, isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbelief._compile.internals import larger
from numbelief._compile.jit import jit, key_of
from numbelief._compile.template import named
from numbelief.checks import real

# The run's status after a point. From 0 on these are the status codes of SciPy's BFGS.
RUNNING, CONVERGED, MAXITER, PRECISION, NONFINITE = -1, 0, 1, 2, 3

# Which point a run returns.
ITERATES = {"best": 0, "last": 1, "average": 2}
BEST, LAST, AVERAGE = ITERATES.values()
# ftol compares the best value with the best value this many iterations ago.
WINDOW = 50
# After STILL iterations in which neither fun nor the gradient's norm changed a bit the run ends.
STILL = 1000


@dataclass(frozen=True)
class Tolerances:
    """What lets a point end a run as converged, as options of `numbelief.minimize`.

    0 is off, except for gtol: a gradient of 0 ends a run in any case.
    """

    gtol: float = 1e-5
    ftol: float = 0.0
    xtol: float = 0.0

    def __post_init__(self) -> None:
        for name in TOLERANCES:
            object.__setattr__(self, name, real(name, getattr(self, name), 0.0))


TOLERANCES = tuple(field.name for field in fields(Tolerances))

# Before the first point. A type is that of the number.
_FIGURES: dict[str, float] = {
    "nit": -1, "fun": nan, "norm": nan, "moved": inf, "reach": 0.0, "still": 0,
    "best_fun": inf, "best_norm": 0.0, "best_nit": 0, "window_fun": inf,
    "first_fun": nan, "rate": 0.0, "peak": 0.0, "rises": 0,
}  # fmt: skip

#: Settings and running figures of a run; a checkpoint holds it. "goal" is the option target,
#: "noise" the share of fun that rounding may take, "scheduled" whether each step has a rate of its
#: own: then "peak" is the largest so far, and "rises" tells whether the last was above the one
#: before.
CONTROL = np.dtype(
    [("maxiter", "i8"), *((name, "f8") for name in (*TOLERANCES, "goal", "noise"))]
    + [("iterate", "i8"), ("scheduled", "i8")]
    + [(name, "i8" if isinstance(start, int) else "f8") for name, start in _FIGURES.items()]
)


_START = np.zeros(1, CONTROL)
for _name, _start in _FIGURES.items():
    _START[_name] = _start


def new_control(settings: Any, dtype: Any, *, scheduled: bool) -> NDArray[Any]:
    """A control record before the first point.

    Parameters
    ----------
    settings : Options
        Of `numbelief.minimize`.
    dtype : numpy.dtype
        Of x.
    scheduled : bool
        Whether a function gives each step's rate.
    """
    control = _START.copy()
    given = {name: getattr(settings, name) for name in ("maxiter", *TOLERANCES)}
    given |= {"goal": settings.target, "noise": float(np.finfo(dtype).eps) ** 0.5}
    given |= {"iterate": ITERATES[settings.iterate], "scheduled": scheduled}
    for name, value in given.items():
        control[name] = value
    return control


def take_up(control: NDArray[Any], saved: NDArray[Any]) -> bool:
    """Take the figures of a saved control; return whether it had the same tolerances.

    Raises
    ------
    ValueError
        It is no control. One of an earlier version may lack fields.
    """
    names = saved.dtype.names or ()
    mine = CONTROL.names or ()
    known = {name: saved.dtype[name] == CONTROL[name] for name in names if name in mine}
    if saved.shape != (1,) or len(known) < len(names) or not (known and all(known.values())):
        raise ValueError(f"control is {saved.dtype}{saved.shape}, {CONTROL}(1,) expected")
    wrong = [name for name in ("nit", "best_nit", "still") if name in names and saved[name][0] < 0]
    if wrong:
        raise ValueError(f"control has a negative {', '.join(wrong)}")
    for name in _FIGURES.keys() & names:
        control[name] = saved[name]
    if (
        "ftol" not in names or not saved["ftol"][0] > 0
    ):  # what the best value was then, nobody knows
        control["window_fun"] = inf
    tolerances = (*TOLERANCES, "goal")
    theirs = [saved[name][0] if name in names else 0.0 for name in tolerances]
    return theirs == [control[name][0] for name in tolerances]


#: What `which_point` looks at, and what a mean is judged by.
OF_THE_POINT = ("best_fun", "best_norm", "first_fun", "fun", "norm", "gtol", "goal", "noise")


def is_as_good(control):
    """Whether the last point is as good as the best one, of the size of fun or of its fall."""
    now = control[0]
    size, fall = abs(now.best_fun), now.first_fun - now.best_fun
    if fall > size:
        size = fall
    return now.fun <= now.best_fun + now.noise * size


def which_point(iterate, control):
    """Which point a run returns with this control."""
    now = control[0]
    if not isfinite(now.best_fun):
        return LAST
    if not (isfinite(now.fun) and isfinite(now.norm)):
        return BEST
    if iterate == BEST and now.norm <= now.gtol < now.best_norm and is_as_good(control):
        return LAST
    return iterate


# ---- at a point --------------------------------------------------------------------------------


def note(fun, norm, rate, control, history):
    """Note the figures of the next point; are they finite?"""
    now = control[0]
    now.nit += 1
    now.still = now.still + 1 if fun == now.fun and norm == now.norm else 0
    now.fun = fun
    now.norm = norm
    if now.scheduled and now.nit > 0:
        now.rises = 1 if rate > now.rate else 0
        now.rate = rate
        now.peak = larger(now.peak, rate)
    if history.size:
        history[now.nit, 0] = fun
        history[now.nit, 1] = norm
        history[now.nit, 2] = rate
    return isfinite(fun) and isfinite(norm)


def is_better(fun, norm, best_fun, best_norm):
    """Whether a point is better than the best one so far."""
    # Of points with the same value, which is common in float32, the flattest is the best.
    return fun < best_fun or (fun == best_fun and norm < best_norm)


def note_best(control):
    """Whether the point that was noted last is the best one so far, which is noted too."""
    now = control[0]
    if is_better(now.fun, now.norm, now.best_fun, now.best_norm):
        now.best_fun = now.fun
        now.best_norm = now.norm
        now.best_nit = now.nit
        return True
    return False


def conclude(control, recent):
    """Remember the best value so far, and return the run's status."""
    now = control[0]
    if now.ftol > 0:
        k = now.nit % WINDOW
        now.window_fun = recent[k]
        recent[k] = now.best_fun
    return verdict_of(control)


def verdict_of(control):
    """What the tolerances say about the point that was observed last."""
    now = control[0]
    # A gradient of 0 where fun is high, as beyond a penalty, says nothing of the best point.
    if now.norm <= now.gtol and (now.iterate != BEST or is_as_good(control)):
        return CONVERGED
    if now.fun <= now.goal:
        return CONVERGED
    if now.nit > 0 and now.xtol > 0:
        # A schedule that takes the rate to 0 stops the points anywhere: what counts is by how much
        # they would move at its peak, which may be to come, as far as rounding lets that be told.
        share, lost = 1.0, 0.0
        if now.scheduled:
            share = now.rate / now.peak if now.rises == 0 and now.peak > 0 else 0.0
            lost = 0.5 * (now.noise * now.noise) * now.reach if share < 1 else 0.0
        if share > 0 and now.moved + lost <= share * (now.xtol * (now.xtol + now.reach)):
            return CONVERGED
    if now.ftol > 0 and now.nit >= WINDOW and now.window_fun < inf:
        size = larger(larger(abs(now.window_fun), abs(now.best_fun)), 1.0)
        # Where steps overshoot, the best value does not fall either.
        if larger(now.window_fun, now.fun) - now.best_fun <= now.ftol * size:
            return CONVERGED
    if now.nit >= now.maxiter:
        return MAXITER
    if now.still >= STILL:
        return PRECISION
    return RUNNING


def review(figures, rates, control, recent, history):
    """Look at points that another target has observed: the fun, norm, move and reach of each.

    They have been reached, so each counts, except those after one that is not finite; the run's
    status is what the first one says that ends it.
    """
    now = control[0]
    status = RUNNING
    for k in range(len(figures)):
        if not note(figures[k, 0], figures[k, 1], rates[k], control, history):
            return NONFINITE if status == RUNNING else status
        note_best(control)
        now.moved = figures[k, 2]
        now.reach = figures[k, 3]
        how = conclude(control, recent)
        status = how if status == RUNNING else status
    return status


# ---- compilation -------------------------------------------------------------------------------


@functools.cache
def compile_review() -> Any:
    """Compile `review`, for points that were observed on a GPU."""
    return jit(named(review, key_of()), allocates=False)


@functools.cache
def compile_verdict() -> Any:
    """Compile `verdict_of`, for a run that is resumed at an observed point."""
    return jit(named(verdict_of, key_of()), allocates=False)
