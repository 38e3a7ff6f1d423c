"""Many problems at once on an NVIDIA GPU: one thread solves one row.

A thread runs the text of `loop`, `kernels` and `tuning` that a core of the CPU runs, around the
user's device function; `_names` makes copies of it for the card. Element i of an array of row k is
kept at [i, k], so that neighbouring threads read neighbouring memory, and all functions get views
with strides. A launch takes some steps of the rows that still run; between launches the host looks
at the clock.
"""

import functools
import inspect
from math import nan, sqrt
from typing import Any

import numba
import numpy as np
from numba import types as nb
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numpy.typing import NDArray

from numbelief import cuda as card_of  # `cuda` is numba's in the templates
from numbelief import kernels, loop, native, tuning
from numbelief.kernels import copy, fill, largest, shrinking, trust
from numbelief.loop import RUNNING
from numbelief.rules import Rule

# One warp: the rows of a launch are few, and small thread blocks spread over all multiprocessors.
THREADS = 32

# Bound by `kernels.lift`.
cuda: Any
fun: Any
rest: Any
pick: Any
enter: Any
run: Any
leave: Any
begin: Any
extras_of: Any
norms_block: Any
apply_block: Any
sum_squares: Any
norm_of: Any


# ---- templates ---------------------------------------------------------------------------------


def _solve(rates, begins, ends, start, outcome, own, numbers, options, args):
    """Take a step of this thread's row for each rate, unless the row ends.

    ``begins`` says that no row has been looked at, ``ends`` that all rows end now. ``own`` are the
    arrays of all rows.
    """
    k = cuda.grid(1)
    iterate, status = start[4], outcome[6]
    if k < status.size and status[k] == RUNNING:
        (
            x, g, fresh, block, state, clock, control, recent, best,
            average, previous, history, points, record, base, pairs, products, alphas,
        ) = own  # fmt: skip
        arrays = (x[:, k], g[:, k], state[:, :, k], clock[:, k], numbers)
        watch = (
            control[:, k], recent[:, k], best[:, :, k], options[3], options[4], None, None,
            average[:, k], previous[:, k], history[:, :, k], points[:, :, k],
        )  # fmt: skip
        tuner = (record[:, k], base[:, :, k], pairs[:, :, k], products[:, k], alphas[:, k])
        objective = (pick(args, k), fresh[:, k], block[:, k])
        how = RUNNING
        if begins:
            how = enter(k, start, arrays, watch, tuner, objective)
        if how == RUNNING:
            how = run(rates, *arrays, options, watch, tuner, objective)
        if ends or how != RUNNING:
            leave(k, how, outcome, iterate, arrays, watch, objective)


def _evaluate(x, g, args, fresh, block):
    fill(g, nan)  # a coordinate that fun forgets must not pass for a gradient
    copy(x, fresh)  # which fun may change
    block[native.CALLS] += 1
    return np.float64(fun(fresh, g, *args))


# The arguments of a row: the first one as it is, or its row k, and then those of `rest`.


def _none(args, k):
    return ()


def _shared(args, k):
    return (args[0],) + rest(args[1:], k)  # noqa: RUF005  Numba knows no star there


def _own(args, k):
    return (args[0][k],) + rest(args[1:], k)  # noqa: RUF005


# In place of what `kernels` has for contiguous arrays, or for the CPU alone. A function for the
# card may not return an array that it made: hence intrinsics where slices would do.


@intrinsic
def _row(typingctx, array, k):
    """Element k of an array of two or more dimensions."""
    result = array.copy(ndim=array.ndim - 1, layout="A")

    def codegen(context, builder, signature, args):
        source = make_array(array)(context, builder, args[0])
        shape = cgutils.unpack_tuple(builder, source.shape)[1:]
        stride, *strides = cgutils.unpack_tuple(builder, source.strides)
        return _view(context, builder, result, source, args[1], stride, shape, strides)

    return result(array, nb.intp), codegen


@intrinsic
def _window(typingctx, array, lo, hi):
    """The elements lo to hi of an array of one dimension, or None of None."""
    if isinstance(array, nb.NoneType):
        return nb.none(array, lo, hi), lambda context, *_: context.get_dummy_value()
    result = array.copy(layout="A")

    def codegen(context, builder, signature, args):
        source = make_array(array)(context, builder, args[0])
        (stride,) = cgutils.unpack_tuple(builder, source.strides)
        shape = [builder.sub(args[2], args[1])]
        return _view(context, builder, result, source, args[1], stride, shape, [stride])

    return result(array, nb.intp, nb.intp), codegen


def _view(context, builder, kind, source, first, stride, shape, strides):
    """An array of a type in the memory of another one, from its element ``first`` on."""
    target = make_array(kind)(context, builder)
    populate_array(
        target,
        data=cgutils.pointer_add(builder, source.data, builder.mul(first, stride)),
        shape=shape,
        strides=strides,
        itemsize=source.itemsize,
        meminfo=None,
    )
    return target._getvalue()


def _fill(array, value):
    array[:] = value


def _as_it_is(value):
    return value


def _to_fixed_tuple(values, count):
    return values


def _real(value, given, like):
    if given is None:
        return None
    else:
        return like.dtype.type(value)


def _scale(g, max_norm, norm):
    if max_norm is None:
        return 1.0
    else:
        return shrinking(norm_of(g), max_norm)


def _norm(a):
    """As `kernels._norm`, but in one block."""
    unit = 1.0
    while True:
        total = sum_squares(a, 0, a.size, 1 / unit)
        if total < np.inf or unit > 1 or np.isnan(total):
            return unit * sqrt(total)
        unit = max(unit, largest(a))


def _advance_layerwise(
    x, g, state, clock, numbers, rate,
    decays, max_norm, max_value, lower, upper, trace, projection, edges, owner, scale, lookahead,
):  # fmt: skip
    """As in `kernels`, but with a block for each segment, whose norms are taken as it comes."""
    values = begin(x, clock, numbers, rate)
    t = clock[0].t
    extras = extras_of(x, g, numbers, rate, decays, max_norm, max_value)
    for b in range(owner.size):
        lo, hi = edges[b], edges[b + 1]
        of_x, of_direction = norms_block(x, g, state, values, extras, lo, hi)
        ratio = x.dtype.type(trust(of_x, of_direction))
        apply_block(
            x, g, state, t, values, extras, ratio,
            lower, upper, trace, projection, scale, lookahead, lo, hi,
        )  # fmt: skip


# The simulator runs Python, which has none of Numba's intrinsics.
_SIMULATED = {
    "row": lambda array, k: array[k],
    "window": lambda array, lo, hi: array[lo:hi],
    "cut": lambda array, lo, hi: None if array is None else array[lo:hi],
    "_cast": lambda values, like: tuple(map(like.dtype.type, values)),
    "bits_of": lambda value: abs(value).view(f"i{value.itemsize}"),
    "_of_bits": lambda bits: bits.view(f"f{bits.itemsize}"),
}


# ---- compilation -------------------------------------------------------------------------------


def lifted(rule: type[Rule], slots: int, automatic: bool, fun: Any, own: tuple[bool, ...]) -> Any:
    """The kernel for a rule around a device function, as ``numba.cuda`` compiles it.

    ``own`` tells which of the function's further arguments have a row for each problem.
    """
    cuda = card_of.compiler()
    device = functools.partial(cuda.jit, device=True)
    pick = device(_none)
    for each in reversed(own):
        pick = device(kernels.lift(_own if each else _shared, rest=pick))
    names = _names(rule, slots, automatic, fun, device)
    bound = {name: names[name] for name in ("enter", "run", "leave")}
    return kernels.lift(_solve, cuda=cuda, pick=pick, **bound)


def _names(rule: type[Rule], slots: int, automatic: bool, fun: Any, device: Any) -> dict[str, Any]:
    """What the templates call, made for the card, each of what stands before it."""
    builtin = {"max": device(card_of._larger), "min": device(card_of._smaller)}
    numbers, coefficients = kernels._tuples(rule)  # type: ignore[arg-type]
    rows, load, store = kernels._SLOTS[slots]
    updated, element = kernels._coordinate(rule.update, load, store)
    # What a rule calls is its author's: none of our names gets in there.
    of_rule = {
        "updated": updated,
        "element": element,
        "coefficients": rule.coefficients,
        "decay": rule.decay,
    }
    names = {
        name: kernels._adopt(function, device, **builtin) for name, function in of_rule.items()
    }
    names |= builtin | {
        "fun": fun,
        "prange": range,
        "COUNT": len(numbers._fields),
        "Hyperparameters": numbers,
        "Coefficients": coefficients,
        **(_SIMULATED if card_of.SIMULATED else {"row": _row, "window": _window, "cut": _window}),
    }
    # It returns an array: in line, it is no function.
    names["_slot"] = kernels._adopt(
        kernels._slot, functools.partial(device, inline="always"), **names
    )
    advance = _advance_layerwise if rule.layerwise else kernels._advance
    templates: dict[str, Any] = {
        "fill": _fill,
        "borrow": _as_it_is,
        "to_fixed_tuple": _to_fixed_tuple,
        "_real": _real,
        "rows": rows,
        "sum_squares": kernels._sum_squares,
        "norm_of": _norm,
        "_scale": _scale,
        "begin": kernels._begin,
        "extras_of": kernels._extras,
        "norms_block": kernels._norms_block,
        "apply_block": kernels._apply_block,
        "step": advance,
        "evaluate": _evaluate,
        "observe": loop._observe,
        "choose": loop.choose,
    }
    if automatic:
        templates |= {
            "dot": tuning.dot_block,
            "shift": tuning._shift,
            "deflect": tuning._deflect,
            "measure": tuning._measure,
            **{name: kernels.lift(tuning._each, at=at) for name, at in tuning.COORDINATES.items()},
            "prepare": tuning._prepare,
            "aim": tuning._aim,
            "propose": tuning._propose,
            "judge": tuning._judge,
        }
    templates["run"] = loop.search if automatic else loop.run
    templates |= {"first": loop.first, "enter": loop.enter, "leave": loop.leave}
    for name, template in templates.items():
        names[name] = kernels._adopt(template, device, **names)
    return names


# So many kernels are remembered: each is compiled for the user's function.
@functools.lru_cache(maxsize=128)
def _compile(rule: type[Rule], slots: int, automatic: bool, fun: Any, own: tuple[bool, ...]) -> Any:
    options = {} if card_of.SIMULATED else {"extensions": [card_of._NoneIsNothing]}
    return card_of.load().jit(**options)(lifted(rule, slots, automatic, fun, own))


class Rows:
    """The rows of `minimize_many` on a card, and their launches.

    Parameters
    ----------
    fun : device function
        ``fun(x, grad, *args) -> float`` fills grad.
    X0 : device array of shape (B, n), as kernels take it
        First points.
    args : tuple
        Numbers, device arrays as kernels take them, tuples of these, or `numbelief.native.PerRow`
        of an array.
    rule : Rule
        The rule.
    like : tuple of ndarray
        The arrays of one run on the CPU, which a row has as well: x, g, state, clock, numbers.
    options, watch, tuner
        Those of the same run, see `loop.run`.
    iterate : int
        Which point a row returns.

    Attributes
    ----------
    outcome : tuple of device arrays
        Of all rows: x and gradient, of shape (B, n); fun, nit, nfev, njev, status, of shape (B,).
    begun : bool
        Whether the first points have been looked at.

    Raises
    ------
    TypeError
        The function does not compile for these arguments, or returns something else than a number.
    """

    def __init__(
        self,
        fun: Any,
        X0: Any,
        args: tuple[Any, ...],
        rule: Rule,
        like: tuple[Any, ...],
        options: tuple[Any, ...],
        watch: tuple[Any, ...],
        tuner: tuple[NDArray[Any], ...],
        iterate: int,
    ) -> None:
        self._cuda = cuda = card_of.load()
        count = X0.shape[0]
        x, g, state, clock, numbers = like
        control, recent, best, _, _, _, _, *kept = watch
        if control["ftol"][0] == 0:
            recent = recent[:0]  # not looked at

        def of_rows(array: NDArray[Any]) -> Any:
            return cuda.device_array((*array.shape, count), _as_records(array.dtype))

        block = np.empty(native.WORDS, np.int64)
        own = (x, g, x, block, state, clock, control, recent, best, *kept, *tuner)
        self._own = tuple(map(of_rows, own))
        first = (cuda.to_device(a.astype(_as_records(a.dtype))) for a in (clock, control, tuner[0]))
        self._start = (X0, *first, iterate)
        self._options = _for_card(options, cuda.to_device)
        self._numbers = tuple(map(float, numbers))
        self._args = tuple(arg.data if isinstance(arg, native.PerRow) else arg for arg in args)
        self.outcome = (
            *(cuda.device_array(X0.shape, x.dtype) for _ in range(2)),
            cuda.to_device(np.full(count, nan)),
            *(cuda.to_device(np.zeros(count, np.int64)) for _ in range(3)),
            cuda.to_device(np.full(count, RUNNING)),
        )
        rows = tuple(isinstance(arg, native.PerRow) for arg in args)
        kind = type(rule), len(rule.state_names), rule.learning_rate is None
        self._kernel = _compile(*kind, fun, rows)  # type: ignore[arg-type]
        self._launch = card_of.configured(self._kernel, -(-count // THREADS), THREADS)
        self.begun = False
        if not card_of.SIMULATED:
            kinds = map(self._kernel.typeof_pyval, self._args)
            number = numba.from_dtype(x.dtype)
            check(fun, number, [_of_row(*each) for each in zip(kinds, rows, strict=True)])

    def advance(self, rates: NDArray[np.float64], *, ends: bool = False) -> NDArray[np.int64]:
        """Take a step of each row that runs for each rate; return how the rows stand.

        At the first call look at the first points before that. ``ends`` ends all rows after it.
        """
        self._launch(
            self._cuda.to_device(rates), not self.begun, ends, self._start, self.outcome, self._own,
            self._numbers, self._options, self._args,
        )  # fmt: skip
        self.begun = True
        return np.asarray(self.outcome[-1].copy_to_host())


def _as_records(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Aligned records, which are not read byte by byte; their type is for the simulator."""
    return np.dtype((np.record, np.dtype(dtype.descr, align=True))) if dtype.names else dtype


def _for_card(options: tuple[Any, ...], copied: Any) -> tuple[Any, ...]:
    """The options of a step, with arrays on the card and one block for each segment."""
    *before, edges, owner, scale, lookahead = options
    if owner is not None:
        owner = np.arange(owner[-1] + 1)
        edges = edges[np.searchsorted(options[-3], np.arange(owner.size + 1))]
    moved = [*before, edges, owner, scale]
    return (*(copied(a) if isinstance(a, np.ndarray) else a for a in moved), lookahead)


# ---- the user's function -----------------------------------------------------------------------


def is_device_function(value: Any) -> bool:
    """Whether ``numba.cuda.jit(device=True)`` made this."""
    options = getattr(value, "targetoptions", {})
    return bool(options.get("device")) or getattr(value, "_device", None) is True


def check_form(fun: Any, count: int) -> None:
    """Refuse what cannot be ``fun(x, grad, *args)`` with so many further arguments.

    Raises
    ------
    TypeError
        It is not a device function, or takes another number of arguments.
    """
    if not is_device_function(fun):
        _refuse(count, f"got {getattr(fun, '__name__', None) or repr(fun)}, which is none")
    parameters = inspect.signature(fun.py_func).parameters.values()
    if len(parameters) != 2 + count or any(
        each.kind is not each.POSITIONAL_OR_KEYWORD for each in parameters
    ):
        _refuse(count, f"got {fun.py_func.__name__}{inspect.signature(fun.py_func)}")


def _refuse(count: int, reason: str) -> None:
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
        raise TypeError(form + native.told(error)) from None
    if not isinstance(returned, (nb.Float, nb.Integer)):
        raise TypeError(f"{form}it returns {returned}")


def _of_row(kind: Any, own: bool) -> Any:
    """The type of what a function gets of an argument."""
    if not own:
        return kind
    return kind.dtype if kind.ndim == 1 else kind.copy(ndim=kind.ndim - 1)
