"""minimize_stochastic: mini-batches over arrays, from one row a step to all of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult

from numbelief import _interop as interop
from numbelief._solve.batch_objective import HostObjective, Plan
from numbelief._solve.data import Batches, Order
from numbelief._solve.minimize import first_point
from numbelief._solve.options import TrainingOptions, read_options
from numbelief._solve.session import as_callback
from numbelief._solve.training import Training
from numbelief.checks import integer
from numbelief.rules import Lookahead, Rule
from numbelief.sets import FeasibleSet

__all__ = ["minimize_stochastic"]


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
        How likely each row is drawn, in any unit; needs replacement.
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
            Stop after this many epochs without a lower loss.
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
