"""The loop of a minimization on the CPU, and what it keeps of its points."""

import functools
import math
import weakref
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from numbelief import _checkpoint as checkpoint
from numbelief._compile.pointers import Stored, numbers_from_python
from numbelief._objective import compiled
from numbelief._objective.problem import Problem
from numbelief._solve.loop import (
    MethodCall,
    ObserveCall,
    compile_run,
    compile_search,
    compile_threaded_run,
    run_in_python,
    search_in_python,
)
from numbelief._solve.observe import Watch, compile_observe, kind_of_region
from numbelief._solve.options import Options
from numbelief._solve.quasi_newton import (
    PAIRS,
    Memory,
    Method,
    check_record,
    compile_method,
    new_memory,
)
from numbelief._solve.stopping import AVERAGE, BEST, LAST, WINDOW, new_control
from numbelief._step.call import StoredStep
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
        self._step = StoredStep(
            optimizer.kind, optimizer.step_state, optimizer.step_options, x.dtype
        )
        self._region = kind_of_region(optimizer.region)
        # With threads and without.
        self._observes: dict[bool, Any] = {}
        self._methods: dict[bool, tuple[MethodCall, Stored]] = {}
        self._loops: dict[bool, tuple[Any, Stored]] = {}
        in_units = settings.max_norm is not None or settings.max_value is not None
        # Corrected by pairs, a step would leave the metric in which its projection leads down.
        pairs = PAIRS if optimizer.region.projection is None else 0
        self.memory = new_memory(x, on=automatic, scaled=not in_units, pairs=pairs)

        def kept(wanted: bool, *shape: int, dtype: Any = x.dtype) -> NDArray[Any]:
            # An empty array is not kept: not None, so that no option has a kernel of its own.
            return np.zeros(shape if wanted else (0, *shape[1:]), dtype)

        self._watch = Watch(
            control=new_control(settings, x.dtype, scheduled=optimizer.is_scheduled),
            recent=np.full(WINDOW, math.inf),
            best=np.zeros((2, x.size), x.dtype),
            average=kept(settings.iterate == "average", x.size),
            previous=kept(settings.xtol > 0, x.size),
            history=kept(settings.history, 1, 3, dtype=float),
            points=kept(settings.return_all, 1, x.size),
            region=optimizer.region,
        )

    @property
    def watch(self) -> Watch:
        """What is kept of the points."""
        return self._watch

    @watch.setter
    def watch(self, watch: Watch) -> None:
        self._watch = watch
        vars(self).pop("_stored_watch", None)
        self._observes.clear()
        self._loops.clear()

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
        observe = self._observe(self._optimizer.runs_parallel())
        status = int(observe(fun, math.nan, self._stored_watch.address))
        self.control["first_fun"] = fun
        return status

    def advance(self, rates: NDArray[np.float64]) -> int:
        """Take a step for each rate, unless the run ends; return its status."""
        self._make_room(rates.size)
        problem = self._problem
        if problem.compiled is None:
            return self._in_python(rates)
        call, _alive = problem.compiled.call(self.x.size)
        try:
            loop, data = self.compiled_loop(self._optimizer.runs_parallel())
            return int(loop(rates, data, call))
        except compiled.Raised:  # called from Python, it says of which length
            problem.evaluate(self.x, self.g)
            raise
        finally:
            problem.nfev += int(call.block[compiled.CALLS])
            problem.njev += int(call.block[compiled.CALLS])

    # ---- around a compiled objective

    def compiled_loop(self, parallel: bool = False) -> tuple[Any, int]:
        """``loop(rates, data, objective)``, and its data."""
        if parallel not in self._loops:
            opt = self._optimizer
            if self._automatic:
                stored = Stored(
                    self.x, self.g, self.control, self.memory.search,
                    self.method_call(parallel), self.observe_call(parallel),
                )  # fmt: skip
                loop = compile_search(stored.layout)
            elif parallel:
                step, observe = self._step.call(parallel=True), self.observe_call(parallel)
                stored = Stored(self.x, self.g, None, step, observe)
                loop = compile_threaded_run(stored.layout)
            else:
                stored = Stored(self.x, self.g, opt.step_state, opt.step_options, self.watch)
                loop = compile_run(opt.kind, self._region, stored.layout)
            self._loops[parallel] = loop, stored
        loop, stored = self._loops[parallel]
        return loop, stored.address

    @functools.cached_property
    def _stored_watch(self) -> Stored:
        return Stored(self.x, self.g, self.watch)

    def observe_call(self, parallel: bool = False) -> ObserveCall:
        """What observes a point."""
        stored = self._stored_watch
        if parallel not in self._observes:
            self._observes[parallel] = compile_observe(self._region, stored.layout, parallel)
        return ObserveCall(self._observes[parallel].address, stored.address)

    def method_call(self, parallel: bool = False) -> MethodCall:
        """What a search calls besides."""
        if parallel not in self._methods:
            opt = self._optimizer
            step, state = self._step.call(parallel=parallel), opt.step_state
            stored = Stored(Method(step, self.x, self.g, state, opt.region, self.memory))
            propose, judge = compile_method(self._region, stored.layout, parallel)
            call = MethodCall(propose.address, judge.address, stored.address)
            self._methods[parallel] = call, stored
        return self._methods[parallel][0]

    # ---- around a Python objective

    def _in_python(self, rates: NDArray[np.float64]) -> int:
        watch = self._stored_watch.address
        if self._automatic:
            records = self.control, self.memory.search
            return int(self._loop_in_python(rates, self.x, self.g, *records, None, watch, None))
        return int(self._loop_in_python(rates, self.x, self.g, None, None, watch, None))

    def _observe(self, parallel: bool) -> Any:
        """``observe(fun, rate, watch)`` for Python, with the address of the watch in memory."""
        address = self.observe_call(parallel).address
        return numbers_from_python(address, nogil=self._vectors.large)

    @functools.cached_property
    def _loop_in_python(self) -> Any:
        """The loop around an objective that Python calls."""
        opt, problem, nogil = self._optimizer, self._problem, self._vectors.large
        mine = weakref.proxy(self)  # what the run holds is freed when it ends

        # Not the problem's method alone: a loop that Python runs gives the objective, too.
        def evaluate(x: Any, g: Any, _: Any) -> float:
            return problem.evaluate(x, g)

        def of_run(parallel: bool) -> dict[str, Any]:
            step = mine._step.along(mine.x, mine.g, parallel=parallel, nogil=nogil)
            return {"step": step, "observe": mine._observe(parallel)}

        def of_search(parallel: bool) -> dict[str, Any]:
            propose, judge, data = mine.method_call(parallel)
            propose, judge = (numbers_from_python(each, nogil=nogil) for each in (propose, judge))
            return {
                "propose": lambda fun, method: propose(fun, 0.0, data),
                "judge": lambda fun, method: judge(fun, 0.0, data),
                "observe": mine._observe(parallel),
            }

        if self._automatic:
            return search_in_python(of_search, evaluate, opt.wants_parallel)
        return run_in_python(of_run, evaluate, opt.wants_parallel)

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
        """Bring the figures up to date; here they always are."""

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
        """Take what `arrays` gave, from a file."""
        kept, rows = self._kept(), int(self.control["nit"][0]) + 1
        for name in self.wanted():
            least = rows if name in ("history", "allvecs") else None
            checkpoint.check_like(name, arrays[name], kept[name], least)
            kept[name] = arrays[name]
        fields: dict[str, Any] = {ours: kept[theirs] for ours, theirs in self._NAMES.items()}
        self.watch = self.watch._replace(**fields)
        if self._automatic:
            check_record(kept["search"])
            self.memory = Memory(*(kept[name] for name in Memory._fields))
            self._methods.clear()
            self._loops.clear()
        checkpoint.check_like("g", arrays["g"], self.g)
        self.g[...] = arrays["g"]
