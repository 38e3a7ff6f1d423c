"""minimize: SciPy's interface around the loop, and the door by which a rule is a SciPy method."""

import contextlib
import functools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, OptimizeWarning

from numbelief import checkpoint, cuda, device, kernels, loop, native, tuning
from numbelief.callbacks import Callback, as_callback, progress_bar
from numbelief.checks import as_first_point
from numbelief.optimizer import Optimizer, resolve_set
from numbelief.options import Options, read_options
from numbelief.problem import Problem, as_args
from numbelief.rules import Lookahead, Rule, without_lookahead
from numbelief.sets import Box, FeasibleSet

__all__ = ["minimize"]

_KIND = "numbelief.minimize"
_OUTSIDE = "Initial guess is not within the specified bounds"
STOPPED = 99
# The texts of SciPy's BFGS, by status.
_MESSAGES = {
    loop.CONVERGED: "Optimization terminated successfully.",
    loop.MAXITER: "Maximum number of iterations has been exceeded.",
    loop.PRECISION: "Desired error not necessarily achieved due to precision loss.",
    loop.NONFINITE: "NaN result encountered.",
    STOPPED: "`callback` raised `StopIteration`.",
}
# The settings of `loop.CONTROL` that let a point end the run as converged.
_TOLERANCES = ("gtol", "ftol", "xtol", "goal")
# Between two looks at the clock; the look itself costs a few microseconds.
LOOK_EVERY_S = 0.02


def minimize(
    fun: Callable[..., Any],
    x0: ArrayLike,
    args: Any = (),
    method: str | Rule | Lookahead = "adabelief",
    jac: Any = None,
    bounds: Any = None,
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    options: dict[str, Any] | None = None,
    *,
    feasible_set: FeasibleSet | None = None,
) -> OptimizeResult:
    r"""Minimize a function of many variables with a first-order rule, as ``scipy.optimize`` would.

    From :math:`x_0`, repeat :math:`x_{k+1} = \Pi(x_k - \eta_k d_k)` with the direction and rates of
    the rule, and return the best point. Around functions that Numba compiled the whole loop runs in
    machine code, to the same bits.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args) -> float``; with ``jac=True`` it returns ``(f, g)``, and with
        ``jac="inplace"`` it is ``fun(x, grad, *args) -> float`` and fills ``grad``. It gets its own
        copy of x, of shape (n,) and of the dtype of the run.
    x0 : array_like or device array of shape (n,)
        First point, never written to. float32 stays float32; integers become float64; a scalar is
        one variable. An array on an NVIDIA GPU, of CuPy, PyTorch or Numba, stays there (see Notes).
    args : tuple, optional
        Further arguments of fun and jac; numbers and arrays where these are compiled.
    method : str, Rule or Lookahead, default "adabelief"
        A rule such as ``AdaBelief(learning_rate=0.1)``, or its lower-case name; with a name, its
        hyperparameters may stand in options. A rate that is given is used as given. A rule without
        one finds it by itself (``learning_rate="auto"``, see Notes).
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
            Converged when the infinity norm of the projected gradient,
            :math:`x - \\Pi(x - g)`, is at most this.
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
        compiled : bool, optional
            False runs Python's loop around compiled functions, too; True refuses others.
    feasible_set : FeasibleSet, optional
        A set of `numbelief.sets` in place of bounds: every point lies in it. Finite differences
        stay inside a `Box` only.

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
        An option is not known; x0 lies outside the bounds; a weight decay or a Lookahead comes
        without a rate.

    Notes
    -----
    With ``learning_rate="auto"`` the rule's step is the preconditioner of a limited-memory
    quasi-Newton method with a line search: the last 8 steps correct the gradient that the rule sees
    and the displacement that it answers with, and a step is shortened until fun falls. No accepted
    point is worse than the one before (beyond rounding); an iteration may evaluate fun more than
    once; the units of fun and x do not matter, except for the tolerances; 18 arrays of the size of
    x are kept. It needs a fun that gives the same value twice: give a rate where fun is random.
    Weight decay is no part of fun, which the line search looks at, and is left out; so is a
    `Lookahead`, whose place the line search takes. The method and its sources stand at the top of
    ``numbelief/tuning.py``.

    With x0 on a GPU, the points, gradients and state stay there. Its stream is the one that is
    current in PyTorch or CuPy, for their arrays, at the call, else CUDA's default one: fun may
    not work on another. x0 is float32 or float64. fun and jac are Python functions that get the
    run's own x, an array of x0's library, neither to be changed nor to be kept; gradients are
    contiguous arrays there, of x0's dtype; fun may return a number there, too. jac is a
    callable, True or "inplace". Steps at a given rate are queued: fun, norms and moves come to
    the host at most 32 steps apart (or some 20 ms; after each step with a callback), and only
    then tolerances, target, maxtime and values that are not finite end the run. What was queued
    counts in nit, history and the best point up to a point that is not finite, and all of it in
    nfev and njev. With ``learning_rate="auto"`` a trial brings fun and two results of
    reductions to the host. x, jac and allvecs are arrays of x0's library. For a ``checkpoint``
    all that is kept comes to the host; what was saved with x0 on a GPU may go on on a CPU, and
    the other way round: agreeing to rounding. Sets other than a `Box` are refused; arrays of
    JAX are, as nothing may write to them: pass ``cupy.from_dlpack(x0)``.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> res = numbelief.minimize(lambda x: ((x - 3) ** 2).sum(), [0.0], jac=lambda x: 2 * (x - 3))
    >>> res.success, res.x.round(4)
    (True, array([3.]))

    With a rate of one's own, the rule's paper to the letter:

    >>> res = numbelief.minimize(
    ...     lambda x: ((x - 3) ** 2).sum(),
    ...     np.zeros(4),
    ...     jac=lambda x: 2 * (x - 3),
    ...     method=numbelief.AdaBelief(learning_rate=0.1),
    ... )
    >>> res.success, res.x.round(4)
    (True, array([3., 3., 3., 3.]))
    """
    rule, settings = read_options(method, tol, options, Options)
    seen = as_callback(callback)
    if any(isinstance(arg, native.PerRow) for arg in as_args(args)):
        raise TypeError("per_row marks the data of minimize_many: pass one row to minimize")
    run: Run
    if cuda.is_device_array(x0):
        x, card, place = first_point_on_card(x0, feasible_set, bounds)
        on_card = device.DeviceProblem(fun, jac, args, x, card, settings.compiled)
        run = DeviceRun(on_card, rule, x, place, settings)
    else:
        x, place = first_point(x0, feasible_set, bounds)
        problem = Problem(fun, jac, args, x, place, settings.finite_difference, settings.compiled)
        run = Run(problem, rule, x, place, settings)
    return run.go(_Hooks(type(run.optimizer.rule).__name__, seen, settings))


def first_point(x0: Any, feasible_set: Any, bounds: Any) -> tuple[NDArray[Any], FeasibleSet | None]:
    """A copy of x0, moved into its set, and the set."""
    x = as_first_point(x0)
    place = resolve_set(feasible_set, bounds, x.size)
    return move_into(place, x, 4), place


def first_point_on_card(
    x0: Any, feasible_set: Any, bounds: Any
) -> tuple[Any, cuda.Card, FeasibleSet | None]:
    """The same on the card of x0."""
    x, card = device.as_first_point(x0)
    place = resolve_set(feasible_set, bounds, card.x.size, on_card=True)
    move_on_card(place, card, card.x.size)
    return x, card, place


def move_on_card(place: FeasibleSet | None, card: cuda.Card, n: int) -> None:
    """What `move_into` does, to the points of n coordinates in the card's x."""
    if place is None:
        return
    assert isinstance(place, Box)  # `resolve_set` refuses others on a GPU
    if device.Launcher(card).confine(*place.limits(n, card.x.dtype)):
        warnings.warn(_OUTSIDE, OptimizeWarning, stacklevel=4)


def move_into(place: FeasibleSet | None, x: NDArray[Any], stacklevel: int = 3) -> NDArray[Any]:
    """First points moved into their set, with a warning where they were not."""
    if place is None:
        return x
    if not isinstance(place, Box):
        rows = x.reshape(-1, x.shape[-1])
        finite = np.isfinite(rows).all(axis=1)
        if not all(map(place.contains, rows[finite])):
            message = "Initial guess is not within the feasible set"
            warnings.warn(message, OptimizeWarning, stacklevel=stacklevel)
        moved = [
            place.project(each) if known else each for each, known in zip(rows, finite, strict=True)
        ]
        return np.stack(moved).reshape(x.shape)
    box = place
    # To the precision of x: a float32 bound may lie one rounding inside the one given.
    inside = np.isfinite(x)
    if not box.contains(np.where(inside, x, box.project(x)), tol=np.spacing(np.abs(x))):
        warnings.warn(_OUTSIDE, OptimizeWarning, stacklevel=stacklevel)
    lower, upper = box.limits(x.shape[-1], x.dtype)
    clipped: NDArray[Any] = np.clip(x, lower, upper)
    return clipped


class Run:
    """A minimization between its points: the arrays of the loop, and what is made of them."""

    def __init__(
        self,
        problem: Any,
        rule: Rule | Lookahead,
        x: Any,
        place: FeasibleSet | None,
        settings: Options,
    ) -> None:
        self.problem = problem
        self.settings = settings
        self.x = x
        self.automatic = rule.learning_rate is None
        if self.automatic:  # the search looks at fun, to which no decay belongs
            rule = replace(without_lookahead(rule), weight_decay=0.0)
        self.optimizer = Optimizer(
            rule, x, feasible_set=place, max_norm=settings.max_norm, max_value=settings.max_value
        )
        self.optimizer.rates(1)  # a schedule that fails does so before any work
        self.control = loop.new_control(
            maxiter=settings.maxiter,
            gtol=settings.gtol,
            ftol=settings.ftol,
            xtol=settings.xtol,
            goal=settings.target,
        )
        self.kept: dict[str, NDArray[Any]] = {"recent": np.full(loop.WINDOW, math.inf)}
        self._allocate()
        self.status = loop.RUNNING
        self.began = time.perf_counter()

    def _allocate(self) -> None:
        """Make room for what the loop keeps of the points that it sees."""
        settings, x = self.settings, self.x
        n, dtype = x.size, x.dtype
        self.g = np.zeros_like(x)
        self.kept["best"] = np.zeros((2, n), dtype)
        shapes = {"average": (n,), "previous": (n,), "history": (1, 3), "allvecs": (1, n)}
        wanted = {
            "average": settings.iterate == "average",
            "previous": settings.xtol > 0,
            "history": settings.history,
            "allvecs": settings.return_all,
        }
        for name, shape in shapes.items():
            kind = float if name == "history" else dtype
            # An empty array is not kept: not None, so that no option has a kernel of its own.
            self.kept[name] = np.zeros(shape if wanted[name] else (0, *shape[1:]), kind)
        in_units = settings.max_norm is not None or settings.max_value is not None
        # Corrected by pairs, a step would leave the metric in which its projection leads down.
        pairs = tuning.PAIRS if self.optimizer.projection is None else 0
        self.tuner = tuning.new_tuner(x, on=self.automatic, scaled=not in_units, pairs=pairs)
        self._probe = None
        if self.optimizer.projection is not None:
            self._probe = np.ones((2, n), dtype)
        if self.automatic:
            self.kept |= dict(zip(tuning.NAMES, self.tuner, strict=True))

    @property
    def most_steps(self) -> float:
        """How many steps may be taken without a look at the clock."""
        slow = self.settings.maxtime < math.inf and self.problem.native is None
        return 1 if slow else math.inf

    # ---- advancing

    def go(self, hooks: "_Hooks | None" = None) -> OptimizeResult:
        """Run to the end; on an exception, attach the result so far to it."""
        hooks = hooks or _Hooks("", None, replace(self.settings, progress=False))
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
                try:
                    hooks.after(self)
                except StopIteration:
                    self.status = STOPPED
                per_step = (time.perf_counter() - started) / steps
                steps = max(1, min(16 * steps, int(LOOK_EVERY_S / max(per_step, 1e-9))))
                self._save_if_due()
            if self.settings.checkpoint is not None:
                self.save()
            result = self.result(message)
            if self.optimizer.projection is not None and np.isfinite(result.x).all():
                self.optimizer.report(result.x)
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
        self._make_room(count)
        self.status = self._loop(self.rates(count))

    def rates(self, count: int) -> NDArray[np.float64]:
        """The rates of the next steps; NaN for an automatic one."""
        return np.full(count, math.nan) if self.automatic else self.optimizer.rates(count)

    def _begin(self) -> None:
        """Evaluate the first point, or take up a saved run."""
        source = self.settings.resume_from
        if source is None:
            self._evaluate_x0()
        else:
            self._resume(source)

    def _evaluate_x0(self) -> None:
        fun = self.problem.first(self.x, self.g)
        self.status = self._observe()(fun, math.nan, self.x, self.g, *self.watch())

    def _loop(self, rates: NDArray[np.float64]) -> int:
        """Run the loop: in machine code around a compiled objective, else in Python."""
        opt, problem = self.optimizer, self.problem
        arrays = (rates, self.x, self.g, *opt.arrays, opt.options, self.watch(), self.tuner)
        if problem.native is None:
            return int(self._in_python(*arrays, ()))
        run = loop.compile_run(opt.inner, parallel=opt.runs_parallel())
        data, block, _alive = problem.native.block(self.x.size)
        try:
            status = int(run(*arrays, (problem.native.address, data, block)))
        except native.Raised:  # called from Python, it says of which length
            problem.evaluate(self.x, self.g)
            raise
        finally:
            problem.nfev += int(block[native.CALLS])
            problem.njev += int(block[native.CALLS])
        return status

    @functools.cached_property
    def _in_python(self) -> Any:
        """The loop around an objective that Python calls."""
        opt, large = self.optimizer, self.x.size >= kernels.RELEASE_GIL_FROM
        return loop.bind(opt.inner, self.problem.evaluate, parallel=opt.wants_parallel, nogil=large)

    def _observe(self) -> Any:
        large = self.x.size >= kernels.RELEASE_GIL_FROM
        return loop.compile_observe(parallel=self.optimizer.runs_parallel(), nogil=large)

    def watch(self) -> tuple[Any, ...]:
        """What the loop keeps of the points it sees."""
        optional = (self.kept[name] for name in ("average", "previous", "history", "allvecs"))
        return (
            self.control,
            self.kept["recent"],
            self.kept["best"],
            *(self.optimizer.limits or (None, None)),
            self._probe,
            self.optimizer.projection,
            *optional,
        )

    def _make_room(self, count: int) -> None:
        """Let history and allvecs hold the points of so many steps more."""
        needed = self.nit + 1 + count
        for name in ("history", "allvecs"):
            old = self.kept.get(name, np.empty(0))
            if 0 < len(old) < needed:
                self.kept[name] = np.empty((2 * needed, old.shape[1]), old.dtype)
                self.kept[name][: len(old)] = old

    # ---- figures

    @property
    def nit(self) -> int:
        """Number of iterations, -1 before the first point."""
        return int(self.control["nit"][0])

    def result(self, message: str | None = None, iterate: str | None = None) -> OptimizeResult:
        """What is known now, as SciPy's result."""
        iterate = iterate or self.settings.iterate
        which: int = loop.choose(loop.ITERATES[iterate], self.control)
        x, g, fun = self.point(which)
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
            result["allvecs"] = self._all_points()
        if self.settings.history:
            values = self.kept["history"][: self.nit + 1].T.copy()
            names = ("fun", "gradient_norm", "learning_rate")
            result["history"] = OptimizeResult(zip(names, values, strict=True))
        return result

    def here(self) -> Any:
        """A copy of x."""
        return self.x.copy()

    def seen(self) -> OptimizeResult:
        """What a callback sees."""
        x, g, fun = self.point()
        return OptimizeResult(x=x, fun=fun, jac=g, nit=self.nit)

    def point(self, which: int = loop.LAST) -> tuple[Any, Any, float]:
        """Copies of x and the gradient at one of the points to return, and fun."""
        if which == loop.BEST:
            x, g = self.kept["best"].copy()
            return x, g, float(self.control["best_fun"][0])
        if which == loop.AVERAGE:
            x, g = self.kept["average"].copy(), self.g.copy()
            return x, g, self.problem.evaluate(x, g)
        return self.here(), self.g.copy(), float(self.control["fun"][0])

    def _all_points(self) -> list[Any]:
        return list(self.kept["allvecs"][: self.nit + 1].copy())

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
            "status": self.status,
            "nfev": self.problem.nfev,
            "njev": self.problem.njev,
        }
        arrays |= {"control": self.control, **self._arrays()}
        checkpoint.write(self.settings.checkpoint, header, arrays)

    def _wanted(self) -> list[str]:
        """The names of what is kept."""
        return [name for name, mine in self.kept.items() if mine.size]

    def _arrays(self) -> dict[str, Any]:
        """The gradient and what is kept, as a file holds them."""
        return {"g": self.g, **self.kept}

    def _put_back(self, arrays: dict[str, NDArray[Any]]) -> None:
        """The way back."""
        self._take(arrays, self._wanted())
        checkpoint.check_like("g", arrays["g"], self.g)
        self.g[...] = arrays["g"]
        if self.automatic:
            self.tuner = tuple(self.kept[name] for name in tuning.NAMES)

    def _take(self, arrays: dict[str, NDArray[Any]], names: list[str]) -> None:
        """Keep what a file has kept."""
        for name in names:
            rows = self.nit + 1 if name in ("history", "allvecs") else None
            checkpoint.check_like(name, arrays[name], self.kept[name], rows)
            self.kept[name] = arrays[name]

    def _save_if_due(self) -> None:
        if self.settings.checkpoint is not None and self.nit % self.settings.checkpoint_every == 0:
            self.save()

    def _resume(self, source: Any) -> None:
        header, arrays = checkpoint.read(source, _KIND)
        self.optimizer = restored_optimizer(self.optimizer, header, arrays)
        missing = [name for name in self._wanted() if not arrays.get(name, np.empty(0)).size]
        if missing:
            raise ValueError(f"the checkpoint was written without {', '.join(missing)}: "
                             "resume with the options of the first run")  # fmt: skip
        now = self.control
        with checkpoint.refusing_damage(source):
            saved = arrays["control"]
            checkpoint.check_like("control", saved, now)
            for name in loop.FIGURES:
                now[name] = saved[name]
            self._put_back(arrays)
            self.problem.nfev, self.problem.njev = int(header["nfev"]), int(header["njev"])
        # Where steps are queued, it may be an earlier point than the last that ended the run.
        ended = header.get("status") in (loop.CONVERGED, loop.PRECISION)
        if ended and all(saved[name] == now[name] for name in _TOLERANCES):
            self.status = header["status"]
        elif math.isfinite(now["fun"][0]) and math.isfinite(now["norm"][0]):
            self.status = loop.compile_verdict()(now)
        else:
            self.status = loop.NONFINITE


class DeviceRun(Run):
    """The same on a GPU: steps are queued, and looked at together."""

    problem: device.DeviceProblem

    def _allocate(self) -> None:
        settings = self.settings
        self.kept["history"] = np.zeros((int(settings.history), 3))
        self._points = device.Points(
            self.optimizer,
            average=settings.iterate == "average",
            moves=settings.xtol > 0,
            every=settings.return_all,
        )

    @functools.cached_property
    def _search(self) -> device.Search | None:
        """The automatic rate, around the optimizer that may have come from a file."""
        if not self.automatic:
            return None
        scaled = self.settings.max_norm is None and self.settings.max_value is None
        return device.Search(self.optimizer, self.problem, self._points, scaled=scaled)

    @property
    def most_steps(self) -> float:
        """A look at the figures is one at the clock, too."""
        return device.LOOK_EVERY

    def _evaluate_x0(self) -> None:
        if self._search is None:
            value, place = self.problem.evaluate()
        else:
            value, place = self._search.evaluate(), None
        self._points.note(value, place, math.nan, self._gradient)
        self.status = self._look()

    def _loop(self, rates: NDArray[np.float64]) -> int:
        if self._search is not None:
            return self._search.run(rates, *self._figures)
        device.bind_run(self.optimizer, self.problem, self._points)(rates)
        return self._look()

    @property
    def _figures(self) -> tuple[NDArray[Any], ...]:
        return self.control, self.kept["recent"], self.kept["history"]

    @property
    def _gradient(self) -> Any:
        return self.problem.gradient if self._search is None else self._search.g

    def _look(self) -> int:
        return self._points.look(*self._figures)

    def result(self, message: str | None = None, iterate: str | None = None) -> OptimizeResult:
        self._look()  # an exception may have come between
        return super().result(message, iterate)

    def here(self) -> Any:
        return device.duplicate(self.x)

    def point(self, which: int = loop.LAST) -> tuple[Any, Any, float]:
        x, g = self._points.point(which, self._gradient)
        if which == loop.AVERAGE:
            fun = self.problem.value(x)
            g = self._points.copy(self.problem.gradient)
        else:
            fun = float(self.control["best_fun" if which == loop.BEST else "fun"][0])
        self.problem.wait()
        return x, g, fun

    def _all_points(self) -> list[Any]:
        return self._points.every[: self.nit + 1]

    def _on_card(self) -> dict[str, Any]:
        """What is kept there, by name."""
        search = {} if self._search is None else self._search.kept
        return {**self._points.kept, **search}

    def _wanted(self) -> list[str]:
        return [*super()._wanted(), *self._on_card()]

    def _arrays(self) -> dict[str, Any]:
        there = {"g": self._gradient, **self._on_card()}
        return self.kept | device.to_host(there, self.problem.card)

    def _put_back(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._take(arrays, super()._wanted())
        checkpoint.check_like("g", arrays["g"], self.problem.card.x)
        self.problem.gradient = self.problem.card.array(arrays["g"])
        self._points.continue_from(self.control)
        device.from_host(arrays, self._on_card(), self.problem.card)


class _Hooks:
    """What happens between iterations: the callback and the progress bar."""

    def __init__(self, name: str, callback: Callback | None, settings: Options) -> None:
        self._callback = callback
        self._bar = progress_bar(name, settings.maxiter, settings.progress)

    def limit(self, run: Run, steps: int) -> int:
        """How many steps may be taken before the next look."""
        settings = run.settings
        if self._callback is not None:
            return 1
        steps = int(min(steps, run.most_steps, settings.maxiter - run.nit))
        if settings.checkpoint is not None:
            steps = min(steps, settings.checkpoint_every - run.nit % settings.checkpoint_every)
        return steps

    def after(self, run: Run) -> None:
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
        self._callback(run.here, run.seen)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def scipy_method(
    rule: Rule | Lookahead,
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


Rule.__call__ = Lookahead.__call__ = scipy_method


def restored_optimizer(
    mine: Optimizer, header: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> Optimizer:
    """The optimizer of a checkpoint, on the same x, if it does what this one does."""
    if header.get("feasible_set") != mine.set_fingerprint():
        raise ValueError("the checkpoint does not match: other bounds or set in the file")
    restored = Optimizer.from_snapshot(
        header, arrays, mine.x, rule=mine.rule, feasible_set=mine.feasible_set
    )
    saved, given = ((opt._max_norm, opt._max_value) for opt in (restored, mine))
    if saved != given:
        raise ValueError(
            "the checkpoint does not match: (max_norm, max_value) = "
            f"{saved} in the file, {given} given"
        )
    return restored


# ---- reading the arguments ---------------------------------------------------------------------


def _print_summary(result: OptimizeResult) -> None:
    print(result.message)
    print(f"         Current function value: {result.fun:f}")
    print(f"         Iterations: {result.nit:d}")
    print(f"         Function evaluations: {result.nfev:d}")
    print(f"         Gradient evaluations: {result.njev:d}")
