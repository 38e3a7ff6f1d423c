"""Many minimizations on the CPU: rows that threads take from one pile, or that Python solves."""

import contextlib
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, OptimizeWarning

from numbelief._compile.pointers import Stored
from numbelief._objective import compiled
from numbelief._objective.problem import Problem
from numbelief._solve import stopping
from numbelief._solve.loop import loop_at_address
from numbelief._solve.minimization import Minimization, projected_norm
from numbelief._solve.options import Options
from numbelief._solve.rows import (
    CHUNK,
    Jobs,
    LoopCall,
    Outcome,
    Rows,
    Start,
    compile_rows,
)
from numbelief._solve.session import LOOK_EVERY_S, Session
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet


class HostRows:
    """Many minimizations on the CPU: the arrays of their results, and who fills them.

    Parameters
    ----------
    make : callable
        Makes the `Problem`, whose errors are those of a run that has begun.
    X : ndarray of shape (B, n)
        First points.
    rule, feasible_set, settings
        As in `minimize_many`, checked.
    session : Session
        Of the call.
    """

    def __init__(
        self,
        make: Callable[[], Problem],
        X: NDArray[Any],
        rule: Rule | Lookahead,
        feasible_set: FeasibleSet | None,
        settings: Options,
        session: Session,
    ) -> None:
        self._make = make
        self._rule, self._feasible_set, self._settings = rule, feasible_set, settings
        self._session, self._X0, rows = session, X, len(X)
        self._outcome = Outcome(
            X.copy(),
            np.zeros_like(X),
            np.full(rows, np.nan),
            np.zeros(rows, np.int64),
            np.zeros(rows, np.int64),
            np.zeros(rows, np.int64),
            np.full(rows, stopping.RUNNING),
        )
        self._stop = np.zeros(1, np.int64)
        self._pile = np.zeros(1, np.int64)
        self._failure: BaseException | None = None
        self._controls: list[NDArray[Any]] = []
        self._rates_so_far = np.zeros(0)
        self._lock = threading.Lock()  # of the workers alone
        self._entered: list[None] = []
        self._left: list[None] = []
        self._closed = False
        self._somebody_left = threading.Event()

    def solve(self) -> None:
        """Solve all rows, or as many as there is time for."""
        self._problem = self._make()
        # What is wrong shows here, before any work.
        self._run = self._new_run(self._problem, self._X0[0].copy(), self._settings)
        if self._problem.compiled is None:
            self._in_python()
        else:
            self._in_threads()

    def _new_run(self, problem: Problem, x: NDArray[Any], settings: Options) -> Minimization:
        quiet = replace(settings, progress=False, disp=False)
        return Minimization(problem, self._rule, x, self._feasible_set, quiet)

    def _in_python(self) -> None:
        if self._settings.compiled is not False:
            message = f"{self._problem.why_not_compiled}: the rows are solved one by one, in Python"
            warnings.warn(message, OptimizeWarning, stacklevel=4)
        for row, x0 in enumerate(self._X0):
            left = self._session.seconds_left
            if left <= 0:
                return
            if not np.isfinite(x0).all():
                self._outcome.status[row] = stopping.NONFINITE
                continue
            settings = replace(self._settings, maxtime=left)
            run = self._new_run(self._problem.of_row(row), x0.copy(), settings)
            try:
                with _naming(row):
                    result = run.go()
            except BaseException as error:
                if (result := getattr(error, "intermediate_result", None)) is not None:
                    self._take(row, result, stopping.RUNNING)
                raise
            self._take(row, result, result.status)
            if self._session.bar is not None:
                self._session.bar.update()

    def _take(self, row: int, result: OptimizeResult, status: int) -> None:
        values = (*(result[name] for name in Outcome._fields[:-1]), status)
        for mine, value in zip(self._outcome, values, strict=True):
            mine[row] = value

    def _in_threads(self) -> None:
        """Let each core take rows from one pile: rows end at very different iterations."""
        finite = np.isfinite(self._X0).all(axis=1)
        writes = finite.any() and self._writes_to_shared(int(np.argmax(finite)))
        self._stop[0] = 1
        self._take_rows()  # compiles in this thread, where Ctrl-C arrives, and does no more
        self._stop[0] = 0
        alone = writes or compiled.is_parallel(self._problem.fun, self._problem.jac)
        count = 1 if alone else min(numba.get_num_threads(), len(self._X0))
        if writes and len(self._X0) > 1:
            warnings.warn(
                "fun writes to an argument that all rows share: they run on one thread; per_row "
                "gives each row its own",
                OptimizeWarning,
                stacklevel=4,
            )
        # Python's own threads: unlike Numba's, they survive a fork.
        given = (numba.get_num_threads(),)
        with _CtrlCWaits(self._halt):
            try:
                for _ in range(count):
                    threading.Thread(target=self._work, args=given).start()
                while len(self._left) < count:
                    self._look(self._session.seconds_left <= 0)
            finally:  # no thread may go on; one that has not begun finds this closed
                self._closed = True
                while len(self._left) < len(self._entered):
                    self._look(halt=True)
                self._show()  # the last rows may have ended before anybody looked
        if self._failure is not None:
            raise self._failure

    def _look(self, halt: bool) -> None:
        """Wait a little for a thread to leave; let all end if one has failed or the time is up."""
        if halt or self._stop[0]:
            self._halt()
        self._somebody_left.wait(LOOK_EVERY_S)
        self._somebody_left.clear()
        self._show()

    def _show(self) -> None:
        self._session.show(int(np.count_nonzero(self._outcome.status != stopping.RUNNING)))

    def _halt(self) -> None:
        """End all rows after their iteration; again and again, as a thread may begin a row now."""
        self._stop[0] = 1
        for control in self._controls:
            control["maxiter"] = 0

    def _writes_to_shared(self, row: int) -> bool:
        """Evaluate a row's first point: do the functions write to what the rows share?

        To write beyond grad is an error.
        """
        x = self._X0[row].copy()
        shared = list(_arrays(self._problem.shared))
        before = [hash(array.tobytes()) for array in shared]
        with _naming(row):
            self._problem.of_row(row).first(x, np.zeros_like(x))
        return before != [hash(array.tobytes()) for array in shared]

    def _work(self, threads: int) -> None:
        """What a thread does."""
        self._entered.append(None)
        try:
            if not self._closed:
                numba.set_num_threads(threads)  # for an objective with threads of its own
                self._take_rows()
        except BaseException as error:
            self._failure = self._failure or error
            self._stop[0] = 1
        finally:
            self._left.append(None)
            self._somebody_left.set()

    def _take_rows(self) -> None:
        """Solve rows until none is left."""
        run = self._new_run(self._problem, self._X0[0].copy(), self._settings)
        opt, loop = run.optimizer, run.loop
        assert self._problem.compiled is not None
        call, _alive = self._problem.compiled.call(loop.x.size)
        start = Start(
            self._X0,
            opt.step_state.timestep.copy(),
            loop.control.copy(),
            loop.memory.search.copy(),
            stopping.ITERATES[self._settings.iterate],
        )
        scheduled = callable(self._rule.learning_rate)
        jobs = Jobs(self._pile, self._stop, np.full(1, -1), scheduled)
        rates = self._rates(0) if scheduled else run.rates(CHUNK)
        steps, data = loop.compiled_loop()
        at_address = loop_at_address(steps)
        rows = Rows(
            jobs, self._outcome, start, loop.x, loop.g, opt.step_state,
            LoopCall(at_address.address, data, loop.observe_call()), loop.watch, loop.memory.search,
        )  # fmt: skip
        stored = Stored(rows)
        solve = compile_rows(stored.layout, at_address.kind)
        self._controls.append(loop.control)
        try:
            while solve(rates, stored.address, call):
                rates = self._rates(rates.size)
        except BaseException:
            if not call.block[compiled.FAILED]:
                raise
            row = int(call.block[compiled.ROW])
            with _naming(row):
                if call.block[compiled.FAILED] == compiled.MISSHAPEN:  # Python says how
                    self._problem.of_row(row).evaluate(loop.x, loop.g)
                raise

    def _rates(self, count: int) -> NDArray[np.float64]:
        """The rates of more than ``count`` steps."""
        with self._lock:
            if self._rates_so_far.size <= count:
                most = max(self._settings.maxiter, 1)
                some = self._run.rates(min(max(2 * count, CHUNK), most))
                if some.size <= count:  # one of them fails: go on to it step by step
                    some = self._run.optimizer.rates(count + 1)
                self._rates_so_far = some
            return self._rates_so_far

    def result(self, *, ended: bool = False) -> OptimizeResult:
        """What is known now; only maxtime leaves rows without a status at the end."""
        outcome = Outcome(*(each.copy() for each in self._outcome))
        if ended:
            outcome.status[outcome.status == stopping.RUNNING] = stopping.MAXITER
        judge_means(outcome, outcome.x, outcome.jac, self._feasible_set, self._settings)
        return result_of(outcome)


def judge_means(
    outcome: Outcome, x: NDArray[Any], jac: NDArray[Any], allowed: FeasibleSet | None, settings: Any
) -> None:
    """Take success from the means of points that are not flat themselves, as `Minimization` does.

    x and jac are those of the outcome, on the host.
    """
    if settings.iterate != "average":
        return
    for row in np.flatnonzero(
        (outcome.status == stopping.CONVERGED) & (outcome.fun > settings.target)
    ):
        if not projected_norm(x[row], jac[row], allowed) <= settings.gtol:
            outcome.status[row] = stopping.PRECISION


def result_of(outcome: Outcome) -> OptimizeResult:
    """What is known of all rows, as SciPy's result."""
    x, fun, success = outcome.x, outcome.fun, outcome.status == stopping.CONVERGED
    index = int(np.argmin(np.where(np.isfinite(fun), fun, np.inf)))
    best = x[index].copy() if isinstance(x, np.ndarray) else x[index]
    return OptimizeResult(
        **outcome._asdict(),
        success=success,
        message=f"{success.sum()} of {len(success)} problems terminated successfully.",
        best=OptimizeResult(index=index, x=best, fun=float(fun[index])),
    )


class _CtrlCWaits:
    """Lets Ctrl-C call a function at once, but raise only after this.

    It could come between any two instructions, and leave threads behind that nobody waits for.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._arrived: tuple[Any, ...] | None = None
        self._before: Any = None

    def __enter__(self) -> None:
        usual = signal.getsignal(signal.SIGINT)
        # In another thread, and where it is ignored, it does not raise.
        if threading.current_thread() is threading.main_thread() and callable(usual):
            self._before = usual
            signal.signal(signal.SIGINT, self._note)

    def _note(self, *arrived: Any) -> None:
        self._arrived = arrived
        self._stop()

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self._arrived is not None:
            self._before(*self._arrived)


@contextlib.contextmanager
def _naming(row: int) -> Iterator[None]:
    """Let an exception say in which row it was raised."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in row {row} of X0")
        raise


def _arrays(args: tuple[Any, ...]) -> Iterator[NDArray[Any]]:
    """The arrays among arguments that can be written to."""
    for arg in args:
        if isinstance(arg, tuple):
            yield from _arrays(arg)
        elif isinstance(arg, np.ndarray) and arg.flags.writeable:
            yield arg
