"""minimize: SciPy's interface around the loop, and the door by which a rule is a SciPy method."""

import contextlib
import difflib
import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, OptimizeWarning

from numbelief import checkpoint, kernels, loop
from numbelief.checks import as_first_point, integer, real
from numbelief.optimizer import Optimizer, resolve_set
from numbelief.problem import Problem
from numbelief.rules import Rule
from numbelief.sets import Box

__all__ = ["minimize"]

_KIND = "numbelief.minimize"
_STOPPED = 99
# The texts of SciPy's BFGS, by status.
_MESSAGES = {
    loop.CONVERGED: "Optimization terminated successfully.",
    loop.MAXITER: "Maximum number of iterations has been exceeded.",
    loop.PRECISION: "Desired error not necessarily achieved due to precision loss.",
    loop.NONFINITE: "NaN result encountered.",
    _STOPPED: "`callback` raised `StopIteration`.",
}
# Between two looks at the clock; the look itself costs a few microseconds.
_LOOK_EVERY_S = 0.02
_MOST_STEPS = 1024


@dataclass(frozen=True)
class _Options:
    """The options that are not hyperparameters, checked."""

    maxiter: int = 10_000
    gtol: float = 1e-5
    ftol: float = 0.0
    xtol: float = 0.0
    maxtime: float = math.inf
    target: float = -math.inf
    disp: bool = False
    return_all: bool = False
    history: bool = False
    progress: bool = False
    iterate: str = "best"
    checkpoint: Any = None
    checkpoint_every: int = 1000
    resume: Any = False
    finite_difference: Any = None
    max_norm: float | None = None
    max_value: float | None = None

    def __post_init__(self) -> None:
        for name in ("maxiter", "checkpoint_every"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        for name in ("gtol", "ftol", "xtol", "maxtime", "target"):
            low = -math.inf if name == "target" else 0.0
            object.__setattr__(self, name, real(name, getattr(self, name), low))
        if self.checkpoint_every == 0:
            raise ValueError("checkpoint_every must be at least 1, got 0")
        if self.iterate not in ("best", "last", "average"):
            raise ValueError(f"iterate must be 'best', 'last' or 'average', got {self.iterate!r}")
        if self.checkpoint is not None:
            path = checkpoint.as_path("checkpoint", self.checkpoint, writable=True)
            object.__setattr__(self, "checkpoint", path)
        if isinstance(self.resume, (bool, np.bool)):
            object.__setattr__(self, "resume", bool(self.resume))
        else:
            object.__setattr__(self, "resume", checkpoint.as_path("resume", self.resume))
        if self.resume is True and self.checkpoint is None:
            raise ValueError(
                "resume=True continues from the file checkpoint=..., which is not given"
            )


def minimize(
    fun: Callable[..., Any],
    x0: ArrayLike,
    args: Any = (),
    method: str | Rule = "adabelief",
    jac: Any = None,
    bounds: Any = None,
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: dict[str, Any] | None = None,
    *,
    feasible_set: Box | None = None,
) -> OptimizeResult:
    r"""Minimize a function of many variables with a first-order rule, as ``scipy.optimize`` would.

    From :math:`x_0`, repeat :math:`x_{k+1} = \Pi(x_k - \eta_k d_k)` with the direction and rates of
    the rule, and return the best point.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args) -> float``; with ``jac=True`` it returns ``(f, g)``, and with
        ``jac="inplace"`` it is ``fun(x, grad, *args) -> float`` and fills ``grad``. It gets its own
        copy of x, of shape (n,) and of the dtype of the run.
    x0 : array_like of shape (n,)
        First point, never written to. float32 stays float32; integers become float64; a scalar is
        one variable.
    args : tuple, optional
        Further arguments of fun and jac.
    method : str or Rule, default "adabelief"
        A rule such as ``AdaBelief(learning_rate=0.1)``, or its lower-case name; with a name, its
        hyperparameters may stand in options. A rule without a learning rate has its
        ``default_rate``.
    jac : callable, bool or str, optional
        ``jac(x, *args) -> g`` of shape (n,): any array that NumPy or DLPack converts (lists, other
        dtypes, read-only or strided arrays, JAX arrays, PyTorch CPU tensors). True, "inplace": see
        fun (the array to fill is valid during the call only). "2-point" (also None), "3-point",
        "cs": finite differences, inside the bounds.
    bounds : scipy.optimize.Bounds or sequence of (min, max), optional
        Every point lies within them. An x0 outside is clipped, with a warning.
    tol : float, optional
        The same as ``options={"gtol": tol}``, as for SciPy's BFGS.
    callback : callable, optional
        ``callback(xk)`` or ``callback(intermediate_result=res)`` with ``res.x``, ``res.fun``,
        ``res.jac`` and ``res.nit``, after each iteration. StopIteration ends the run.
    options : dict, optional
        Hyperparameters of a method given by name, and:

        maxiter : int, default 10000
            Most iterations.
        gtol : float, default 1e-5
            Converged when the infinity norm of the projected gradient is at most this.
        ftol : float, default 0 (off)
            Converged when the best value fell by at most ``ftol * max(|f|, 1)`` in 50 iterations.
        xtol : float, default 0 (off)
            Converged when no coordinate moved by more than ``xtol * (xtol + max|x|)``.
        target : float, default -inf (off)
            Converged when fun is at most this.
        maxtime : float, default inf
            Seconds of this call after which it ends with status 1; the compilation that a rule's
            first use on a machine needs counts too.
        iterate : {"best", "last", "average"}, default "best"
            The point to return: the one of lowest fun, the last, or the mean of all.
        max_norm, max_value : float, optional
            Scale the gradient down to this Euclidean norm; then clip its coordinates.
        disp, progress, return_all, history : bool, default False
            Print a summary; show a progress bar (needs tqdm); keep every point in ``allvecs``; keep
            ``history.fun``, ``history.gradient_norm`` and ``history.learning_rate`` (the rate of
            the step to the point; NaN at x0).
        checkpoint : path-like, optional
            File to which the run is written every ``checkpoint_every`` (default 1000) iterations
            and at its end.
        resume : bool or path-like, default False
            Continue a checkpointed run, bit for bit: from this path, or with True from the
            ``checkpoint`` file if it exists already.
        finite_difference : dict, optional
            ``{"rel_step": h}`` or ``{"abs_step": h}``; SciPy's steps otherwise.
    feasible_set : Box, optional
        The bounds as a set; give one of the two.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x, fun, jac, nit, nfev, njev, success, status, message``. Status and message are those of
        SciPy's BFGS: 0 a tolerance was met (only then success is True), 1 maxiter or maxtime, 2 no
        change of fun and gradient in 1000 iterations, 3 fun or the gradient is not finite (x is the
        best point before), 99 the callback raised StopIteration.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of range, or fun or jac returned something of the
        wrong shape or type. What the user's functions raise, they raise; the exception then carries
        the result so far as its attribute ``intermediate_result``.

    Warns
    -----
    OptimizeWarning
        An option is not known, or x0 lies outside the bounds.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> res = numbelief.minimize(
    ...     lambda x: ((x - 3) ** 2).sum(),
    ...     np.zeros(4),
    ...     jac=lambda x: 2 * (x - 3),
    ...     method=numbelief.AdaBelief(learning_rate=0.1),
    ... )
    >>> res.success, res.x.round(4)
    (True, array([3., 3., 3., 3.]))
    """
    rule, settings = _read_options(method, tol, options)
    x = as_first_point(x0)
    box = resolve_set(feasible_set, bounds, x.size)
    if box is not None:
        limits = box.limits(x.size, x.dtype)
        clipped = np.clip(x, *limits)
        # To the precision of x: a float32 bound may lie one rounding inside the one given.
        if not box.contains(x, tol=np.spacing(np.abs(x))):
            warnings.warn(
                "Initial guess is not within the specified bounds", OptimizeWarning, stacklevel=2
            )
        x = clipped
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {callback!r}")
    problem = Problem(fun, jac, args, x.size, box, settings.finite_difference)
    run = _Run(problem, rule, x, box, settings)
    return run.go(_Hooks(type(rule).__name__, callback, settings))


class _Run:
    """A minimization between its points: the arrays of the loop, and what is made of them."""

    def __init__(
        self, problem: Problem, rule: Rule, x: NDArray[Any], box: Box | None, settings: _Options
    ) -> None:
        n, dtype = x.size, x.dtype
        self.problem = problem
        self.settings = settings
        self.x, self.g = x, np.zeros_like(x)
        self.optimizer = Optimizer(
            rule, x, feasible_set=box, max_norm=settings.max_norm, max_value=settings.max_value
        )
        self.optimizer.rates(1)  # a schedule that fails does so before any work
        self.control = loop.new_control(
            maxiter=settings.maxiter,
            gtol=settings.gtol,
            ftol=settings.ftol,
            xtol=settings.xtol,
            goal=settings.target,
        )
        self.kept: dict[str, NDArray[Any]] = {
            "recent": np.zeros(loop.WINDOW),
            "best": np.zeros((2, n), dtype),
        }
        if settings.iterate == "average":
            self.kept["average"] = np.zeros(n, dtype)
        if settings.xtol > 0:
            self.kept["previous"] = x.copy()
        if settings.history:
            self.kept["history"] = np.full((3, 1), math.nan)
        if settings.return_all:
            self.kept["allvecs"] = np.empty((0, n), dtype)
        self.allvecs: list[NDArray[Any]] = []
        self.status = loop.RUNNING
        self.began = time.perf_counter()

    # ---- advancing

    def go(self, hooks: "_Hooks") -> OptimizeResult:
        """Run to the end; on an exception, attach the result so far to it."""
        try:
            self._begin()
            message = None
            steps = 1
            while self.status == loop.RUNNING:
                started = time.perf_counter()
                if started - self.began >= self.settings.maxtime:
                    self.status, message = loop.MAXITER, "Maximum time has been exceeded."
                    break
                steps = hooks.limit(self, steps)
                self.advance(steps)
                if self.settings.return_all:
                    self.allvecs.append(self.x.copy())
                try:
                    hooks.after(self)
                except StopIteration:
                    self.status = _STOPPED
                per_step = (time.perf_counter() - started) / steps
                steps = max(
                    1, min(_MOST_STEPS, 2 * steps, int(_LOOK_EVERY_S / max(per_step, 1e-9)))
                )
                self._save_if_due()
            if self.settings.checkpoint is not None:
                self.save()
            result = self.result(message)
        except BaseException as error:
            self._attach(error)
            raise
        finally:
            hooks.close()
        if self.settings.disp:
            _print_summary(result)
        return result

    def advance(self, count: int) -> None:
        """Take at most so many steps, fewer if the run ends."""
        rates = self.optimizer.rates(count)
        self.status = self._loop(loop.run, rates)

    def _begin(self) -> None:
        """Evaluate the first point, or take up a saved run."""
        source = self.settings.resume
        if source is True:
            source = self.settings.checkpoint if os.path.exists(self.settings.checkpoint) else None
        if source:
            self._resume(source)
            return
        self.status = self._loop(_first)
        if self.settings.return_all:
            self.allvecs.append(self.x.copy())

    def _loop(self, body: Callable[..., int], rates: list[float] | None = None) -> int:
        """Call the loop, or what it does at the first point, with everything it takes."""
        opt = self.optimizer
        large = opt.x.size >= kernels.RELEASE_GIL_FROM
        parallel = opt.runs_parallel()
        observe = loop.compile_observe(parallel=parallel, nogil=large)
        rates = [] if rates is None else rates
        self._make_room(len(rates))
        lower, upper = opt.limits
        watch = (
            self.control, self.kept["recent"], self.kept["best"], lower, upper,
            self.kept.get("average"), self.kept.get("previous"), self.kept.get("history"),
        )  # fmt: skip
        return body(
            self.problem.evaluate, opt.kernel(parallel=parallel), observe, rates,
            self.x, self.g, *opt.arrays, opt.options, watch,
        )  # fmt: skip

    def _make_room(self, count: int) -> None:
        if (history := self.kept.get("history")) is not None:
            needed = self.nit + 1 + max(count, 1)
            if needed > history.shape[1]:
                larger = np.full((3, 2 * needed), math.nan)
                larger[:, : history.shape[1]] = history
                self.kept["history"] = larger

    # ---- figures

    @property
    def nit(self) -> int:
        """Number of iterations, -1 before the first point."""
        return int(self.control["nit"][0])

    def result(self, message: str | None = None, iterate: str | None = None) -> OptimizeResult:
        """What is known now, as SciPy's result."""
        iterate = iterate or self.settings.iterate
        found = bool(np.isfinite(self.control["best_fun"][0]))
        x, g, fun = self.x.copy(), self.g.copy(), float(self.control["fun"][0])
        if found and (iterate == "best" or self.status == loop.NONFINITE):
            (x, g), fun = self.kept["best"].copy(), float(self.control["best_fun"][0])
        elif found and iterate == "average":
            x = self.kept["average"].copy()
            fun = self.problem.evaluate(x, g)
        if message is None:
            message = _MESSAGES.get(self.status, "The run was interrupted.")
        if self.status == loop.NONFINITE:
            what = "the gradient is not finite"
            if not np.isfinite(self.control["fun"][0]):
                what = f"fun is {float(self.control['fun'][0])}"
            message += f" At iteration {self.nit}, {what}."
        result = OptimizeResult(
            x=x,
            fun=fun,
            jac=g,
            nit=max(self.nit, 0),
            nfev=self.problem.nfev,
            njev=self.problem.njev,
            success=self.status == loop.CONVERGED,
            status=self.status,
            message=message,
        )
        if self.settings.return_all:
            result["allvecs"] = list(self.allvecs)
        if self.settings.history:
            values = self.kept["history"][:, : self.nit + 1].copy()
            names = ("fun", "gradient_norm", "learning_rate")
            result["history"] = OptimizeResult(zip(names, values, strict=True))
        return result

    def _attach(self, error: BaseException) -> None:
        if self.nit < 0:
            return
        with contextlib.suppress(Exception):  # nothing may hide the user's own exception
            error.intermediate_result = self.result(iterate="best")  # type: ignore[attr-defined]

    # ---- files

    def save(self) -> None:
        """Write the run to its checkpoint file."""
        header, arrays = self.optimizer.snapshot()
        header |= {
            "kind": _KIND,
            "nfev": self.problem.nfev,
            "njev": self.problem.njev,
        }
        if self.settings.return_all:
            self.kept["allvecs"] = np.array(self.allvecs)
        arrays |= {"g": self.g, "control": self.control, **self.kept}
        checkpoint.write(self.settings.checkpoint, header, arrays)

    def _save_if_due(self) -> None:
        if self.settings.checkpoint is not None and self.nit % self.settings.checkpoint_every == 0:
            self.save()

    def _resume(self, source: Any) -> None:
        header, arrays = checkpoint.read(source, _KIND)
        missing = [name for name in self.kept if name not in arrays]
        if missing:
            raise ValueError(f"the checkpoint was written without {', '.join(missing)}: "
                             "resume with the options of the first run")  # fmt: skip
        box = self.optimizer.box
        restored = Optimizer.from_snapshot(header, arrays, self.x, rule=self.optimizer.rule)
        if box is not None or restored.box is not None:
            pairs = (o.limits for o in (self.optimizer, restored))
            if not all(np.array_equal(a, b) for a, b in zip(*pairs, strict=True)):
                raise ValueError("the checkpoint does not match: other bounds in the file")
        if restored.options[1:3] != self.optimizer.options[1:3]:
            raise ValueError(
                "the checkpoint does not match: (max_norm, max_value) = "
                f"{restored.options[1:3]} in the file, {self.optimizer.options[1:3]} given"
            )
        self.optimizer = restored
        self.g[...] = arrays["g"]
        for name in loop.FIGURES:
            self.control[name] = arrays["control"][name]
        for name in self.kept:
            self.kept[name] = arrays[name]
        self.allvecs = list(self.kept.get("allvecs", ()))
        self.problem.nfev, self.problem.njev = header["nfev"], header["njev"]
        finite = math.isfinite(self.control["fun"][0]) and math.isfinite(self.control["norm"][0])
        self.status = loop.NONFINITE
        if finite:
            self.status = loop.compile_verdict()(self.control)


class _Hooks:
    """What happens between iterations: the callback and the progress bar."""

    def __init__(self, name: str, callback: Callable[..., Any] | None, settings: _Options) -> None:
        self._callback = callback
        self._by_keyword = callback is not None and _takes_result(callback)
        self._bar = _progress_bar(name, settings.maxiter) if settings.progress else None

    def limit(self, run: _Run, steps: int) -> int:
        """How many steps may be taken before the next look."""
        settings = run.settings
        if self._callback is not None or settings.return_all or settings.maxtime < math.inf:
            return 1
        steps = min(steps, settings.maxiter - run.nit)
        if settings.checkpoint is not None:
            steps = min(steps, settings.checkpoint_every - run.nit % settings.checkpoint_every)
        return steps

    def after(self, run: _Run) -> None:
        """Look at the point that the run stands at."""
        if self._bar is not None:
            self._bar.update(run.nit - self._bar.n)
            self._bar.set_postfix(
                fun=f"{run.control['best_fun'][0]:.4g}",
                gradient=f"{run.control['norm'][0]:.1e}",
                refresh=False,
            )
        if self._callback is None or run.status == loop.NONFINITE:
            return
        if self._by_keyword:
            fun = float(run.control["fun"][0])
            now = OptimizeResult(x=run.x.copy(), fun=fun, jac=run.g.copy(), nit=run.nit)
            self._callback(intermediate_result=now)
        else:
            self._callback(run.x.copy())

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _first(evaluate: Any, step: Any, observe: Any, rates: Any, x: Any, g: Any, *rest: Any) -> int:
    """The loop's beginning: look at x0."""
    status: int = observe(evaluate(x, g), math.nan, x, g, *rest[-1])
    return status


def scipy_method(
    rule: Rule,
    fun: Callable[..., Any],
    x0: ArrayLike,
    args: Any = (),
    *,
    jac: Any = None,
    bounds: Any = None,
    callback: Any = None,
    tol: float | None = None,
    hess: Any = None,
    hessp: Any = None,
    constraints: Any = (),
    **options: Any,
) -> OptimizeResult:
    """Minimize as ``scipy.optimize.minimize(..., method=rule)`` asks a custom method to."""
    if np.any(constraints):
        warnings.warn("A numbelief rule cannot handle constraints.", RuntimeWarning, stacklevel=3)
    if hess is not None or hessp is not None:
        warnings.warn(
            "A numbelief rule does not use Hessian information.", RuntimeWarning, stacklevel=3
        )
    # SciPy wraps a fun that returns (f, g) so that it is evaluated once a point. The wrapper would
    # give a stochastic objective's old value whenever x has not moved: take the function itself.
    if getattr(jac, "__self__", None) is fun and type(fun).__name__ == "MemoizeJac":
        fun, jac = fun.fun, True
    return minimize(fun, x0, args, rule, jac, bounds, tol, callback, options)


Rule.__call__ = scipy_method


# ---- reading the arguments ---------------------------------------------------------------------


def _read_options(
    method: Any, tol: float | None, options: dict[str, Any] | None
) -> tuple[Rule, _Options]:
    if not isinstance(options, (dict, type(None))):
        raise TypeError(f"options must be a dict, got {options!r}")
    given = dict(options or {})
    hyperparameters: dict[str, Any] = {}
    if isinstance(method, str):
        kind = Rule.registry.get(method.lower())
        if kind is None:
            near = difflib.get_close_matches(method.lower(), Rule.registry, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ValueError(
                f"unknown method {method!r}: {hint}known are {', '.join(Rule.registry)}"
            )
        names = {f.name for f in fields(kind) if f.init}
        hyperparameters = {name: given.pop(name) for name in list(given) if name in names}
        rule = kind(**hyperparameters)
    elif isinstance(method, Rule):
        rule = method
    else:
        raise TypeError(f"method must be a rule such as AdaBelief() or its name, got {method!r}")
    known = {f.name for f in fields(_Options)}
    unknown = [name for name in given if name not in known]
    if unknown:
        message = f"Unknown solver options: {', '.join(map(str, unknown))}"
        warnings.warn(message, OptimizeWarning, stacklevel=3)
    if tol is not None:
        given.setdefault("gtol", real("tol", tol, 0.0))
    given = {name: value for name, value in given.items() if name in known and value is not None}
    return rule, _Options(**given)


def _takes_result(callback: Callable[..., Any]) -> bool:
    try:
        return set(signature(callback).parameters) == {"intermediate_result"}
    except (TypeError, ValueError):  # a builtin without a signature
        return False


def _progress_bar(name: str, total: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install numbelief[progress]") from error
    return tqdm(total=total, unit="it", desc=name)


def _print_summary(result: OptimizeResult) -> None:
    print(result.message)
    print(f"         Current function value: {result.fun:f}")
    print(f"         Iterations: {result.nit:d}")
    print(f"         Function evaluations: {result.nfev:d}")
    print(f"         Gradient evaluations: {result.njev:d}")
