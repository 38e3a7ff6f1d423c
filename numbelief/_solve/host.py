"""The loop of a minimization on the CPU, and what it keeps of its points."""

import functools
import math
from typing import Any, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from numbelief import _checkpoint as checkpoint
from numbelief._compile.pointers import Stored
from numbelief._objective import compiled
from numbelief._objective.problem import Problem
from numbelief._solve.loop import Search, bind_run, bind_search, compile_run, compile_search
from numbelief._solve.observe import (
    AVERAGE,
    BEST,
    LAST,
    WINDOW,
    Watch,
    compile_observe,
    new_control,
)
from numbelief._solve.options import Options
from numbelief._solve.quasi_newton import PAIRS, Memory, Stepper, new_memory
from numbelief._step.compiled import compile_at_address
from numbelief._step.vectors import HostVectors
from numbelief.optimizer import Optimizer


class HostLoop:
    """The loop, around an optimizer and an objective.

    Parameters
    ----------
    optimizer : Optimizer
        What takes the steps.
    problem : Problem
        What is minimized.
    settings : Options
    automatic : bool
        Whether the rate is found by a search.

    Attributes
    ----------
    control : ndarray of shape (1,)
        Settings and figures of the run.
    history : ndarray of shape (m, 3)
        See `Watch`.
    """

    def __init__(
        self, optimizer: Optimizer, problem: Problem, settings: Options, *, automatic: bool
    ) -> None:
        self._optimizer, self._problem, self._automatic = optimizer, problem, automatic
        vectors = optimizer.vectors
        assert isinstance(vectors, HostVectors)
        self._vectors, x = vectors, vectors.x
        self.x = x
        self.g = np.zeros_like(x)
        self._searches: dict[bool, tuple[Search, Stepper]] = {}
        in_units = settings.max_norm is not None or settings.max_value is not None
        # Corrected by pairs, a step would leave the metric in which its projection leads down.
        pairs = PAIRS if optimizer.region.projection is None else 0
        self.memory = new_memory(x, on=automatic, scaled=not in_units, pairs=pairs)

        def kept(wanted: bool, *shape: int, dtype: Any = x.dtype) -> NDArray[Any]:
            # An empty array is not kept: not None, so that no option has a kernel of its own.
            return np.zeros(shape if wanted else (0, *shape[1:]), dtype)

        self.watch = Watch(
            control=new_control(settings),
            recent=np.full(WINDOW, math.inf),
            best=np.zeros((2, x.size), x.dtype),
            average=kept(settings.iterate == "average", x.size),
            previous=kept(settings.xtol > 0, x.size),
            history=kept(settings.history, 1, 3, dtype=float),
            points=kept(settings.return_all, 1, x.size),
            region=optimizer.region,
        )

    @property
    def control(self) -> NDArray[Any]:
        return self.watch.control  # type: ignore[no-any-return]

    @property
    def history(self) -> NDArray[Any]:
        return self.watch.history  # type: ignore[no-any-return]

    def most_steps(self, *, timed: bool) -> float:
        """How many steps may be taken without a look at the clock."""
        return 1 if timed and self._problem.compiled is None else math.inf

    def begin(self) -> int:
        """Evaluate the first point; return the run's status."""
        fun = self._problem.first(self.x, self.g)
        observe = compile_observe(
            self._optimizer.region,
            parallel=self._optimizer.runs_parallel(),
            nogil=self._vectors.large,
        )
        return int(observe(fun, math.nan, self.x, self.g, self.watch))

    def advance(self, rates: NDArray[np.float64]) -> int:
        """Take a step for each rate, unless the run ends; return its status."""
        self._make_room(rates.size)
        problem, parallel = self._problem, self._optimizer.runs_parallel()
        taken: Any
        if problem.compiled is None:
            taken = None if self._automatic else self._optimizer.step_options
            return int(self._loop_in_python(*self._arguments(rates, taken), ()))
        if self._automatic:
            search, taken = self.search(parallel)
            loop = search.loop
        else:
            opt = self._optimizer
            loop, taken = compile_run(opt.kind, opt.region, parallel=parallel), opt.step_options
        call, _alive = problem.compiled.call(self.x.size)
        try:
            return int(loop(*self._arguments(rates, taken), call))
        except compiled.Raised:  # called from Python, it says of which length
            problem.evaluate(self.x, self.g)
            raise
        finally:
            problem.nfev += int(call.block[compiled.CALLS])
            problem.njev += int(call.block[compiled.CALLS])

    def _arguments(self, rates: NDArray[np.float64], taken: Any) -> tuple[Any, ...]:
        memory = (self.memory,) if self._automatic else ()
        return (rates, self.x, self.g, self._optimizer.step_state, taken, self.watch, *memory)

    @functools.cached_property
    def _stored(self) -> tuple[Stored, NDArray[np.float64]]:
        opt, rate = self._optimizer, np.zeros(1)
        return Stored((opt.step_state, opt.step_options, rate)), rate

    def stepper(self, parallel: bool) -> Stepper:
        """The step, called by address."""
        stored, rate = self._stored
        number = numba.from_dtype(self.x.dtype)
        step = compile_at_address(self._optimizer.kind, stored.kind, number, parallel=parallel)
        return Stepper(step.address, stored.address, rate)

    def search(self, parallel: bool = False) -> tuple[Search, Stepper]:
        """The compiled search, and its stepper; ``watch`` learns what observes points."""
        if parallel not in self._searches:
            stepper, state = self.stepper(parallel), self._optimizer.step_state
            search = compile_search(
                self.x, state, stepper, self.watch, self.memory, parallel=parallel
            )
            addresses = (each.address for each in (search.propose, search.judge, search.whole))
            self._searches[parallel] = search, Stepper(*stepper[:3], *addresses)
        found = self._searches[parallel]
        self.watch = self.watch._replace(observe=found[0].observe.address)
        return found

    @functools.cached_property
    def _loop_in_python(self) -> Any:
        """The loop around an objective that Python calls."""
        opt, problem, large = self._optimizer, self._problem, self._vectors.large

        # Not the problem's method alone: a loop that Python runs gives the objective, too.
        def evaluate(x: Any, g: Any, _: Any) -> float:
            return problem.evaluate(x, g)

        how = {"parallel": opt.wants_parallel, "nogil": large}
        if self._automatic:
            return bind_search(opt.region, self.stepper, evaluate, **how)
        return bind_run(opt.kind, opt.region, evaluate, **how)

    def _make_room(self, count: int) -> None:
        """Let history and points hold those of ``count`` steps more."""
        needed = int(self.control["nit"][0]) + 1 + count
        for name in ("history", "points"):
            old = getattr(self.watch, name)
            if 0 < len(old) < needed:
                new = np.empty((2 * needed, old.shape[1]), old.dtype)
                new[: len(old)] = old
                fields: dict[str, Any] = {name: new}
                self.watch = self.watch._replace(**fields)

    # ---- points

    def look(self) -> None:
        """Bring the figures up to date, which they are."""

    def here(self) -> Any:
        """A copy of x."""
        return self.x.copy()

    def point(self, which: int = LAST) -> tuple[Any, Any, float]:
        """Copies of x and the gradient at one of the points to return, and fun."""
        if which == BEST:
            x, g = self.watch.best.copy()
            return x, g, float(self.control["best_fun"][0])
        if which == AVERAGE:
            x, g = self.watch.average.copy(), self.g.copy()
            return x, g, self._problem.evaluate(x, g)
        return self.here(), self.g.copy(), float(self.control["fun"][0])

    def points(self, count: int) -> list[Any]:
        """The first ``count`` points, which are kept."""
        return list(self.watch.points[:count].copy())

    # ---- files

    #: What a file calls the fields of `Watch`.
    _NAMES: ClassVar[dict[str, str]] = {
        **{name: name for name in ("recent", "best", "average", "previous", "history")},
        "points": "allvecs",
    }

    def wanted(self) -> list[str]:
        """The names of what is kept."""
        return [name for name, array in self._kept().items() if array.size]

    def arrays(self) -> dict[str, Any]:
        """The gradient and what is kept, as a file holds them."""
        return {"g": self.g, **self._kept()}

    def _kept(self) -> dict[str, Any]:
        kept = {theirs: getattr(self.watch, ours) for ours, theirs in self._NAMES.items()}
        return kept | (self.memory._asdict() if self._automatic else {})

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """The way back."""
        kept, rows = self._kept(), int(self.control["nit"][0]) + 1
        for name in self.wanted():
            least = rows if name in ("history", "allvecs") else None
            checkpoint.check_like(name, arrays[name], kept[name], least)
            kept[name] = arrays[name]
        fields: dict[str, Any] = {ours: kept[theirs] for ours, theirs in self._NAMES.items()}
        self.watch = self.watch._replace(**fields)
        if self._automatic:
            self.memory = Memory(*(kept[name] for name in Memory._fields))
        checkpoint.check_like("g", arrays["g"], self.g)
        self.g[...] = arrays["g"]
