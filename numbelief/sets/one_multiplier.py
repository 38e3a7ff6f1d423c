"""Projections that search one multiplier: of boxes cut by a hyperplane, simplexes, L1 balls.

The nearest point to r with lower <= x <= upper and normal·x = target is x(t) = clip(r - t d, lower,
upper) with d = steps * normal, for the t at which normal·x(t), which never rises, is target. Steps
are multiplied by ``scale`` and lengths by ``unit``, powers of two, so that nothing overflows.
"""

from math import inf, isnan, nan
from typing import Any

import numpy as np

from numbelief._compile.arrays import SUM_BLOCK, clip_to_bounds, largest
from numbelief._compile.internals import (
    always,
    array_at,
    bits_of,
    larger,
    of_bits,
    smaller,
    window,
)
from numbelief._compile.jit import part
from numbelief._compile.template import bind
from numbelief.sets.projector import (
    EPS,
    REFINEMENTS,
    ROUNDED,
    SAMPLE,
    SUM_ULPS,
    give_up,
    heavy_step,
    lightest_step,
    rounding,
    scaled_step,
    unit_of,
)

NEWTON_STEPS = 10
# Times a step that is not 0, more than any coordinate moves.
HUGE = float(np.finfo(np.float64).max)
# Below this share of the largest d, a coordinate does not move to take up rounding errors.
LIGHTEST = 1e-70


def one_multiplier(fold, unfold, center_size, normal_at, lower_at, upper_at):
    """The projection, for what tells these sets from one another.

    Parameters
    ----------
    fold, unfold : function
        ``fold(x, a, i)`` is what the search sees of coordinate i, ``unfold(x, a, i, value)`` the
        coordinate whose value it found; a is the address of the set's first array.
    center_size : function
        ``center_size(a, i)`` is the magnitude of what `fold` subtracts.
    normal_at, lower_at, upper_at : function
        ``normal_at(a, i)``, ``lower_at(b, i)`` and ``upper_at(b, i)`` are the set's numbers, b the
        address of its second array.
    """
    fast: dict[str, Any] = {"fastmath": {"reassoc"}, "allocates": False}
    ends = {"lower_at": lower_at, "upper_at": upper_at}
    # A function of its own, so that its product is not one of those that may be reordered.
    loop = {"normal_at": normal_at, "scaled_step": part(scaled_step, inlined=True, allocates=False)}
    move_block = bind(_move_block_template, center_size=center_size, **loop, **ends)
    sums_of_block = bind(_sums_of_block_template, **loop, **ends)
    search = part(bind(_search_template, **loop, **ends), allocates=False)
    return bind(
        _project_template,
        fold=fold,
        unfold=unfold,
        solve=bind(
            _solve_template,
            move=bind(_move_template, fold=fold, move_block=part(move_block, **fast)),
            newton=bind(_newton_template, sums_of_block=part(sums_of_block, **fast), search=search),
            search=search,
            absorb=bind(_absorb_template, **loop, **ends),
        ),
        **ends,
    )


def _project_template(fold, unfold, solve, lower_at, upper_at):
    def project(x, steps, words):
        n = x.size
        a, b = words.first, words.second
        r, index = array_at(words.scratch, n, np.float64), array_at(words.integers, n, np.intp)
        numbers = array_at(words.numbers, 2, np.float64)
        target, equal = numbers[0], numbers[1] > 0
        scale, heavy = 1 / unit_of(largest(steps)), 0.0
        gap = slack = 0.0
        for attempt in range(2):
            gap, slack = solve(x, steps, r, index, target, equal, scale, heavy, a, b)
            if attempt == 1 or not gap > slack:
                break
            least, fixed = lightest_step(steps)
            if not fixed:
                break
            heavy = heavy_step(least, scale)  # those that were to stay must move
        if isnan(gap):
            return give_up(x)
        if gap < 0:
            return 0.0
        for i in range(n):
            v = clip_to_bounds(r[i], lower_at(b, i), upper_at(b, i))
            if v != fold(np.float64(x[i]), a, i):  # what need not move keeps its bits
                x[i] = unfold(np.float64(x[i]), a, i, v)
        return gap if gap > slack else 0.0

    return project


def _solve_template(move, newton, search, absorb):
    def solve(x, steps, r, index, target, equal, scale, heavy, a, b):
        """Fill r so that clip(r) is the projection; return by how much it fails, and may fail.

        -1 where x itself is the projection, NaN where there is none.
        """
        t, unit = 0.0, 1.0
        gap = slack = slope = size = longest = 0.0
        for refinement in range(REFINEMENTS):
            # A search sums up as it goes, less exactly than Newton's iterations: they take that up.
            if refinement > 0:
                way = 1.0 if gap > 0 else -1.0
                t, gap, slope, near, far = newton(
                    r, steps, index, gap, slope, target, unit, scale, heavy, a, b, refinement == 1
                )
                if gap != 0:
                    t += gap * unit / slope if slope > 0 else nan
                    if not near < way * t < far:
                        t = way * of_bits((bits_of(near) + bits_of(far)) // 2)
                    every = np.intp(1)  # a plain 1 would compile the search once more
                    t = search(
                        r, steps, index, way, t, near, far, target, unit, scale, heavy, a, b, every
                    )
            outside, total, size, slope, top = move(
                x, r, steps, refinement == 0, t, unit, scale, heavy, a, b
            )
            gap = total - target
            slack = rounding(x) * (size + abs(target))
            if not (abs(gap) < inf and slope < inf and scale < inf):
                return nan, slack
            if refinement == 0:
                longest = larger(top, abs(target))
                unit = 1 / unit_of(longest)
                if outside == 0 and (gap <= slack if not equal else abs(gap) <= slack):
                    return -1.0, slack
                equal |= gap > 0  # what moves along d goes no further than to the hyperplane
            if (gap <= 0 and not equal) or abs(gap) <= SUM_ULPS / 2 * EPS * (size + abs(target)):
                break
        gap = gap if equal else larger(gap, 0.0)
        tight, loose = SUM_ULPS * (size + abs(target)), ROUNDED * x.size * longest
        if EPS * tight < abs(gap) <= EPS * loose:
            gap = absorb(r, steps, gap, longest, scale, heavy, a, b)
        return abs(gap), slack

    return solve


def _move_template(fold, move_block):
    def move(x, r, steps, fresh, t, unit, scale, heavy, a, b):
        """Move r, or first fill it from x, by t along d; return sums over x(0) and its largest."""
        outside, total, size, slope = 0, 0.0, 0.0, 0.0
        top = np.int64(0)
        for lo in range(0, x.size, SUM_BLOCK):
            hi = smaller(x.size, lo + SUM_BLOCK)
            if fresh:
                new, old = window(r, lo, hi), window(x, lo, hi)
                for i in range(new.size):
                    new[i] = fold(np.float64(old[i]), a, lo + i)
            found = move_block(r, steps, t, unit, scale, heavy, a, b, lo, hi)
            outside += found[0]
            total += found[1]
            size += found[2]
            slope += found[3]
            top = larger(top, found[4])
        return outside, total, size, slope, of_bits(top)

    return move


def _move_block_template(center_size, normal_at, lower_at, upper_at, scaled_step):
    def move_block(r, steps, t, unit, scale, heavy, a, b, lo, hi):
        """Move r by t along d; return sums over x(0) and its largest number."""
        outside, total, size, slope = 0, 0.0, 0.0, 0.0
        top = np.int64(0)
        r, steps = window(r, lo, hi), window(steps, lo, hi)
        for i in range(r.size):
            c, lower, upper = normal_at(a, lo + i), lower_at(b, lo + i), upper_at(b, lo + i)
            d = c * scaled_step(np.float64(steps[i]), scale, heavy)
            y = r[i] - t * d / unit
            r[i] = y
            v = clip_to_bounds(y, lower, upper)
            outside += v != y
            total += c * v
            size += abs(c * v) + center_size(a, lo + i)
            slope += c * d if lower < y < upper else 0.0
            bits = bits_of(y)
            top = bits if bits > top else top
        return outside, total, size, slope, top

    return move_block


def _sums_of_block_template(normal_at, lower_at, upper_at, scaled_step):
    def sums_of_block(r, steps, t, unit, scale, heavy, a, b, lo, hi):
        """The sums over x(t), of normal·x, of magnitudes, of normal·d where x is free."""
        total = size = slope = 0.0
        r, steps = window(r, lo, hi), window(steps, lo, hi)
        for i in range(r.size):
            c, lower, upper = normal_at(a, lo + i), lower_at(b, lo + i), upper_at(b, lo + i)
            d = c * scaled_step(np.float64(steps[i]), scale, heavy)
            y = r[i] - t * d / unit
            v = clip_to_bounds(y, lower, upper)
            total += c * v
            size += abs(c * v)
            slope += c * d if lower < y < upper else 0.0
        return total, size, slope

    return sums_of_block


def _newton_template(sums_of_block, search):
    def newton(r, steps, index, gap, slope, target, unit, scale, heavy, a, b, anew):
        """A few of Newton's iterations: the last t, its gap and slope, and near and far, a bracket.

        They visit all coordinates, but without branches: at n = 1e6 a visit takes a twentieth of
        what it takes in a search, whose branches nobody can predict before t is nearly known.
        """
        way = 1.0 if gap > 0 else -1.0
        t, near, far = 0.0, 0.0, inf  # t is between way * near and way * far
        new = gap * unit / slope if slope > 0 else nan
        if anew and r.size >= 4 * SAMPLE:
            stride = r.size // SAMPLE
            start = new if near < way * new < far else way
            share = target / stride
            new = search(
                r, steps, index, way, start, near, far, share, unit, scale, heavy, a, b, stride
            )
        for _ in range(NEWTON_STEPS):
            if not near < way * new < far:
                break
            t, before = new, gap
            total = size = slope = 0.0
            for lo in range(0, r.size, SUM_BLOCK):
                hi = smaller(r.size, lo + SUM_BLOCK)
                found = sums_of_block(r, steps, t, unit, scale, heavy, a, b, lo, hi)
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

    return newton


def _search_template(normal_at, lower_at, upper_at, scaled_step):
    def search(r, steps, index, way, t, near, far, target, unit, scale, heavy, a, b, stride):
        """The multiplier t, in units of scale / unit, that lies between way * near and way * far.

        A bracket closes in on t. A coordinate whose x(t) is on one piece between its ends is
        settled: it goes into the sums and is not visited again. The next t is Newton's. Where that
        settles too few, it is a corner of one of the coordinates that are left, which settles half
        of them on average, and the middle of the bracket in turn, which ends after 64 times.

        A stride above 1 asks for the t of a sample.
        """
        count = r.size // stride
        target *= unit
        settled = rising = falling = size = 0.0  # sums of bounds, normal·r, normal·d, magnitudes
        slow, first = 0, stride == 1
        if not first:
            for k in range(count):
                index[k] = k * stride
        while True:
            kept = 0
            moving = steep = noise = 0.0
            one, other = way * near, way * smaller(far, HUGE)
            for k in range(count):
                # Without a sign, it need not be looked at whether it counts from the end.
                i = np.uintp(k if first else index[k])
                c = normal_at(a, i)
                d = c * scaled_step(np.float64(steps[i]), scale, heavy)
                y, lower, upper = r[i] * unit, lower_at(b, i) * unit, upper_at(b, i) * unit
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
                    v = clip_to_bounds(now, lower, upper)
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
            factor = 2.0 if slow == 1 else 1.0
            new = way * (t + factor * gap / slope) if slope > 0 else nan
            if slow >= 3 or not near < new < far:
                new = nan
                if slow % 2 == 1 or far == inf:
                    i = index[kept // 2]
                    d = normal_at(a, i) * scaled_step(np.float64(steps[i]), scale, heavy)
                    new = way * (r[i] - lower_at(b, i)) * unit / d
                    if not near < new < far:
                        new = way * (r[i] - upper_at(b, i)) * unit / d
                if not near < new < far:
                    new = of_bits((bits_of(near) + bits_of(far)) // 2)
                if not near < new < far:  # the ends are neighbours
                    return t
            t = way * new

    return search


def _absorb_template(normal_at, lower_at, upper_at, scaled_step):
    def absorb(r, steps, gap, longest, scale, heavy, a, b):
        """Move coordinates by what rounding y - t d left of the gap; return what is left.

        Where y is larger than the set by many orders of magnitude, no t need give a point of it.
        Those move that are at a corner up to rounding, the lightest ones first, and then the
        others.
        """
        most = 0.0
        for i in range(r.size):
            step = scaled_step(np.float64(steps[i]), scale, heavy)
            most = larger(most, abs(normal_at(a, i) * step))
        for reach in (ROUNDED * EPS * longest, inf):
            least = most
            while gap != 0 and least > most * LIGHTEST:
                least /= 256
                for i in range(r.size):
                    c, lower, upper = normal_at(a, i), lower_at(b, i), upper_at(b, i)
                    step = scaled_step(np.float64(steps[i]), scale, heavy)
                    if abs(c * step) >= least:
                        v = clip_to_bounds(r[i], lower, upper)
                        if abs(r[i] - v) <= reach:
                            r[i] = clip_to_bounds(v - gap / c, lower, upper)
                            gap -= c * (v - r[i])
        return gap

    return absorb


# ---- what the names stand for ------------------------------------------------------------------


def plain(x, a, i):
    """The coordinate itself."""
    return x


def replaced(x, a, i, value):
    """The value that was found."""
    return value


#: Numbers that are the same for every coordinate.
ZERO, ONE, INFINITY, MINUS_INFINITY = always(0.0), always(1.0), always(inf), always(-inf)
