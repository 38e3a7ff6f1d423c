"""minimize_stochastic: mini-batches over arrays, from one row a step to all of them."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult

from numbelief import _checkpoint as checkpoint
from numbelief import _interop as interop
from numbelief._objective import compiled
from numbelief._objective.problem import Problem
from numbelief._solve import observe
from numbelief._solve.data import Batches, Order
from numbelief._solve.epochs import BatchObjective, Means, bind_epoch, compile_epoch
from numbelief._solve.minimize import STOPPED, first_point, restored_optimizer
from numbelief._solve.options import TrainingOptions, read_options
from numbelief._solve.session import Callback, Session, as_callback
from numbelief._step.vectors import HostVectors
from numbelief.checks import as_scalar, integer
from numbelief.optimizer import Optimizer
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
        the epochs run in compiled code, to the same bits.
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
    make: Any
    if interop.is_device_array(x0):
        from numbelief._gpu import stochastic as card

        vectors, allowed = card.first_point(x0, feasible_set, bounds)
        x = vectors.given
        batches, make = card.CardBatches(data, vectors), card.CardObjective
    else:
        x, allowed = first_point(x0, feasible_set, bounds)
        batches, make = Batches(data), HostObjective
    seen = as_callback(callback)
    if not isinstance(drop_last, (bool, np.bool_)):
        raise TypeError(f"drop_last must be True or False, got {drop_last!r}")
    order = Order(batches.rows, seed, shuffle, replacement, weights)
    plan = Plan(batches, order, _batch_size(batch_size, order.size), bool(drop_last))
    count = integer("epochs", epochs)
    objective = make(plan, fun, jac, x, allowed, settings)
    validator = objective.validator(validation)
    return Training(objective, rule, x, allowed, settings, count, validator).go(seen)


def _batch_size(given: Any, rows: int) -> int:
    if given is None:
        return rows
    size = integer("batch_size", given, 1)
    if size > rows:
        raise ValueError(
            f"batch_size must be at most the {rows} rows of an epoch, or None, got {given}"
        )
    return size


class Plan:
    """Which rows make up each batch of each epoch.

    Parameters
    ----------
    batches : Batches, or what is like it on a GPU
    order : Order
    size : int
        Rows of a batch.
    drop_last : bool
        Leave out a last batch that is shorter.

    Attributes
    ----------
    rows, count : int
        Rows that an epoch uses, and its batches.
    rows_of_epoch : ndarray of int64
        Those of the epoch that has begun.
    """

    def __init__(self, batches: Any, order: Order, size: int, drop_last: bool) -> None:
        self.batches, self.order, self.size = batches, order, size
        self.rows = order.size - (order.size % size if drop_last else 0)
        self.count = -(-self.rows // size)
        # All rows are always the same batch: nothing needs to be drawn or gathered, in any order.
        chosen = order.replacement or order.weights is not None
        self._whole = size == batches.rows and not chosen
        batches.begin(None if self._whole else size)
        self.rows_of_epoch = np.arange(0)

    def begin(self, epoch: int) -> None:
        """Draw the rows of an epoch."""
        drawn = np.arange(self.rows) if self._whole else self.order.of(epoch)
        self.rows_of_epoch = drawn[: self.rows]
        self.batches.draw(self.rows_of_epoch)

    def rows_of(self, k: int) -> NDArray[np.int64]:
        """The rows of batch k."""
        return self.rows_of_epoch[k * self.size : (k + 1) * self.size]

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


class Validator(NamedTuple):
    """What evaluates a point after an epoch, and what a checkpoint tells of it; None for none."""

    loss: Callable[[Any], float] | None = None
    description: str | None = None


class HostObjective:
    """The loss of batches on the CPU, called from Python or from compiled code.

    Parameters
    ----------
    plan : Plan
    fun, jac, x, feasible_set, settings
        As in `minimize_stochastic`, checked.

    Attributes
    ----------
    plan : Plan
    problem : Problem
        The objective with a batch for its arguments.
    """

    def __init__(
        self,
        plan: Plan,
        fun: Any,
        jac: Any,
        x: Any,
        feasible_set: FeasibleSet | None,
        settings: TrainingOptions,
    ) -> None:
        self.plan = plan
        self._given = fun, jac, x, feasible_set, settings
        batches, size = plan.batches, plan.size
        pieces, wants_compiled = batches.pieces, settings.compiled
        if pieces is None:
            if wants_compiled:
                raise TypeError(
                    "data must be NumPy arrays whose rows are contiguous, for a loop in compiled "
                    "code: leave out options={'compiled': True}"
                )
            wants_compiled = False
        args = batches.take(np.arange(size))  # for their types: the rows are drawn by `begin`
        is_compiled = compiled.is_compiled(fun)
        for i, arg in enumerate(args):
            if is_compiled and hasattr(arg, "tocsr"):
                raise TypeError(
                    f"data[{i}] must be a NumPy array for a fun that is compiled by Numba, got "
                    f"batches of {type(arg).__name__}: pass a Python function"
                )
        self.problem = Problem(
            fun, jac, args, x, feasible_set, settings.finite_difference, wants_compiled
        )
        self._calls: tuple[compiled.Call, ...] = ()
        if self.problem.compiled is not None:
            objectives = [self.problem.compiled] * 2
            if plan.rows % size:
                last = tuple(a[: plan.rows % size] for a in args)
                objectives[1] = self.problem.compiled.on(last)
            self._calls, alive = zip(
                *(objective.call(x.size) for objective in objectives), strict=True
            )
            self._pieces, self._alive = pieces, (objectives, alive)

    def validator(self, validation: Any) -> Validator:
        """What evaluates points on other data."""
        if validation is None:
            return Validator()
        if callable(validation):
            return Validator(lambda x: as_scalar(validation(x.copy()), "validation"), "a function")
        fun, jac, x, feasible_set, settings = self._given
        others = Batches(validation, "validation")
        problem = Problem(
            fun, jac, others.whole(), x, feasible_set, settings.finite_difference, False
        )
        return Validator(problem.value, others.fingerprint)

    def first_gradient(self) -> Any:
        """Memory for the gradient."""
        return self.problem.guarded(self._given[2])

    def latest_gradient(self, g: Any) -> Any:
        """The gradient of the last batch, where g is that memory."""
        return g

    def check(self, g: Any) -> None:
        """Look whether something was written beyond that memory."""
        self.problem.check(g)

    def evaluate(self, k: int, x: NDArray[Any], g: NDArray[Any], _: Any = None) -> float:
        """The loss of batch k at x; g is filled."""
        self.problem.args = self.plan.batches.take(self.plan.rows_of(k))
        return self.problem.evaluate(x, g)

    def bind(self, opt: Optimizer) -> Any:
        """The loop of an epoch. It refers to this, so that this must not keep it."""
        vectors = opt.vectors
        assert isinstance(vectors, HostVectors)
        if self._calls:  # threads may be safe at one look and not at the next
            return lambda *given: compile_epoch(opt.kind, parallel=opt.runs_parallel())(*given)
        return bind_epoch(opt.kind, self.evaluate, parallel=opt.wants_parallel, nogil=vectors.large)

    @property
    def arguments(self) -> Any:
        """The objective of this epoch, as the loop takes it."""
        if not self._calls:
            return ()
        return BatchObjective(self.plan.rows_of_epoch, self.plan.size, self._pieces, *self._calls)

    def most_steps(self, *, timed: bool) -> int:
        """How many steps may be taken before a look at the clock."""
        return 1 if timed and not self._calls else self.plan.count

    @property
    def calls(self) -> int:
        """Evaluations in compiled code that are not counted yet."""
        return sum(int(call.block[compiled.CALLS]) for call in self._calls)

    def count_calls(self) -> None:
        """Count what compiled code has done."""
        calls = self.calls
        self.problem.nfev += calls
        self.problem.njev += calls
        for call in self._calls:
            call.block[compiled.CALLS] = 0

    def wait(self) -> None:
        """Let what is queued end, where something is."""


class Training:
    """A run of `minimize_stochastic` between its steps.

    Parameters
    ----------
    objective : HostObjective, or what is like it on a GPU
    rule, x, feasible_set, settings, epochs
        As in `minimize_stochastic`, checked.
    validator : Validator
    """

    def __init__(
        self,
        objective: Any,
        rule: Rule | Lookahead,
        x: Any,
        feasible_set: FeasibleSet | None,
        settings: TrainingOptions,
        epochs: int,
        validator: Validator,
    ) -> None:
        self.objective, self.settings, self.epochs = objective, settings, epochs
        self.plan: Plan = objective.plan
        self.validator = validator
        self.optimizer = Optimizer(
            rule,
            x,
            feasible_set=feasible_set,
            max_norm=settings.max_norm,
            max_value=settings.max_value,
        )
        self.vectors = self.optimizer.vectors
        self.x, self.g = self.vectors.x, objective.first_gradient()
        self.optimizer.rates(1)  # a schedule that fails does so before any work
        self.epoch = self.batch = self.stale = 0
        self.best_fun = self.figure = math.inf
        self.rate = math.nan
        start = int(settings.average_from * epochs * self.plan.count) + 1
        copy, empty = self.vectors.copy, np.zeros(0, self.vectors.dtype)
        #: What a checkpoint holds besides the optimizer and the numbers of the header.
        self.kept: dict[str, Any] = {
            "losses": np.full(self.plan.count, math.nan),
            "best": copy(self.x),
            "began": copy(self.x) if self.plan.count == 1 else empty,
            "fading": copy(self.x) if settings.iterate == "ema" else empty,
            "mean": self.vectors.zeros() if settings.iterate == "average" else empty,
            "start": np.array(start),
            "history": np.zeros((0, 3)),
        }
        self.status, self.message = observe.RUNNING, "The run was interrupted."
        self.session = Session(
            type(self.optimizer.rule).__name__,
            epochs * self.plan.count,
            progress=settings.progress,
            maxtime=settings.maxtime,
        )

    # ---- advancing

    def go(self, callback: Callback | None) -> OptimizeResult:
        """Run to the end; on an exception, attach the result so far to it."""
        with self.session.running(self.result):
            self._take_up()
            self._show()
            while self.status == observe.RUNNING and self.epoch < self.epochs:
                self._run_epoch(callback)
            if self.status == observe.RUNNING:
                self.status, self.message = observe.CONVERGED, _DONE
            self._save()
            result = self.result()
            if self.optimizer.region.projection is not None and np.isfinite(result.x).all():
                self.optimizer.report(result.x)
        if self.settings.disp:
            _print_summary(result)
        return result

    def _run_epoch(self, callback: Callback | None) -> None:
        self.plan.begin(self.epoch)
        if self.batch == 0 and self.plan.count == 1:
            self.vectors.put(self.x, self.kept["began"])
        session, count = self.session, self.plan.count
        session.steps = 1
        while self.status == observe.RUNNING and self.batch < count:
            if session.seconds_left <= 0:
                self.status, self.message = observe.MAXITER, _TIME
                return
            before = self.batch
            with session.pacing(lambda before=before: self.batch - before):  # type: ignore[misc]
                self._advance(self._most())
            self._show()
            if self.status == observe.RUNNING and self.settings.step_callback is not None:
                self._call(self.settings.step_callback, self._step_seen)
            every = self.settings.checkpoint_every
            if self.batch < count and every and self.nit % every == 0:
                self._save()
        if self.batch < count:
            return
        stopped = self.status != observe.RUNNING
        self._end_epoch()
        if callback is not None and not stopped and self.status != observe.NONFINITE:
            self._call(callback, self._epoch_seen)
        if self.status == observe.RUNNING and self.epoch < self.epochs:
            self._save()

    @functools.cached_property
    def _loop(self) -> Any:
        """The loop of an epoch, bound at the first step: a file may bring another optimizer."""
        return self.objective.bind(self.optimizer)

    def _most(self) -> int:
        """How many steps may be taken before the next look."""
        if self.settings.step_callback is not None:
            return 1
        steps, every = self.session.steps, self.settings.checkpoint_every
        due = every - self.nit % every if every else steps
        most = self.objective.most_steps(timed=self.session.timed)
        return int(min(steps, self.plan.count - self.batch, due, most))

    def _advance(self, count: int) -> None:
        """Take ``count`` steps, fewer if a loss is not finite."""
        opt, kept = self.optimizer, self.kept
        means = Means(kept["fading"], self.settings.ema_decay, kept["mean"], int(kept["start"]))
        rates = opt.rates(count)
        arrays = (rates, self.x, self.g, opt.step_state, opt.step_options, kept["losses"], means)
        try:
            taken = int(self._loop(self.batch, *arrays, self.objective.arguments))
        except compiled.Raised:  # called from Python, it says of which length
            self.objective.evaluate(self.batch + self.objective.calls, self.x, self.g)
            raise
        finally:
            self.objective.count_calls()
        self.objective.check(self.g)
        self.batch += taken
        self.rate = float(rates[max(taken, 1) - 1])
        if taken < count:
            self.status, self.message = observe.NONFINITE, self._what_is_not_finite()

    def _what_is_not_finite(self) -> str:
        loss = float(self.kept["losses"][self.batch])
        what = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        message = f"NaN result encountered. In batch {self.batch} of epoch {self.epoch}, {what}"
        rows = self.plan.batches.not_finite(self.plan.rows_of(self.batch))
        if not rows:
            return message + "; its data are finite."
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        return f"{message}: {', '.join(rows[:3])}{more} is not finite."

    def _end_epoch(self) -> None:
        """Look at the epoch as a whole: its loss, validation, best point, and whether to stop."""
        sizes = np.full(self.plan.count, self.plan.size)
        sizes[-1] = self.plan.rows - self.plan.size * (self.plan.count - 1)
        loss = float(self.kept["losses"] @ sizes / self.plan.rows)
        point, validated = self._point(), math.nan
        if self.validator.loss is not None and self.vectors.is_finite(point):
            validated = self.validator.loss(point)
        elif self.plan.count == 1 and self.settings.iterate in ("best", "last"):
            point = self.kept["began"]
        self.figure = loss if self.validator.loss is None else validated
        self.stale += 1
        if self.figure < self.best_fun and self.vectors.is_finite(point):
            self.best_fun, self.stale = self.figure, 0
            self.vectors.put(point, self.kept["best"])
        row = [[loss, validated, self.rate]]
        self.kept["history"] = np.concatenate([self.kept["history"], row])
        self.epoch, self.batch = self.epoch + 1, 0
        if self.status == observe.RUNNING:
            self._judge()

    def _judge(self) -> None:
        """Set the status after an epoch."""
        wrong = None
        if not self.vectors.is_finite(self._point()):
            wrong = "x is not finite"
        elif self.validator.loss is not None and not math.isfinite(self.figure):
            wrong = f"the validation loss is {self.figure}"
        if wrong is not None:
            self.status = observe.NONFINITE
            self.message = f"NaN result encountered. After epoch {self.epoch - 1}, {wrong}."
        elif self.figure <= self.settings.target:
            self.status, self.message = observe.CONVERGED, _GOAL
        elif self.settings.patience is not None and self.stale >= self.settings.patience:
            self.status, self.message = observe.CONVERGED, _PATIENCE

    def _point(self) -> Any:
        """The point that the run returns: x, its average, or a Lookahead's slow weights."""
        if self.settings.iterate == "ema":
            return self.kept["fading"]
        if self.settings.iterate == "average" and self.nit >= self.kept["start"]:
            return self.kept["mean"]
        if self.nit and self.settings.iterate in ("best", "last"):
            return self.optimizer.state.get("slow", self.x)
        return self.x

    @property
    def nit(self) -> int:
        """Number of steps."""
        # What was queued after a batch that ended the run does not count.
        taken = self.epoch * self.plan.count + self.batch
        return taken if self.status == observe.NONFINITE else self.optimizer.t

    # ---- what others see

    def _call(self, callback: Callback, seen: Callable[[], OptimizeResult]) -> None:
        try:
            callback(self._here, seen)
        except StopIteration:
            self.status, self.message = STOPPED, _STOP

    def _here(self) -> Any:
        """A copy of x."""
        return self.vectors.export(self.x)

    def _step_seen(self) -> OptimizeResult:
        return OptimizeResult(
            x=self._here(),
            fun=float(self.kept["losses"][self.batch - 1]),
            jac=self.vectors.export(self.objective.latest_gradient(self.g)),
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
        if self.session.bar is None:
            return
        figures = {}
        if self.batch:
            loss = self.kept["losses"][self.batch - 1]
            figures = {"loss": f"{loss:.4g}", "rate": f"{self.rate:.3g}"}
        self.session.show(self.epoch * self.plan.count + self.batch, **figures)

    def result(self) -> OptimizeResult:
        """What is known now, as SciPy's result."""
        if self.status == observe.RUNNING and not self.vectors.is_finite(self._point()):
            self.status = observe.NONFINITE  # an exception came before the look
        x, fun = self._point(), self.figure
        if self.status == observe.NONFINITE or (
            self.settings.iterate == "best" and math.isfinite(self.best_fun)
        ):
            x, fun = self.kept["best"], self.best_fun
        names = ("loss", "validation", "learning_rate")
        result = OptimizeResult(
            x=self.vectors.export(x),
            fun=fun if math.isfinite(fun) else math.nan,
            jac=self.vectors.export(self.objective.latest_gradient(self.g)),
            nit=self.nit,
            nfev=self.objective.problem.nfev,
            njev=self.objective.problem.njev,
            epochs=self.epoch,
            history=OptimizeResult(zip(names, self.kept["history"].T.copy(), strict=True)),
            success=self.status == observe.CONVERGED,
            status=self.status,
            message=self.message,
        )
        self.objective.wait()
        return result

    # ---- files

    def _save(self) -> None:
        """Write the run to its checkpoint file."""
        if self.settings.checkpoint is None:
            return
        if self.nit != self.optimizer.t:  # steps that do not count have moved x
            return
        header, arrays = self.optimizer.snapshot()
        header |= {
            "kind": _KIND,
            "feed": self.plan.description(),
            "entropy": self.plan.order.entropy,
            **self._plan(),
            "nfev": self.objective.problem.nfev,
            "njev": self.objective.problem.njev,
            **{name: getattr(self, name) for name in _POSITION},
        }
        kept = {name: self.vectors.to_host(array) for name, array in self._arrays().items()}
        checkpoint.write(self.settings.checkpoint, header, arrays | kept)

    def _arrays(self) -> dict[str, Any]:
        """The gradient and what is kept, by their names in a file."""
        return {"g": self.objective.latest_gradient(self.g), **self.kept}

    def _put_back(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take the gradient and what was kept from a file."""
        for name, mine in {"g": self.g, **self.kept}.items():
            checkpoint.check_like(name, arrays[name], mine)
            if isinstance(mine, np.ndarray):
                mine[...] = arrays[name]
            else:
                self.vectors.from_host(mine, arrays[name])

    def _plan(self) -> dict[str, Any]:
        """What a checkpoint must agree with, besides the data."""
        return {
            "iterate": self.settings.iterate,
            "ema_decay": self.settings.ema_decay,
            "validation": self.validator.description,
        }

    def _take_up(self) -> None:
        """Continue a saved run, if there shall be one."""
        source = self.settings.resume_from
        if source is None:
            return
        header, arrays = checkpoint.read(source, _KIND)
        with checkpoint.refusing_damage(source):
            saved = {**header["feed"], **header}
            position = {name: type(getattr(self, name))(header[name]) for name in _POSITION}
            counts = [int(header[name]) for name in ("entropy", "nfev", "njev")]
        wrong = [
            f"{name} = {saved.get(name)!r} in the file, {value!r} given"
            for name, value in {**self.plan.description(), **self._plan()}.items()
            if saved.get(name) != value
        ]
        if wrong:
            raise ValueError("the checkpoint does not match: " + "; ".join(wrong))
        self.optimizer = restored_optimizer(self.optimizer, header, arrays)
        planned = int(self.kept["start"])
        with checkpoint.refusing_damage(source):
            self.kept["history"] = np.zeros((position["epoch"], 3))
            self._put_back(arrays)
            if not 0 <= position["batch"] < self.plan.count:
                raise ValueError(f"there is no batch {position['batch']}")
        for name, value in position.items():
            setattr(self, name, value)
        self.plan.order.entropy, self.objective.problem.nfev, self.objective.problem.njev = counts
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


# How far a run has come, in the header of its file.
_POSITION = ("epoch", "batch", "stale", "best_fun", "figure", "rate")


def _print_summary(result: OptimizeResult) -> None:
    print(result.message)
    print(f"         Current loss: {result.fun:f}")
    print(f"         Epochs: {result.epochs:d}")
    print(f"         Steps: {result.nit:d}")
