"""`minimize` with x0 on a GPU: steps and observations are queued there.

The automatic rate looks after each trial instead: its line search must know fun.
"""

import functools
import warnings
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning

from numbelief import _checkpoint as checkpoint
from numbelief._gpu import points as looks
from numbelief._gpu.points import Points
from numbelief._gpu.problem import CardProblem
from numbelief._gpu.search import CardSearch
from numbelief._gpu.vectors import CardVectors, duplicate
from numbelief._solve import stopping
from numbelief._solve.loop import run_template
from numbelief._solve.minimization import Minimization
from numbelief._solve.minimize import OUTSIDE
from numbelief._solve.options import Options
from numbelief._solve.quasi_newton import check_record
from numbelief._solve.stopping import RUNNING
from numbelief.optimizer import Optimizer, resolve_set
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet


def prepare(
    fun: Any, x0: Any, args: Any, rule: Rule | Lookahead, jac: Any, feasible_set: Any, bounds: Any,
    settings: Options,
) -> Minimization:  # fmt: skip
    """The run of `minimize` from a point on a GPU."""
    vectors, allowed = first_point(x0, feasible_set, bounds, stacklevel=5)
    problem = CardProblem(fun, jac, args, vectors, settings.compiled)
    return Minimization(problem, rule, vectors.given, allowed, settings, CardLoop)


def first_point(
    x0: Any, feasible_set: Any, bounds: Any, stacklevel: int = 4
) -> tuple[CardVectors, FeasibleSet | None]:
    """The vectors of a copy of x0, moved into its set, and the set."""
    vectors = CardVectors(duplicate(x0), name="x0")
    if not vectors.is_finite(vectors.x):
        raise ValueError("x0 must be finite")
    allowed = resolve_set(feasible_set, bounds, vectors.size, on_card=True)
    move_into(allowed, vectors, vectors.size, stacklevel)
    return vectors, allowed


def move_into(allowed: FeasibleSet | None, points: CardVectors, n: int, stacklevel: int) -> None:
    """Move points of n coordinates, one after another, into a set; warn if one lay outside."""
    if allowed is None:
        return
    limits = allowed.limits(n, points.dtype)
    assert limits is not None  # `resolve_set` refuses other sets on a GPU
    if points.clip_to_bounds(*limits):
        warnings.warn(OUTSIDE, OptimizeWarning, stacklevel=stacklevel)


class CardLoop:
    """The loop of a minimization on a GPU; see `numbelief._solve.host.HostLoop`."""

    def __init__(
        self, optimizer: Optimizer, problem: CardProblem, settings: Options, *, automatic: bool
    ) -> None:
        vectors = optimizer.vectors
        assert isinstance(vectors, CardVectors)
        self._optimizer, self._problem, self._vectors = optimizer, problem, vectors
        self.control = stopping.new_control(
            settings, vectors.dtype, scheduled=optimizer.is_scheduled
        )
        self.history = np.zeros((int(settings.history), 3))
        self._recent = np.full(stopping.WINDOW, inf)
        self._points = Points(
            optimizer,
            average=settings.iterate == "average",
            moves=settings.xtol > 0,
            every=settings.return_all,
        )
        self._queue = vectors.queue(optimizer.kind, optimizer.step_options, optimizer.step_state)
        self._search: CardSearch | None = None
        if automatic:
            scaled = settings.max_norm is None and settings.max_value is None
            self._search = CardSearch(optimizer, self._queue, problem, self._points, scaled=scaled)

    def most_steps(self, *, timed: bool) -> float:
        """A look at the figures is one at the clock, too."""
        return looks.LOOK_EVERY

    def begin(self) -> int:
        """Evaluate the first point; return the run's status."""
        if self._search is None:
            value, position = self._problem.evaluate()
        else:
            value, position = self._search.evaluate(), None
        self._points.note(value, position, nan, self._gradient)
        status = self.look()
        self.control["first_fun"] = self.control["fun"]
        return status

    def advance(self, rates: NDArray[np.float64]) -> int:
        """Take a step for each rate, and look at the points."""
        needed = int(self.control["nit"][0]) + 1 + rates.size
        if 0 < len(self.history) < needed:
            self.history = np.concatenate([self.history, np.empty((2 * needed, 3))])
        if self._search is not None:
            return self._search.run(rates, *self._figures)
        self._run(rates, None, None, self._optimizer.step_state, None, None, None)
        return self.look()

    @functools.cached_property
    def _run(self) -> Any:
        """`run`, with steps and observations that are queued."""
        problem, points, queue = self._problem, self._points, self._queue

        def step(x: Any, g: Any, state: Any, rate: Any, options: Any) -> None:
            queue(problem.gradient, float(rate))

        def evaluate(x: Any, g: Any, objective: Any) -> Any:
            return problem.evaluate()

        def watch(fun: Any, rate: Any, x: Any, g: Any, _: Any) -> int:
            value, position = fun
            points.note(value, position, rate, problem.gradient)
            return RUNNING

        return run_template(step=step, evaluate=evaluate, observe=watch)

    @property
    def _figures(self) -> tuple[NDArray[Any], ...]:
        return self.control, self._recent, self.history

    @property
    def _gradient(self) -> Any:
        return self._problem.gradient if self._search is None else self._search.g

    # ---- points

    def look(self) -> int:
        """Bring the figures up to date; return the run's status."""
        return self._points.look(*self._figures)

    def here(self) -> Any:
        """A copy of x."""
        return duplicate(self._optimizer.x)

    def point(self, which: int = stopping.LAST) -> tuple[Any, Any, float]:
        """Copies of x and the gradient at one of the points to return, and fun."""
        x, g = self._points.point(which, self._gradient)
        if which == stopping.AVERAGE:
            fun = self._problem.value_and_gradient(x)
            g = self._vectors.export(self._problem.gradient)
        else:
            fun = float(self.control["best_fun" if which == stopping.BEST else "fun"][0])
        self._problem.wait()
        return x, g, fun

    def points(self, count: int) -> list[Any]:
        """The first ``count`` points, which are kept."""
        return self._points.every[:count]

    # ---- files

    def _on_host(self) -> dict[str, Any]:
        return {"recent": self._recent, "history": self.history}

    def _on_card(self) -> dict[str, Any]:
        """What is kept there, by name."""
        search = {} if self._search is None else self._search.kept
        return {**self._points.kept, **search}

    def wanted(self) -> list[str]:
        """The names of what is kept."""
        return [*(name for name, a in self._on_host().items() if a.size), *self._on_card()]

    def arrays(self) -> dict[str, Any]:
        """The gradient and what is kept, as a file holds them."""
        there = {"g": self._gradient, **self._on_card()}
        host = self._vectors.to_host
        return self._on_host() | {name: host(array) for name, array in there.items()}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take what `arrays` gave, from a file."""
        rows = int(self.control["nit"][0]) + 1
        checkpoint.check_like("recent", arrays["recent"], self._recent)
        self._recent = arrays["recent"]
        if self.history.size:
            checkpoint.check_like("history", arrays["history"], self.history, rows)
            self.history = arrays["history"]
        checkpoint.check_like("g", arrays["g"], self._vectors.x)
        self._problem.gradient = self._vectors.card.array(arrays["g"])
        self._points.continue_from(self.control)
        if self._search is not None:
            check_record(arrays["search"])
        for name, array in self._on_card().items():
            saved, like = arrays[name], array
            least: int | None = None
            if isinstance(array, list):
                zero, shape = self._vectors.dtype.type(0), (len(array), self._vectors.size)
                like = np.broadcast_to(zero, shape)
                least = len(array) if name == "allvecs" else None
            checkpoint.check_like(name, saved, like, least)
            self._vectors.from_host(array, saved if least is None else saved[:least])
