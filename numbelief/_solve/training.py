"""A run of `minimize_stochastic`: its epochs, what it keeps, its result and its file."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from numbelief import _checkpoint as checkpoint
from numbelief._objective import compiled
from numbelief._solve import stopping
from numbelief._solve.batch_objective import Plan, Validator
from numbelief._solve.epochs import Means
from numbelief._solve.minimization import STOPPED, rates_ahead, restored_optimizer
from numbelief._solve.options import TrainingOptions
from numbelief._solve.session import Callback, Session
from numbelief.optimizer import Optimizer
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet

_KIND = "numbelief.minimize_stochastic"
_DONE, _PATIENCE, _GOAL, _TIME, _STOP = (
    "All epochs are done.",
    "No improvement for as many epochs as patience allows.",
    "The loss reached the target.",
    "Maximum time has been exceeded.",
    "`callback` raised `StopIteration`.",
)


# How far a run has come, in the header of its file.
_POSITION = ("epoch", "batch", "stale", "best_fun", "figure", "rate")


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
        self.status, self.message = stopping.RUNNING, "The run was interrupted."
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
            while self.status == stopping.RUNNING and self.epoch < self.epochs:
                self._run_epoch(callback)
            if self.status == stopping.RUNNING:
                self.status, self.message = stopping.CONVERGED, _DONE
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
        while self.status == stopping.RUNNING and self.batch < count:
            if session.seconds_left <= 0:
                self.status, self.message = stopping.MAXITER, _TIME
                return
            session.begin_steps()
            session.end_steps(self._advance(self._most()))
            self._show()
            if self.status == stopping.RUNNING and self.settings.step_callback is not None:
                self._call(self.settings.step_callback, self._step_seen)
            every = self.settings.checkpoint_every
            if self.batch < count and every and self.nit % every == 0:
                self._save()
        if self.batch < count:
            return
        stopped = self.status != stopping.RUNNING
        self._end_epoch()
        if callback is not None and not stopped and self.status != stopping.NONFINITE:
            self._call(callback, self._epoch_seen)
        if self.status == stopping.RUNNING and self.epoch < self.epochs:
            self._save()

    @functools.cached_property
    def _loop(self) -> Any:
        """The loop of an epoch, bound at the first step: a file may bring another optimizer."""
        kept = self.kept
        means = Means(kept["fading"], self.settings.ema_decay, kept["mean"], int(kept["start"]))
        return self.objective.bind(self.optimizer, self.g, kept["losses"], means)

    def _most(self) -> int:
        """How many steps may be taken before the next look."""
        if self.settings.step_callback is not None:
            return 1
        steps, every = self.session.steps, self.settings.checkpoint_every
        due = every - self.nit % every if every else steps
        most = self.objective.most_steps(timed=self.session.timed)
        return int(min(steps, self.plan.count - self.batch, due, most))

    def _advance(self, count: int) -> int:
        """Take ``count`` steps, fewer if a loss is not finite; return how many were taken."""
        rates = rates_ahead(self.optimizer, count)
        count = rates.size
        try:
            taken = int(self._loop(self.batch, rates))
        except compiled.Raised:  # called from Python, it says of which length
            self.objective.evaluate(self.batch + self.objective.calls, self.x, self.g)
            raise
        finally:
            self.objective.count_calls()
        self.objective.check(self.g)
        self.batch += taken
        self.rate = float(rates[max(taken, 1) - 1])
        if taken < count:
            self.status, self.message = stopping.NONFINITE, self._what_is_not_finite()
        return taken

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
        if self.status == stopping.RUNNING:
            self._judge()

    def _judge(self) -> None:
        """Set the status after an epoch."""
        wrong = None
        if not self.vectors.is_finite(self._point()):
            wrong = "x is not finite"
        elif self.validator.loss is not None and not math.isfinite(self.figure):
            wrong = f"the validation loss is {self.figure}"
        if wrong is not None:
            self.status = stopping.NONFINITE
            self.message = f"NaN result encountered. After epoch {self.epoch - 1}, {wrong}."
        elif self.figure <= self.settings.target:
            self.status, self.message = stopping.CONVERGED, _GOAL
        elif self.settings.patience is not None and self.stale >= self.settings.patience:
            self.status, self.message = stopping.CONVERGED, _PATIENCE

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
        return taken if self.status == stopping.NONFINITE else self.optimizer.t

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
        if self.status == stopping.RUNNING and not self.vectors.is_finite(self._point()):
            self.status = stopping.NONFINITE  # an exception came before the look
        x, fun = self._point(), self.figure
        if self.status == stopping.NONFINITE or (
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
            success=self.status == stopping.CONVERGED,
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
        """Continue a saved run, if one is given."""
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
            raise checkpoint.Mismatch("; ".join(wrong))
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
                raise checkpoint.Mismatch(
                    f"its average begins at step {begins}, which epochs and average_from now put "
                    f"at {planned}"
                )
            self.kept["start"][...] = planned
        if self.epoch and self.batch == 0:
            self._judge()


def _print_summary(result: OptimizeResult) -> None:
    print(result.message)
    print(f"         Current loss: {result.fun:f}")
    print(f"         Epochs: {result.epochs:d}")
    print(f"         Steps: {result.nit:d}")
