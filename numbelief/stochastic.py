"""minimize_stochastic: mini-batches over arrays, from one row a step to all of them."""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult

from numbelief import checkpoint, cuda, device, device_batches, epochs, kernels, loop, native
from numbelief.batches import Batches, Order
from numbelief.callbacks import Callback, as_callback, progress_bar
from numbelief.checks import as_scalar, integer
from numbelief.minimize import (
    LOOK_EVERY_S,
    STOPPED,
    first_point,
    first_point_on_card,
    restored_optimizer,
)
from numbelief.optimizer import Optimizer
from numbelief.options import TrainingOptions, read_options
from numbelief.problem import Problem
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet

__all__ = ["minimize_stochastic"]

_KIND = "numbelief.minimize_stochastic"
_DONE, _PATIENCE, _GOAL, _TIME, _STOP = (
    "All epochs are done.",
    "No improvement for as many epochs as patience allows.",
    "The loss reached the target.",
    "Maximum time has been exceeded.",
    "`callback` raised `StopIteration`.",
)


def minimize_stochastic(
    fun: Callable[..., Any],
    x0: ArrayLike,
    data: Any,
    *,
    batch_size: int | None,
    epochs: int,
    method: str | Rule | Lookahead = "adabelief",
    jac: Any = None,
    seed: Any = None,
    shuffle: bool = True,
    replacement: bool = False,
    drop_last: bool = False,
    weights: ArrayLike | None = None,
    feasible_set: FeasibleSet | None = None,
    bounds: Any = None,
    validation: Any = None,
    callback: Callable[..., Any] | None = None,
    options: dict[str, Any] | None = None,
) -> OptimizeResult:
    r"""Minimize a mean over the rows of data, from the gradients of mini-batches.

    An epoch passes over the rows :math:`i` in random order. For each batch :math:`B` of them,
    :math:`x_{t+1} = \Pi(x_t - \eta_t d_t)`, with the direction and rates that the rule makes of the
    gradient of :math:`f(x_t; B)`.

    Parameters
    ----------
    fun : callable
        ``fun(x, *batch) -> float``, the mean loss of a batch, with the gradient as ``jac`` says.
        ``batch`` has as many parts as data. It cannot be written to and holds its rows during the
        call only: the next batch comes in the same memory. Around functions that Numba compiled
        the epochs run in machine code, to the same bits.
    x0 : array_like or device array of shape (n,)
        First point, never written to. float32 stays float32. An array on an NVIDIA GPU, of CuPy,
        PyTorch or Numba, stays there (see Notes).
    data : tuple of array_like or device array
        Arrays with one leading length N: NumPy arrays, `numpy.memmap`, `scipy.sparse` CSR, or
        objects with ``__len__`` and ``__getitem__`` for an array of indices. They are not copied; a
        file larger than memory may be mapped.
    batch_size : int or None
        Rows of a batch: 1 (stochastic gradient descent), k (mini-batches) or None (all of them, in
        their own order). The last batch of an epoch has what is left.
    epochs : int
        Number of passes over the data.
    method : str or Rule, default "adabelief"
        A rule or its name, as for `minimize`. One without a rate takes its paper's.
    jac : callable, bool or str, optional
        As for `minimize`, with the batch in place of args.
    seed : None, int, SeedSequence or Generator, optional
        As `numpy.random.default_rng` takes it. One seed gives the same bits on any number of
        threads (as far as fun does).
    shuffle : bool, default True
        False takes the rows in their order.
    replacement : bool, default False
        Draw each row from all of them, so that an epoch may see one twice.
    drop_last : bool, default False
        Leave out a last batch that is shorter.
    weights : array_like of shape (N,), optional
        How likely each row is drawn, in any unit. Without replacement every row of a weight above 0
        comes once in an epoch, heavier ones rather earlier, as in `numpy.random.Generator.choice`.
    feasible_set : FeasibleSet, optional
        A set of `numbelief.sets` that x stays in.
    bounds : scipy.optimize.Bounds or sequence of (min, max), optional
        The same in SciPy's form; give one of the two.
    validation : tuple of array_like or callable, optional
        Data on which fun is evaluated, all at once, after each epoch, or ``validation(x) -> loss``.
    callback : callable, optional
        ``callback(xk)`` or ``callback(intermediate_result=res)`` after each epoch, with ``res.x,
        res.fun, res.validation, res.learning_rate, res.epoch, res.nit``. StopIteration ends the
        run.
    options : dict, optional
        Hyperparameters of a method given by name, and:

        iterate : {"best", "last", "ema", "average"}, default "best"
            The point to return: that after the epoch of the lowest loss (of validation, if there is
            one, else the mean over the epoch's batches); the last; the exponential moving average;
            the average of the tail. Without validation, the loss that fun, patience and target see
            is that of the batches at the points that the steps passed, whatever is returned.
        ema_decay : float, default 0.999
            Of the moving average, which begins at x0.
        average_from : float, default 0.5
            The share of all steps after which the average of the tail begins.
        patience : int, optional
            Stop after so many epochs without a lower loss.
        target : float, default -inf
            Stop when that loss is at most this.
        maxtime : float, default inf
            Seconds of this call after which it ends, with status 1.
        step_callback : callable, optional
            Called as callback, after each step; ``res.fun`` and ``res.jac`` are those of the batch.
        max_norm, max_value : float, optional
            Scale the gradient down to this Euclidean norm; then clip its coordinates.
        disp, progress : bool, default False
            Print a summary; show a progress bar with loss and rate (needs tqdm).
        checkpoint : path-like, optional
            File to which the run is written after each epoch, and every ``checkpoint_every`` steps
            if that is given.
        resume : bool or path-like, default False
            Continue a checkpointed run, bit for bit: from this path, or with True from the
            ``checkpoint`` file if it exists already. ``epochs`` may be larger than before, unless
            that moves the begin of an average that has begun; the seed is the file's.
        finite_difference, compiled
            As for `minimize`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x``; ``fun``, its loss as explained at ``iterate``; ``jac``, the gradient of the last
        batch; ``nit`` steps; ``nfev, njev``; ``epochs`` that were completed; ``history`` with
        ``loss``, ``validation`` and ``learning_rate`` for each of them; ``success, status,
        message``. Status 0: all epochs are done, or patience or target ended the run (only then
        success is True); 1: maxtime; 3: a loss, a gradient, or x after an epoch is not finite: x is
        the best point before (x0 in the first epoch) and the message names the rows; 99: a callback
        raised StopIteration.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of range, arrays differ in length, a checkpoint is
        of other data, fun or jac returned something of the wrong shape or type. What the user's
        functions raise, they raise; the exception then carries the result so far as its attribute
        ``intermediate_result``.

    Warns
    -----
    OptimizeWarning
        An option is not known; x0 lies outside the bounds.

    Notes
    -----
    With iterate "last" or "best" and batches of all rows, the loss of an epoch is that of the point
    at which it began, and this is the point that "best" compares and returns.

    Of a `Lookahead`, "last" and "best" take the slow weights, as its paper does.

    The rows of epoch e are drawn by a generator seeded with the seed and e. So a resumed run needs
    no generator's past, and draws what the first would have drawn.

    With x0 on a GPU, data, and those of validation, are C-contiguous arrays of numbers there;
    arrays of the host are refused. fun, jac and a validation function are Python functions of
    device arrays, as for `minimize` with x0 there: jac is a callable, True or "inplace", the
    value a number or a device array of one. A seed draws the rows that it draws for a CPU. Once
    an epoch their numbers go to the GPU, where each batch is gathered into arrays of the
    library that data are of: fun may not write to them, nor to x, and keeps neither. Everything
    is queued on the stream that is current in x0's library at the call, and fun may not work on
    another. Losses come to the host at most 32 steps apart (or some 20 ms; after each step with
    a ``step_callback``), and only then maxtime, or a value that is not finite, ends the run.
    What was queued after such a value counts in nfev and njev alone; to name its rows, a byte
    for each row of the batch comes to the host. x and jac are arrays of x0's library. For a
    ``checkpoint`` the vectors of the run come to the host, and a few rows of data, by which it
    is known again; what was saved with x0 on a GPU may go on on a CPU, and the other way round:
    agreeing to rounding. A batch that ends the run leaves the file as it was, since the steps
    queued after it have moved x. Sets other than a `Box` are refused.

    Examples
    --------
    Linear regression, 16 rows at a time:

    >>> import numpy as np, numbelief
    >>> random = np.random.default_rng(0)
    >>> A = random.standard_normal((1000, 3))
    >>> b = A @ [1.0, -2.0, 3.0]
    >>> def loss_and_gradient(x, A, b):
    ...     residual = A @ x - b
    ...     return residual @ residual / (2 * len(b)), A.T @ residual / len(b)
    >>> res = numbelief.minimize_stochastic(
    ...     loss_and_gradient,
    ...     np.zeros(3),
    ...     (A, b),
    ...     batch_size=16,
    ...     epochs=10,
    ...     method=numbelief.AdaBelief(learning_rate=0.05),
    ...     jac=True,
    ...     seed=1,
    ... )
    >>> res.success, res.x.round(3)
    (True, array([ 1., -2.,  3.]))
    """
    rule, settings = read_options(method, None, options, TrainingOptions)
    x: Any
    batches: Any
    on_card = cuda.is_device_array(x0)
    if on_card:
        x, card, place = first_point_on_card(x0, feasible_set, bounds)
        batches = device_batches.DeviceBatches(data, card)
    else:
        x, place = first_point(x0, feasible_set, bounds)
        batches = Batches(data)
    seen = as_callback(callback)
    if not isinstance(drop_last, (bool, np.bool)):
        raise TypeError(f"drop_last must be True or False, got {drop_last!r}")
    order = Order(batches.rows, seed, shuffle, replacement, weights)
    size = _batch_size(batch_size, order.size)
    count = integer("epochs", epochs)
    feed_of, training_of = (_DeviceFeed, _DeviceTraining) if on_card else (_Feed, _Training)
    feed = feed_of(fun, jac, x, place, settings, batches, order, size, bool(drop_last))
    examiner, examined = feed.examiner(validation)
    training = training_of(feed, rule, x, place, settings, count, examiner, examined, seen)
    return training.go()


def _batch_size(given: Any, rows: int) -> int:
    if given is None:
        return rows
    size = integer("batch_size", given, 1)
    if size > rows:
        raise ValueError(
            f"batch_size must be at most the {rows} rows of an epoch, or None, got {given}"
        )
    return size


class _Feed:
    """The objective with a batch for its arguments, called from Python or from machine code."""

    #: What machine code needs to call it, besides the rows of the epoch.
    _native: tuple[Any, ...] | None = None

    def __init__(
        self,
        fun: Any,
        jac: Any,
        x: Any,
        place: FeasibleSet | None,
        settings: TrainingOptions,
        batches: Any,
        order: Order,
        size: int,
        drop_last: bool,
    ) -> None:
        self.batches, self.order, self.size = batches, order, size
        #: Rows that an epoch uses.
        self.rows = order.size - (order.size % size if drop_last else 0)
        #: Batches of an epoch.
        self.count = -(-self.rows // size)
        # All rows are always the same batch: nothing needs to be drawn or gathered, in any order.
        chosen = order.replacement or order.weights is not None
        self._whole = size == batches.rows and not chosen
        batches.begin(None if self._whole else size)
        self._objective = fun, jac, x, place, settings
        self._pose()

    def _pose(self) -> None:
        """Make a problem of the objective and the batches."""
        fun, jac, x, place, settings = self._objective
        batches, size = self.batches, self.size
        pieces, compiled = batches.pieces, settings.compiled
        if pieces is None:
            if compiled:
                raise TypeError(
                    "data must be NumPy arrays whose rows are contiguous, for a loop in machine "
                    "code: leave out options={'compiled': True}"
                )
            compiled = False
        args = batches.take(np.arange(size))  # for their types: the rows are drawn by `begin`
        in_machine_code = native.is_compiled(fun)
        for i, arg in enumerate(args):
            if in_machine_code and hasattr(arg, "tocsr"):
                raise TypeError(
                    f"data[{i}] must be a NumPy array for a fun that is compiled by Numba, got "
                    f"batches of {type(arg).__name__}: pass a Python function"
                )
        self.problem = Problem(fun, jac, args, x, place, settings.finite_difference, compiled)
        self._blocks: tuple[NDArray[Any], ...] = ()
        if self.problem.native is not None:
            objectives = [self.problem.native] * 2
            if self.rows % size:
                objectives[1] = self.problem.native.on(tuple(a[: self.rows % size] for a in args))
            data, self._blocks, alive = zip(
                *(objective.block(x.size) for objective in objectives), strict=True
            )
            address = self.problem.native.address
            self._native = (size, pieces, address, np.array(data), self._blocks)
            self._alive = objectives, alive

    def examiner(self, validation: Any) -> tuple[Callable[[Any], float] | None, str | None]:
        """What evaluates a point after an epoch, and what a checkpoint tells of it."""
        if validation is None:
            return None, None
        if callable(validation):
            return lambda x: as_scalar(validation(x.copy()), "validation"), "a function"
        fun, jac, x, place, settings = self._objective
        others = Batches(validation, "validation")
        args = others.whole()
        problem = Problem(fun, jac, args, x, place, settings.finite_difference, False)
        return problem.value, others.fingerprint

    def first_gradient(self) -> Any:
        """Memory for the gradient."""
        return self.problem.guarded(self._objective[2])

    def check(self, g: Any) -> None:
        """Look whether something was written beyond that memory."""
        self.problem.check(g)

    def begin(self, epoch: int) -> None:
        """Draw the rows of an epoch."""
        drawn = np.arange(self.rows) if self._whole else self.order.of(epoch)
        self.rows_of_epoch = drawn[: self.rows]

    def rows_of(self, k: int) -> NDArray[np.int64]:
        """The rows of batch k."""
        return self.rows_of_epoch[k * self.size : (k + 1) * self.size]

    def evaluate(self, k: int, x: NDArray[Any], g: NDArray[Any]) -> float:
        """The loss of batch k at x; g is filled."""
        self.problem.args = self.batches.take(self.rows_of(k))
        return self.problem.evaluate(x, g)

    def bind(self, opt: Optimizer) -> Any:
        """The loop of an epoch. It refers to this, so that this must not keep it."""
        if self._native is not None:  # threads may be safe at one look and not at the next
            return lambda *given: epochs.compile_epoch(opt.inner, parallel=opt.runs_parallel())(
                *given
            )
        large = opt.x.size >= kernels.RELEASE_GIL_FROM
        return epochs.bind(opt.inner, self.evaluate, parallel=opt.wants_parallel, nogil=large)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The objective of this epoch, as the loop takes it."""
        return () if self._native is None else (self.rows_of_epoch, *self._native)

    def most_steps(self, timed: bool) -> int:
        """So many steps may be taken before a look at the clock of a timed run."""
        return 1 if timed and self._native is None else self.count

    @property
    def calls(self) -> int:
        """Evaluations in machine code that are not counted yet."""
        return sum(int(block[native.CALLS]) for block in self._blocks)

    def after(self) -> None:
        """Count what machine code has done."""
        calls = self.calls
        self.problem.nfev += calls
        self.problem.njev += calls
        for block in self._blocks:
            block[native.CALLS] = 0

    def description(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        order = self.order
        return {
            "rows": self.batches.rows,
            "data": self.batches.fingerprint,
            "batch_size": self.size,
            "rows of an epoch": self.rows,
            "shuffle": order.random,
            "replacement": order.replacement,
            "weights": checkpoint.fingerprint(order.weights),
        }


class _DeviceFeed(_Feed):
    """The same on a GPU, where steps are queued."""

    problem: device.DeviceProblem  # type: ignore[assignment]

    def _pose(self) -> None:
        fun, jac, x, _, settings = self._objective
        self.launcher: device.Launcher = self.batches.launcher
        card = self.launcher.card
        self.problem = device.DeviceProblem(fun, jac, (), x, card, settings.compiled)

    def examiner(self, validation: Any) -> tuple[Callable[[Any], float] | None, str | None]:
        if validation is None:
            return None, None
        fun, jac, x, *_ = self._objective
        launcher, card = self.launcher, self.launcher.card
        if callable(validation):
            name, what = "validation", "a function"
            return lambda p: device.number(validation(launcher.copy(p, x)), card, name), what
        others = device_batches.DeviceBatches(validation, card, "validation")
        problem = device.DeviceProblem(fun, jac, others.whole(), x, card)
        return lambda p: problem.alone(launcher.copy(p, x)), others.fingerprint

    def first_gradient(self) -> Any:
        return self.launcher.vector()

    def check(self, g: Any) -> None:
        pass

    def begin(self, epoch: int) -> None:
        super().begin(epoch)
        self.batches.draw(self.rows_of_epoch)

    def bind(self, opt: Optimizer) -> Any:
        return device_batches.bind_epoch(opt, self.problem, self.batches)

    def most_steps(self, timed: bool) -> int:
        return device.LOOK_EVERY

    def after(self) -> None:
        pass


class _Training:
    """A run between its steps: the arrays of the loop, and what is made of them."""

    def __init__(
        self,
        feed: _Feed,
        rule: Rule | Lookahead,
        x: Any,
        place: FeasibleSet | None,
        settings: TrainingOptions,
        epochs: int,
        examiner: Callable[[Any], float] | None,
        examined: str | None,
        callback: Callback | None,
    ) -> None:
        self.feed, self.settings, self.epochs = feed, settings, epochs
        self.examiner, self.examined = examiner, examined
        self.x, self.g = x, feed.first_gradient()
        self.optimizer = Optimizer(
            rule, x, feasible_set=place, max_norm=settings.max_norm, max_value=settings.max_value
        )
        self.optimizer.rates(1)  # a schedule that fails does so before any work
        self.epoch = self.batch = self.stale = 0
        self.best_fun = self.figure = math.inf
        self.rate = math.nan
        self._allocate()
        self.callback, self.step_callback = callback, settings.step_callback
        self.bar: Any = None
        self.status, self.message = loop.RUNNING, "The run was interrupted."
        self.began = time.perf_counter()

    def _allocate(self) -> None:
        """Make room for what is kept of the points."""
        feed, settings, x = self.feed, self.settings, self.x
        start = int(settings.average_from * self.epochs * feed.count) + 1
        empty = np.zeros(0, self.g.dtype)
        #: What a checkpoint holds besides the optimizer and the numbers of the header.
        self.kept: dict[str, Any] = {
            "losses": np.full(feed.count, math.nan),
            "best": self._vector(x),
            "began": self._vector(x) if feed.count == 1 else empty,
            "fading": self._vector(x) if settings.iterate == "ema" else empty,
            "mean": self._vector() if settings.iterate == "average" else empty,
            "start": np.array(start),
            "history": np.zeros((0, 3)),
        }

    # ---- vectors

    def _vector(self, x: Any = None) -> Any:
        """A new vector of the run: a copy, or zeros."""
        return np.zeros_like(self.x) if x is None else x.copy()

    def _put(self, x: Any, kept: Any) -> None:
        """Copy a vector into one of the run."""
        kept[:] = x

    def _is_finite(self, x: Any) -> bool:
        return bool(np.isfinite(x).all())

    def _given(self, x: Any) -> Any:
        """A copy of a vector, for the user."""
        return x.copy()

    # ---- advancing

    def go(self) -> OptimizeResult:
        """Run to the end; on an exception, attach the result so far to it."""
        name = type(self.optimizer.rule).__name__
        try:
            self._take_up()
            self.bar = progress_bar(name, self.epochs * self.feed.count, self.settings.progress)
            self._show()
            while self.status == loop.RUNNING and self.epoch < self.epochs:
                self._run_epoch()
            if self.status == loop.RUNNING:
                self.status, self.message = loop.CONVERGED, _DONE
            self._save()
            result = self.result()
            if self.optimizer.projection is not None and np.isfinite(result.x).all():
                self.optimizer.report(result.x)
        except BaseException as error:
            with contextlib.suppress(Exception):  # nothing may hide the user's own exception
                error.intermediate_result = self.result()  # type: ignore[attr-defined]
            raise
        finally:
            if self.bar is not None:
                self.bar.close()
        if self.settings.disp:
            _print_summary(result)
        return result

    def _run_epoch(self) -> None:
        self.feed.begin(self.epoch)
        if self.batch == 0 and self.feed.count == 1:
            self._put(self.x, self.kept["began"])
        steps = 1
        while self.status == loop.RUNNING and self.batch < self.feed.count:
            started = time.perf_counter()
            if started - self.began >= self.settings.maxtime:
                self.status, self.message = loop.MAXITER, _TIME
                return
            taken = self._advance(self._most(steps))
            per_step = (time.perf_counter() - started) / max(taken, 1)
            steps = max(1, min(16 * steps, int(LOOK_EVERY_S / max(per_step, 1e-9))))
            self._show()
            if self.status == loop.RUNNING and self.step_callback is not None:
                self._call(self.step_callback, self._step_seen)
            every = self.settings.checkpoint_every
            if self.batch < self.feed.count and every and self.nit % every == 0:
                self._save()
        if self.batch < self.feed.count:
            return
        stopped = self.status != loop.RUNNING
        self._end_epoch()
        if self.callback is not None and not stopped and self.status != loop.NONFINITE:
            self._call(self.callback, self._epoch_seen)
        if self.status == loop.RUNNING and self.epoch < self.epochs:
            self._save()

    @functools.cached_property
    def _loop(self) -> Any:
        """The loop of an epoch, bound at the first step: a file may bring another optimizer."""
        return self.feed.bind(self.optimizer)

    def _most(self, steps: int) -> int:
        """How many steps may be taken before the next look."""
        if self.step_callback is not None:
            return 1
        timed = self.settings.maxtime < math.inf
        every = self.settings.checkpoint_every
        due = every - self.nit % every if every else steps
        return min(steps, self.feed.count - self.batch, due, self.feed.most_steps(timed))

    def _advance(self, count: int) -> int:
        """Take so many steps, fewer if a loss is not finite; return how many were taken."""
        opt = self.optimizer
        kept = self.kept
        averages = kept["fading"], self.settings.ema_decay, kept["mean"], int(kept["start"])
        rates = opt.rates(count)
        arrays = (rates, self.x, self.g, *opt.arrays, opt.options, kept["losses"], averages)
        try:
            taken = int(self._loop(self.batch, *arrays, self.feed.arguments))
        except native.Raised:  # called from Python, it says of which length
            self.feed.evaluate(self.batch + self.feed.calls, self.x, self.g)
            raise
        finally:
            self.feed.after()
        self.feed.check(self.g)
        self.batch += taken
        self.rate = float(rates[max(taken, 1) - 1])
        if taken < count:
            self.status, self.message = loop.NONFINITE, self._what_is_not_finite()
        return taken

    def _what_is_not_finite(self) -> str:
        loss = float(self.kept["losses"][self.batch])
        what = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        message = f"NaN result encountered. In batch {self.batch} of epoch {self.epoch}, {what}"
        rows = self.feed.batches.not_finite(self.feed.rows_of(self.batch))
        if not rows:
            return message + "; its data are finite."
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        return f"{message}: {', '.join(rows[:3])}{more} is not finite."

    def _end_epoch(self) -> None:
        """Look at the epoch as a whole: its loss, validation, best point, and whether to stop."""
        sizes = np.full(self.feed.count, self.feed.size)
        sizes[-1] = self.feed.rows - self.feed.size * (self.feed.count - 1)
        loss = float(self.kept["losses"] @ sizes / self.feed.rows)
        point, validated = self._point(), math.nan
        if self.examiner is not None and self._is_finite(point):
            validated = self.examiner(point)
        elif self.feed.count == 1 and self.settings.iterate in ("best", "last"):
            point = self.kept["began"]
        self.figure = loss if self.examiner is None else validated
        self.stale += 1
        if self.figure < self.best_fun and self._is_finite(point):
            self.best_fun, self.stale = self.figure, 0
            self._put(point, self.kept["best"])
        row = [[loss, validated, self.rate]]
        self.kept["history"] = np.concatenate([self.kept["history"], row])
        self.epoch, self.batch = self.epoch + 1, 0
        if self.status == loop.RUNNING:
            self._judge()

    def _judge(self) -> None:
        """Say how the run stands after an epoch."""
        wrong = None
        if not self._is_finite(self._point()):
            wrong = "x is not finite"
        elif self.examiner is not None and not math.isfinite(self.figure):
            wrong = f"the validation loss is {self.figure}"
        if wrong is not None:
            self.status = loop.NONFINITE
            self.message = f"NaN result encountered. After epoch {self.epoch - 1}, {wrong}."
        elif self.figure <= self.settings.target:
            self.status, self.message = loop.CONVERGED, _GOAL
        elif self.settings.patience is not None and self.stale >= self.settings.patience:
            self.status, self.message = loop.CONVERGED, _PATIENCE

    def _point(self) -> Any:
        """The point that the run stands for: x, its average, or a Lookahead's slow weights."""
        if self.settings.iterate == "ema":
            return self.kept["fading"]
        if self.settings.iterate == "average" and self.nit >= self.kept["start"]:
            return self.kept["mean"]
        if self.nit and self.settings.iterate in ("best", "last"):
            return self.optimizer.state.get("slow", self.x)
        return self.x

    @property
    def _gradient(self) -> Any:
        """The gradient of the last batch."""
        return self.g

    @property
    def nit(self) -> int:
        """Number of steps."""
        return self.optimizer.t

    # ---- what others see

    def _call(self, callback: Callback, seen: Callable[[], OptimizeResult]) -> None:
        try:
            callback(self._here, seen)
        except StopIteration:
            self.status, self.message = STOPPED, _STOP

    def _here(self) -> Any:
        """A copy of x."""
        return self._given(self.x)

    def _step_seen(self) -> OptimizeResult:
        return OptimizeResult(
            x=self._here(),
            fun=float(self.kept["losses"][self.batch - 1]),
            jac=self._given(self._gradient),
            learning_rate=self.rate,
            epoch=self.epoch,
            nit=self.nit,
        )

    def _epoch_seen(self) -> OptimizeResult:
        loss, validated, rate = map(float, self.kept["history"][-1])
        return OptimizeResult(
            x=self._here(),
            fun=loss,
            validation=validated,
            learning_rate=rate,
            epoch=self.epoch,
            nit=self.nit,
        )

    def _show(self) -> None:
        if self.bar is None:
            return
        self.bar.update(self.epoch * self.feed.count + self.batch - self.bar.n)
        if self.batch:
            self.bar.set_postfix(
                loss=f"{self.kept['losses'][self.batch - 1]:.4g}",
                rate=f"{self.rate:.3g}",
                refresh=False,
            )

    def result(self) -> OptimizeResult:
        """What is known now, as SciPy's result."""
        x, fun = self._point(), self.figure
        if self.status == loop.NONFINITE or (
            self.settings.iterate == "best" and math.isfinite(self.best_fun)
        ):
            x, fun = self.kept["best"], self.best_fun
        names = ("loss", "validation", "learning_rate")
        return OptimizeResult(
            x=self._given(x),
            fun=fun if math.isfinite(fun) else math.nan,
            jac=self._given(self._gradient),
            nit=self.nit,
            nfev=self.feed.problem.nfev,
            njev=self.feed.problem.njev,
            epochs=self.epoch,
            history=OptimizeResult(zip(names, self.kept["history"].T.copy(), strict=True)),
            success=self.status == loop.CONVERGED,
            status=self.status,
            message=self.message,
        )

    # ---- files

    def _save(self) -> None:
        """Write the run to its checkpoint file."""
        if self.settings.checkpoint is None:
            return
        header, arrays = self.optimizer.snapshot()
        header |= {
            "kind": _KIND,
            "feed": self.feed.description(),
            "entropy": self.feed.order.entropy,
            **self._plan(),
            "nfev": self.feed.problem.nfev,
            "njev": self.feed.problem.njev,
            **{name: getattr(self, name) for name in _PLACE},
        }
        checkpoint.write(self.settings.checkpoint, header, arrays | self._arrays())

    def _arrays(self) -> dict[str, Any]:
        """The gradient and what is kept, as a file holds them."""
        return {"g": self.g, **self.kept}

    def _put_back(self, arrays: dict[str, NDArray[Any]]) -> None:
        """The way back."""
        for name, mine in self._arrays().items():
            checkpoint.check_like(name, arrays[name], mine)
            mine[...] = arrays[name]

    def _plan(self) -> dict[str, Any]:
        """What a checkpoint must agree with, besides the data."""
        return {
            "iterate": self.settings.iterate,
            "ema_decay": self.settings.ema_decay,
            "validation": self.examined,
        }

    def _take_up(self) -> None:
        """Continue a saved run, if there shall be one."""
        source = self.settings.resume_from
        if source is None:
            return
        header, arrays = checkpoint.read(source, _KIND)
        with checkpoint.refusing_damage(source):
            saved = {**header["feed"], **header}
            place = {name: type(getattr(self, name))(header[name]) for name in _PLACE}
            counts = [int(header[name]) for name in ("entropy", "nfev", "njev")]
        wrong = [
            f"{name} = {saved.get(name)!r} in the file, {value!r} given"
            for name, value in {**self.feed.description(), **self._plan()}.items()
            if saved.get(name) != value
        ]
        if wrong:
            raise ValueError("the checkpoint does not match: " + "; ".join(wrong))
        self.optimizer = restored_optimizer(self.optimizer, header, arrays)
        planned = int(self.kept["start"])
        with checkpoint.refusing_damage(source):
            self.kept["history"] = np.zeros((place["epoch"], 3))
            self._put_back(arrays)
            if not 0 <= place["batch"] < self.feed.count:
                raise ValueError(f"there is no batch {place['batch']}")
        for name, value in place.items():
            setattr(self, name, value)
        self.feed.order.entropy, self.feed.problem.nfev, self.feed.problem.njev = counts
        begins = int(self.kept["start"])
        if self.settings.iterate == "average" and begins != planned:
            if self.nit >= min(begins, planned):
                raise ValueError(
                    f"the checkpoint does not match: its average begins at step {begins}, "
                    f"which epochs and average_from now put at {planned}"
                )
            self.kept["start"][...] = planned
        if self.epoch and self.batch == 0:
            self._judge()


class _DeviceTraining(_Training):
    """The same on a GPU: its vectors are as kernels take them."""

    feed: _DeviceFeed

    def _allocate(self) -> None:
        self._launcher = self.feed.launcher
        self.x = self._launcher.card.x
        super()._allocate()

    def _vector(self, x: Any = None) -> Any:
        return self._launcher.vector(x)

    def _put(self, x: Any, kept: Any) -> None:
        self._launcher.put(x, kept)

    def _is_finite(self, x: Any) -> bool:
        return self._launcher.largest(x) < math.inf

    def _given(self, x: Any) -> Any:
        return self._launcher.copy(x, self.optimizer.x)

    @property
    def _gradient(self) -> Any:
        latest = self.feed.problem.gradient
        return self.g if latest is None else latest

    @property
    def nit(self) -> int:
        # What was queued after a batch that ended the run does not count.
        taken = self.epoch * self.feed.count + self.batch
        return taken if self.status == loop.NONFINITE else super().nit

    def result(self) -> OptimizeResult:
        if self.status == loop.RUNNING and not self._is_finite(self._point()):
            self.status = loop.NONFINITE  # an exception came before the look
        result = super().result()
        self.feed.problem.wait()
        return result

    def _save(self) -> None:
        if self.nit == self.optimizer.t:  # else x has been moved by steps that do not count
            super()._save()

    def _arrays(self) -> dict[str, Any]:
        return device.to_host({"g": self._gradient, **self.kept}, self._launcher.card)

    def _put_back(self, arrays: dict[str, NDArray[Any]]) -> None:
        device.from_host(arrays, {"g": self.g, **self.kept}, self._launcher.card)


# Where a run stands, in the header of its file.
_PLACE = ("epoch", "batch", "stale", "best_fun", "figure", "rate")


def _print_summary(result: OptimizeResult) -> None:
    print(result.message)
    print(f"         Current loss: {result.fun:f}")
    print(f"         Epochs: {result.epochs:d}")
    print(f"         Steps: {result.nit:d}")
