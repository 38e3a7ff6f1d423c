r"""learning_rate="auto": the rule inside a limited-memory quasi-Newton method with a line search.

A rule is a preconditioner: fed with a gradient, it answers with a displacement. The two-loop
recursion of limited-memory BFGS has room for one, its :math:`H_0`. So the last `PAIRS` steps
:math:`s_k = x_{k+1} - x_k` and :math:`y_k = g_{k+1} - g_k` take out of the gradient, before the
rule sees it, and out of the displacement, after, what they know of the curvature::

    q <- g                                   for k = newest ... oldest:
    alpha_k <- s_k.q / s_k.y_k,              q <- q - alpha_k y_k
    p <- the rule's displacement for q       for k = oldest ... newest:
    p <- p - (alpha_k + y_k.p / s_k.y_k) s_k

and a backtracking search along p makes every accepted value lower. The learning rate scales what
the rule adds; it follows the best length of the last step as its end points tell it. Nothing
depends on the units of fun or x. The first step moves x by a tenth of its largest coordinate; from
x = 0, as far as a straight line takes to fall from fun(0) to 0; and where fun(0) is 0 as well, to
where the curvature at 0 says that the slope vanishes, which probes at ever better lengths tell
(along a straight or concave way there is no such point: there, alone, the unit of x counts).
Coordinates that a bound holds against the gradient stay.

J. Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comp. 35, 1980; for the
acceptance at the level of rounding, W. Hager and H. Zhang, "A new conjugate gradient method with
guaranteed descent and an efficient line search", SIAM J. Optim. 16, 2005, equation 4.1.
"""

import functools
from math import inf, isfinite, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbelief._compile.arrays import (
    clip_to_bounds,
    compile_add_multiple,
    compile_dot,
    copy,
    fill,
    largest,
    loop_over,
)
from numbelief._compile.internals import eps_of, larger, row, smaller, tiny_of
from numbelief._compile.jit import key_of, part
from numbelief._compile.pointers import Layout, compile_for_numbers, loaded
from numbelief._compile.template import bind
from numbelief._step.state import Region
from numbelief._step.template import call_step, project

# Of 142 problems within 1,000 gradients, 1 pair solves 96.5 %, 2 97.9 %, 3 and more 99.3 %; within
# 300, 5 pairs solve 97.2 % and 8 97.9 % (asv_benchmarks/data_profile.py --pairs).
PAIRS = 8
# Of the decrease that the slope promises, this share must come (Armijo's condition).
DECREASE = 1e-4
# A search shortens a step to between a tenth and nine tenths, at most TRIALS times.
SHORTEST, LONGEST, TRIALS = 0.1, 0.9, 20
# The rate changes by at most this factor a step.
FACTOR = 10.0
# The slots are cleared when the gradient has fallen to this share of what it was: a mean of squares
# of gradients ten times as large says nothing of today's.
STALE = 0.1
# Below this share of the unit that the rule sees gradients in, its eps would count: a new unit.
FAINT = 1e-6
# The first step moves no coordinate by more than this share of the largest.
FIRST = 0.1
# Without a unit of length: PROBES probes, all but the last this near, in units of the one before.
PROBES, NEAR = 3, 1e-4
# In units of the last digit of fun: below this, fun cannot tell and the slopes do.
ROUNDING = 20
# A search that fails without pairs and slots shrinks the rate, FAILURES times.
SHRINK, FAILURES = 1e-3, 5

STEPPED, SHORTENED, LOST = range(3)

RECORD = np.dtype(
    [
        ("rate", "f8"),  # what the next step of the rule gets
        ("scale", "f8"),  # the rule sees gradients times this, so that eps has no unit
        ("scaled", "i8"),  # whether it may differ from 1
        ("fun", "f8"),  # at the base
        ("slope", "f8"),  # of fun along the direction, at the base
        ("length", "f8"),  # of the trial, in units of the direction
        ("reference", "f8"),  # the largest |g| when the slots were cleared
        ("trials", "i8"),
        ("failures", "i8"),
        ("probes", "i8"),  # still to be made, to find a unit of length
        ("pairs", "i8"),  # stored since they were last forgotten
    ]
)


class Memory(NamedTuple):
    """What an automatic rate remembers; empty arrays for a rate that is given.

    Attributes
    ----------
    search : ndarray of shape (1,), of dtype RECORD
        The status of the search.
    base : ndarray of shape (2, n)
        The last accepted point, and its gradient.
    pairs : ndarray of shape (2 k, n)
        The last k steps, and then the changes of the gradient that they brought.
    products, alphas : ndarray of shape (k,), float64
        Their inner products, and what the recursion's first loop notes for the second.
    """

    search: Any
    base: Any
    pairs: Any
    products: Any
    alphas: Any


class Method(NamedTuple):
    """What `propose` and `judge` work on.

    Attributes
    ----------
    step
        A step of the rule, as the target's ``take_step`` takes it; on the CPU a `StepCall`.
    x, g : ndarray of shape (n,)
        The point, and its gradient.
    state : StepState
    region : Region
        Where x may be.
    memory : Memory
    """

    step: Any
    x: Any
    g: Any
    state: Any
    region: Any
    memory: Any


def check_record(saved: NDArray[Any]) -> None:
    """Refuse counts in a RECORD of a file that no search leads to."""
    most = {"trials": TRIALS, "failures": FAILURES + 1, "probes": PROBES, "pairs": 1 << 62}
    for name, top in most.items():
        if not 0 <= saved[name][0] <= top:
            raise ValueError(f"search has {saved[name][0]} for {name}")


def new_memory(x: NDArray[Any], *, on: bool, scaled: bool, pairs: int = PAIRS) -> Memory:
    """The memory of an automatic rate; an empty one for a rate that is given (``on=False``).

    Without ``scaled`` the rule sees gradients in their own unit. Without ``pairs`` the steps are
    the rule's own.
    """
    n, rows, pairs = (x.size, 2 * max(pairs, 1), pairs) if on else (0, 0, 0)
    search = np.zeros(1, RECORD)
    search["scaled"] = scaled
    return Memory(
        search,
        np.zeros((2, n), x.dtype),
        np.zeros((rows, n), x.dtype),
        np.zeros(pairs),
        np.zeros(pairs),
    )


# ---- at each coordinate ------------------------------------------------------------------------


def _held_template(BOUNDED):
    """Whether a bound holds coordinate i against the gradient."""

    def is_held(x, g, lower, upper, i):
        if BOUNDED:
            return (x[i] <= lower[i] and g[i] > 0) or (x[i] >= upper[i] and g[i] < 0)
        return False

    return is_held


def _free_template(is_held):
    """The gradient, but 0 where a bound holds."""

    def free(i, g, x0, g0, lower, upper):
        g[i] = g.dtype.type(0) if is_held(x0, g0, lower, upper, i) else g0[i]

    return free


def _start_from_template(is_held, BOUNDED):
    """From a displacement to the point, where no bound holds."""

    def start_from(i, x, x0, g0, lower, upper):
        p = x.dtype.type(0) if is_held(x0, g0, lower, upper, i) else x[i]
        x[i] = clip_to_bounds(x0[i] + p, lower[i], upper[i]) if BOUNDED else x0[i] + p

    return start_from


def _go_template(BOUNDED):
    """To the trial of a length."""

    def go(i, x, x0, length, direction, lower, upper):
        p = x0[i] + length * direction[i]
        x[i] = clip_to_bounds(p, lower[i], upper[i]) if BOUNDED else p

    return go


def _scale(i, a, factor):
    a[i] *= factor


def _subtract(i, a, b):
    a[i] -= b[i]


def _difference(i, a, b, c):
    a[i] = b[i] - c[i]


def _accept(i, x, g, x0, g0, direction, change):
    """Let the base follow, and note how far."""
    direction[i] = x[i] - x0[i]
    change[i] = g[i] - g0[i]
    x0[i] = x[i]
    g0[i] = g[i]


@functools.cache
def at_each_coordinate(*, bounded: bool) -> dict[str, Any]:
    """What the method does to vectors, apart from sums and maxima: ``at(i, *vectors)``.

    By these names a target binds its loops, which take what these functions take after ``i``.
    """
    is_held = bind(_held_template, BOUNDED=bounded)
    return {
        "free": bind(_free_template, is_held=is_held),
        "scale": _scale,
        "subtract": _subtract,
        "difference": _difference,
        "start_from": bind(_start_from_template, is_held=is_held, BOUNDED=bounded),
        "go": bind(_go_template, BOUNDED=bounded),
        "accept": _accept,
    }


# ---- vectors on the CPU ------------------------------------------------------------------------


def factor_of(inner, k, product, alphas, second):
    """What a loop of the recursion takes of pair k's vector; the first loop notes it."""
    factor = inner / product
    if second:
        return factor + alphas[k]
    alphas[k] = factor
    return factor


def deflect_template(dot, add_multiple):
    """Take out of a what pair k knows, in one of the two loops of the recursion."""

    def deflect(a, along, by, k, product, alphas, second):
        add_multiple(a, -factor_of(dot(along, a), k, product, alphas, second), by)

    return deflect


def _differ(a, b):
    for i in range(a.size):  # noqa: SIM110  Numba has no any()
        if a[i] != b[i]:
            return True
    return False


def measure_template(dot, largest):
    """The slope along a direction, the steepest coordinate, and whether x is away from x0."""

    def measure(direction, x, g, x0):
        return dot(direction, g), largest(g), _differ(x, x0)

    return measure


def length_template(PROJECTED):
    """The largest move of a coordinate, before a projection if there was one."""

    def length_of_move(x, x0, last_step):
        moved = 0.0
        if PROJECTED:
            for i in range(x.size):
                moved = larger(moved, abs(np.float64(last_step[0, i]) * last_step[1, i]))
        else:
            for i in range(x.size):
                moved = larger(moved, abs(np.float64(x[i]) - x0[i]))
        return moved

    return length_of_move


# ---- the method --------------------------------------------------------------------------------


def _clear(state):
    fill(state.slots, 0)
    now = state.timestep[0]
    now.t = 0
    now.bias1 = now.bias2 = 0.0


def prepare_template(free, deflect, scale):
    """The first loop: g becomes what the rule is to see of the gradient at the base."""

    def prepare(g, memory, region):
        now, pairs = memory.search[0], memory.pairs
        count = len(pairs) // 2
        free(g, row(memory.base, 0), row(memory.base, 1), region.lower, region.upper)
        for k in range(now.pairs - 1, larger(now.pairs - count, 0) - 1, -1):
            j = k % count
            deflect(
                g, row(pairs, j), row(pairs, count + j), j, memory.products[j], memory.alphas, False
            )
        scale(g, g.dtype.type(now.scale))

    return prepare


def aim_template(subtract, deflect, start_from, difference, dot, PROJECTED):
    """The second loop, after the rule's step: x becomes the first trial. Does it lead down?"""

    def aim(x, memory, region):
        now, pairs = memory.search[0], memory.pairs
        count = len(pairs) // 2
        x0, g0 = row(memory.base, 0), row(memory.base, 1)
        subtract(x, x0)
        for k in range(larger(now.pairs - count, 0), now.pairs):
            j = k % count
            deflect(
                x, row(pairs, count + j), row(pairs, j), j, memory.products[j], memory.alphas, True
            )
        direction = row(pairs, now.pairs % count)  # the oldest step is needed no more
        start_from(x, x0, g0, region.lower, region.upper)
        if PROJECTED:
            project(x, row(region.last_step, 0), region.projection)
        difference(direction, x, x0)
        now.slope = dot(direction, g0)
        now.length = 1.0
        now.trials = 0
        return -inf < now.slope < 0

    return aim


def _begin_anew(state, search):
    """Forget slots and pairs; without any, shrink the rate. False after too many failures."""
    now = search[0]
    if state.timestep[0].t <= 1 and now.pairs == 0:
        now.rate *= SHRINK
        now.failures += 1
    now.pairs = 0
    _clear(state)
    return now.failures <= FAILURES


def start_template(take_step, scale, length_of_move, copy, largest):
    """Find the first rate: a first step of the rule tells what a rate does."""

    def start(fun, method):
        step, x, g, state, region, memory = method
        now, base = memory.search[0], memory.base
        largest_x, largest_g = largest(x), largest(g)
        copy(x, row(base, 0))
        copy(g, row(base, 1))
        now.fun = fun
        now.reference = largest_g
        now.scale = 1 / largest_g if now.scaled and largest_g > 0 else 1.0
        scale(g, g.dtype.type(now.scale))
        wanted = FIRST * largest_x
        if wanted == 0 and fun != 0 and largest_g > 0:  # a straight line would fall to 0
            wanted = abs(fun) / largest_g / x.size
        elif wanted == 0:
            wanted = 1.0
            now.probes = PROBES
        take_step(x, g, wanted, step)
        moved = length_of_move(x, row(base, 0), region.last_step)
        _clear(state)
        now.rate = wanted * wanted / moved if moved > 0 else wanted

    return start


def propose_template(start, prepare, take_step, aim, copy):
    """Put the first trial of a step into x, or return False where no way leads down.

    At the first call x, g and fun are those of the first point.
    """

    def propose(fun, method):
        step, x, g, state, region, memory = method
        now = memory.search[0]
        lost = now.trials == TRIALS
        if now.rate == 0:
            start(fun, method)
            lost = False
        while True:
            if lost and not _begin_anew(state, memory.search):
                copy(row(memory.base, 0), x)
                copy(row(memory.base, 1), g)
                return False
            copy(row(memory.base, 0), x)
            prepare(g, memory, region)
            take_step(x, g, now.rate, step)
            lost = not aim(x, memory, region)
            if not lost:
                return True

    return propose


def judge_template(measure, go, accept, dot, PROJECTED):
    """Look at a trial: accept it, put a shorter one into x, or give its direction up."""

    def judge(fun, method):
        _, x, g, state, region, memory = method
        now, pairs, base = memory.search[0], memory.pairs, memory.base
        count = len(pairs) // 2
        position = now.pairs % count
        direction, change = row(pairs, position), row(pairs, count + position)
        x0, g0 = row(base, 0), row(base, 1)
        slope, steepest, differs = measure(direction, x, g, x0)
        finite = isfinite(fun) and isfinite(slope) and steepest < inf
        eps = eps_of(x)
        if not differs:  # too short a step for these numbers
            now.trials = TRIALS
            return LOST
        if now.probes > 0 and _probe(finite, slope, eps, now, tiny_of(memory.products)):
            _clear(state)
            return LOST
        falls = fun <= now.fun + DECREASE * now.length * now.slope
        noise = ROUNDING * eps * abs(now.fun)
        level = fun <= now.fun + noise and abs(slope) <= 0.8 * abs(now.slope)
        if not (finite and (falls or level)):
            now.trials += 1
            if now.trials == TRIALS:
                return LOST
            share = SHORTEST
            if finite:
                share = _lowest(now.fun - fun, now.slope * now.length, slope * now.length)
            now.length *= smaller(larger(share, SHORTEST), LONGEST)
            go(x, x0, x.dtype.type(now.length), direction, region.lower, region.upper)
            if PROJECTED:
                project(x, row(region.last_step, 0), region.projection)
            return SHORTENED
        bend = slope - now.slope
        # Where the slope would vanish, were it a straight line, in units of the direction.
        best = now.length * -now.slope / bend if bend > 0 else inf
        now.rate *= smaller(larger(best, 1 / FACTOR), FACTOR)
        accept(x, g, x0, g0, direction, change)
        now.fun = fun
        now.failures = 0
        product = dot(direction, change)
        if product > 0 and len(memory.products) > 0:
            memory.products[position] = product
            now.pairs += 1
        if steepest <= STALE * now.reference:
            now.reference = steepest
            _clear(state)
            if now.scaled and 0 < steepest * now.scale < FAINT:
                now.scale = 1 / steepest
        return STEPPED

    return judge


def _probe(finite, slope, eps, now, tiny):
    """Let a trial of length 1 tell the rate of another one; False where it tells nothing."""
    now.probes -= 1
    factor = NEAR
    if finite:
        bend = slope - now.slope
        if not bend > ROUNDING * eps * abs(now.slope):
            now.probes = 0
            return False
        factor = -now.slope / bend * (NEAR if now.probes > 0 else 1.0)
    now.rate = larger(now.rate * factor, tiny)
    return True


def _lowest(drop, slope0, slope1):
    """Where in [0, 1] the cubic with this drop and these slopes at 0 and 1 is lowest."""
    z = 3 * drop + slope0 + slope1
    root = sqrt(larger(z * z - slope0 * slope1, 0.0))
    span = slope1 - slope0 + 2 * root
    return 1 - (slope1 + root - z) / span if span != 0 else 0.5


# ---- for a target ------------------------------------------------------------------------------


def bind_method(vectors: dict[str, Any], *, projected: bool) -> dict[str, Any]:
    """`propose` and `judge`, around a target's operations on vectors.

    Parameters
    ----------
    vectors : dict of str to function
        `at_each_coordinate`, as loops; ``copy``, ``largest``, ``dot``, ``deflect``, ``measure``,
        ``length_of_move`` and ``take_step``.
    projected : bool
        Whether x lies in a set other than a box.
    """

    def some(*names: str) -> dict[str, Any]:
        return {name: vectors[name] for name in names}

    aims = some("subtract", "deflect", "start_from", "difference", "dot")
    steps = {
        "prepare": bind(prepare_template, **some("free", "deflect", "scale")),
        "aim": bind(aim_template, PROJECTED=projected, **aims),
        "start": bind(
            start_template, **some("take_step", "scale", "length_of_move", "copy", "largest")
        ),
        **some("take_step", "copy"),
    }
    judges = some("measure", "go", "accept", "dot")
    return {
        "propose": bind(propose_template, **steps),
        "judge": bind(judge_template, PROJECTED=projected, **judges),
    }


@functools.cache
def compile_method(kind: Region, layout: Layout, parallel: bool) -> Any:
    """Compile `propose` and `judge` as C functions of (fun, 0, data), for a `kind_of_region`.

    ``layout`` is that of a `Method`, which lies at ``data``.
    """
    bounded, projected = kind.lower is not None, kind.projection is not None
    # Only the sums are parallel. Compiled in parallel, Numba drops the others' writes to windows:
    # it does not know that a window is part of an array.
    dot = compile_dot(parallel=parallel)
    add_multiple = compile_add_multiple(parallel=parallel)
    top = part(largest, allocates=False)
    vectors = {
        "dot": dot,
        "deflect": bind(deflect_template, dot=dot, add_multiple=add_multiple),
        "measure": bind(measure_template, dot=dot, largest=top),
        "copy": part(copy, allocates=False),
        "largest": top,
        "length_of_move": bind(length_template, PROJECTED=projected),
        "take_step": call_step,
        **{name: loop_over(at) for name, at in at_each_coordinate(bounded=bounded).items()},
    }
    key = key_of(parallel, layout)
    return tuple(
        compile_for_numbers(
            bind(_stored_template, f"{name}_{key}", act=act, LAYOUT=layout.pointer), allocates=False
        )
        for name, act in bind_method(vectors, projected=projected).items()
    )


def _stored_template(act, LAYOUT):
    def stored(fun, _, data):
        return act(fun, loaded(data, LAYOUT)[0])

    return stored
