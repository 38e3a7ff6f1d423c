"""A minimization whose points are on a GPU: what it looks at, and when.

A step that the host waited for would cost more than its arithmetic. So steps are queued, and after
each a row of figures (fun, the gradient's norm ...) is noted on the card, where the best point so
far is kept, too; every `LOOK_EVERY` steps the rows come to the host, which makes of them what
`numbelief.loop` does of each point on a CPU. The automatic rate looks after each trial instead: its
line search must know fun.
"""

import functools
from math import inf, isfinite, nan
from typing import Any

import numpy as np
from numba import types as nb
from numpy.typing import NDArray

from numbelief import checkpoint, kernels, loop, native, tuning
from numbelief import cuda as gpu
from numbelief.checks import as_scalar
from numbelief.loop import is_better, projected_at
from numbelief.problem import as_args
from numbelief.tuning import factor_of

# Steps between two looks, at most: they share one wait, of some 20 us (not measured here).
LOOK_EVERY = 32
# Thread blocks that take part in a reduction, at most: each block of the next launch reads what all
# of them found.
PARTS = 1024

# The columns of a row of figures; the first four are those of `loop._review`.
FUN, NORM, MOVED, REACH, BEST_FUN, BEST_NORM, FINITE, COLUMNS = range(8)


# ---- templates ---------------------------------------------------------------------------------
# Bound by `lifted`: numba.cuda, what is done at a coordinate, how two results are joined.
cuda: Any
at: Any
join: Any
over_threads: Any


def _higher(a, b):
    """The larger of two numbers, NaN if one is."""
    return b if b > a or b != b else a


def _over_parts(parts, shared):
    """What the results of the blocks of an earlier launch come to, for all threads."""
    value = 0.0
    for k in range(cuda.threadIdx.x, parts.size, cuda.blockDim.x):
        value = join(value, parts[k])
    return over_threads(value, shared)


_top = kernels.lift(gpu.over_threads, join=_higher)
_top_of = kernels.lift(_over_parts, join=_higher, over_threads=_top)
_total = kernels.lift(gpu.over_threads, join=gpu.plus)
_total_of = kernels.lift(_over_parts, join=gpu.plus, over_threads=_total)


def _measure_largest(x, tops):
    """Each block's part of the largest magnitude."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    top = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        top = _higher(top, abs(x[i]))
        i += cuda.gridsize(1)
    top = _top(top, shared)
    if cuda.threadIdx.x == 0:
        tops[cuda.blockIdx.x] = top


def _measure_point(x, g, lower, upper, previous, norms, moves, reaches):
    """Each block's part of the largest projected gradient, move and coordinate."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    norm = moved = reach = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        # A bound must not hide a gradient that is not finite.
        slope = projected_at(x, g, lower, upper, i) if isfinite(g[i]) else g[i]
        norm = _higher(norm, abs(slope))
        if previous is not None:
            moved = _higher(moved, abs(x[i] - previous[i]))
            reach = _higher(reach, abs(x[i]))
            previous[i] = x[i]
        i += cuda.gridsize(1)
    norm = _top(norm, shared)
    if cuda.threadIdx.x == 0:
        norms[cuda.blockIdx.x] = norm
    if previous is not None:
        moved, reach = _top(moved, shared), _top(reach, shared)
        if cuda.threadIdx.x == 0:
            moves[cuda.blockIdx.x], reaches[cuda.blockIdx.x] = moved, reach


def _confine(x, lower, upper, slack, tops):
    """Clip points, row after row; each block's part of how far one lay out, beyond its rounding."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    top = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        j = i % lower.size
        inside = min(max(x[i], lower[j]), upper[j])
        if isfinite(x[i]):
            top = max(top, abs(x[i] - inside) - slack * abs(x[i]))
        x[i] = inside
        i += cuda.gridsize(1)
    top = _top(top, shared)
    if cuda.threadIdx.x == 0:
        tops[cuda.blockIdx.x] = top


def _keep_point(
    x, g, value, place, norms, moves, reaches, figures, last, now, best_x, best_g, average, weight,
):  # fmt: skip
    """Note a point's figures from `now` on, keep it if it is the best one, let the mean follow."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    # Each block concludes for itself, from a row that this launch does not write.
    norm = _top_of(norms, shared)
    norm = norm if norm < inf else inf
    fun = value
    if place is not None:
        fun = np.float64(place[0])
    best_fun, best_norm = figures[last + BEST_FUN], figures[last + BEST_NORM]
    finite = figures[last + FINITE] > 0 and isfinite(fun) and isfinite(norm)
    better = finite and is_better(fun, norm, best_fun, best_norm)
    moved = reach = 0.0
    if moves is not None:
        moved, reach = _top_of(moves, shared), _top_of(reaches, shared)
    if cuda.grid(1) == 0:
        figures[now + FUN], figures[now + NORM] = fun, norm
        figures[now + MOVED], figures[now + REACH] = moved, reach
        figures[now + BEST_FUN] = fun if better else best_fun
        figures[now + BEST_NORM] = norm if better else best_norm
        figures[now + FINITE] = 1.0 if finite else 0.0
    i = cuda.grid(1)
    while i < x.size:
        if better:
            best_x[i], best_g[i] = x[i], g[i]
        if average is not None:  # noqa: SIM102  Numba drops the branch only where it stands alone
            if finite:
                average[i] += weight * (x[i] - average[i])
        i += cuda.gridsize(1)


def _multiply(a, b, sums):
    """Each block's part of an inner product."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    total = 0.0
    i = cuda.grid(1)
    while i < a.size:
        total += np.float64(a[i]) * b[i]
        i += cuda.gridsize(1)
    total = _total(total, shared)
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x] = total


def _deflect(a, by, sums, k, product, alphas, second):
    """What `tuning._deflect` does, after the launch of its inner product."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    # Each block concludes for itself; what the first loop notes, it does not read.
    factor = a.dtype.type(-factor_of(_total_of(sums, shared), k, product, alphas, second))
    i = cuda.grid(1)
    while i < a.size:
        a[i] += factor * by[i]
        i += cuda.gridsize(1)


def _measure_trial(direction, x, g, x0, slopes, tops, moves):
    """Each block's part of what `tuning._measure` finds."""
    shared = cuda.shared.array(0, nb.float64)  # as large as the launch says
    slope = 0.0
    top = moved = x.dtype.type(0)
    i = cuda.grid(1)
    while i < x.size:
        slope += np.float64(direction[i]) * g[i]
        top = _higher(top, abs(g[i]))
        moved = _higher(moved, abs(x[i] - x0[i]))
        i += cuda.gridsize(1)
    slope, top, moved = _total(slope, shared), _top(top, shared), _top(moved, shared)
    if cuda.threadIdx.x == 0:
        slopes[cuda.blockIdx.x], tops[cuda.blockIdx.x] = slope, top
        moves[cuda.blockIdx.x] = moved


def _each(arguments):
    """Do something at each coordinate."""
    i = cuda.grid(1)
    while i < arguments[0].size:
        at(i, *arguments)
        i += cuda.gridsize(1)


def _copy_at(i, source, target):
    target[i] = source[i]


@functools.cache
def lifted(template: Any, at: Any = None) -> Any:
    """A template as ``numba.cuda`` compiles it."""
    names = {} if at is None else {"at": gpu.adopted(at)}
    return gpu.adopted(template, **names).py_func


@functools.cache
def _compiled(template: Any, at: Any, kinds: tuple[Any, ...]) -> Any:
    return gpu.compile_kernel(lifted(template, at), kinds)


# ---- arrays ------------------------------------------------------------------------------------


def duplicate(array: Any, name: str = "x0") -> Any:
    """A copy of a device array, made by its own library; the name is for a message.

    Raises
    ------
    TypeError
        Its library does not write to arrays, or is not known.
    ValueError
        It is a strided array of Numba's.
    """
    if getattr(array, "__cuda_ndarray__", False) is True:  # Numba's
        if not array.is_c_contiguous():
            raise ValueError(f"{name} must be C-contiguous, got a strided view: pass a copy")
        copied = gpu.load().device_array(array.shape, array.dtype)
        copied.copy_to_device(array)
        return copied
    if hasattr(array, "detach"):  # PyTorch's
        return array.detach().clone()
    library = type(array).__module__.partition(".")[0]
    if library.startswith("jax") or not hasattr(array, "copy"):
        raise TypeError(
            f"{name} on a GPU must be an array that can be written to, of CuPy, PyTorch or Numba, "
            f"got one of {library}: pass cupy.from_dlpack({name}), and convert it in fun"
        )
    return array.copy()


def to_host(arrays: dict[str, Any], card: gpu.Card) -> dict[str, NDArray[Any]]:
    """Arrays on the card, or on the host already, as a file holds them; a list is of rows."""

    def copied(array: Any) -> NDArray[Any]:
        if isinstance(array, list):
            return np.stack([copied(row) for row in array])
        return array if isinstance(array, np.ndarray) else card.host(array)

    return {name: copied(array) for name, array in arrays.items()}


def from_host(saved: dict[str, NDArray[Any]], arrays: dict[str, Any], card: gpu.Card) -> None:
    """The way back, into the same arrays."""

    def fill(name: str, array: Any, values: NDArray[Any]) -> None:
        if isinstance(array, list):
            if len(values) != len(array) and name != "allvecs":
                raise ValueError(f"{name} has {len(values)} rows, {len(array)} expected")
            for k, row in enumerate(array):
                fill(f"{name}[{k}]", row, values[k])
            return
        checkpoint.check_like(name, values, array)
        if isinstance(array, np.ndarray):
            array[...] = values
        else:
            card.assign(array, values)

    for name, array in arrays.items():
        fill(name, array, saved[name])


class Launcher:
    """Launches on the vectors of a card."""

    def __init__(self, card: gpu.Card) -> None:
        self.card, self.n = card, card.x.shape[0]
        self.parts = min(-(-self.n // gpu.THREADS), PARTS)
        self._most_blocks = gpu.most_blocks()
        self._launches: dict[tuple[Any, ...], Any] = {}

    def reduce(self, template: Any, *arguments: Any) -> None:
        """Launch as many blocks as there are parts."""
        self._launch(template, None, self.parts, arguments)

    def conclude(self, template: Any, *arguments: Any) -> None:
        """Launch one block."""
        self._launch(template, None, 1, arguments)

    def map(self, template: Any, *arguments: Any) -> None:
        """Launch as many blocks as there is work for."""
        self.spread(self.n, template, None, *arguments)

    def each(self, at: Any, *arguments: Any) -> None:
        """Do something at each coordinate: ``at(i, *arguments)``."""
        self.spread(self.n, _each, at, arguments)

    def spread(self, work: int, template: Any, at: Any, *arguments: Any) -> None:
        """Launch as many blocks as so many threads take, at most."""
        blocks = min(-(-work // gpu.THREADS), self._most_blocks)
        self._launch(template, at, blocks, arguments)

    def _launch(self, template: Any, at: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
        key = (template, at, blocks, *map(_sort_of, arguments))
        launch = self._launches.get(key)
        if launch is None:
            kernel = _compiled(template, at, tuple(map(gpu.kind_of, arguments)))
            stream = self.card.stream
            launch = gpu.configured(kernel, blocks, gpu.THREADS, stream, 8 * gpu.THREADS)
            self._launches[key] = launch
        launch(*arguments)

    def largest(self, x: Any) -> float:
        """The largest magnitude in a vector, or NaN if there is one."""
        return self._highest(_measure_largest, x)

    def confine(self, lower: NDArray[Any], upper: NDArray[Any]) -> bool:
        """Clip the points in the card's x, one row after another; whether one lay outside."""
        x, card = self.card.x, self.card
        slack = x.dtype.type(np.finfo(x.dtype).eps)
        return self._highest(_confine, x, card.array(lower), card.array(upper), slack) > 0

    def _highest(self, template: Any, *arguments: Any) -> float:
        tops = self.card.array(np.zeros(self.parts))
        self.reduce(template, *arguments, tops)
        return float(self.card.host(tops).max())

    def copy(self, x: Any, like: Any) -> Any:
        """A copy of a vector, as an array of the library of another one."""
        array = duplicate(like)
        self.put(x, self.card.view(array))
        return array

    def vector(self, x: Any = None) -> Any:
        """A new vector, as kernels take it: a copy, or zeros."""
        vector = self.card.vector()
        if x is not None:
            self.put(x, vector)
        return vector

    def put(self, x: Any, vector: Any) -> None:
        """Copy a vector into another one."""
        self.each(_copy_at, x, vector)


def _sort_of(value: Any) -> Any:
    """What tells the kernels of a template apart."""
    if type(value) is tuple:
        return tuple(map(_sort_of, value))
    return getattr(value, "dtype", type(value))


def as_first_point(x0: Any) -> tuple[Any, gpu.Card]:
    """A copy of x0 that the run may write to, and the card that it is on."""
    x = duplicate(x0)
    card = gpu.Card(x, name="x0")
    if not Launcher(card).largest(card.x) < inf:
        raise ValueError("x0 must be finite")
    return x, card


# ---- evaluation --------------------------------------------------------------------------------


class DeviceProblem:
    """An objective on a GPU: `numbelief.problem.Problem` for x there.

    Parameters
    ----------
    fun, jac, args
        As in `numbelief.minimize`.
    x : device array of shape (n,)
        The point to evaluate at, changed from one evaluation to the next.
    card : numbelief.cuda.Card
        The GPU, with its view of x.

    Attributes
    ----------
    nfev, njev : int
        Evaluations so far.
    gradient : device array of shape (n,)
        The latest gradient, as kernels take it.
    args : tuple
        Those of the coming evaluation.
    card : numbelief.cuda.Card
        The GPU.
    """

    native = None

    def __init__(
        self, fun: Any, jac: Any, args: Any, x: Any, card: gpu.Card, compiled: bool | None = None
    ) -> None:
        if compiled:
            raise TypeError("a loop in machine code is not possible: x0 is on a GPU")
        for name, function in (("fun", fun), ("jac", jac)):
            if native.is_compiled(function):
                raise TypeError(
                    f"{name} must be a Python function of device arrays where x0 is on a GPU, got "
                    "one that is compiled for the CPU"
                )
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {fun!r}")
        if not (callable(jac) or jac is True or (isinstance(jac, str) and jac == "inplace")):
            raise ValueError(
                "jac must be a callable, True or 'inplace' where x0 is on a GPU, which takes no "
                f"finite differences, got {jac!r}"
            )
        self._fun, self._jac, self.args = fun, jac, as_args(args)
        self._x, self.card = x, card
        self.nfev = self.njev = 0
        self._grad: Any = None
        if jac == "inplace":
            self._grad = duplicate(x)  # a coordinate that fun forgets must not pass for a gradient
            card.fill(card.view(self._grad), nan)
        self.gradient: Any = None
        self._alive: Any = None, None

    def wait(self) -> None:
        """Let what reads the latest gradient end, if it must before that is let go."""
        self.card.wait_for(self._alive[1])

    def value(self, x: Any = None) -> float:
        """The value at x, or another point, as a number; its gradient is then the latest one."""
        value, place = self.evaluate(x)
        return value if place is None else float(self.card.host(place)[0])

    def alone(self, x: Any) -> float:
        """The value at a point, without its gradient where the two are apart."""
        if callable(self._jac):
            return number(self._fun(x, *self.args), self.card)
        return self.value(x)

    def evaluate(self, x: Any = None) -> tuple[float, Any]:
        """The value at x, either as a number or, on the card, as an array of one (and nan)."""
        x = self._x if x is None else x
        if self._jac is True:
            pair = self._fun(x, *self.args)
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"with jac=True fun must return (value, gradient), got {pair!r}")
            value, grad = pair
        elif callable(self._jac):
            value, grad = self._fun(x, *self.args), self._jac(x, *self.args)
        else:
            grad = self._grad
            value = self._fun(x, grad, *self.args)
        self.wait()
        self._alive = value, grad  # a view does not keep the memory of what it shows
        self.gradient = self.card.gradient(grad, ())
        self.nfev += 1
        self.njev += 1
        if gpu.is_device_array(value):
            return nan, self.card.number(value)
        return as_scalar(value), None


def number(value: Any, card: gpu.Card, name: str = "fun") -> float:
    """What a function returned, on the host or on the card, as a number."""
    if gpu.is_device_array(value):
        return float(card.host(card.number(value, name))[0])
    return as_scalar(value, name)


# ---- looking -----------------------------------------------------------------------------------


class Points:
    """What is known of the points of a run, on the card and, after a look, on the host.

    Parameters
    ----------
    optimizer : Optimizer
        What takes the steps.
    average, moves, every : bool
        Whether to keep the mean of all points, to measure how far x moves, and to keep each point.

    Attributes
    ----------
    every : list of device array
        Each point, if they are kept.
    limits : tuple of device array or None
        Lower and upper bounds.
    """

    def __init__(self, optimizer: Any, *, average: bool, moves: bool, every: bool) -> None:
        self.x, self._card = optimizer.x, optimizer._card
        card = self._card
        self._launcher = launcher = Launcher(card)
        self._best = self._like_x(), self._like_x()
        self._average = self._like_x() if average else None
        if self._average is not None:
            card.fill(self._average[1], 0)
        self.every: list[Any] = []
        self._keeps_every = every
        limits = optimizer.limits
        self.limits = tuple(map(card.array, limits)) if limits else (None, None)
        self._previous = card.vector() if moves else None
        parts = np.zeros(launcher.parts)
        self._tops = tuple(card.array(parts) if k == 0 or moves else None for k in range(3))
        self._rates: list[float] = []
        self._begin(0, inf, 0.0)

    def _begin(self, count: int, best_fun: float, best_norm: float) -> None:
        """After so many points, let the next one find the row of figures before it."""
        rows = np.zeros((LOOK_EVERY + 1, COLUMNS))
        rows[(count - 1) % len(rows), [BEST_FUN, BEST_NORM, FINITE]] = best_fun, best_norm, 1
        self._figures, self._count = self._card.array(rows.ravel()), count

    @property
    def kept(self) -> dict[str, Any]:
        """What is kept of them, as `to_host` takes it."""
        kept: dict[str, Any] = {"best": [view for _, view in self._best]}
        if self._average is not None:
            kept["average"] = self._average[1]
        if self._previous is not None:
            kept["previous"] = self._previous
        if self._keeps_every:
            kept["allvecs"] = list(map(self._card.view, self.every))
        return kept

    def continue_from(self, control: NDArray[Any]) -> None:
        """Stand after the points that a file has seen, and make room for what it kept of them."""
        last = control[0]
        self._begin(int(last["nit"]) + 1, float(last["best_fun"]), float(last["best_norm"]))
        if self._keeps_every:
            self.every = [duplicate(self.x) for _ in range(self._count)]

    def _like_x(self) -> tuple[Any, Any]:
        """An array of the user's library, and as kernels take it."""
        array = duplicate(self.x)
        return array, self._card.view(array)

    def note(self, value: float, place: Any, rate: float, g: Any) -> None:
        """Queue the observation of the point that x and its gradient g are now."""
        launcher, x = self._launcher, self._card.x
        last, now = (COLUMNS * (k % (LOOK_EVERY + 1)) for k in (self._count - 1, self._count))
        self._count += 1
        self._rates.append(rate)
        launcher.reduce(_measure_point, x, g, *self.limits, self._previous, *self._tops)
        mean = (None, None)
        if self._average is not None:
            mean = self._average[1], x.dtype.type(1 / self._count)
        launcher.map(
            _keep_point, x, g, value, place, *self._tops, self._figures, last, now,
            *(view for _, view in self._best), *mean,
        )  # fmt: skip
        if self._keeps_every:
            self.every.append(duplicate(self.x))

    def look(self, control: NDArray[Any], recent: NDArray[Any], history: NDArray[Any]) -> int:
        """Bring the figures of the points since the last look to the host; how does the run stand?

        The arguments are those of `numbelief.loop.observe`.
        """
        rates, self._rates = np.array(self._rates), []
        if not rates.size:
            return loop.RUNNING
        rows = np.arange(self._count - rates.size, self._count) % (LOOK_EVERY + 1)
        figures = self._card.host(self._figures).reshape(-1, COLUMNS)[rows]
        return int(loop.compile_review()(figures, rates, control, recent, history))

    def copy(self, view: Any) -> Any:
        """A copy of a vector, as an array of the user's library."""
        return self._launcher.copy(view, self.x)

    def point(self, which: int, g: Any) -> tuple[Any, Any]:
        """Copies of one of the points to return and of the gradient that is kept with it.

        ``g`` is the gradient at the last point.
        """
        x = self._card.x
        if which == loop.BEST:
            (_, x), (_, g) = self._best
        elif which == loop.AVERAGE and self._average is not None:
            _, x = self._average
        return self.copy(x), self.copy(g)


# ---- the loop ----------------------------------------------------------------------------------


def bind_run(optimizer: Any, problem: DeviceProblem, points: Points) -> Any:
    """`loop.run`, with steps and observations that are queued; it takes the rates."""

    def step(x, g, state, clock, numbers, rate):
        optimizer._stepper.step(problem.gradient, clock, numbers, float(rate))

    def evaluate(x, g):
        return problem.evaluate()

    def observe(fun, rate, x, g):
        value, place = fun
        points.note(value, place, rate, problem.gradient)
        return loop.RUNNING

    names = {"step": step, "evaluate": evaluate, "observe": observe}
    run = kernels.lift(loop.run, "on_card", borrow=lambda arrays: arrays, **names)
    return lambda rates: run(rates, None, None, *optimizer.arrays, (), (), (), ())


class Search:
    """`loop.search`, and the text of `numbelief.tuning` that it calls, around launches.

    A trial brings its fun and two results of reductions to the host, which decides on them; the
    recursion over the last steps brings none.

    Parameters
    ----------
    optimizer, problem, points
        What takes the steps, evaluates and observes.
    scaled : bool
        As `numbelief.tuning.new_tuner` takes it.

    Attributes
    ----------
    g : device array of shape (n,)
        The gradient: the method writes to it, which it may not to the user's.
    """

    def __init__(
        self, optimizer: Any, problem: DeviceProblem, points: Points, *, scaled: bool
    ) -> None:
        self._optimizer, self._problem, self._points = optimizer, problem, points
        self._card = card = optimizer._card
        self._launcher = launcher = Launcher(card)
        x = card.x
        nothing = np.empty(0, x.dtype)
        record, _, _, products, alphas = tuning.new_tuner(nothing, on=True, scaled=scaled)
        rows = 1 + 2 + 2 * tuning.PAIRS
        self.g, *rest = (card.cuda.device_array(launcher.n, x.dtype) for _ in range(rows))
        tuner = (record.view(np.recarray), rest[:2], rest[2:], products, card.array(alphas))
        # Three results of each block, side by side, so that they cross over together.
        self._found, parts = card.array(np.zeros(3 * launcher.parts)), launcher.parts
        self._results = tuple(self._found[k * parts : (k + 1) * parts] for k in range(3))
        names: dict[str, Any] = {
            name: functools.partial(launcher.each, at) for name, at in tuning.COORDINATES.items()
        }
        names |= {
            "row": lambda arrays, k: arrays[k],
            "copy": functools.partial(launcher.each, _copy_at),
            "fill": self._fill,
            "largest": launcher.largest,
            "dot": self._dot,
            "deflect": self._deflect,
            "measure": self._measure,
            "_length": self._length,
            "step": self._step,
        }
        for name in ("prepare", "aim", "propose", "judge"):
            text = getattr(tuning, f"_{name}")
            names[name] = kernels._adopt(text, lambda function: function, **names)
        lower, upper = points.limits
        options = (None, None, None, lower, upper, None, None)
        # Python writes to the fields of a record by name in this form only.
        state, clock, numbers = optimizer.arrays
        self._arrays = (x, self.g, state, clock.view(np.recarray), numbers, options)
        self._tuner = tuner
        #: What a run is continued from, as `to_host` takes it.
        self.kept = {"g": self.g, **dict(zip(tuning.NAMES, tuner, strict=True))}
        quietly = np.errstate(all="ignore")  # as in compiled code
        self._propose, self._judge = quietly(names["propose"]), quietly(names["judge"])

    def evaluate(self, x: Any = None, g: Any = None) -> float:
        """Return fun at x, and let g be the gradient there."""
        fun = self._problem.value()
        self._launcher.each(_copy_at, self._problem.gradient, self.g)
        return fun

    def run(self, rates: NDArray[np.float64], *watch: NDArray[Any]) -> int:
        """Take so many steps, unless a point ends the run; watch is what `Points.look` takes."""

        def observe(fun, rate, x, g, *watch):
            self._points.note(fun, None, rate, g)
            return self._points.look(*watch)

        search = kernels.lift(
            loop.search,
            "on_card",
            borrow=lambda arrays: arrays,
            propose=self._propose,
            judge=self._judge,
            evaluate=self.evaluate,
            observe=observe,
        )
        return int(search(rates, *self._arrays, watch, self._tuner, ()))

    def _step(self, x, g, state, clock, numbers, rate, *options):
        _, clock, _ = self._optimizer.arrays
        self._optimizer._stepper.step(g, clock, numbers, float(rate))

    def _fill(self, arrays, value):
        for array in arrays:
            self._card.fill(array, value)

    def _reduce(self, template, *arguments):
        """What the blocks found: three rows, of which a product fills one."""
        results = self._results[: 1 if template is _multiply else 3]
        self._launcher.reduce(template, *arguments, *results)
        return self._card.host(self._found).reshape(3, -1)

    def _dot(self, a, b):
        return float(self._reduce(_multiply, a, b)[0].sum())

    def _measure(self, direction, x, g, x0):
        slopes, tops, moves = self._reduce(_measure_trial, direction, x, g, x0)
        return float(slopes.sum()), float(tops.max()), moves.max() != 0

    def _length(self, x, x0, trace):
        return self._reduce(_measure_trial, x, x, x, x0)[2].max()

    def _deflect(self, a, along, by, k, product, alphas, second):
        sums = self._results[0]
        self._launcher.reduce(_multiply, along, a, sums)
        self._launcher.map(_deflect, a, by, sums, k, product, alphas, int(second))
