"""minimize: SciPy's interface around the loop, and the door by which a rule is a SciPy method."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, OptimizeWarning

from numbelief import _interop as interop
from numbelief._objective.compiled import PerRow
from numbelief._objective.problem import Problem, as_args
from numbelief._solve.minimization import Minimization
from numbelief._solve.options import Options, read_options
from numbelief._solve.session import as_callback
from numbelief.checks import as_first_point
from numbelief.optimizer import resolve_set
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet

__all__ = ["minimize"]

OUTSIDE = "Initial guess is not within the specified bounds"


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
    compiled code, to the same bits.

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
            :math:`x - \\Pi(x - g)`, is at most this, at the point that is returned.
        ftol : float, default 0 (off)
            Converged when the best value fell by at most ``ftol * max(|f|, 1)`` in 50 iterations of
            this run.
        xtol : float, default 0 (off)
            Converged when no coordinate moved by more than ``xtol * (xtol + max|x|)``, or would
            have at the largest rate so far where a schedule has lowered it.
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
    `Lookahead`: the line search replaces it. The method and its sources stand at the top of
    ``numbelief/_solve/quasi_newton.py``.

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
    if any(isinstance(arg, PerRow) for arg in as_args(args)):
        raise TypeError("per_row marks the data of minimize_many: pass one row to minimize")
    if interop.is_device_array(x0):
        from numbelief._gpu.minimize import prepare

        run = prepare(fun, x0, args, rule, jac, feasible_set, bounds, settings)
    else:
        x, allowed = first_point(x0, feasible_set, bounds)
        given = settings.finite_difference, settings.compiled
        run = Minimization(Problem(fun, jac, args, x, allowed, *given), rule, x, allowed, settings)
    return run.go(seen)


def first_point(x0: Any, feasible_set: Any, bounds: Any) -> tuple[NDArray[Any], FeasibleSet | None]:
    """A copy of x0, moved into its set, and the set."""
    x = as_first_point(x0)
    allowed = resolve_set(feasible_set, bounds, x.size)
    return move_into(allowed, x, 4), allowed


def move_into(allowed: FeasibleSet | None, x: NDArray[Any], stacklevel: int = 3) -> NDArray[Any]:
    """First points moved into their set, with a warning where they were not."""
    if allowed is None:
        return x
    limits = allowed.limits(x.shape[-1], x.dtype)
    if limits is None:
        rows = x.reshape(-1, x.shape[-1])
        finite = np.isfinite(rows).all(axis=1)
        if not all(map(allowed.contains, rows[finite])):
            message = "Initial guess is not within the feasible set"
            warnings.warn(message, OptimizeWarning, stacklevel=stacklevel)
        moved = [
            allowed.project(each) if known else each
            for each, known in zip(rows, finite, strict=True)
        ]
        return np.stack(moved).reshape(x.shape)
    # To the precision of x: a float32 bound may lie one rounding inside the one given.
    inside = np.isfinite(x)
    if not allowed.contains(np.where(inside, x, allowed.project(x)), tol=np.spacing(np.abs(x))):
        warnings.warn(OUTSIDE, OptimizeWarning, stacklevel=stacklevel)
    clipped: NDArray[Any] = np.clip(x, *limits)
    return clipped


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
