"""minimize_many: a thousand small problems at once, each as `minimize` would solve it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from numbelief import _interop as interop
from numbelief._objective.compiled import PerRow
from numbelief._objective.problem import Problem, as_args
from numbelief._solve.host_rows import HostRows
from numbelief._solve.minimize import move_into
from numbelief._solve.options import Options, read_options
from numbelief._solve.session import Session
from numbelief.checks import as_array, as_first_points
from numbelief.optimizer import resolve_set
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet

__all__ = ["minimize_many", "per_row"]

_NOT_FOR_MANY = ("history", "return_all", "checkpoint", "resume")


def per_row(data: Any) -> PerRow:
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
    on_card = interop.is_device_array(data)
    if not on_card:
        array = as_array(data, "per_row's data")
        if array.dtype.kind not in "fiubc":
            raise TypeError(f"per_row needs numbers, got dtype {array.dtype}")
    if len(array.shape) == 0:
        raise ValueError("per_row needs an array with one row for each problem, got a scalar")
    return PerRow(array if on_card else np.ascontiguousarray(array))


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
    on_card = interop.is_device_array(X0)
    if not on_card and interop.is_device_function(fun):
        raise TypeError("fun is a device function, but X0 is not on a GPU: pass X0 from there")
    if on_card:
        from numbelief._gpu import many as card

        X = card.as_first_points(X0)
    else:
        X = as_first_points(X0)
    for i, arg in enumerate(args):
        if isinstance(arg, PerRow) and arg.data.shape[0] != X.shape[0]:
            raise ValueError(
                f"args[{i}] must have one row for each of the {X.shape[0]} rows of X0, got shape "
                f"{tuple(arg.data.shape)}"
            )
        given = arg.data if isinstance(arg, PerRow) else arg
        if not on_card and interop.is_device_array(given):
            raise TypeError(f"args[{i}] is on a GPU, but X0 is not: pass X0 from there, too")
    allowed = resolve_set(feasible_set, bounds, X.shape[1], on_card=on_card)
    session = Session(
        type(rule).__name__, len(X), progress=settings.progress, maxtime=settings.maxtime
    )
    rows: Any
    if on_card:
        rows = card.CardRows(fun, X, args, rule, jac, allowed, settings, session)
    else:
        X = move_into(allowed, X)
        rows = HostRows(
            lambda: Problem(
                fun, jac, args, X[0], allowed, settings.finite_difference, settings.compiled
            ),
            X, rule, allowed, settings, session,
        )  # fmt: skip
    with session.running(rows.result):
        rows.solve()
        result = rows.result(ended=True)
    if settings.disp:
        print(result.message)
    return result
