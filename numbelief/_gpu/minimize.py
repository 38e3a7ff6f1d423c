"""`minimize` with its points on a GPU: what it looks at, and when.

A step that the host waited for would cost more than its arithmetic. So steps are queued, and after
each a row of figures (fun, the gradient's norm ...) is noted on the card, where the best point so
far is kept, too; every `LOOK_EVERY` steps the rows come to the host, which makes of them what
`numbelief._solve.observe` does of each point on a CPU. The automatic rate looks after each trial
instead: its line search must know fun.
"""

import functools
import warnings
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning

from numbelief import _checkpoint as checkpoint
from numbelief import _interop as interop
from numbelief._compile.internals import IN_PYTHON
from numbelief._compile.template import adopt, bind
from numbelief._gpu.card import Card
from numbelief._gpu.vectors import (
    CardVectors,
    Launcher,
    copy_at,
    duplicate,
    higher,
    top,
    top_of,
    total,
    total_of,
)
from numbelief._objective import compiled
from numbelief._objective.problem import as_args
from numbelief._solve import observe, quasi_newton
from numbelief._solve.loop import run_template, search_template
from numbelief._solve.minimize import OUTSIDE, Minimization
from numbelief._solve.observe import RUNNING, is_better, projected_gradient
from numbelief._solve.options import Options
from numbelief._solve.quasi_newton import PAIRS, Memory, at_each_coordinate, bind_method, factor_of
from numbelief.checks import as_scalar
from numbelief.optimizer import Optimizer, resolve_set
from numbelief.rules import Lookahead, Rule
from numbelief.sets import Box, FeasibleSet

# Steps between two looks, at most: they share one wait, of some 20 us (not measured here).
LOOK_EVERY = 32

# The columns of a row of figures; the first four are those of `numbelief._solve.observe.review`.
FUN, NORM, MOVED, REACH, BEST_FUN, BEST_NORM, FINITE, COLUMNS = range(8)


def prepare(
    fun: Any, x0: Any, args: Any, rule: Rule | Lookahead, jac: Any, feasible_set: Any, bounds: Any,
    settings: Options,
) -> Minimization:  # fmt: skip
    """The run of `minimize` from a point on a GPU."""
    x, vectors, allowed = first_point(x0, feasible_set, bounds)
    problem = CardProblem(fun, jac, args, x, vectors.card, settings.compiled)
    return Minimization(problem, rule, x, allowed, settings, CardLoop)


def first_point(
    x0: Any, feasible_set: Any, bounds: Any, stacklevel: int = 5
) -> tuple[Any, CardVectors, FeasibleSet | None]:
    """A copy of x0 that the run may write to, moved into its set; its vectors; the set."""
    x = duplicate(x0)
    vectors = CardVectors(x, name="x0")
    if not vectors.is_finite(vectors.x):
        raise ValueError("x0 must be finite")
    allowed = resolve_set(feasible_set, bounds, vectors.size, on_card=True)
    move_into(allowed, vectors.launcher, vectors.size, stacklevel)
    return x, vectors, allowed


def move_into(allowed: FeasibleSet | None, launcher: Launcher, n: int, stacklevel: int) -> None:
    """Clip the points of n coordinates in the card's x, with a warning where one lay outside."""
    if allowed is None:
        return
    assert isinstance(allowed, Box)  # `resolve_set` refuses others on a GPU
    if launcher.confine(*allowed.limits(n, launcher.card.x.dtype)):
        warnings.warn(OUTSIDE, OptimizeWarning, stacklevel=stacklevel)


# ---- templates ---------------------------------------------------------------------------------


def _slope_at(x, g, lower, upper, i):
    if lower is None:
        return g[i]
    else:
        return projected_gradient(x, g, lower, upper, i)


def _measure_point(x, g, lower, upper, previous, norms, moves, reaches):
    """Each block's part of the largest projected gradient, move and coordinate."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    norm = moved = reach = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        # A bound must not hide a gradient that is not finite.
        slope = _slope_at(x, g, lower, upper, i) if isfinite(g[i]) else g[i]
        norm = higher(norm, abs(slope))
        if previous is not None:
            moved = higher(moved, abs(x[i] - previous[i]))
            reach = higher(reach, abs(x[i]))
            previous[i] = x[i]
        i += cuda.gridsize(1)
    norm = top(norm, shared)
    if cuda.threadIdx.x == 0:
        norms[cuda.blockIdx.x] = norm
    if previous is not None:
        moved, reach = top(moved, shared), top(reach, shared)
        if cuda.threadIdx.x == 0:
            moves[cuda.blockIdx.x], reaches[cuda.blockIdx.x] = moved, reach


def _keep_point(
    x, g, value, position, norms, moves, reaches, figures, last, now, best_x, best_g, average, weight,
):  # fmt: skip
    """Note a point's figures from `now` on, keep it if it is the best one, let the mean follow."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    # Each block concludes for itself, from a row that this launch does not write.
    norm = top_of(norms, shared)
    norm = norm if norm < inf else inf
    fun = value
    if position is not None:
        fun = np.float64(position[0])
    best_fun, best_norm = figures[last + BEST_FUN], figures[last + BEST_NORM]
    finite = figures[last + FINITE] > 0 and isfinite(fun) and isfinite(norm)
    better = finite and is_better(fun, norm, best_fun, best_norm)
    moved = reach = 0.0
    if moves is not None:
        moved, reach = top_of(moves, shared), top_of(reaches, shared)
    if cuda.grid(1) == 0:
        figures[now + FUN], figures[now + NORM] = fun, norm
        figures[now + MOVED], figures[now + REACH] = moved, reach
        figures[now + BEST_FUN] = fun if better else best_fun
        figures[now + BEST_NORM] = norm if better else best_norm
        figures[now + FINITE] = 1.0 if finite else 0.0
    i = cuda.grid(1)
    while i < x.size:
        if better:
            best_x[i], best_g[i] = x[i], g[i]
        if average is not None:  # noqa: SIM102  Numba drops the branch only where it stands alone
            if finite:
                average[i] += weight * (x[i] - average[i])
        i += cuda.gridsize(1)


def _multiply(a, b, sums):
    """Each block's part of an inner product."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    mine = 0.0
    i = cuda.grid(1)
    while i < a.size:
        mine += np.float64(a[i]) * b[i]
        i += cuda.gridsize(1)
    mine = total(mine, shared)
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x] = mine


def _deflect(a, by, sums, k, product, alphas, second):
    """What `numbelief._solve.quasi_newton.deflect_template` does, after the launch of its inner product."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    # Each block concludes for itself; what the first loop notes, it does not read.
    factor = a.dtype.type(-factor_of(total_of(sums, shared), k, product, alphas, second))
    i = cuda.grid(1)
    while i < a.size:
        a[i] += factor * by[i]
        i += cuda.gridsize(1)


def _measure_trial(direction, x, g, x0, slopes, tops, moves):
    """Each block's part of what `numbelief._solve.quasi_newton.measure_template` finds."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    slope = 0.0
    steepest = moved = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        slope += np.float64(direction[i]) * g[i]
        steepest = higher(steepest, abs(g[i]))
        moved = higher(moved, abs(x[i] - x0[i]))
        i += cuda.gridsize(1)
    slope, moved = total(slope, shared), top(moved, shared)
    steepest = top(steepest, shared)
    if cuda.threadIdx.x == 0:
        slopes[cuda.blockIdx.x], tops[cuda.blockIdx.x] = slope, steepest
        moves[cuda.blockIdx.x] = moved


# ---- evaluation --------------------------------------------------------------------------------


class CardProblem:
    """An objective on a GPU: `numbelief._objective.problem.Problem` for x there.

    Parameters
    ----------
    fun, jac, args
        As in `numbelief.minimize`.
    x : device array of shape (n,)
        The point to evaluate at, changed from one evaluation to the next.
    card : Card
        The GPU, with its view of x.

    Attributes
    ----------
    nfev, njev : int
        Evaluations so far.
    gradient : device array of shape (n,)
        The latest gradient, as kernels take it.
    args : tuple
        Those of the coming evaluation.
    card : Card
        The GPU.
    """

    def __init__(
        self, fun: Any, jac: Any, args: Any, x: Any, card: Card, wants_compiled: bool | None = None
    ) -> None:
        if wants_compiled:
            raise TypeError("a loop in compiled code is not possible: x0 is on a GPU")
        for name, function in (("fun", fun), ("jac", jac)):
            if compiled.is_compiled(function):
                raise TypeError(
                    f"{name} must be a Python function of device arrays where x0 is on a GPU, got "
                    "one that is compiled for the CPU"
                )
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {fun!r}")
        if not (callable(jac) or jac is True or (isinstance(jac, str) and jac == "inplace")):
            raise ValueError(
                "jac must be a callable, True or 'inplace' where x0 is on a GPU, which takes no "
                f"finite differences, got {jac!r}"
            )
        self._fun, self._jac, self.args = fun, jac, as_args(args)
        self._x, self.card = x, card
        self.nfev = self.njev = 0
        self._grad: Any = None
        if jac == "inplace":
            self._grad = duplicate(x)  # a coordinate that fun forgets must not pass for a gradient
            card.fill(card.view(self._grad), nan)
        self.gradient: Any = None
        self._alive: Any = None, None

    def wait(self) -> None:
        """Let what reads the latest gradient end, if it must before that is let go."""
        self.card.wait_for(self._alive[1])

    def value(self, x: Any = None) -> float:
        """The value at x, or another point, as a number; its gradient is then the latest one."""
        value, position = self.evaluate(x)
        return value if position is None else float(self.card.host(position)[0])

    def alone(self, x: Any) -> float:
        """The value at a point, without its gradient where the two are apart."""
        if callable(self._jac):
            return number(self._fun(x, *self.args), self.card)
        return self.value(x)

    def evaluate(self, x: Any = None) -> tuple[float, Any]:
        """The value at x, either as a number or, on the card, as an array of one (and nan)."""
        x = self._x if x is None else x
        if self._jac is True:
            pair = self._fun(x, *self.args)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"with jac=True fun must return (value, gradient), got {pair!r}")
            value, grad = pair
        elif callable(self._jac):
            value, grad = self._fun(x, *self.args), self._jac(x, *self.args)
        else:
            grad = self._grad
            value = self._fun(x, grad, *self.args)
        self.wait()
        self._alive = value, grad  # a view does not keep the memory of what it shows
        self.gradient = self.card.gradient(grad, ())
        self.nfev += 1
        self.njev += 1
        if interop.is_device_array(value):
            return nan, self.card.number(value)
        return as_scalar(value), None


def number(value: Any, card: Card, name: str = "fun") -> float:
    """What a function returned, on the host or on the card, as a number."""
    if interop.is_device_array(value):
        return float(card.host(card.number(value, name))[0])
    return as_scalar(value, name)


# ---- looking -----------------------------------------------------------------------------------


class Points:
    """What is known of the points of a run, on the card and, after a look, on the host.

    Parameters
    ----------
    optimizer : Optimizer
        What takes the steps.
    average, moves, every : bool
        Whether to keep the mean of all points, to measure how far x moves, and to keep each point.

    Attributes
    ----------
    every : list of device array
        Each point, if they are kept.
    limits : tuple of device array or None
        Lower and upper bounds.
    """

    def __init__(self, optimizer: Any, *, average: bool, moves: bool, every: bool) -> None:
        vectors = optimizer.vectors
        self.x, self._card = optimizer.x, vectors.card
        card = self._card
        self._launcher = launcher = vectors.launcher
        self._best = self._like_x(), self._like_x()
        self._average = self._like_x() if average else None
        if self._average is not None:
            card.fill(self._average[1], 0)
        self.every: list[Any] = []
        self._keeps_every = every
        limits = optimizer.limits
        self.limits = tuple(map(card.array, limits)) if limits else (None, None)
        self._previous = card.vector() if moves else None
        parts = np.zeros(launcher.parts)
        self._tops = tuple(card.array(parts) if k == 0 or moves else None for k in range(3))
        self._rates: list[float] = []
        self._begin(0, inf, 0.0)

    def _begin(self, count: int, best_fun: float, best_norm: float) -> None:
        """After so many points, let the next one find the row of figures before it."""
        rows = np.zeros((LOOK_EVERY + 1, COLUMNS))
        rows[(count - 1) % len(rows), [BEST_FUN, BEST_NORM, FINITE]] = best_fun, best_norm, 1
        self._figures, self._count = self._card.array(rows.ravel()), count

    @property
    def kept(self) -> dict[str, Any]:
        """What is kept of them, by its names in a file."""
        kept: dict[str, Any] = {"best": [view for _, view in self._best]}
        if self._average is not None:
            kept["average"] = self._average[1]
        if self._previous is not None:
            kept["previous"] = self._previous
        if self._keeps_every:
            kept["allvecs"] = list(map(self._card.view, self.every))
        return kept

    def continue_from(self, control: NDArray[Any]) -> None:
        """Stand after the points that a file has seen, and make room for what it kept of them."""
        last = control[0]
        self._begin(int(last["nit"]) + 1, float(last["best_fun"]), float(last["best_norm"]))
        if self._keeps_every:
            self.every = [duplicate(self.x) for _ in range(self._count)]

    def _like_x(self) -> tuple[Any, Any]:
        """An array of the user's library, and as kernels take it."""
        array = duplicate(self.x)
        return array, self._card.view(array)

    def note(self, value: float, position: Any, rate: float, g: Any) -> None:
        """Queue the observation of the point that x and its gradient g are now."""
        launcher, x = self._launcher, self._card.x
        last, now = (COLUMNS * (k % (LOOK_EVERY + 1)) for k in (self._count - 1, self._count))
        self._count += 1
        self._rates.append(rate)
        launcher.reduce(_measure_point, x, g, *self.limits, self._previous, *self._tops)
        mean = (None, None)
        if self._average is not None:
            mean = self._average[1], x.dtype.type(1 / self._count)
        launcher.map(
            _keep_point, x, g, value, position, *self._tops, self._figures, last, now,
            *(view for _, view in self._best), *mean,
        )  # fmt: skip
        if self._keeps_every:
            self.every.append(duplicate(self.x))

    def look(self, control: NDArray[Any], recent: NDArray[Any], history: NDArray[Any]) -> int:
        """Bring the figures of the points since the last look to the host; return the run's status.

        The arguments are those of `numbelief._solve.observe.review`.
        """
        rates, self._rates = np.array(self._rates), []
        if not rates.size:
            return RUNNING
        rows = np.arange(self._count - rates.size, self._count) % (LOOK_EVERY + 1)
        figures = self._card.host(self._figures).reshape(-1, COLUMNS)[rows]
        return int(observe.compile_review()(figures, rates, control, recent, history))

    def copy(self, view: Any) -> Any:
        """A copy of a vector, as an array of the user's library."""
        return self._launcher.copy(view, self.x)

    def point(self, which: int, g: Any) -> tuple[Any, Any]:
        """Copies of one of the points to return and of the gradient that is kept with it.

        ``g`` is the gradient at the last point.
        """
        x = self._card.x
        if which == observe.BEST:
            (_, x), (_, g) = self._best
        elif which == observe.AVERAGE and self._average is not None:
            _, x = self._average
        return self.copy(x), self.copy(g)


# ---- the loop ----------------------------------------------------------------------------------


class CardLoop:
    """The loop of a minimization on a GPU; see `numbelief._solve.host.HostLoop`."""

    def __init__(
        self, optimizer: Optimizer, problem: CardProblem, settings: Options, *, automatic: bool
    ) -> None:
        vectors = optimizer.vectors
        assert isinstance(vectors, CardVectors)
        self._optimizer, self._problem, self._vectors = optimizer, problem, vectors
        self.control = observe.new_control(
            maxiter=settings.maxiter,
            gtol=settings.gtol,
            ftol=settings.ftol,
            xtol=settings.xtol,
            target=settings.target,
        )
        self.history = np.zeros((int(settings.history), 3))
        self._recent = np.full(observe.WINDOW, inf)
        self._points = Points(
            optimizer,
            average=settings.iterate == "average",
            moves=settings.xtol > 0,
            every=settings.return_all,
        )
        self._queue = vectors.queue(optimizer.kind, optimizer.step_options, optimizer.step_state)
        self._search: Search | None = None
        if automatic:
            scaled = settings.max_norm is None and settings.max_value is None
            self._search = Search(optimizer, self._queue, problem, self._points, scaled=scaled)

    def most_steps(self, *, timed: bool) -> float:
        """A look at the figures is one at the clock, too."""
        return LOOK_EVERY

    def begin(self) -> int:
        """Evaluate the first point; return the run's status."""
        if self._search is None:
            value, position = self._problem.evaluate()
        else:
            value, position = self._search.evaluate(), None
        self._points.note(value, position, nan, self._gradient)
        return self._look()

    def advance(self, rates: NDArray[np.float64]) -> int:
        """Take a step for each rate, and look at the points."""
        needed = int(self.control["nit"][0]) + 1 + rates.size
        if 0 < len(self.history) < needed:
            self.history = np.concatenate([self.history, np.empty((2 * needed, 3))])
        if self._search is not None:
            return self._search.run(rates, *self._figures)
        self._run(rates, None, None, self._optimizer.step_state, None, None, None)
        return self._look()

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

    def _look(self) -> int:
        return self._points.look(*self._figures)

    # ---- points

    def look(self) -> None:
        """Bring the figures up to date."""
        self._look()

    def here(self) -> Any:
        """A copy of x."""
        return duplicate(self._optimizer.x)

    def point(self, which: int = observe.LAST) -> tuple[Any, Any, float]:
        """Copies of x and the gradient at one of the points to return, and fun."""
        x, g = self._points.point(which, self._gradient)
        if which == observe.AVERAGE:
            fun = self._problem.value(x)
            g = self._points.copy(self._problem.gradient)
        else:
            fun = float(self.control["best_fun" if which == observe.BEST else "fun"][0])
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
        """The way back."""
        rows = int(self.control["nit"][0]) + 1
        checkpoint.check_like("recent", arrays["recent"], self._recent)
        self._recent = arrays["recent"]
        if self.history.size:
            checkpoint.check_like("history", arrays["history"], self.history, rows)
            self.history = arrays["history"]
        checkpoint.check_like("g", arrays["g"], self._vectors.x)
        self._problem.gradient = self._vectors.card.array(arrays["g"])
        self._points.continue_from(self.control)
        for name, array in self._on_card().items():
            saved = arrays[name]
            if isinstance(array, list):
                if len(saved) != len(array) and name != "allvecs":
                    raise ValueError(f"{name} has {len(saved)} rows, {len(array)} expected")
                saved = saved[: len(array)]
            for mine, value in zip(
                array if isinstance(array, list) else [array],
                saved if isinstance(array, list) else [saved],
                strict=True,
            ):
                checkpoint.check_like(name, value, mine)
            self._vectors.from_host(array, saved)


class _Seen(NamedTuple):
    """What the search looks at of a `numbelief._solve.observe.Watch`."""

    control: Any
    region: Any


class Search:
    """The search of `numbelief._solve.quasi_newton`, around launches.

    A trial brings its fun and two results of reductions to the host, which decides on them; the
    recursion over the last steps brings none.

    Parameters
    ----------
    optimizer, queue, problem, points
        What takes the steps, queues them, evaluates and observes.
    scaled : bool
        As `numbelief._solve.quasi_newton.new_memory` takes it.

    Attributes
    ----------
    g : device array of shape (n,)
        The gradient: the method writes to it, which it may not to the user's.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        queue: Any,
        problem: CardProblem,
        points: Points,
        *,
        scaled: bool,
    ) -> None:
        vectors = optimizer.vectors
        assert isinstance(vectors, CardVectors)
        self._queue, self._problem, self._points = queue, problem, points
        self._card = card = vectors.card
        self._launcher = launcher = vectors.launcher
        x = card.x
        empty = quasi_newton.new_memory(np.empty(0, x.dtype), on=True, scaled=scaled)
        rows = 1 + 2 + 2 * PAIRS
        self.g, *rest = (card.cuda.device_array(launcher.n, x.dtype) for _ in range(rows))
        # Python writes to the fields of a record by name in this form only.
        self._memory = empty._replace(
            search=empty.search.view(np.recarray),
            base=rest[:2],
            pairs=rest[2:],
            alphas=card.array(empty.alphas),
        )
        # Three results of each block, side by side, so that they cross over together.
        self._found, parts = card.array(np.zeros(3 * launcher.parts)), launcher.parts
        self._results = tuple(self._found[k * parts : (k + 1) * parts] for k in range(3))
        lower, upper = points.limits
        at = at_each_coordinate(bounded=lower is not None)
        method = bind_method(
            {
                **{name: functools.partial(launcher.each, each) for name, each in at.items()},
                "dot": self._dot,
                "deflect": self._deflect,
                "measure": self._measure,
                "length_of_move": self._length,
                "take_step": self._step,
            },
            projected=False,
        )
        names = IN_PYTHON | {
            "copy": functools.partial(launcher.each, copy_at),
            "fill": self._fill,
            "largest": launcher.largest,
        }
        quietly = np.errstate(all="ignore")  # as in compiled code
        propose, judge = (
            quietly(adopt(function, lambda function: function, **names))
            for function in method.values()
        )
        state = optimizer.step_state
        self._state = state._replace(clock=state.clock.view(np.recarray))
        self._region = optimizer.region._replace(lower=lower, upper=upper)
        #: What a run is continued from, by its names in a file.
        self.kept = {"g": self.g, **self._memory._asdict()}
        self._method = {"propose": propose, "judge": judge}

    def evaluate(self) -> float:
        """Return fun at x, and let g be the gradient there."""
        fun = self._problem.value()
        self._launcher.each(copy_at, self._problem.gradient, self.g)
        return fun

    def run(self, rates: NDArray[np.float64], *figures: NDArray[Any]) -> int:
        """Take a step for each rate, unless a point ends the run; see `Points.look`."""

        def watch(fun: Any, rate: Any, x: Any, g: Any, _: Any) -> int:
            self._points.note(fun, None, rate, g)
            return self._points.look(*figures)

        search = search_template(
            evaluate=lambda x, g, objective: self.evaluate(), observe=watch, **self._method
        )
        seen = _Seen(figures[0], self._region)
        return int(search(rates, self._card.x, self.g, self._state, None, seen, self._memory, None))

    def _step(self, x, g, rate, stepper):
        self._queue(g, float(rate))

    def _fill(self, arrays, value):
        for array in arrays:
            self._card.fill(array, value)

    def _reduce(self, template, *arguments):
        """What the blocks found: three rows, of which a product fills one."""
        results = self._results[: 1 if template is _multiply else 3]
        self._launcher.reduce(template, *arguments, *results)
        return self._card.host(self._found).reshape(3, -1)

    def _dot(self, a, b):
        return float(self._reduce(_multiply, a, b)[0].sum())

    def _measure(self, direction, x, g, x0):
        slopes, tops, moves = self._reduce(_measure_trial, direction, x, g, x0)
        return float(slopes.sum()), float(tops.max()), moves.max() != 0

    def _length(self, x, x0, trace):
        return self._reduce(_measure_trial, x, x, x, x0)[2].max()

    def _deflect(self, a, along, by, k, product, alphas, second):
        sums = self._results[0]
        self._launcher.reduce(_multiply, along, a, sums)
        self._launcher.map(_deflect, a, by, sums, k, product, alphas, int(second))
