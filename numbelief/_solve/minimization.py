"""A run of `minimize`: its iterations, result and file, whatever loop takes the steps."""

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

from numbelief import _checkpoint as checkpoint
from numbelief._solve import stopping
from numbelief._solve.host import HostLoop
from numbelief._solve.options import Options
from numbelief._solve.session import Callback, Session
from numbelief.optimizer import Optimizer
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet

_KIND = "numbelief.minimize"
STOPPED = 99
# The texts of SciPy's BFGS, by status.
_MESSAGES = {
    stopping.CONVERGED: "Optimization terminated successfully.",
    stopping.MAXITER: "Maximum number of iterations has been exceeded.",
    stopping.PRECISION: "Desired error not necessarily achieved due to precision loss.",
    stopping.NONFINITE: "NaN result encountered.",
    STOPPED: "`callback` raised `StopIteration`.",
}


class Minimization:
    """A run of `minimize`: it lets a loop advance, and turns its figures into a result or a file.

    Parameters
    ----------
    problem : Problem, or what is like it on a GPU
        What is minimized.
    rule, x, feasible_set, settings
        As in `minimize`, checked.
    make_loop : callable, default HostLoop
        The loop for the memory that x lies in.
    """

    def __init__(
        self,
        problem: Any,
        rule: Rule | Lookahead,
        x: Any,
        feasible_set: FeasibleSet | None,
        settings: Options,
        make_loop: Callable[..., Any] = HostLoop,
    ) -> None:
        self.problem, self.settings, self._make_loop = problem, settings, make_loop
        self.automatic = rule.learning_rate is None
        if self.automatic:  # the search looks at fun, to which no decay belongs
            rule = rule.inner
            if rule.weight_decay != 0:  # not `replace`, which would warn again of other numbers
                rule = copy.copy(rule)
                object.__setattr__(rule, "weight_decay", 0.0)
        self._use(
            Optimizer(
                rule,
                x,
                feasible_set=feasible_set,
                max_norm=settings.max_norm,
                max_value=settings.max_value,
            )
        )
        self.optimizer.rates(1)  # a schedule that fails does so before any work
        self.status = stopping.RUNNING
        self._session = Session(
            type(self.optimizer.rule).__name__,
            settings.maxiter,
            progress=settings.progress,
            maxtime=settings.maxtime,
        )

    def _use(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.loop = self._make_loop(
            optimizer, self.problem, self.settings, automatic=self.automatic
        )

    # ---- advancing

    def go(self, callback: Callback | None = None) -> OptimizeResult:
        """Run to the end; on an exception, attach the result so far to it."""
        session, message = self._session, None
        with session.running(self._so_far):
            self._begin()
            while self.status == stopping.RUNNING:
                if session.seconds_left <= 0:
                    self.status, message = stopping.MAXITER, "Maximum time has been exceeded."
                    break
                rates = self.rates(self._most_steps(callback))
                session.begin_steps()
                self.status = self.loop.advance(rates)
                self._show(callback)
                session.end_steps(rates.size)
                if self.settings.checkpoint is not None and self._is_due():
                    self.save()
            if self.settings.checkpoint is not None:
                self.save()
            result = self.result(message)
            if self.optimizer.region.projection is not None and np.isfinite(result.x).all():
                self.optimizer.report(result.x)
        if self.settings.disp:
            _print_summary(result)
        return result

    def rates(self, count: int) -> NDArray[np.float64]:
        """The rates of at most ``count`` steps; NaN for an automatic one."""
        return np.full(count, math.nan) if self.automatic else rates_ahead(self.optimizer, count)

    def _begin(self) -> None:
        """Evaluate the first point, or take up a saved run."""
        source = self.settings.resume_from
        if source is None:
            self.status = self.loop.begin()
        else:
            self._resume(source)

    def _most_steps(self, callback: Callback | None) -> int:
        """How many steps may be taken before the next look."""
        if callback is not None:
            return 1
        settings = self.settings
        most = self.loop.most_steps(timed=self._session.timed)
        steps = int(min(self._session.steps, most, settings.maxiter - self.nit))
        if settings.checkpoint is not None:
            steps = min(steps, settings.checkpoint_every - self.nit % settings.checkpoint_every)
        return steps

    def _show(self, callback: Callback | None) -> None:
        """Show the point that the run has reached."""
        control = self.loop.control
        if self._session.bar is not None:
            self._session.show(
                self.nit,
                fun=f"{control['best_fun'][0]:.4g}",
                gradient=f"{control['norm'][0]:.1e}",
            )
        if callback is None or self.status == stopping.NONFINITE:
            return
        try:
            callback(self.loop.here, self._seen)
        except StopIteration:
            self.status = STOPPED

    # ---- figures

    @property
    def nit(self) -> int:
        """Number of iterations, -1 before the first point."""
        return int(self.loop.control["nit"][0])

    def result(self, message: str | None = None, iterate: str | None = None) -> OptimizeResult:
        """What is known now, as SciPy's result."""
        self.loop.look()  # an exception may have come between
        control = self.loop.control
        iterate = iterate or self.settings.iterate
        now = SimpleNamespace(**{name: control[name].item() for name in stopping.OF_THE_POINT})
        which: int = stopping.which_point(stopping.ITERATES[iterate], [now])
        x, g, fun = self.loop.point(which)
        status = self.status
        if which == stopping.AVERAGE and status == stopping.CONVERGED and fun > now.goal:
            to_host = self.optimizer.vectors.to_host
            norm = projected_norm(to_host(x), to_host(g), self.optimizer.feasible_set)
            if not norm <= now.gtol:
                status = stopping.PRECISION
                message = f"The mean of the points has a projected gradient of {norm:.3g}."
        if message is None:
            message = _MESSAGES.get(self.status, "The run was interrupted.")
        if self.status == stopping.NONFINITE:
            what = "the gradient is not finite"
            if not np.isfinite(control["fun"][0]):
                what = f"fun is {float(control['fun'][0])}"
            message += f" At iteration {self.nit}, {what}."
        result = OptimizeResult(
            x=x,
            fun=fun,
            jac=g,
            nit=max(self.nit, 0),
            nfev=self.problem.nfev,
            njev=self.problem.njev,
            success=status == stopping.CONVERGED,
            status=status,
            message=message,
        )
        if self.settings.return_all:
            result["allvecs"] = self.loop.points(self.nit + 1)
        if self.settings.history:
            values = self.loop.history[: self.nit + 1].T.copy()
            names = ("fun", "gradient_norm", "learning_rate")
            result["history"] = OptimizeResult(zip(names, values, strict=True))
        return result

    def _so_far(self) -> OptimizeResult | None:
        return None if self.nit < 0 else self.result(iterate="best")

    def _seen(self) -> OptimizeResult:
        """What a callback sees."""
        x, g, fun = self.loop.point()
        return OptimizeResult(x=x, fun=fun, jac=g, nit=self.nit)

    # ---- files

    def save(self) -> None:
        """Write the run to its checkpoint file."""
        header, arrays = self.optimizer.snapshot()
        header |= {
            "kind": _KIND,
            "status": self.status,
            "nfev": self.problem.nfev,
            "njev": self.problem.njev,
        }
        arrays |= {"control": self.loop.control, **self.loop.arrays()}
        checkpoint.write(self.settings.checkpoint, header, arrays)

    def _is_due(self) -> bool:
        return self.nit % self.settings.checkpoint_every == 0

    def _resume(self, source: Any) -> None:
        header, arrays = checkpoint.read(source, _KIND)
        self._use(restored_optimizer(self.optimizer, header, arrays))
        missing = [name for name in self.loop.wanted() if not arrays.get(name, np.empty(0)).size]
        if missing:
            raise ValueError(f"the checkpoint was written without {', '.join(missing)}: "
                             "resume with the options of the first run")  # fmt: skip
        now = self.loop.control
        with checkpoint.refusing_damage(source):
            same = stopping.take_up(now, arrays["control"])
            self.loop.restore(arrays)
            self.problem.nfev, self.problem.njev = int(header["nfev"]), int(header["njev"])
        # Where steps are queued, it may be an earlier point than the last that ended the run.
        ended = header.get("status") in (stopping.CONVERGED, stopping.PRECISION)
        if ended and same:
            self.status = header["status"]
        elif math.isfinite(now["fun"][0]) and math.isfinite(now["norm"][0]):
            self.status = stopping.compile_verdict()(now)
        else:
            self.status = stopping.NONFINITE


def rates_ahead(optimizer: Optimizer, count: int) -> NDArray[np.float64]:
    """The rates of at most ``count`` steps: the error of a later one waits until it is reached."""
    try:
        return optimizer.rates(count)
    except Exception:
        return optimizer.rates(1)


def projected_norm(x: NDArray[Any], g: NDArray[Any], feasible_set: FeasibleSet | None) -> float:
    """The largest magnitude of x - project(x - g); infinite where g is not finite."""
    if not np.isfinite(g).all():
        return math.inf
    return float(np.abs(g if feasible_set is None else x - feasible_set.project(x - g)).max())


def restored_optimizer(
    mine: Optimizer, header: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> Optimizer:
    """The optimizer of a checkpoint, on the same x, if it does what this one does."""
    if header.get("feasible_set") != mine.set_fingerprint():
        raise checkpoint.Mismatch("other bounds or set in the file")
    restored = Optimizer.from_snapshot(
        header, arrays, mine.x, rule=mine.rule, feasible_set=mine.feasible_set
    )
    saved, given = ((opt._max_norm, opt._max_value) for opt in (restored, mine))
    if saved != given:
        raise checkpoint.Mismatch(f"(max_norm, max_value) = {saved} in the file, {given} given")
    return restored


def _print_summary(result: OptimizeResult) -> None:
    print(result.message)
    print(f"         Current function value: {result.fun:f}")
    print(f"         Iterations: {result.nit:d}")
    print(f"         Function evaluations: {result.nfev:d}")
    print(f"         Gradient evaluations: {result.njev:d}")
