"""Many minimizations on a GPU: one thread solves one row.

A thread runs the text of `numbelief._solve` and `numbelief._step` that a core of the CPU runs,
around the user's device function. Element i of an array of row k is kept at [i, k], so that
neighbouring threads read neighbouring memory, and all functions get views with strides.
"""

import functools
import inspect
from math import nan, sqrt
from typing import Any, NamedTuple, NoReturn

import numba
import numpy as np
from numba import cuda
from numba import types as nb
from numpy.typing import NDArray

from numbelief import _interop as interop
from numbelief._compile.arrays import (
    add_multiple,
    copy,
    dot_of_block,
    fill,
    largest,
    loop_over,
    sum_of_squares,
)
from numbelief._compile.internals import cast, strided_row, strided_window
from numbelief._compile.template import bind
from numbelief._gpu.compile import SIMULATED, compile_kernel, device, for_card, load, of_rule
from numbelief._gpu.launch import configured
from numbelief._objective.compiled import CALLS, WORDS, PerRow, told
from numbelief._solve.loop import run_template, search_template
from numbelief._solve.minimization import Minimization
from numbelief._solve.observe import Watch, bind_observe
from numbelief._solve.quasi_newton import (
    Memory,
    Method,
    at_each_coordinate,
    bind_method,
    deflect_template,
    length_template,
    measure_template,
)
from numbelief._solve.rows import (
    Outcome,
    Start,
    finish_row_template,
    start_row_template,
)
from numbelief._solve.stopping import RUNNING
from numbelief._step.compiled import parts_for
from numbelief._step.kind import Kind
from numbelief._step.state import Region, StepOptions, StepState
from numbelief._step.template import block_options, elementwise_template, trust_ratio

# One warp: the rows of a launch are few, and small thread blocks spread over all multiprocessors.
THREADS = 32


class RowCall(NamedTuple):
    """What evaluates the objective of a row: its arguments, a copy of x, the words of its block."""

    args: Any
    fresh: Any
    block: Any


class RowStep(NamedTuple):
    """The step of a rule, for the search."""

    state: Any
    options: Any


# ---- templates ---------------------------------------------------------------------------------


def _kernel_template(pick, start_row, advance, finish_row, AUTOMATIC):
    """Take a step of this thread's row for each rate, unless the row ends.

    ``begins`` says that no row has been looked at, ``ends`` that all rows end now. ``own`` are the
    arrays of all rows.
    """

    def solve(rates, begins, ends, start, outcome, own, numbers, options, args):
        k = cuda.grid(1)
        start, outcome, options = Start(*start), Outcome(*outcome), StepOptions(*options)
        status = outcome.status
        if k < status.size and status[k] == RUNNING:
            (
                x, g, fresh, block, slots, timestep, control, recent, best,
                average, previous, history, points, search, base, pairs, products, alphas,
            ) = own  # fmt: skip
            state = StepState(slots[:, :, k], timestep[:, k], numbers)
            region = Region(options.lower, options.upper, None, None, None)
            watch = Watch(
                control[:, k], recent[:, k], best[:, :, k], average[:, k], previous[:, k],
                history[:, :, k], points[:, :, k], region,
            )  # fmt: skip
            memory = Memory(
                search[:, k], base[:, :, k], pairs[:, :, k], products[:, k], alphas[:, k]
            )
            objective = RowCall(pick(args, k), fresh[:, k], block[:, k])
            taken = RowStep(state, options) if AUTOMATIC else options
            x, g = x[:, k], g[:, k]
            how = RUNNING
            if begins:
                how = start_row(k, start, x, g, state, taken, watch, memory.search, objective)
            if how == RUNNING:
                how = advance(rates, x, g, state, taken, watch, memory, objective)
            if ends or how != RUNNING:
                finish_row(k, how, outcome, start.iterate, x, g, watch, objective)

    return solve


def _evaluate_template(fun):
    """The value of a row's objective at x; g is filled."""

    def evaluate(x, g, objective):
        args, fresh, block = objective
        fill(g, nan)  # a coordinate that fun forgets must not pass for a gradient
        copy(x, fresh)  # which fun may change
        block[CALLS] += 1
        return np.float64(fun(fresh, g, *args))

    return evaluate


# The arguments of a row: the first one as it is, or its row k, and then those of `rest`.


def _none_template():
    def none(args, k):
        return ()

    return none


def _shared_template(rest):
    def shared(args, k):
        return (args[0],) + rest(args[1:], k)  # noqa: RUF005  Numba knows no star there

    return shared


def _own_template(rest):
    def own(args, k):
        return (args[0][k],) + rest(args[1:], k)  # noqa: RUF005

    return own


def _take_step_template(advance):
    def take_step(x, g, rate, step):
        advance(x, g, step.state, rate, step.options)

    return take_step


def _first_template(evaluate, observe):
    def first(x, g, taken, watch, objective):
        return observe(evaluate(x, g, objective), nan, x, g, watch)

    return first


def _run_template(run):
    def advance(rates, x, g, state, taken, watch, memory, objective):
        return run(rates, x, g, state, taken, watch, objective)

    return advance


def _search_template(search):
    def advance(rates, x, g, state, taken, watch, memory, objective):
        method = Method(taken, x, g, state, watch.region, memory)
        return search(rates, x, g, watch.control, memory.search, method, watch, objective)

    return advance


# In place of what there is for contiguous arrays.


def _fill(array, value):
    array[:] = value


def _to_fixed_tuple(values, count):
    return values


def _norm(a):
    """As `numbelief._compile.arrays.norm_template`, but in one block."""
    unit = 1.0
    while True:
        total = sum_of_squares(a, 0, a.size, 1 / unit)
        if total < np.inf or unit > 1 or np.isnan(total):
            return unit * sqrt(total)
        unit = max(unit, largest(a))


def _layerwise_template(begin, scaling_of, lookahead_of, norms_of_block, step_block, finish):
    """As that of a CPU, but with a block for each segment, whose norms are taken as it comes."""

    def advance(x, g, state, rate, options):
        slots, timestep, numbers = state
        edges, owner = options.edges, options.owner
        values = begin(x, timestep, numbers, rate)
        t = timestep[0].t
        scaling = scaling_of(x, g, numbers, rate, options)
        given, lookahead = block_options(options), lookahead_of(options)
        for b in range(owner.size):
            lo, hi = edges[b], edges[b + 1]
            of_x, of_direction = norms_of_block(x, g, slots, values, scaling, lo, hi)
            ratio = cast((trust_ratio(of_x, of_direction),), x)[0]
            step_block(x, g, slots, t, values, scaling, ratio, given, lookahead, lo, hi)
        finish(x, slots, t, options)

    return advance


# ---- compilation -------------------------------------------------------------------------------


class _Row:
    """How the parts of a step are made for a thread; see `numbelief._step.compiled.parts_for`."""

    norm = staticmethod(_norm)

    @staticmethod
    def rule(function: Any) -> Any:
        return of_rule(function)

    @staticmethod
    def block(function: Any) -> Any:
        return function

    sums = block


def kernel_of(kind: Kind, automatic: bool, fun: Any, own: tuple[bool, ...]) -> Any:
    """The kernel for a kind of rule around a device function, as ``numba.cuda`` compiles it.

    ``own`` tells which of the function's further arguments have a row for each problem.
    """
    bounded = kind.has("lower")
    evaluate = bind(_evaluate_template, fun=fun)
    region = Region(*(True if bounded else None,) * 2)
    look = bind_observe(region)
    whole = _layerwise_template if kind.rule.layerwise else elementwise_template
    step = bind(whole, **parts_for(kind, _Row))
    if automatic:
        at = at_each_coordinate(bounded=bounded)
        method = bind_method(
            {
                **{name: loop_over(each) for name, each in at.items()},
                "dot": dot_of_block,
                "deflect": bind(deflect_template, dot=dot_of_block, add_multiple=add_multiple),
                "measure": bind(measure_template, dot=dot_of_block, largest=largest),
                "copy": copy,
                "largest": largest,
                "length_of_move": bind(length_template, PROJECTED=False),
                "take_step": bind(_take_step_template, advance=step),
            },
            projected=False,
        )
        search = bind(search_template, evaluate=evaluate, observe=look, **method)
        advance = bind(_search_template, search=search)
    else:
        run = bind(run_template, step=step, evaluate=evaluate, observe=look)
        advance = bind(_run_template, run=run)
    pick = bind(_none_template)
    for each in reversed(own):
        pick = bind(_own_template if each else _shared_template, rest=pick)
    first = bind(_first_template, evaluate=evaluate, observe=look)
    kernel = bind(
        _kernel_template,
        pick=pick,
        start_row=bind(start_row_template, first=first),
        advance=advance,
        finish_row=bind(finish_row_template, evaluate=evaluate),
        AUTOMATIC=automatic,
    )
    names = {"prange": range, "fill": device(_fill)}
    if not SIMULATED:
        fixed = device(_to_fixed_tuple)
        names |= {"row": strided_row, "window": strided_window, "to_fixed_tuple": fixed}
    return for_card(kernel, **names)


# Each kernel is compiled for the user's function.
@functools.lru_cache(maxsize=128)
def _compile(kind: Kind, automatic: bool, fun: Any, own: tuple[bool, ...]) -> Any:
    return compile_kernel(kernel_of(kind, automatic, fun, own))


class Rows:
    """The rows on a card, and their launches.

    Parameters
    ----------
    fun : device function
        ``fun(x, grad, *args) -> float`` fills grad.
    X0 : device array of shape (B, n), as kernels take it
        First points.
    args : tuple
        Numbers, device arrays as kernels take them, tuples of these, or `PerRow` of an array.
    run : Minimization
        A run on the CPU, whose arrays a row has as well.
    iterate : int
        Which point a row returns.

    Attributes
    ----------
    outcome : Outcome
        Of all rows, on the card.
    begun : bool
        Whether the first points have been looked at.

    Raises
    ------
    TypeError
        The function does not compile for these arguments, or returns something else than a number.
    """

    def __init__(
        self, fun: Any, X0: Any, args: tuple[Any, ...], run: Minimization, iterate: int
    ) -> None:
        self._cuda = card = load()
        count, opt, loop = X0.shape[0], run.optimizer, run.loop
        x, state, watch = loop.x, opt.step_state, loop.watch
        recent = watch.recent
        if watch.control["ftol"][0] == 0:
            recent = recent[:0]  # not looked at

        def of_rows(array: NDArray[Any]) -> Any:
            return card.device_array((*array.shape, count), _as_records(array.dtype))

        block = np.empty(WORDS, np.int64)
        own = (
            x, loop.g, x, block, state.slots, state.timestep, watch.control, recent, watch.best,
            watch.average, watch.previous, watch.history, watch.points, *loop.memory,
        )  # fmt: skip
        self._own = tuple(map(of_rows, own))
        records = state.timestep, watch.control, loop.memory.search
        first = (card.to_device(a.astype(_as_records(a.dtype))) for a in records)
        self._start = (X0, *first, iterate)
        self._options = _for_card(opt.step_options, card.to_device)
        self._numbers = tuple(map(float, state.numbers))
        self._args = tuple(arg.data if isinstance(arg, PerRow) else arg for arg in args)
        counts = {
            name: card.to_device(np.zeros(count, np.int64)) for name in ("nit", "nfev", "njev")
        }
        self.outcome = Outcome(
            x=card.device_array(X0.shape, x.dtype),
            jac=card.device_array(X0.shape, x.dtype),
            fun=card.to_device(np.full(count, nan)),
            status=card.to_device(np.full(count, RUNNING)),
            **counts,
        )
        rows = tuple(isinstance(arg, PerRow) for arg in args)
        self._kernel = _compile(opt.kind, run.automatic, fun, rows)
        self._launch = configured(self._kernel, -(-count // THREADS), THREADS)
        self.begun = False
        if not SIMULATED:
            kinds = map(self._kernel.typeof_pyval, self._args)
            number = numba.from_dtype(x.dtype)
            check(fun, number, [_of_row(*each) for each in zip(kinds, rows, strict=True)])

    def advance(self, rates: NDArray[np.float64], *, ends: bool = False) -> NDArray[np.int64]:
        """Take a step of each row that runs for each rate; return the rows' status.

        At the first call look at the first points before that. ``ends`` ends all rows after it.
        """
        self._launch(
            self._cuda.to_device(rates), not self.begun, ends, self._start, tuple(self.outcome),
            self._own, self._numbers, self._options, self._args,
        )  # fmt: skip
        self.begun = True
        return np.asarray(self.outcome.status.copy_to_host())


def _as_records(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Aligned records, which are not read byte by byte; their type is for the simulator."""
    return np.dtype((np.record, np.dtype(dtype.descr, align=True))) if dtype.names else dtype


def _for_card(options: StepOptions, copied: Any) -> tuple[Any, ...]:
    """The options of a step, with arrays on the card and one block for each segment."""
    if options.owner is not None:
        owner = np.arange(options.owner[-1] + 1)
        edges = options.edges[np.searchsorted(options.owner, np.arange(owner.size + 1))]
        options = options._replace(owner=owner, edges=edges)
    if options.lookahead is not None:
        options = options._replace(lookahead=tuple(options.lookahead))
    return tuple(copied(each) if isinstance(each, np.ndarray) else each for each in options)


# ---- the user's function -----------------------------------------------------------------------


def check_form(fun: Any, count: int) -> None:
    """Refuse what cannot be ``fun(x, grad, *args)`` with ``count`` further arguments.

    Raises
    ------
    TypeError
        It is not a device function, or takes another number of arguments.
    """
    if not interop.is_device_function(fun):
        _refuse(count, f"got {getattr(fun, '__name__', None) or repr(fun)}, which is none")
    parameters = inspect.signature(fun.py_func).parameters.values()
    if len(parameters) != 2 + count or any(
        each.kind is not each.POSITIONAL_OR_KEYWORD for each in parameters
    ):
        _refuse(count, f"got {fun.py_func.__name__}{inspect.signature(fun.py_func)}")


def _refuse(count: int, reason: str) -> NoReturn:
    names = ", ".join(("x", "grad", *(f"args[{i}]" for i in range(count))))
    raise TypeError(
        f"where X0 is on a GPU, fun must be a device function, numba.cuda.jit(device=True), "
        f"of the form fun({names}) -> float that fills grad; {reason}"
    ) from None


def check(fun: Any, number: Any, args: list[Any]) -> None:
    """Compile the user's function by itself, so that an error speaks of nothing else."""
    x = nb.Array(number, 1, "A")
    listed = [f"x: {x}", f"grad: {x}", *(f"args[{i}]: {kind}" for i, kind in enumerate(args))]
    form = f"the device function fun must be fun({', '.join(listed)}) -> float; "
    try:
        returned = fun.compile_device((x, x, *args)).signature.return_type
    except Exception as error:
        raise TypeError(form + told(error)) from None
    if not isinstance(returned, (nb.Float, nb.Integer)):
        raise TypeError(f"{form}it returns {returned}")


def _of_row(kind: Any, own: bool) -> Any:
    """The type of what a function gets of an argument."""
    if not own:
        return kind
    return kind.dtype if kind.ndim == 1 else kind.copy(ndim=kind.ndim - 1)
