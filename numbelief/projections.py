"""Projection onto sets in a diagonal metric, compiled, and called by address.

A loop that projects its iterate is compiled once for all sets, so it calls a C function::

    double project(intptr_t n, T *x, T *steps, void *data)     T is double or float

that moves x to the point of the set with the least sum of (new - old)**2 / steps, and returns how
far x is from the set: 0 but for rounding, unless the set cannot be reached. There is one such
function for each kind of set; ``data`` is a block of addresses, of the set's arrays and of scratch
memory, so that a call allocates nothing and a block serves one thread.

A step of 0 is an infinite weight: the coordinate stays where it is, as long as the others alone can
reach the set. Everything is computed in float64, whatever T is.
"""

import ctypes
import functools
from collections.abc import Sequence
from math import copysign, inf, isnan, nan, sqrt
from typing import Any

import numba
import numpy as np
from numba import carray
from numba import types as nb
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numpy.typing import NDArray

from numbelief import kernels
from numbelief.kernels import bits_of, evaluate_at, of_bits, window

# The words of a block: addresses of scratch memory, numbers, the set's arrays and, of a set made of
# sets, its parts as (address, data, first coordinate, next part's) in `COUNT` rows.
SCRATCH, INDEX, NUMBERS, FIRST, SECOND, PARTS, COUNT, WORDS = range(8)
PART_WORDS = 4

# Rounding errors of a sum of n terms, in units of the sum of their magnitudes: those of the terms,
# in the dtype of x, and those of adding them up.
TERM_ULPS, SUM_ULPS = 2, 16
EPS = float(np.finfo(np.float64).eps)
# So many coordinates give a multiplier to a percent, which saves most passes over all of them.
SAMPLE = 1 << 13
NEWTON_STEPS = 200
# Each takes up what rounding left of the constraint; the first one nearly always suffices.
REFINEMENTS = 9
PROBES = 10
# A gap of so many rounding errors of y is not worth another search.
ROUNDED = 64
LIGHTEST = 1e-70
# A row of which no more is left belongs to the space of the others.
SPANNED = 64 * EPS
# Times a step that is not 0, more than any coordinate moves.
HUGE = float(np.finfo(np.float64).max)
# What must not move weighs so much more than what may, where it has to move after all.
FEATHER = 2.0**-60

# Bound by `kernels.lift`.
project: Any
solve: Any
sums: Any
fill: Any
given: Any
put: Any
low: Any
high: Any
normal: Any
shift: Any
middle: Any
survey: Any
search: Any
repair: Any
probe: Any
approach: Any
moments: Any
newton: Any
apart: Any
sizes: Any
fall: Any
drop: Any
defect: Any
orthogonalize: Any
respond: Any
failure: Any
ascend: Any


# ---- in compiled code --------------------------------------------------------------------------


@intrinsic
def array_at(typingctx, address, n, kind):
    """The n numbers of a type at an address, as an array that owns nothing."""
    result = nb.Array(kind.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        array = make_array(result)(context, builder)
        pointer = context.get_data_type(result.dtype).as_pointer()
        size = context.get_abi_sizeof(context.get_data_type(result.dtype))
        populate_array(
            array,
            data=builder.inttoptr(args[0], pointer),
            shape=[args[1]],
            strides=[context.get_constant(nb.intp, size)],
            itemsize=context.get_constant(nb.intp, size),
            meminfo=None,
        )
        return array._getvalue()

    return result(nb.intp, nb.intp, kind), codegen


@intrinsic
def number_at(typingctx, address, i):
    """The i-th float64 at an address; an array's index could be negative, and so not vectorize."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], context.get_data_type(nb.float64).as_pointer())
        return builder.load(builder.gep(pointer, [args[1]]))

    return nb.float64(nb.intp, nb.intp), codegen


def _projection(n, x, steps, data):
    return project(carray(x, n), carray(steps, n), carray(data, WORDS, np.intp))


@kernels.part
def clip(value, lower, upper):
    """The nearest number between bounds; what lies there comes back as it is, -0.0 too."""
    if value < lower:
        return lower
    return upper if value > upper else value


@kernels.part
def rounding(x):
    """The rounding error to allow for, per magnitude added up."""
    return TERM_ULPS * np.finfo(x.dtype).eps + SUM_ULPS * EPS


@kernels.part
def give_up(x):
    """What is not finite has no projection."""
    x[:] = nan
    return nan


@kernels.part
def power_of_two(value):
    """A power of two near a number, such that numbers of both sizes can be divided by it."""
    return 2.0 ** min(max(np.floor(np.log2(value)), -1000.0), 1000.0) if value > 0 else 1.0


def _box(x, steps, block):
    lower = array_at(block[FIRST], x.size, x.dtype)
    upper = array_at(block[SECOND], x.size, x.dtype)
    for i in range(x.size):
        x[i] = clip(x[i], lower[i], upper[i])
    return 0.0


# ---- one multiplier: boxes cut by a hyperplane, simplexes, L1 balls ------------------------------
#
# The nearest point to r with low <= x <= high and normal·x = target is x(t) = clip(r - t d, low,
# high) with d = steps * normal, for the t at which normal·x(t), which never rises, is target.
# Steps are multiplied by `pace` and lengths by `unit`, powers of two, so that nothing overflows.


@kernels.part
def or_heavy(step, pace, heavy):
    """A step in units of 1 / pace, and another number for what is not to move."""
    return step * pace if step > 0 else heavy


def _fill(x, r, a, lo, hi):
    x, r = window(x, lo, hi), window(r, lo, hi)
    for i in range(x.size):
        r[i] = given(np.float64(x[i]), a, lo + i)


def _survey(r, steps, t, unit, pace, heavy, a, b, lo, hi):
    """Move r by t along d; return sums over x(0) and its largest number."""
    outside, total, size, slope = 0, 0.0, 0.0, 0.0
    top = np.int64(0)
    r, steps = window(r, lo, hi), window(steps, lo, hi)
    for i in range(r.size):
        c, lower, upper = normal(a, lo + i), low(b, lo + i), high(b, lo + i)
        d = c * or_heavy(np.float64(steps[i]), pace, heavy)
        y = r[i] - t * d / unit
        r[i] = y
        v = clip(y, lower, upper)
        outside += v != y
        total += c * v
        size += abs(c * v) + shift(a, lo + i)
        slope += c * d if lower < y < upper else 0.0
        bits = bits_of(y)
        top = bits if bits > top else top
    return outside, total, size, slope, top


def _sums(x, r, steps, fresh, t, unit, pace, heavy, a, b):
    """What `survey` finds, over all coordinates, added up in blocks."""
    outside, total, size, slope = 0, 0.0, 0.0, 0.0
    top = np.int64(0)
    for lo in range(0, x.size, kernels.SUM_BLOCK):
        hi = min(x.size, lo + kernels.SUM_BLOCK)
        if fresh:
            fill(x, r, a, lo, hi)
        found = survey(r, steps, t, unit, pace, heavy, a, b, lo, hi)
        outside += found[0]
        total += found[1]
        size += found[2]
        slope += found[3]
        top = max(top, found[4])
    return outside, total, size, slope, of_bits(top)


def _probe(r, steps, t, unit, pace, heavy, a, b, lo, hi):
    """The sums over x(t), of normal·x, of magnitudes, of normal·d where x is free."""
    total = size = slope = 0.0
    r, steps = window(r, lo, hi), window(steps, lo, hi)
    for i in range(r.size):
        c, lower, upper = normal(a, lo + i), low(b, lo + i), high(b, lo + i)
        d = c * or_heavy(np.float64(steps[i]), pace, heavy)
        y = r[i] - t * d / unit
        v = clip(y, lower, upper)
        total += c * v
        size += abs(c * v)
        slope += c * d if lower < y < upper else 0.0
    return total, size, slope


def _approach(r, steps, index, gap, slope, target, unit, pace, heavy, a, b, anew):
    """A few of Newton's iterations: the last t, its gap and slope, and near and far, a bracket.

    They visit all coordinates, but without branches: at n = 1e6 a visit takes a twentieth of what
    it takes in a search, whose branches nobody can predict before t is nearly known.
    """
    way = 1.0 if gap > 0 else -1.0
    t, near, far = 0.0, 0.0, inf  # t is between way * near and way * far
    new = gap * unit / slope if slope > 0 else nan
    if anew and r.size >= 4 * SAMPLE:
        stride = r.size // SAMPLE
        start = new if near < way * new < far else way
        share = target / stride
        new = search(r, steps, index, way, start, near, far, share, unit, pace, heavy, a, b, stride)
    for _ in range(PROBES):
        if not near < way * new < far:
            break
        t, before = new, gap
        total = size = slope = 0.0
        for lo in range(0, r.size, kernels.SUM_BLOCK):
            hi = min(r.size, lo + kernels.SUM_BLOCK)
            found = probe(r, steps, t, unit, pace, heavy, a, b, lo, hi)
            total += found[0]
            size += found[1]
            slope += found[2]
        gap = total - target
        if abs(gap) <= SUM_ULPS / 2 * EPS * (size + abs(target)) < inf:
            return t, 0.0, slope, near, far
        if gap * way > 0:
            near = way * t
        else:
            far = way * t
        if not 2 * abs(gap) < abs(before):
            break
        new = t + gap * unit / slope if slope > 0 else nan
    return t, gap, slope, near, far


def _search(r, steps, index, way, t, near, far, target, unit, pace, heavy, a, b, stride):
    """The multiplier t, in units of pace / unit, that lies between way * near and way * far.

    A bracket closes in on t. A coordinate whose x(t) is on one piece between its ends is settled:
    it goes into the sums and is not visited again. The next t is Newton's. Where that settles too
    few, it is a corner of one of the coordinates that are left, which settles half of them on
    average, and the middle of the bracket in turn, which ends after 64 times.

    A stride above 1 asks for the t of a sample.
    """
    count = r.size // stride
    target *= unit
    settled = rising = falling = size = 0.0  # sums of bounds, normal·r, normal·d, magnitudes
    slow, first = 0, True
    while True:
        kept = 0
        moving = steep = noise = 0.0
        one, other = way * near, way * min(far, HUGE)
        for k in range(count):
            i = k * stride if first else index[k]
            c = normal(a, i)
            d = c * or_heavy(np.float64(steps[i]), pace, heavy)
            y, lower, upper = r[i] * unit, low(b, i) * unit, high(b, i) * unit
            start, end = y - one * d, y - other * d
            if start <= lower and end <= lower:
                settled += c * lower
                size += abs(c * lower)
            elif start >= upper and end >= upper:
                settled += c * upper
                size += abs(c * upper)
            elif lower <= start <= upper and lower <= end <= upper:
                rising += c * y
                falling += c * d
                size += abs(c * y)
            else:
                index[kept] = i
                kept += 1
                now = y - t * d
                free = lower < now < upper
                v = clip(now, lower, upper)
                moving += c * v
                steep += c * d if free else 0.0
                noise += abs(c * y) if free else abs(c * v)
        first = False
        if kept == 0:
            return (settled + rising - target) / falling if falling > 0 else way * near
        gap = settled + rising - t * falling + moving - target
        if abs(gap) <= 4 * EPS * (size + noise + abs(target)):
            return t
        if gap * way > 0:
            near = way * t
        else:
            far = way * t
        slow = slow + 1 if 2 * kept > count else 0
        count = kept
        slope = falling + steep
        # Where few were settled, twice the step, for an end of the bracket on the other side.
        reach = 2.0 if slow == 1 else 1.0
        new = way * (t + reach * gap / slope) if slope > 0 else nan
        if slow >= 3 or not near < new < far:
            new = nan
            if slow % 2 == 1 or far == inf:
                i = index[kept // 2]
                d = normal(a, i) * or_heavy(np.float64(steps[i]), pace, heavy)
                new = way * (r[i] - low(b, i)) * unit / d
                if not near < new < far:
                    new = way * (r[i] - high(b, i)) * unit / d
            if not near < new < far:
                new = of_bits((bits_of(near) + bits_of(far)) // 2)
            if not near < new < far:  # the ends are neighbours
                return t
        t = way * new


def _cut(x, steps, block):
    n = x.size
    a, b = block[FIRST], block[SECOND]
    r, index = array_at(block[SCRATCH], n, np.float64), array_at(block[INDEX], n, np.intp)
    numbers = array_at(block[NUMBERS], 2, np.float64)
    target, equal = numbers[0], numbers[1] > 0
    pace, heavy = 1 / power_of_two(kernels.largest(steps)), 0.0
    gap, slack = solve(x, steps, r, index, target, equal, pace, heavy, a, b)
    if gap > slack:
        light, fixed = inf, False
        for step in steps:
            fixed |= step == 0
            light = min(light, np.float64(step) if step > 0 else inf)
        if fixed:  # those that were to stay must move, now that the others have
            heavy = light * pace * FEATHER if light < inf else 1.0
            gap, slack = solve(x, steps, r, index, target, equal, pace, heavy, a, b)
    if isnan(gap):
        return give_up(x)
    if gap < 0:
        return 0.0
    for i in range(n):
        v = clip(r[i], low(b, i), high(b, i))
        if v != given(np.float64(x[i]), a, i):  # what need not move keeps its bits
            x[i] = put(np.float64(x[i]), a, i, v)
    return gap if gap > slack else 0.0


def _solve(x, steps, r, index, target, equal, pace, heavy, a, b):
    """Fill r so that clip(r) is the projection; return by how much it fails, and may fail.

    -1 where x itself is the projection, NaN where there is none.
    """
    t, unit = 0.0, 1.0
    gap = slack = slope = size = largest = 0.0
    for refinement in range(REFINEMENTS):
        # A search sums up as it goes, less exactly than Newton's iterations: they take that up.
        if refinement > 0:
            way = 1.0 if gap > 0 else -1.0
            t, gap, slope, near, far = approach(
                r, steps, index, gap, slope, target, unit, pace, heavy, a, b, refinement == 1
            )
            if gap != 0:
                t += gap * unit / slope if slope > 0 else nan
                if not near < way * t < far:
                    t = way * of_bits((bits_of(near) + bits_of(far)) // 2)
                t = search(r, steps, index, way, t, near, far, target, unit, pace, heavy, a, b, 1)
        outside, total, size, slope, top = sums(
            x, r, steps, refinement == 0, t, unit, pace, heavy, a, b
        )
        gap = total - target
        slack = rounding(x) * (size + abs(target))
        if not (abs(gap) < inf and slope < inf and pace < inf):
            return nan, slack
        if refinement == 0:
            largest = max(top, abs(target))
            unit = 1 / power_of_two(largest)
            if outside == 0 and (gap <= slack if not equal else abs(gap) <= slack):
                return -1.0, slack
            equal |= gap > 0  # what moves along d goes no further than to the hyperplane
        if (gap <= 0 and not equal) or abs(gap) <= SUM_ULPS / 2 * EPS * (size + abs(target)):
            break
    gap = gap if equal else max(gap, 0.0)
    tight, loose = SUM_ULPS * (size + abs(target)), ROUNDED * x.size * largest
    if EPS * tight < abs(gap) <= EPS * loose:
        gap = repair(r, steps, gap, largest, pace, heavy, a, b)
    return abs(gap), slack


def _repair(r, steps, gap, largest, pace, heavy, a, b):
    """Move coordinates by what rounding y - t d left of the gap; return what is left.

    Where y is larger than the set by many orders of magnitude, no t need give a point of it. Those
    move that are at a corner but for rounding, the lightest ones first, and then the others.
    """
    most = 0.0
    for i in range(r.size):
        most = max(most, abs(normal(a, i) * or_heavy(np.float64(steps[i]), pace, heavy)))
    for reach in (ROUNDED * EPS * largest, inf):
        least = most
        while gap != 0 and least > most * LIGHTEST:
            least /= 256
            for i in range(r.size):
                c, lower, upper = normal(a, i), low(b, i), high(b, i)
                if abs(c * or_heavy(np.float64(steps[i]), pace, heavy)) >= least:
                    v = clip(r[i], lower, upper)
                    if abs(r[i] - v) <= reach:
                        r[i] = clip(v - gap / c, lower, upper)
                        gap -= c * (v - r[i])
    return gap


# ---- balls -------------------------------------------------------------------------------------
#
# The nearest point to y in |x - c| <= r is c + (y - c) / (1 + t steps) for the t at which its
# distance from c is r. Newton's method on 1 / distance, which is concave and nearly linear in t:
# from anywhere, one iteration leads to the left of the root, and then it rises to it.
# Here steps are divided by the largest one and multiplied by |y - c| / r.


def _apart(x, c, scale):
    """The square of x - c in units of 1 / scale."""
    total = 0.0
    for i in range(x.size):
        offset = (np.float64(x[i]) - middle(c, i)) * scale
        total += offset * offset
    return total


def _sizes(x, steps, c, scale, lo, hi):
    """Squares of (x - c), of those of them with step 0, and of x, in units of 1 / scale."""
    of_all = of_heavy = of_x = 0.0
    x, steps = window(x, lo, hi), window(steps, lo, hi)
    for i in range(x.size):
        place = np.float64(x[i]) * scale
        offset = (np.float64(x[i]) - middle(c, lo + i)) * scale
        square = offset * offset
        of_all += square
        of_heavy += 0.0 if steps[i] > 0 else square
        of_x += place * place
    return of_all, of_heavy, of_x


def _moments(x, steps, c, scale, pace, spread, t, stride, lo, hi):
    """The sums of q², q²p and q²p², where q = (x - c) / r / (1 + t s), p = s / (1 + t s)."""
    first = second = third = 0.0
    start = lo * stride
    x, steps = window(x, start, hi * stride), window(steps, start, hi * stride)
    for k in range(hi - lo):
        i = k * stride
        s = np.float64(steps[i]) * pace * spread
        share = 1 / (1 + t * s)
        q = (np.float64(x[i]) - middle(c, start + i)) * scale * share
        p = s * share
        first += q * q
        second += q * q * p
        third += q * q * p * p
    return first, second, third


def _newton(x, steps, c, scale, pace, spread, t, least, stride, precision):
    """The t at which the sum of q² is 1."""
    count = x.size // stride
    for _ in range(NEWTON_STEPS):
        first = second = third = 0.0
        for lo in range(0, count, kernels.SUM_BLOCK):
            hi = min(count, lo + kernels.SUM_BLOCK)
            found = moments(x, steps, c, scale, pace, spread, t, stride, lo, hi)
            first += found[0]
            second += found[1]
            third += found[2]
        first, second, third = first * stride, second * stride, third * stride
        if not 0 < second < inf:
            break
        # 1 / distance, less 1, as a power series in t: value + slope dt - bend dt²
        rate = second / first
        value = 1 / sqrt(first) - 1
        move = -value * sqrt(first) / rate
        bend = 1.5 * abs(third / first - rate * rate) / sqrt(first)
        new = max(least, t + move)
        done = bend * move * move <= precision or abs(new - t) <= EPS * t
        t = new
        if done:
            break
    return t


def _ball(x, steps, block):
    n, c = x.size, block[FIRST]
    radius = array_at(block[NUMBERS], 1, np.float64)[0]
    scale = 1 / radius if radius > 1e-307 else inf
    # Most iterates lie inside, where the metric does not matter: a third of the time at n = 100.
    if n <= kernels.SUM_BLOCK and apart(x, c, scale) < 1:
        return 0.0
    unit = 1.0
    while True:
        of_all = of_heavy = of_x = 0.0
        for lo in range(0, n, kernels.SUM_BLOCK):
            found = sizes(x, steps, c, scale / unit, lo, min(n, lo + kernels.SUM_BLOCK))
            of_all += found[0]
            of_heavy += found[1]
            of_x += found[2]
        if of_all < inf or unit > 1:
            break
        for i in range(n):  # the squares overflow: measure in units of the largest
            unit = max(unit, abs((np.float64(x[i]) - middle(c, i)) * scale))
    distance, heavy, size = unit * sqrt(of_all), unit * sqrt(of_heavy), unit * sqrt(of_x)
    top = kernels.largest(steps)
    if isnan(of_all) or not top < inf:
        inside = kernels.largest(x) < inf and top < inf
        if not inside:
            return give_up(x)
    slack = rounding(x) * (1 + size)
    if distance <= 1 + slack:
        return 0.0
    if not distance < 1e300:
        drop(x, steps, c, radius)
        return 0.0
    if heavy >= 1:  # those that were to stay must move, now that the others have
        for i in range(n):
            v = np.float64(x[i]) - middle(c, i)
            x[i] = middle(c, i) + (0.0 if steps[i] > 0 else v / heavy)
        return 0.0
    pace, spread, least = 1 / top, distance, 1 - 1 / distance
    t = least
    if n >= 4 * SAMPLE:
        t = newton(x, steps, c, scale, pace, spread, t, least, n // SAMPLE, 1e-3)
    t = newton(x, steps, c, scale, pace, spread, t, least, 1, EPS)
    of_all = 0.0
    for lo in range(0, n, kernels.SUM_BLOCK):
        hi = min(n, lo + kernels.SUM_BLOCK)
        of_all += fall(x, steps, c, scale, pace, spread, t, lo, hi)
    if abs(of_all - 1) > 2 * slack:
        ratio = 1 / sqrt(of_all)
        for i in range(n):
            x[i] = middle(c, i) + (np.float64(x[i]) - middle(c, i)) * ratio
    return 0.0


def _drop(x, steps, c, radius):
    """Move x to the ball from infinitely far away: along (x - c) / steps, after what has step 0."""
    left = radius
    for moving in (False, True):
        far, least, total = 0.0, inf, 0.0
        for i in range(x.size):
            if (steps[i] > 0) == moving:
                far = max(far, abs(np.float64(x[i]) - middle(c, i)))
                least = min(least, np.float64(steps[i]))
        for turn in range(2):
            for i in range(x.size):
                if (steps[i] > 0) == moving and far > 0:
                    way = (np.float64(x[i]) - middle(c, i)) / far
                    way *= least / np.float64(steps[i]) if moving else 1.0
                    if turn == 0:
                        total += way * way
                    elif moving or far * sqrt(total) > left:
                        x[i] = middle(c, i) + left * way / sqrt(total)
        if not moving and far > 0:  # how far the others may be
            left *= sqrt(max(0.0, 1 - (far * sqrt(total) / left) ** 2)) if left > 0 else 0.0


def _fall(x, steps, c, scale, pace, spread, t, lo, hi):
    """Divide x - c by 1 + t s; return its new sum of squares in units of the radius."""
    total = 0.0
    x, steps = window(x, lo, hi), window(steps, lo, hi)
    for i in range(x.size):
        s = np.float64(steps[i]) * pace * spread
        v = (np.float64(x[i]) - middle(c, lo + i)) / (1 + t * s)
        x[i] = middle(c, lo + i) + v
        v *= scale
        total += v * v
    return total


# ---- affine sets -------------------------------------------------------------------------------
#
# x = y + sqrt(steps) W' z, where the rows of W are orthonormal and span those of A sqrt(steps), by
# the Gram-Schmidt process with pivoting, done twice: rows of 1e±16 keep their small numbers. Then
# what is left of A x - b is projected away again.


def _defect(x, v, A, b, m, n):
    """By how much the worst equation fails, beyond what rounding explains."""
    worst = 0.0
    for k in range(m):
        total = -b[k]
        size = abs(b[k])
        for i in range(n):
            total += A[k * n + i] * v[i]
            size += abs(A[k * n + i] * v[i])
        if not abs(total) <= rounding(x) * size and not abs(total) <= worst:
            worst = abs(total)
    return worst


def _orthogonalize(A, steps, W, L, order, m, n, spanned):
    """Fill W and L with W W' = 1 and A sqrt(steps) = L W, in an order of rows; return the rank."""
    for k in range(m):
        order[k] = k
        total = 0.0
        for i in range(n):
            W[k * n + i] = A[k * n + i] * sqrt(steps[i])
            total += W[k * n + i] ** 2
        L[m * m + k] = sqrt(total)
    for j in range(m):
        best, length = j, -1.0
        for k in range(j, m):
            total = 0.0
            for i in range(n):
                total += W[order[k] * n + i] ** 2
            # A row that the earlier ones span is left with rounding errors only.
            if sqrt(total) > spanned * L[m * m + order[k]] and total > length:
                best, length = k, total
        if length <= 0:
            return j
        order[j], order[best] = order[best], order[j]
        row = order[j] * n
        for k in range(j):
            other, dot = order[k] * n, 0.0
            for i in range(n):
                dot += W[row + i] * W[other + i]
            for i in range(n):
                W[row + i] -= dot * W[other + i]
            L[order[j] * m + k] += dot
        length = 0.0
        for i in range(n):
            length += W[row + i] ** 2
        length = sqrt(length)
        L[order[j] * m + j] = length
        for i in range(n):
            W[row + i] /= length
        for k in range(j + 1, m):
            other, dot = order[k] * n, 0.0
            for i in range(n):
                dot += W[row + i] * W[other + i]
            for i in range(n):
                W[other + i] -= dot * W[row + i]
            L[order[k] * m + j] = dot
    return m


def _affine(x, steps, block):
    n, m = x.size, block[COUNT]
    A, b = array_at(block[FIRST], m * n, np.float64), array_at(block[SECOND], m, np.float64)
    scratch = array_at(block[SCRATCH], (m + 2) * n + m * m + 2 * m, np.float64)
    order = array_at(block[INDEX], m, np.intp)
    v, W = window(scratch, 0, n), window(scratch, n, n + m * n)
    L = window(scratch, (m + 1) * n, (m + 1) * n + m * m + m)
    z = window(scratch, (m + 1) * n + m * m + m, (m + 1) * n + m * m + 2 * m)
    rates = window(scratch, (m + 1) * n + m * m + 2 * m, (m + 2) * n + m * m + 2 * m)
    top = kernels.largest(steps)
    if not (kernels.largest(x) < inf and top < inf):
        return give_up(x)
    for i in range(n):
        v[i] = x[i]
    worst = defect(x, v, A, b, m, n)
    if worst == 0:
        return 0.0
    pace, heavy, spanned = 1 / power_of_two(top), 0.0, SPANNED
    for _ in range(2):
        for i in range(n):  # as many equations as coordinates have one solution, in any metric
            rates[i] = 1.0 if m == n else or_heavy(np.float64(steps[i]), pace, heavy)
        rank = orthogonalize(A, rates, W, L, order, m, n, spanned)
        for _ in range(REFINEMENTS):
            for j in range(rank):
                row = order[j]
                total = b[row]
                for i in range(n):
                    total -= A[row * n + i] * v[i]
                for k in range(j):
                    total -= L[row * m + k] * z[k]
                z[j] = total / L[row * m + j]
            for i in range(n):
                total = 0.0
                for j in range(rank):
                    total += W[order[j] * n + i] * z[j]
                v[i] += total * sqrt(rates[i])
            worst = defect(x, v, A, b, m, n)
            if worst == 0:
                break
        light, fixed = inf, False
        for step in steps:
            fixed |= step == 0
            light = min(light, np.float64(step) if step > 0 else inf)
        if worst == 0:
            break
        if fixed:
            heavy = light * pace * FEATHER if light < inf else 1.0
        else:  # the rows are independent, however little the metric leaves of one
            spanned = 0.0
    for i in range(n):
        x[i] = v[i]
    return worst


# ---- sets made of sets -------------------------------------------------------------------------


def _product(x, steps, block):
    count = block[COUNT]
    parts = array_at(block[PARTS], count * PART_WORDS, np.intp)
    worst = 0.0
    for k in range(count):
        address, data = parts[k * PART_WORDS], parts[k * PART_WORDS + 1]
        lo, hi = parts[k * PART_WORDS + 2], parts[k * PART_WORDS + 3]
        left = evaluate_at(address, window(x, lo, hi), window(steps, lo, hi), data)
        worst = left if not left <= worst else worst
    return worst


# ---- intersections -----------------------------------------------------------------------------
#
# A box, cut by inequalities h(x) <= 0 and equations h(x) = 0 that are sums over the coordinates:
#
#     c·x - b,    (|x - c|² / r - r) / 2  (a ball),    |x - c|₁ - r
#
# Given a multiplier for each, (x - y)² / (2 steps) + multipliers·h(x) is least at a point of the
# box that is found coordinate by coordinate. The nearest point of the set is that of the
# multipliers at which the least sum is greatest. It is a concave and smooth function of them, with
# the gradient h(x) and the second derivatives -G free G', G the gradients of h. Newton's method
# finds them however far y is, where projections onto the sets in turn would crawl.
#
# If x is the projection of y, so it is of all points between: where y is so far that its rounding
# errors hide the set, a nearer one takes its place.

LINEAR, EQUATION, ROUND, DIAMOND = range(4)
ROW_WORDS = 3  # the kind, the first coordinate and the next row's
# Of a row's length in the metric: what keeps Newton's equations solvable, and does not bend them.
RIDGE = 1e-8
FLAT = 1e100
LINE_STEPS = 100
# So many steps after the last that rounding allows.
POLISH = 3


def _respond(x, y, steps, multipliers, table, rows, sides, bounds, work):
    """The x of multipliers, with h(x), its gradients, and by how much it fails and may fail.

    ``found`` holds for each h its value, how far x is from satisfying it, the magnitudes of its
    terms and those of what is lost to rounding in x.
    """
    n, m = x.size, multipliers.size
    width = n + m
    gradients, free, found = work[0], work[1], work[2]
    for k in range(4 * m):
        found[k] = 0.0
    for i in range(n):
        step, top, stiff = np.float64(steps[i]), y[i], 1.0
        noise = abs(top)
        for k in range(m):
            if table[3 * k + 1] <= i < table[3 * k + 2]:
                pull, c = step * multipliers[k], rows[k * n + i]
                if table[3 * k] == ROUND:
                    stiff += pull / sides[k]
                    top += pull / sides[k] * c
                    noise += abs(pull / sides[k] * c)
                elif table[3 * k] != DIAMOND:
                    top -= pull * c
                    noise += abs(pull * c)
                else:
                    noise += pull
        corner, total = False, top
        for k in range(m):
            if table[3 * k] == DIAMOND and table[3 * k + 1] <= i < table[3 * k + 2]:
                pull, c = step * multipliers[k], rows[k * n + i]
                slope = stiff * c - top
                for j in range(m):
                    here = table[3 * j + 1] <= i < table[3 * j + 2]
                    if j != k and table[3 * j] == DIAMOND and here:
                        slope += step * multipliers[j] * np.sign(c - rows[j * n + i])
                side = -np.sign(slope)
                gradients[k * width + i] = side
                if abs(slope) <= pull:
                    corner, x[i] = True, c
                total -= pull * side
        v = x[i] if corner else total / stiff
        low, high = bounds[2 * i], bounds[2 * i + 1]
        free[i] = step / stiff if low < v < high and not corner else 0.0
        v = clip(v, low, high)
        x[i] = v
        noise = noise / stiff if free[i] > 0 else abs(v)
        for k in range(m):
            if table[3 * k + 1] <= i < table[3 * k + 2]:
                kind, c = table[3 * k], rows[k * n + i]
                if kind == ROUND:
                    slope = (v - c) / sides[k]
                    found[4 * k] += slope * slope
                    found[4 * k + 2] += (v / sides[k]) ** 2
                elif kind == DIAMOND:
                    slope = np.sign(v - c)
                    found[4 * k] += abs(v - c)
                    found[4 * k + 2] += abs(v)
                else:
                    slope = c
                    found[4 * k] += c * v
                    found[4 * k + 2] += abs(c * v)
                gradients[k * width + i] = slope
                found[4 * k + 3] += abs(slope) * noise
    for k in range(m):
        side = sides[k]
        if table[3 * k] == ROUND:
            distance = sqrt(found[4 * k])
            found[4 * k] = side / 2 * (distance * distance - 1)
            found[4 * k + 1] = side * (distance - 1)
            found[4 * k + 2] = side * (1 + sqrt(found[4 * k + 2]))
        else:
            found[4 * k] -= side
            found[4 * k + 1] = found[4 * k]
            found[4 * k + 2] += abs(side)


def _failure(multipliers, table, found, slack, noise):
    """By how much x fails the worst condition, beyond what is allowed."""
    worst = 0.0
    for k in range(multipliers.size):
        gap = found[4 * k + 1]
        # What has a multiplier must hold with equality.
        if table[3 * k] == EQUATION or multipliers[k] > 0:
            gap = abs(gap)
        if not gap <= slack * found[4 * k + 2] + noise * found[4 * k + 3] and not gap <= worst:
            worst = gap
    return worst


def _ascend(x, y, steps, multipliers, change, trial, moved, table, rows, sides, bounds, work):
    """One of Newton's steps, or the part of it on which the least sum rises; x and work follow."""
    n, m = x.size, multipliers.size
    gradients, free, found, W, L, order = work
    width = n + m
    for k in range(m):
        size = 0.0
        h = found[4 * k]
        bound = table[3 * k] != EQUATION and multipliers[k] == 0 and h <= 0
        for i in range(n):
            slope = gradients[k * width + i]
            size += slope * slope * steps[i]
            gradients[k * width + i] = 0.0 if bound else slope
        for j in range(m):
            gradients[k * width + n + j] = RIDGE * sqrt(size) if j == k and not bound else 0.0
        free[n + k] = 1.0
        change[k] = 0.0
    rank = orthogonalize(gradients, free, W, L, order, m, width, SPANNED)
    for j in range(rank):
        total = found[4 * order[j]]
        for k in range(j):
            total -= L[order[j] * m + k] * trial[k]
        trial[j] = total / L[order[j] * m + j]
    for j in range(rank - 1, -1, -1):
        total = trial[j]
        for k in range(j + 1, rank):
            total -= L[order[k] * m + j] * change[order[k]]
        change[order[j]] = total / L[order[j] * m + j]
    # Where nothing is free, the least sum is linear, and the step endless: no more than some times
    # the way from y to the set.
    most = span = 0.0
    for i in range(n):
        total = 0.0
        for k in range(m):
            total += change[k] * gradients[k * width + i]
        most = max(most, abs(total) * steps[i])
        span = max(span, abs(y[i]), abs(x[i]))
    unit = tallest = 0.0
    for k in range(m):
        unit = max(unit, abs(change[k]))
        tallest = max(tallest, abs(found[4 * k]))
    span = max(span, tallest)
    if not (0 < unit < inf and 0 < tallest < inf):
        return False
    t = 4 * span / most if most > 4 * span else 1.0
    low, high, below, above, before = 0.0, inf, 1.0, 0.0, 0.0
    for k in range(m):
        trial[k] = found[4 * k] / tallest / unit
    for attempt in range(LINE_STEPS):
        first = 0.0
        for k in range(m):
            new = multipliers[k] + t * change[k]
            if table[3 * k] != EQUATION:
                new = max(new, 0.0)
            first += trial[k] * (new - multipliers[k])
            moved[k] = new
        respond(x, y, steps, moved, table, rows, sides, bounds, work)
        last = 0.0
        for k in range(m):
            last += found[4 * k] / tallest / unit * (moved[k] - multipliers[k])
        slope = last / first if first > 0 else -1.0
        if slope < -0.01:
            high, above = t, slope
        elif slope > 0.9:
            if not first > before:  # all that can has reached 0
                break
            low, below = t, slope
        else:
            break
        if high == inf:
            t, before = 4 * t, first
        elif low == 0:
            t /= 8.0
        elif high - low <= 4 * EPS * high:
            break
        elif attempt % 2 == 0:
            t = low + (high - low) * below / (below - above)
        else:
            t = sqrt(low) * sqrt(high)
    for k in range(m):
        multipliers[k] = moved[k]
    return True


@kernels.part
def intersection_words(n, m):
    """How many numbers an intersection of m constraints needs to work."""
    return 3 * n + 8 * m + (2 * m + 1) * (n + m) + m * m + m


def _intersection(x, steps, block):
    n, m = x.size, block[COUNT]
    width = n + m
    table = array_at(block[PARTS], ROW_WORDS * m, np.intp)
    rows, bounds = (
        array_at(block[FIRST], m * n, np.float64),
        array_at(block[SECOND], 2 * n, np.float64),
    )
    numbers = array_at(block[NUMBERS], 2 + m, np.float64)
    tolerance, attempts, sides = numbers[0], numbers[1], window(numbers, 2, 2 + m)
    scratch = array_at(block[SCRATCH], intersection_words(n, m), np.float64)
    v, y, rates = window(scratch, 0, n), window(scratch, n, 2 * n), window(scratch, 2 * n, 3 * n)
    at = 3 * n
    multipliers, change = window(scratch, at, at + m), window(scratch, at + m, at + 2 * m)
    trial, found = window(scratch, at + 2 * m, at + 3 * m), window(scratch, at + 3 * m, at + 7 * m)
    ahead, at = window(scratch, at + 7 * m, at + 8 * m), at + 8 * m
    free, at = window(scratch, at, at + width), at + width
    gradients, at = window(scratch, at, at + m * width), at + m * width
    W, at = window(scratch, at, at + m * width), at + m * width
    L = window(scratch, at, at + m * m + m)
    work = gradients, free, found, W, L, array_at(block[INDEX], m, np.intp)
    top = kernels.largest(steps)
    if not (kernels.largest(x) < inf and top < inf):
        return give_up(x)
    pace, heavy = 1 / power_of_two(top), 0.0
    precision = TERM_ULPS * EPS + SUM_ULPS * EPS + tolerance
    floor = EPS * EPS * kernels.largest(x)  # no coordinate is known so well
    left = 0.0
    for refuge in range(2):
        light, fixed = inf, False
        for i in range(n):
            step = np.float64(steps[i])
            y[i], rates[i] = x[i], or_heavy(step, pace, heavy)
            fixed |= step == 0
            light = min(light, step if step > 0 else inf)
        multipliers[:] = 0.0
        gradients[:] = 0.0
        respond(v, y, rates, multipliers, table, rows, sides, bounds, work)
        if (
            refuge == 0
            and failure(multipliers, table, found, rounding(x) + 4 * tolerance, 0.0) == 0
        ):
            moved = False
            for i in range(n):
                moved |= v[i] != y[i]
            if not moved:
                return 0.0
        attempt = polish = 0
        while True:
            left = failure(multipliers, table, found, precision, 0.0)
            if attempt >= attempts or (left == 0 and polish == POLISH):
                break
            if left == 0:  # so near, one step more gives all digits
                polish = POLISH
            elif failure(multipliers, table, found, precision, ROUNDED * EPS) == 0:
                size = kernels.largest(v)
                away = 0.0
                for i in range(n):
                    away = max(away, abs(y[i] - v[i]))
                share = size / away if away > 0 else 1.0
                if share < 0.25 and size > floor:
                    for i in range(n):
                        y[i] = v[i] + share * (y[i] - v[i])
                    for k in range(m):
                        multipliers[k] *= share
                    respond(v, y, rates, multipliers, table, rows, sides, bounds, work)
                    continue
                polish += 1
                if polish > POLISH:
                    for i in range(n):  # a corner at 0 is there, and not near
                        if abs(v[i]) <= max(ROUNDED * EPS * abs(y[i]), floor):
                            v[i] = clip(0.0, bounds[2 * i], bounds[2 * i + 1])
                    left = failure(multipliers, table, found, precision + 3 * tolerance, 0.0)
                    break
            if not ascend(
                v, y, rates, multipliers, change, trial, ahead, table, rows, sides, bounds, work
            ):
                break
            if not kernels.largest(multipliers) < FLAT * (1 + kernels.largest(y)):
                break
            attempt += 1
        if left == 0 or not fixed:
            break
        heavy = light * pace * FEATHER if light < inf else 1.0
    for i in range(n):
        if v[i] != x[i]:
            x[i] = v[i]
    return left if left > floor else 0.0


# ---- compilation -------------------------------------------------------------------------------

_FAST = {"fastmath": {"reassoc"}, "inline": False}


def _itself(x, a, i):
    return x


def _new(x, a, i, value):
    return value


def _magnitude(x, a, i):
    return abs(x)


def _signed(x, a, i, value):
    return copysign(value, x)


def _distance(x, a, i):
    return abs(x - number_at(a, i))


def _beside(x, a, i, value):
    center = number_at(a, i)
    return center + copysign(value, x - center)


def _size(address, i):
    return abs(number_at(address, i))


def _number(address, i):
    return number_at(address, i)


def _even(address, i):
    """The lower bounds stand before the upper ones, in pairs."""
    return number_at(address, 2 * i)


def _odd(address, i):
    return number_at(address, 2 * i + 1)


def _zero(address, i):
    return 0.0


def _one(address, i):
    return 1.0


def _infinity(address, i):
    return inf


def _minus_infinity(address, i):
    return -inf


_SIMPLEX = {"low": _zero, "high": _infinity, "normal": _one}
_PLAIN = {"given": _itself, "put": _new, "shift": _zero}
#: For each kind of set its template and what is bound to the template's names.
_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "box": (_box, {}),
    "simplex": (_cut, _PLAIN | _SIMPLEX),
    "l1 ball": (_cut, {"given": _magnitude, "put": _signed, "shift": _zero} | _SIMPLEX),
    "l1 ball elsewhere": (_cut, {"given": _distance, "put": _beside, "shift": _size} | _SIMPLEX),
    "half-space": (
        _cut, _PLAIN | {"low": _minus_infinity, "high": _infinity, "normal": _number}
    ),
    "cut box": (_cut, _PLAIN | {"low": _even, "high": _odd, "normal": _number}),
    "ball": (_ball, {"middle": _zero}),
    "ball elsewhere": (_ball, {"middle": _number}),
    "affine": (_affine, {}),
    "product": (_product, {}),
    "intersection": (_intersection, {}),
}  # fmt: skip


@functools.cache
def _compile(kind: str, number: Any) -> Any:
    """The C function that projects onto a kind of set."""
    template, names = _KINDS[kind]
    bound = {name: kernels.part(function) for name, function in names.items()}

    def lifted(function: Any, **options: Any) -> Any:
        return kernels.part(kernels.lift(function, "", **bound), **options)

    if template is _cut:
        bound["fill"] = lifted(_fill)
        bound["survey"] = lifted(_survey, **_FAST)
        bound["sums"] = lifted(_sums, inline=False)
        bound["probe"] = lifted(_probe, **_FAST)
        bound["search"] = lifted(_search, inline=False)
        bound["approach"] = lifted(_approach, inline=False)
        bound["repair"] = lifted(_repair, inline=False)
        bound["solve"] = lifted(_solve, inline=False)
    elif template is _ball:
        bound["apart"] = lifted(_apart, **_FAST)
        bound["sizes"] = lifted(_sizes, **_FAST)
        bound["moments"] = lifted(_moments, **_FAST)
        bound["newton"] = lifted(_newton, inline=False)
        bound["fall"] = lifted(_fall, **_FAST)
        bound["drop"] = lifted(_drop, inline=False)
    elif template is _affine:
        bound["defect"] = lifted(_defect, **_FAST)
        bound["orthogonalize"] = lifted(_orthogonalize, **_FAST)
    elif template is _intersection:
        bound["orthogonalize"] = lifted(_orthogonalize, **_FAST)
        bound["respond"] = lifted(_respond, inline=False)
        bound["failure"] = lifted(_failure, inline=False)
        bound["ascend"] = lifted(_ascend, inline=False)
    # The kind goes into the name under which the machine code is kept.
    salt = f"{kind.replace(' ', '_').replace('-', '_')}_{kernels.source_salt(__file__)}"
    function = kernels.lift(_projection, salt, project=lifted(template, inline=False))
    pointer = nb.CPointer(number)
    return kernels.compile_c(function, nb.float64(nb.intp, pointer, pointer, nb.voidptr))


_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_ssize_t, *[ctypes.c_void_p] * 3)


class Projector:
    """A projection onto one set, in place, for loops in compiled code and for one thread.

    Parameters
    ----------
    kind : str
        What kind of set it is.
    n : int
        Number of coordinates.
    dtype : numpy.dtype
        Of x and of the steps: float64 or float32.
    arrays : sequence of arrays
        Of the set, at most two, as the kind wants them.
    numbers : sequence of float
        Of the set.
    scratch, index : int
        How many numbers and integers the projection needs to work.
    parts : sequence of (Projector, int, int)
        The sets that this one is made of, with the coordinates from and to which they apply.
    table : sequence of tuples of int
        The kinds of constraints of an intersection, with the coordinates to which they apply.
    count : int
        How many equations, parts or constraints there are.

    Attributes
    ----------
    address, data : int
        The C function, see the top of this file, and its data.
    """

    def __init__(
        self,
        kind: str,
        n: int,
        dtype: Any,
        *,
        arrays: Sequence[NDArray[Any]] = (),
        numbers: Sequence[float] = (),
        scratch: int = 0,
        index: int = 0,
        parts: Sequence[tuple["Projector", int, int]] = (),
        table: Sequence[tuple[int, ...]] = (),
        count: int = 0,
    ) -> None:
        self.n, self.dtype = n, np.dtype(dtype)
        function = _compile(kind, numba.from_dtype(self.dtype))
        table = table or [(each.address, each.data, lo, hi) for each, lo, hi in parts]
        block = np.zeros(WORDS, np.intp)
        memory = {
            SCRATCH: np.empty(scratch),
            INDEX: np.empty(index, np.intp),
            NUMBERS: np.array(numbers, np.float64),
            PARTS: np.array(table, np.intp),
            **dict(zip((FIRST, SECOND), arrays, strict=False)),
        }
        for word, array in memory.items():
            block[word] = array.ctypes.data
        block[COUNT] = count or len(parts)
        self._keep = function, block, memory, parts
        self.address: int = function.address
        self.data: int = block.ctypes.data
        self._function = _PROTOTYPE(self.address)

    def __call__(self, x: NDArray[Any], steps: NDArray[Any]) -> float:
        """Move x to the nearest point of the set; return how far it is from the set then."""
        for name, array in (("x", x), ("steps", steps)):
            fits = array.dtype == self.dtype and array.shape == (self.n,)
            if not (fits and array.flags.c_contiguous):
                raise ValueError(
                    f"{name} must be a contiguous array of {self.n} {self.dtype.name} numbers, "
                    f"got {array.dtype.name} of shape {array.shape}"
                )
        if not x.flags.writeable:
            raise ValueError("x must be writable, got a read-only array")
        left: float = self._function(self.n, x.ctypes.data, steps.ctypes.data, self.data)
        return left
