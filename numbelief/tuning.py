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
(along a straight or concave way there is no such place: there, alone, the unit of x counts).
Coordinates that a bound holds against the gradient stay.

J. Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comp. 35, 1980; for the
acceptance at the level of rounding, W. Hager and H. Zhang, "A new conjugate gradient method with
guaranteed descent and an efficient line search", SIAM J. Optim. 16, 2005, equation 4.1.
"""

import functools
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
from numba import prange
from numba.extending import register_jitable
from numpy.typing import NDArray

from numbelief import kernels
from numbelief.kernels import SUM_BLOCK, copy, fill, largest, limit, project, row, window
from numbelief.rules import Rule

# Of 142 problems within 1,000 gradients, 1 pair solves 96.5 %, 2 97.9 %, 3 and more 99.3 %; within
# 300, 5 pairs solve 97.2 % and 8 97.9 % (asv_benchmarks/data_profile.py --pairs).
PAIRS = 8
# Of the decrease that the slope promises, this share must come (Armijo's condition).
DECREASE = 1e-4
# A search shortens a step to between a tenth and nine tenths, at most so many times.
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
# Without a unit of length: so many probes, but for the last so near in units of the one before.
PROBES, NEAR = 3, 1e-4
# In units of the last place of fun: below this, fun cannot tell and the slopes do.
ROUNDING = 20
# A search that fails without pairs and slots shrinks the rate, so many times.
SHRINK, FAILURES = 1e-3, 5

STEPPED, SHORTENED, LOST = range(3)

#: The arrays of `new_tuner`, by name.
NAMES = ("search", "base", "pairs", "products", "alphas")

_RECORD = np.dtype(
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

# Bound by `kernels.lift`, as are the names of `COORDINATES`.
step: Any
at: Any
dot: Any
shift: Any
deflect: Any
measure: Any
free: Any
scale: Any
subtract: Any
difference: Any
start_from: Any
go: Any
accept: Any
prepare: Any
aim: Any
propose: Any
judge: Any


def new_tuner(
    x: NDArray[Any], *, on: bool, scaled: bool, pairs: int = PAIRS
) -> tuple[NDArray[Any], ...]:
    """The memory of an automatic rate: a record, the base (x and g), s and y, s.y, alpha.

    It is empty for a rate that is given (``on=False``). Without ``scaled`` the rule sees gradients
    in their own unit, as a limit on them needs. Without ``pairs`` the steps are the rule's own.
    """
    n, rows, pairs = (x.size, 2 * max(pairs, 1), pairs) if on else (0, 0, 0)
    record = np.zeros(1, _RECORD)
    record["scaled"] = scaled
    return (
        record,
        np.zeros((2, n), x.dtype),
        np.zeros((rows, n), x.dtype),
        np.zeros(pairs),
        np.zeros(pairs),
    )


# ---- arithmetic over blocks --------------------------------------------------------------------


@register_jitable
def dot_block(a, b):
    """The inner product of short arrays, in float64."""
    # Four sums, because one alone waits for itself; unlike with fastmath it is the same sum
    # wherever it is compiled.
    s0 = s1 = s2 = s3 = 0.0
    end = a.size - a.size % 4
    for i in range(0, end, 4):
        s0 += np.float64(a[i]) * b[i]
        s1 += np.float64(a[i + 1]) * b[i + 1]
        s2 += np.float64(a[i + 2]) * b[i + 2]
        s3 += np.float64(a[i + 3]) * b[i + 3]
    for i in range(end, a.size):
        s0 += np.float64(a[i]) * b[i]
    return (s0 + s1) + (s2 + s3)


def _dot(a, b):
    """The inner product, in float64, with the same bits on any number of threads."""
    if a.size <= SUM_BLOCK:
        return dot_block(a, b)
    sums = np.empty((a.size + SUM_BLOCK - 1) // SUM_BLOCK)
    for k in prange(sums.size):
        lo, hi = k * SUM_BLOCK, min(a.size, (k + 1) * SUM_BLOCK)
        sums[k] = dot_block(window(a, lo, hi), window(b, lo, hi))
    total = 0.0
    for part in sums:
        total += part
    return total


def _shift(a, factor, b):
    """Add a multiple of b to a."""
    c = a.dtype.type(factor)
    for i in prange(a.size):
        a[i] += c * b[i]


@register_jitable
def factor_of(inner, k, product, alphas, second):
    """What a loop of the recursion takes of pair k's vector; the first loop notes it."""
    factor = inner / product
    if second:
        return factor + alphas[k]
    alphas[k] = factor
    return factor


def _deflect(a, along, by, k, product, alphas, second):
    """Take out of a what pair k knows, in one of the two loops of the recursion."""
    shift(a, -factor_of(dot(along, a), k, product, alphas, second), by)


@register_jitable
def _differ(a, b):
    for i in range(a.size):  # noqa: SIM110  Numba has no any()
        if a[i] != b[i]:
            return True
    return False


def _measure(direction, x, g, x0):
    """The slope along a direction, the steepest coordinate, and whether x is away from x0."""
    return dot(direction, g), largest(g), _differ(x, x0)


# ---- what is done at each coordinate -----------------------------------------------------------


@register_jitable
def _is_held(x, g, lower, upper, i):
    """Whether a bound holds coordinate i against the gradient."""
    if lower is None:
        return False
    else:
        return (x[i] <= lower[i] and g[i] > 0) or (x[i] >= upper[i] and g[i] < 0)


def _free_at(i, g, x0, g0, lower, upper):
    """The gradient, but 0 where a bound holds."""
    g[i] = g.dtype.type(0) if _is_held(x0, g0, lower, upper, i) else g0[i]


def _scale_at(i, a, factor):
    a[i] *= factor


def _subtract_at(i, a, b):
    a[i] -= b[i]


def _difference_at(i, a, b, c):
    a[i] = b[i] - c[i]


def _start_from_at(i, x, x0, g0, lower, upper):
    """From a displacement to the point, where no bound holds."""
    p = x.dtype.type(0) if _is_held(x0, g0, lower, upper, i) else x[i]
    x[i] = limit(x0[i] + p, lower, upper, i)


def _go_at(i, x, x0, length, direction, lower, upper):
    x[i] = limit(x0[i] + length * direction[i], lower, upper, i)


def _accept_at(i, x, g, x0, g0, direction, change):
    """Let the base follow, and note how far."""
    direction[i] = x[i] - x0[i]
    change[i] = g[i] - g0[i]
    x0[i] = x[i]
    g0[i] = g[i]


#: What the method does to vectors: at each coordinate, apart from sums and maxima. By these names a
#: target binds its loops, which take what these functions take after ``i``.
COORDINATES = {
    "free": _free_at,
    "scale": _scale_at,
    "subtract": _subtract_at,
    "difference": _difference_at,
    "start_from": _start_from_at,
    "go": _go_at,
    "accept": _accept_at,
}


def _each(*arguments):
    for i in range(arguments[0].size):
        at(i, *arguments)


# ---- the method --------------------------------------------------------------------------------


@register_jitable
def _clear(state, clock):
    fill(state, 0)
    now = clock[0]
    now.t = 0
    now.bias1 = now.bias2 = 0.0


def _prepare(g, record, base, pairs, products, alphas, lower, upper):
    """The first loop: g becomes what the rule shall see of the gradient at the base."""
    now = record[0]
    memory = len(pairs) // 2
    free(g, row(base, 0), row(base, 1), lower, upper)
    for k in range(now.pairs - 1, max(now.pairs - memory, 0) - 1, -1):
        j = k % memory
        deflect(g, row(pairs, j), row(pairs, memory + j), j, products[j], alphas, False)
    scale(g, g.dtype.type(now.scale))


def _aim(x, record, base, pairs, products, alphas, options):
    """The second loop, after the rule's step: x becomes the first trial. Does it lead down?"""
    now = record[0]
    memory = len(pairs) // 2
    x0, g0 = row(base, 0), row(base, 1)
    lower, upper, trace, projection = options[3], options[4], options[5], options[6]
    subtract(x, x0)
    for k in range(max(now.pairs - memory, 0), now.pairs):
        j = k % memory
        deflect(x, row(pairs, memory + j), row(pairs, j), j, products[j], alphas, True)
    direction = row(pairs, now.pairs % memory)  # the oldest step is needed no more
    start_from(x, x0, g0, lower, upper)
    project(x, trace, projection)
    difference(direction, x, x0)
    now.slope, now.length, now.trials = dot(direction, g0), 1.0, 0
    return -inf < now.slope < 0


def _propose(fun, x, g, state, clock, numbers, options, record, base, pairs, products, alphas):
    """Put the first trial of a step into x, or return False where no way leads down.

    At the first call x, g and fun are those of the first point.
    """
    lower, upper = options[3], options[4]
    now = record[0]
    if now.rate == 0:
        _start(fun, x, g, state, clock, numbers, options, record, base)
    elif now.trials == TRIALS and not _begin_anew(state, clock, record):
        return _return_to_base(x, g, base)
    while True:
        copy(row(base, 0), x)
        prepare(g, record, base, pairs, products, alphas, lower, upper)
        step(x, g, state, clock, numbers, now.rate, *options)
        if aim(x, record, base, pairs, products, alphas, options):
            return True
        if not _begin_anew(state, clock, record):
            return _return_to_base(x, g, base)


@register_jitable
def _return_to_base(x, g, base):
    copy(row(base, 0), x)
    copy(row(base, 1), g)
    return False


@register_jitable
def _begin_anew(state, clock, record):
    """Forget slots and pairs; without any, shrink the rate. False after too many failures."""
    now = record[0]
    if clock[0].t <= 1 and now.pairs == 0:
        now.rate *= SHRINK
        now.failures += 1
    now.pairs = 0
    _clear(state, clock)
    return now.failures <= FAILURES


def _start(fun, x, g, state, clock, numbers, options, record, base):
    """Find the first rate: a first step of the rule tells what a rate does."""
    now = record[0]
    largest_x, largest_g = largest(x), largest(g)
    copy(x, row(base, 0))
    copy(g, row(base, 1))
    now.fun, now.reference = fun, largest_g
    now.scale = 1 / largest_g if now.scaled and largest_g > 0 else 1.0
    scale(g, g.dtype.type(now.scale))
    wanted = FIRST * largest_x
    if wanted == 0 and fun != 0 and largest_g > 0:  # a straight line would fall to 0
        wanted = abs(fun) / largest_g / x.size
    elif wanted == 0:
        wanted, now.probes = 1.0, PROBES
    step(x, g, state, clock, numbers, wanted, *options)
    moved = _length(x, row(base, 0), options[5])
    _clear(state, clock)
    now.rate = wanted * wanted / moved if moved > 0 else wanted


@register_jitable
def _length(x, x0, trace):
    """The largest move of a coordinate, before a projection if there was one."""
    moved = 0.0
    if trace is None:
        for i in range(x.size):
            moved = max(moved, abs(np.float64(x[i]) - x0[i]))
    else:
        for i in range(x.size):
            moved = max(moved, abs(np.float64(trace[0, i]) * trace[1, i]))
    return moved


def _judge(fun, x, g, state, clock, options, record, base, pairs, products, alphas):
    """Look at a trial: accept it, put a shorter one into x, or give its direction up."""
    now = record[0]
    memory = len(pairs) // 2
    place = now.pairs % memory
    direction, change = row(pairs, place), row(pairs, memory + place)
    x0, g0 = row(base, 0), row(base, 1)
    lower, upper, trace, projection = options[3], options[4], options[5], options[6]
    slope, steepest, differs = measure(direction, x, g, x0)
    finite = isfinite(fun) and isfinite(slope) and steepest < inf
    if not differs:  # too short a step for these numbers
        now.trials = TRIALS
        return LOST
    if now.probes > 0 and _probe(finite, slope, np.finfo(x.dtype).eps, now):
        _clear(state, clock)
        return LOST
    falls = fun <= now.fun + DECREASE * now.length * now.slope
    noise = ROUNDING * np.finfo(x.dtype).eps * abs(now.fun)
    level = fun <= now.fun + noise and abs(slope) <= 0.8 * abs(now.slope)
    if not (finite and (falls or level)):
        now.trials += 1
        if now.trials == TRIALS:
            return LOST
        share = SHORTEST
        if finite:
            share = _lowest(now.fun - fun, now.slope * now.length, slope * now.length)
        now.length *= min(max(share, SHORTEST), LONGEST)
        go(x, x0, x.dtype.type(now.length), direction, lower, upper)
        project(x, trace, projection)
        return SHORTENED
    bend = slope - now.slope
    # Where the slope would vanish, were it a straight line, in units of the direction.
    best = now.length * -now.slope / bend if bend > 0 else inf
    now.rate *= min(max(best, 1 / FACTOR), FACTOR)
    accept(x, g, x0, g0, direction, change)
    now.fun, now.failures = fun, 0
    product = dot(direction, change)
    if product > 0 and len(products) > 0:
        products[place] = product
        now.pairs += 1
    if steepest <= STALE * now.reference:
        now.reference = steepest
        _clear(state, clock)
        if now.scaled and 0 < steepest * now.scale < FAINT:
            now.scale = 1 / steepest
    return STEPPED


@register_jitable
def _probe(finite, slope, eps, now):
    """Let a trial of length 1 tell the rate of another one; False where it tells nothing."""
    now.probes -= 1
    factor = NEAR
    if finite:
        bend = slope - now.slope
        if not bend > ROUNDING * eps * abs(now.slope):
            now.probes = 0
            return False
        factor = -now.slope / bend * (NEAR if now.probes > 0 else 1.0)
    now.rate = max(now.rate * factor, np.finfo(np.float64).tiny)
    return True


@register_jitable
def _lowest(drop, slope0, slope1):
    """Where in [0, 1] the cubic with this drop and these slopes at 0 and 1 is lowest."""
    z = 3 * drop + slope0 + slope1
    root = sqrt(max(z * z - slope0 * slope1, 0.0))
    span = slope1 - slope0 + 2 * root
    return 1 - (slope1 + root - z) / span if span != 0 else 0.5


# ---- compilation -------------------------------------------------------------------------------


def _proposing(fun, x, g, state, clock, numbers, options, *tuner):
    return propose(fun, x, g, state, clock, numbers, options, *tuner)


def _judging(fun, x, g, state, clock, options, *tuner):
    return judge(fun, x, g, state, clock, options, *tuner)


def compile_parts(rule: Rule, *, parallel: bool, nogil: bool) -> dict[str, Any]:
    """`propose` and `judge`, for a loop that Python runs."""
    return _compile_parts(type(rule), len(rule.state_names), parallel, nogil).copy()  # type: ignore[arg-type]


@functools.cache
def _compile_parts(rule: type[Rule], slots: int, parallel: bool, nogil: bool) -> dict[str, Any]:
    salt = kernels.rule_salt(rule)
    kind = f"{parallel:d}{nogil:d}_{salt}"
    propose, judge = parts(rule, slots, parallel).values()  # type: ignore[arg-type]
    proposing = kernels.lift(_proposing, f"{rule.__name__}_{slots}_{kind}", propose=propose)
    judging = kernels.lift(_judging, f"{parallel:d}{nogil:d}_{kernels.source_salt()}", judge=judge)
    return {
        "propose": kernels.jit(proposing, cache=salt is not None, nogil=nogil),
        "judge": kernels.jit(judging, nogil=nogil),
    }


@functools.cache
def parts(rule: type[Rule], slots: int, parallel: bool) -> dict[str, Any]:
    """`propose` and `judge`, for loops that are compiled."""
    advance = kernels.compile_advance(rule, slots, parallel, False)  # type: ignore[arg-type]
    names = _parts(parallel)
    start = kernels.lift(_start, step=advance, scale=names["scale"])
    proposing = kernels.lift(
        _propose,
        step=advance,
        prepare=names["prepare"],
        aim=names["aim"],
        _start=kernels.part(start, inline=False),
    )
    return {"propose": kernels.part(proposing, inline=False), "judge": names["judge"]}


@functools.cache
def _parts(parallel: bool) -> dict[str, Any]:
    """What does not depend on the rule."""
    sums = {
        "dot": kernels.part(_dot, parallel=parallel),
        "shift": kernels.part(_shift, parallel=parallel),
    }
    bound = {
        **sums,
        "deflect": kernels.part(kernels.lift(_deflect, **sums)),
        "measure": kernels.part(kernels.lift(_measure, **sums)),
        **{
            name: kernels.part(kernels.lift(_each, at=register_jitable(function)))
            for name, function in COORDINATES.items()
        },
    }
    # These stay serial. Compiled in parallel, Numba drops their writes to windows of an array: it
    # does not know that a window is part of one.
    templates = {"prepare": _prepare, "aim": _aim, "judge": _judge}
    compiled = {
        name: kernels.part(kernels.lift(template, **bound), inline=False)
        for name, template in templates.items()
    }
    return {**bound, **compiled}
