"""minimize_many: a thousand small problems at once, each as `minimize` would solve it."""

import contextlib
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, OptimizeWarning

from numbelief import cuda, device, loop, native
from numbelief.callbacks import progress_bar
from numbelief.checks import as_array, as_first_points
from numbelief.device_rows import Rows, check_form, is_device_function
from numbelief.minimize import Run, move_into, move_on_card
from numbelief.optimizer import resolve_set
from numbelief.options import Options, read_options
from numbelief.problem import Problem, as_args
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet

__all__ = ["minimize_many", "per_row"]

_NOT_FOR_MANY = ("history", "return_all", "checkpoint", "resume")
# Seconds between two looks at the clock, the progress bar and Ctrl-C.
_LOOK_EVERY_S = 0.02


def per_row(data: Any) -> native.PerRow:
    """Mark an argument of which each problem of `minimize_many` gets its own row.

    Parameters
    ----------
    data : array_like or device array of shape (B, ...)
        Problem i gets ``data[i]``: a number if data has one dimension, else an array.

    Returns
    -------
    PerRow
        For ``args``.

    Raises
    ------
    TypeError
        data does not hold numbers.
    ValueError
        data has no dimension.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> numbelief.per_row([1.0, 2.0]).data.shape
    (2,)
    """
    array: Any = data
    on_card = cuda.is_device_array(data)
    if not on_card:
        array = as_array(data, "per_row's data")
        if array.dtype.kind not in "fiubc":
            raise TypeError(f"per_row needs numbers, got dtype {array.dtype}")
    if len(array.shape) == 0:
        raise ValueError("per_row needs an array with one row for each problem, got a scalar")
    return native.PerRow(array if on_card else np.ascontiguousarray(array))


def minimize_many(
    fun: Callable[..., Any],
    X0: Any,
    args: Any = (),
    method: str | Rule | Lookahead = "adabelief",
    jac: Any = None,
    bounds: Any = None,
    options: dict[str, Any] | None = None,
    *,
    tol: float | None = None,
    feasible_set: FeasibleSet | None = None,
) -> OptimizeResult:
    r"""Minimize one function from many first points, or with many data sets, over all cores.

    Row i of the result is, bit for bit, what ``minimize(fun, X0[i], ...)`` gives, on any number of
    threads: each problem has its own stopping, learning rate and state.

    Parameters
    ----------
    fun, args, method, jac, bounds, tol, feasible_set
        As in `minimize`; all rows share the bounds. Of an argument marked with `per_row`, problem i
        gets row i; all rows share the others, which fun must not write to (scratch memory goes into
        a `per_row`): where the first evaluation does, all rows run on one thread, after a warning.
        Functions compiled by Numba run without Python on ``numba.get_num_threads()`` threads, but
        on one where fun or jac has threads of its own (``parallel=True``; compile them without
        where a function that they call has it). A Python fun runs row after row, after a warning.
    X0 : array_like or device array of shape (B, n)
        First points, never written to. A row that is not finite ends at once, with status 3. On a
        GPU, see Notes.
    options : dict, optional
        Those of `minimize` except ``history``, ``return_all``, ``checkpoint`` and ``resume``.
        ``maxtime`` is for all rows together (rows that it leaves no time for keep a fun of NaN; at
        0, all first points are evaluated), ``progress`` counts finished rows.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x`` and ``jac`` of shape (B, n); ``fun, nit, nfev, njev, status, success`` of shape (B,);
        ``message``, a summary; and ``best``, the result of the row of lowest fun: its ``index``,
        ``x`` and ``fun``. The status codes are those of `minimize`. Where maxtime ended a row, its
        status is 1 and its point the best so far.

    Raises
    ------
    TypeError, ValueError
        As in `minimize`; X0 does not have two dimensions, or no row; an argument marked with
        `per_row` has another number of rows; with X0 on a GPU, something does not run there. What
        the user's functions raise, they raise, with the rows so far as the attribute
        ``intermediate_result``, as does KeyboardInterrupt. There, rows that have not ended have
        status -1.

    Warns
    -----
    OptimizeWarning
        As in `minimize`; the rows run in Python though ``compiled=False`` did not say so, or on one
        thread because fun writes to an argument that they share.

    Notes
    -----
    **On an NVIDIA GPU**: where X0 is an array there (C-contiguous, float32 or float64, of CuPy,
    PyTorch, JAX, Numba), one GPU thread solves one row, with the rules and options of the CPU, on
    CUDA's default stream. fun is a device function, ``numba.cuda.jit(device=True)``, of the form
    ``fun(x, grad, *args) -> float`` that fills grad, and jac is "inplace"; a kernel is compiled for
    each fun, in seconds. x and grad are arrays with strides, ``float64[:]`` and not
    ``float64[::1]``. args are numbers, device arrays, and NumPy arrays, which are copied there. The
    feasible set may be a `Box`. Results agree with those of the CPU to rounding; ``x``, ``jac``
    and ``best.x`` are Numba device arrays (``cupy.asarray`` and ``torch.as_tensor`` take them
    without a copy), all else is NumPy's. ``maxtime``, the progress bar and Ctrl-C count between
    launches, of about 20 ms each; the first launch evaluates all first points.

    Examples
    --------
    Fit the rate of a decay to each row of Y:

    >>> import numba, numpy as np, numbelief
    >>> @numba.njit
    ... def misfit(x, grad, t, y):
    ...     grad[0] = 0.0
    ...     value = 0.0
    ...     for i in range(t.size):
    ...         model = np.exp(-x[0] * t[i])
    ...         value += (model - y[i]) ** 2
    ...         grad[0] -= 2 * (model - y[i]) * t[i] * model
    ...     return value
    >>> t = np.linspace(0, 1, 20)
    >>> Y = np.exp(-np.outer([0.5, 1.0, 2.0], t))
    >>> res = numbelief.minimize_many(
    ...     misfit, np.ones((3, 1)), args=(t, numbelief.per_row(Y)), jac="inplace"
    ... )
    >>> res.x[:, 0].round(3)
    array([0.5, 1. , 2. ])
    """
    rule, settings = read_options(method, tol, options, Options)
    unused = [name for name in _NOT_FOR_MANY if getattr(settings, name)]
    if unused:
        raise ValueError(f"minimize_many has no option {', '.join(unused)}: use minimize")
    if settings.maxtime == 0:  # as in minimize, which evaluates first and looks at the clock then
        settings = replace(settings, maxiter=0, maxtime=math.inf)
    args = as_args(args)
    on_card = cuda.is_device_array(X0)
    if not on_card and is_device_function(fun):
        raise TypeError("fun is a device function, but X0 is not on a GPU: pass X0 from there")
    X = _on_card(X0) if on_card else as_first_points(X0)
    for i, arg in enumerate(args):
        if isinstance(arg, native.PerRow) and arg.data.shape[0] != X.shape[0]:
            raise ValueError(
                f"args[{i}] must have one row for each of the {X.shape[0]} rows of X0, got shape "
                f"{tuple(arg.data.shape)}"
            )
        given = arg.data if isinstance(arg, native.PerRow) else arg
        if not on_card and cuda.is_device_array(given):
            raise TypeError(f"args[{i}] is on a GPU, but X0 is not: pass X0 from there, too")
    place = resolve_set(feasible_set, bounds, X.shape[1], on_card=on_card)
    if on_card:
        return _ManyOnCard(fun, X, args, rule, jac, place, settings).go()
    X = move_into(place, X)
    many = _Many(rule, X, place, settings)
    return many.go(
        lambda: Problem(fun, jac, args, X[0], place, settings.finite_difference, settings.compiled)
    )


class _Many:
    """Many minimizations: the arrays of their results, and who fills them."""

    def __init__(
        self,
        rule: Rule | Lookahead,
        X: NDArray[Any],
        place: FeasibleSet | None,
        settings: Options,
    ) -> None:
        self.rule, self.place, self.settings = rule, place, settings
        self.X0, rows = X, len(X)
        self.X, self.G = X.copy(), np.zeros_like(X)
        self.fun = np.full(rows, np.nan)
        self.nit, self.nfev, self.njev = np.zeros((3, rows), np.int64)
        self.status = np.full(rows, loop.RUNNING)
        self.stop = np.zeros(1, np.int64)
        self.pile = np.zeros(1, np.int64)
        self.failure: BaseException | None = None
        self.controls: list[NDArray[Any]] = []
        self.rates = np.zeros(0)
        self._lock = threading.Lock()

    def go(self, make: Callable[[], Problem]) -> OptimizeResult:
        """Solve all rows; on an exception, attach the result so far to it."""
        bar = None
        try:
            self.problem = make()
            # What is wrong shows here, before any work.
            self.run = Run(self.problem, self.rule, self.X0[0].copy(), self.place, self.settings)
            bar = progress_bar(type(self.rule).__name__, len(self.X0), self.settings.progress)
            if self.problem.native is None:
                self._in_python(bar)
            else:
                self._in_threads(bar)
        except BaseException as error:
            error.intermediate_result = self.result()  # type: ignore[attr-defined]
            raise
        finally:
            if bar is not None:
                bar.close()
        self.status[self.status == loop.RUNNING] = loop.MAXITER  # only maxtime leaves any
        result = self.result()
        if self.settings.disp:
            print(result.message)
        return result

    def _in_python(self, bar: Any) -> None:
        if self.settings.compiled is not False:
            message = f"{self.problem.hindrance}: the rows are solved one by one, in Python"
            warnings.warn(message, OptimizeWarning, stacklevel=4)
        ends = time.perf_counter() + self.settings.maxtime
        for row, x0 in enumerate(self.X0):
            left = ends - time.perf_counter()
            if left <= 0:
                return
            if not np.isfinite(x0).all():
                self.status[row] = loop.NONFINITE
                continue
            problem = self.problem.of_row(row)
            run = Run(
                problem, self.rule, x0.copy(), self.place, replace(self.settings, maxtime=left)
            )
            try:
                with _naming(row):
                    result = run.go()
            except BaseException as error:
                if (result := getattr(error, "intermediate_result", None)) is not None:
                    self._take(row, result, loop.RUNNING)
                raise
            self._take(row, result, result.status)
            if bar is not None:
                bar.update()

    def _take(self, row: int, result: OptimizeResult, status: int) -> None:
        self.X[row], self.G[row], self.fun[row] = result.x, result.jac, result.fun
        self.nit[row], self.nfev[row], self.njev[row] = result.nit, result.nfev, result.njev
        self.status[row] = status

    def _in_threads(self, bar: Any) -> None:
        """Let each core take rows from one pile: rows end at very different iterations."""
        finite = np.isfinite(self.X0).all(axis=1)
        writes = finite.any() and self._look_at(int(np.argmax(finite)))
        solve = loop.compile_rows(self.run.optimizer.inner)
        self.stop[0] = 1
        self._solve(solve)  # compiles in this thread, where Ctrl-C arrives, and does no more
        self.stop[0] = 0
        alone = writes or native.is_parallel(self.problem.fun, self.problem.jac)
        count = 1 if alone else min(numba.get_num_threads(), len(self.X0))
        if writes and len(self.X0) > 1:
            warnings.warn(
                "fun writes to an argument that all rows share: they run on one thread; per_row "
                "gives each row its own",
                OptimizeWarning,
                stacklevel=4,
            )
        # Python's own threads: unlike Numba's, they survive a fork and leave Ctrl-C to this one.
        given = solve, numba.get_num_threads()
        threads = [threading.Thread(target=self._work, args=given) for _ in range(count)]
        ends = time.perf_counter() + self.settings.maxtime
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK_EVERY_S)
                    self._show(bar)
                    if self.stop[0] or time.perf_counter() >= ends:
                        self._halt()
        finally:
            for thread in threads:
                while thread.is_alive():
                    self._halt()
                    thread.join(_LOOK_EVERY_S)
            self._show(bar)  # the last rows may have ended before anybody looked
        if self.failure is not None:
            raise self.failure

    def _show(self, bar: Any) -> None:
        if bar is not None:
            bar.update(np.count_nonzero(self.status != loop.RUNNING) - bar.n)

    def _halt(self) -> None:
        """End all rows after their iteration; again and again, as a thread may begin a row now."""
        self.stop[0] = 1
        for control in self.controls:
            control["maxiter"] = 0

    def _look_at(self, row: int) -> bool:
        """Evaluate a row's first point, to see whether the functions keep to their arrays.

        Beyond grad is an error; into what the rows share is returned.
        """
        x = self.X0[row].copy()
        shared = list(_arrays(self.problem.shared))
        before = [hash(array.tobytes()) for array in shared]
        with _naming(row):
            self.problem.of_row(row).first(x, np.zeros_like(x))
        return before != [hash(array.tobytes()) for array in shared]

    def _work(self, solve: Any, threads: int) -> None:
        """What a thread does."""
        try:
            numba.set_num_threads(threads)  # for an objective with threads of its own
            self._solve(solve)
        except BaseException as error:
            self.failure = self.failure or error
            self.stop[0] = 1

    def _solve(self, solve: Any) -> None:
        """Solve rows until none is left."""
        x = self.X0[0].copy()
        run = Run(self.problem, self.rule, x, self.place, self.settings)
        opt, objective = run.optimizer, self.problem.native
        assert objective is not None
        data, block, _alive = objective.block(x.size)
        start = (
            self.X0,
            opt.arrays[1].copy(),
            run.control.copy(),
            run.tuner[0].copy(),
            loop.ITERATES[self.settings.iterate],
        )
        outcome = self.X, self.G, self.fun, self.nit, self.nfev, self.njev, self.status
        scheduled = callable(self.rule.learning_rate)
        jobs = self.pile, self.stop, np.full(1, -1), scheduled
        rates = self._rates(0) if scheduled else run.rates(loop.CHUNK)
        self.controls.append(run.control)
        try:
            while solve(
                jobs, outcome, start, rates, (x, run.g, *opt.arrays), opt.options, run.watch(),
                run.tuner, (objective.address, data, block),
            ):  # fmt: skip
                rates = self._rates(rates.size)
        except BaseException:
            if not block[native.FAILED]:
                raise
            row = int(block[native.ROW])
            with _naming(row):
                if block[native.FAILED] == native.MISSHAPEN:  # Python says how
                    self.problem.of_row(row).evaluate(x, run.g)
                raise

    def _rates(self, count: int) -> NDArray[np.float64]:
        """The rates of more steps than so many."""
        with self._lock:
            if self.rates.size <= count:
                most = max(self.settings.maxiter, 1)
                self.rates = self.run.rates(min(max(2 * count, loop.CHUNK), most))
            return self.rates

    def result(self) -> OptimizeResult:
        """What is known now."""
        figures = self.X, self.G, self.fun, self.nit, self.nfev, self.njev, self.status
        return _result(*(each.copy() for each in figures))


class _ManyOnCard:
    """Many minimizations on a GPU: their launches, and what happens between these."""

    def __init__(
        self,
        fun: Any,
        X: Any,
        args: tuple[Any, ...],
        rule: Rule | Lookahead,
        jac: Any,
        place: FeasibleSet | None,
        settings: Options,
    ) -> None:
        if jac != "inplace":
            raise ValueError(
                "where X0 is on a GPU, jac must be 'inplace', for a device function "
                f"fun(x, grad, *args) -> float that fills grad, got {jac!r}"
            )
        if settings.compiled is False:
            raise ValueError("where X0 is on a GPU, compiled must not be False")
        check_form(fun, len(args))
        args = tuple(_argument(f"args[{i}]", arg) for i, arg in enumerate(args))
        self.settings = settings
        if place is not None:
            X = device.duplicate(X, "X0")
            move_on_card(place, cuda.Card(X.reshape(X.size)), X.shape[1])
        # What a run on the CPU would be made of; its problem stays on the card.
        nowhere: Any = None
        self.run = run = Run(nowhere, rule, np.zeros(X.shape[1], X.dtype), place, settings)
        self.optimizer = opt = run.optimizer
        self.rows = Rows(
            fun, X, args, opt.inner, (run.x, run.g, *opt.arrays), opt.options, run.watch(),
            run.tuner, loop.ITERATES[settings.iterate],
        )  # fmt: skip
        self.bar = progress_bar(type(rule).__name__, X.shape[0], settings.progress)

    def go(self) -> OptimizeResult:
        """Launch until no row runs; on an exception, attach the result so far to it."""
        ends = time.perf_counter() + self.settings.maxtime
        try:
            status = self._advance(1)
            steps = 1
            while (status == loop.RUNNING).any():
                started = time.perf_counter()
                if started >= ends:
                    break
                status = self._advance(steps)
                per_step = (time.perf_counter() - started) / steps
                steps = max(1, min(16 * steps, int(_LOOK_EVERY_S / per_step)))
            result = self._end(loop.MAXITER)
        except BaseException as error:
            if self.rows.begun:
                with contextlib.suppress(Exception):  # nothing may hide the exception
                    result = self._end(loop.RUNNING)
                    error.intermediate_result = result  # type: ignore[attr-defined]
            raise
        finally:
            if self.bar is not None:
                self.bar.close()
        if self.settings.disp:
            print(result.message)
        return result

    def _advance(self, steps: int) -> NDArray[np.int64]:
        """Take at most so many steps of each row; return how the rows stand."""
        clock = self.optimizer.arrays[1]
        steps = min(steps, max(self.settings.maxiter - int(clock["t"][0]), 1))
        status = self.rows.advance(self.run.rates(steps))
        clock["t"] += steps
        if self.bar is not None:
            self.bar.update(np.count_nonzero(status != loop.RUNNING) - self.bar.n)
        return status

    def _end(self, running: int) -> OptimizeResult:
        """The result, with this status for rows that still ran."""
        self.rows.advance(np.zeros(0), ends=True)
        X, G, *figures = self.rows.outcome
        fun, nit, nfev, njev, status = (each.copy_to_host() for each in figures)
        status[status == loop.RUNNING] = running
        return _result(X, G, fun, nit, nfev, njev, status)


def _on_card(X0: Any) -> Any:
    """X0 as kernels take it, one first point a row."""
    X = cuda.view(X0, "X0")
    if X.dtype not in (np.float32, np.float64):
        raise TypeError(f"X0 must hold float32 or float64 numbers on a GPU, got dtype {X.dtype}")
    if len(X.shape) != 2 or X.size == 0:
        shape = tuple(X.shape)
        raise ValueError(f"X0 must have shape (B, n), with B and n at least 1, got {shape}")
    return X


def _argument(name: str, value: Any) -> Any:
    """An argument of a device function as kernels take it; arrays of the host are copied there."""
    if isinstance(value, native.PerRow):
        return native.PerRow(_argument(f"{name}.data", value.data))
    if isinstance(value, tuple):
        return tuple(_argument(f"{name}[{i}]", each) for i, each in enumerate(value))
    if cuda.is_device_array(value):
        return cuda.view(value, name)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiubc":
        return cuda.load().to_device(np.ascontiguousarray(value))
    if isinstance(value, (bool, int, float, complex, np.bool_, np.number)):
        return value
    raise TypeError(
        f"{name} must be a number, an array of numbers or a tuple of these where X0 is on a GPU, "
        f"got {type(value).__name__}"
    )


def _result(
    x: Any, jac: Any, fun: Any, nit: Any, nfev: Any, njev: Any, status: Any
) -> OptimizeResult:
    """What is known of all rows, as SciPy's result."""
    success = status == loop.CONVERGED
    index = int(np.argmin(np.where(np.isfinite(fun), fun, np.inf)))
    best = x[index].copy() if isinstance(x, np.ndarray) else x[index]
    return OptimizeResult(
        x=x,
        fun=fun,
        jac=jac,
        nit=nit,
        nfev=nfev,
        njev=njev,
        status=status,
        success=success,
        message=f"{success.sum()} of {len(success)} problems terminated successfully.",
        best=OptimizeResult(index=index, x=best, fun=float(fun[index])),
    )


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
