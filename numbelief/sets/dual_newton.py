"""The projection onto an intersection, by Newton's method on the dual problem.

A box, cut by inequalities h(x) <= 0 and equations h(x) = 0 that are sums over the coordinates::

    c·x - b,    (|x - c|² / r - r) / 2  (a ball),    |x - c|₁ - r

Given a multiplier for each, (x - y)² / (2 steps) + multipliers·h(x) is least at a point of the box
that is found coordinate by coordinate. The nearest point of the set is that of the multipliers at
which the least sum is greatest. It is a concave and smooth function of them, with the gradient h(x)
and the second derivatives -G free G', G the gradients of h. Newton's method finds them however far y
is, where projections onto the sets in turn would crawl.

If x is the projection of y, so it is of all points between: where y is so far that its rounding
errors hide the set, a nearer one takes its place.
"""

from math import inf, sqrt
from typing import Any, NamedTuple

import numpy as np

from numbelief._compile.arrays import clip_to_bounds, larger, largest, smaller
from numbelief._compile.internals import array_at, window
from numbelief._compile.jit import part
from numbelief._compile.template import bind
from numbelief.sets.cuts import BALL, EQUATION, L1_BALL
from numbelief.sets.gram_schmidt import SPANNED, orthogonalize
from numbelief.sets.projector import (
    EPS,
    ROUNDED,
    SUM_ULPS,
    TERM_ULPS,
    Projection,
    give_up,
    heavy_step,
    lightest_step,
    rounding,
    scaled_step,
    unit_of,
)

# Of a row's length in the metric: what keeps Newton's equations solvable, and does not bend them.
RIDGE = 1e-8
# Multipliers so much larger than y belong to a set of which nothing is left.
FLAT = 1e100
LINE_STEPS = 100
# How many steps follow the last that rounding allows.
POLISH = 3

# The table has three integers a constraint: its kind, the first coordinate and the next one's.
# ``found`` has four numbers a constraint: the value of h, how far x is from satisfying it, the
# magnitudes of its terms and those of what is lost to rounding in x.
VALUE, GAP, SIZE, NOISE = range(4)


class Constraints(NamedTuple):
    """The set: a table of kinds, their rows of n numbers, sides, and the box in pairs."""

    table: Any
    rows: Any
    sides: Any
    bounds: Any


class Response(NamedTuple):
    """What comes with the x of multipliers: the gradients of h, free steps, and what was found."""

    gradients: Any
    free: Any
    found: Any


class Memory(NamedTuple):
    """What Newton's equations need."""

    change: Any
    trial: Any
    moved: Any
    W: Any
    L: Any
    order: Any


def scratch_size(n, m):
    """How many numbers the projection needs to work with m constraints."""
    return 3 * n + 8 * m + (2 * m + 1) * (n + m) + m * m + m


def _template():
    respond, failure = part(_respond), part(_failure)
    step = bind(
        _step_template,
        respond=respond,
        orthogonalize=part(orthogonalize, fastmath={"reassoc"}),
    )
    return bind(
        _project_template, respond=respond, failure=failure, newton_step=step, largest=part(largest)
    )


def _project_template(respond, failure, newton_step, largest):
    def project(x, steps, words):
        n, m = x.size, words.count
        width = n + m
        numbers = array_at(words.numbers, 2 + m, np.float64)
        tolerance, attempts = numbers[0], numbers[1]
        constraints = Constraints(
            array_at(words.table, 3 * m, np.intp),
            array_at(words.first, m * n, np.float64),
            window(numbers, 2, 2 + m),
            array_at(words.second, 2 * n, np.float64),
        )
        scratch = array_at(words.scratch, scratch_size(n, m), np.float64)
        v, y, rates = window(scratch, 0, n), window(scratch, n, 2 * n), window(scratch, 2 * n, 3 * n)
        at = 3 * n
        multipliers, at = window(scratch, at, at + m), at + m
        change, at = window(scratch, at, at + m), at + m
        trial, at = window(scratch, at, at + m), at + m
        found, at = window(scratch, at, at + 4 * m), at + 4 * m
        moved, at = window(scratch, at, at + m), at + m
        free, at = window(scratch, at, at + width), at + width
        gradients, at = window(scratch, at, at + m * width), at + m * width
        W, at = window(scratch, at, at + m * width), at + m * width
        L = window(scratch, at, at + m * m + m)
        response = Response(gradients, free, found)
        memory = Memory(change, trial, moved, W, L, array_at(words.index, m, np.intp))
        longest, top = largest(x), largest(steps)
        if not (longest < inf and top < inf):
            return give_up(x)
        scale, heavy = 1 / unit_of(top), 0.0
        precision = TERM_ULPS * EPS + SUM_ULPS * EPS + tolerance
        floor = EPS * EPS * longest  # no coordinate is known so well
        left = 0.0
        for refuge in range(2):
            for i in range(n):
                y[i], rates[i] = x[i], scaled_step(np.float64(steps[i]), scale, heavy)
            for k in range(m):
                multipliers[k] = 0.0
            for k in range(m * width):
                gradients[k] = 0.0
            respond(v, y, rates, multipliers, constraints, response)
            if (
                refuge == 0
                and failure(multipliers, constraints, found, rounding(x) + 4 * tolerance, 0.0) == 0
            ):
                inside = True
                for i in range(n):
                    inside &= v[i] == y[i]
                if inside:
                    return 0.0
            attempt = polish = 0
            while True:
                left = failure(multipliers, constraints, found, precision, 0.0)
                if attempt >= attempts or (left == 0 and polish == POLISH):
                    break
                if left == 0:  # so near, one step more gives all digits
                    polish = POLISH
                elif failure(multipliers, constraints, found, precision, ROUNDED * EPS) == 0:
                    size = largest(v)
                    away = 0.0
                    for i in range(n):
                        away = larger(away, abs(y[i] - v[i]))
                    share = size / away if away > 0 else 1.0
                    if share < 0.25 and size > floor:
                        for i in range(n):
                            y[i] = v[i] + share * (y[i] - v[i])
                        for k in range(m):
                            multipliers[k] *= share
                        respond(v, y, rates, multipliers, constraints, response)
                        continue
                    polish += 1
                    if polish > POLISH:
                        for i in range(n):  # a corner at 0 is there, and not near
                            if abs(v[i]) <= larger(ROUNDED * EPS * abs(y[i]), floor):
                                bounds = constraints.bounds
                                v[i] = clip_to_bounds(0.0, bounds[2 * i], bounds[2 * i + 1])
                        left = failure(
                            multipliers, constraints, found, precision + 3 * tolerance, 0.0
                        )
                        break
                if not newton_step(v, y, rates, multipliers, constraints, response, memory):
                    break
                if not largest(multipliers) < FLAT * (1 + largest(y)):
                    break
                attempt += 1
            if left == 0:
                break
            least, fixed = lightest_step(steps)
            if not fixed:
                break
            heavy = heavy_step(least, scale)
        for i in range(n):
            if v[i] != x[i]:
                x[i] = v[i]
        return left if left > floor else 0.0

    return project


def _applies(table, k, i):
    """Whether constraint k is about coordinate i."""
    return table[3 * k + 1] <= i < table[3 * k + 2]


def _respond(x, y, steps, multipliers, constraints, response):
    """The x of multipliers, with what `Response` tells of it."""
    n, m = x.size, multipliers.size
    width = n + m
    table, rows, sides, bounds = constraints
    gradients, free, found = response
    for k in range(4 * m):
        found[k] = 0.0
    for i in range(n):
        step, top, stiff = np.float64(steps[i]), y[i], 1.0
        noise = abs(top)
        for k in range(m):
            if _applies(table, k, i):
                pull, c = step * multipliers[k], rows[k * n + i]
                if table[3 * k] == BALL:
                    stiff += pull / sides[k]
                    top += pull / sides[k] * c
                    noise += abs(pull / sides[k] * c)
                elif table[3 * k] != L1_BALL:
                    top -= pull * c
                    noise += abs(pull * c)
                else:
                    noise += pull
        corner, total = False, top
        for k in range(m):
            if table[3 * k] == L1_BALL and _applies(table, k, i):
                pull, c = step * multipliers[k], rows[k * n + i]
                slope = stiff * c - top
                for j in range(m):
                    if j != k and table[3 * j] == L1_BALL and _applies(table, j, i):
                        slope += step * multipliers[j] * np.sign(c - rows[j * n + i])
                side = -np.sign(slope)
                gradients[k * width + i] = side
                if abs(slope) <= pull:
                    corner, x[i] = True, c
                total -= pull * side
        v = x[i] if corner else total / stiff
        lower, upper = bounds[2 * i], bounds[2 * i + 1]
        free[i] = step / stiff if lower < v < upper and not corner else 0.0
        v = clip_to_bounds(v, lower, upper)
        x[i] = v
        noise = noise / stiff if free[i] > 0 else abs(v)
        for k in range(m):
            if _applies(table, k, i):
                kind, c = table[3 * k], rows[k * n + i]
                if kind == BALL:
                    slope = (v - c) / sides[k]
                    found[4 * k + VALUE] += slope * slope
                    found[4 * k + SIZE] += (v / sides[k]) ** 2
                elif kind == L1_BALL:
                    slope = np.sign(v - c)
                    found[4 * k + VALUE] += abs(v - c)
                    found[4 * k + SIZE] += abs(v)
                else:
                    slope = c
                    found[4 * k + VALUE] += c * v
                    found[4 * k + SIZE] += abs(c * v)
                gradients[k * width + i] = slope
                found[4 * k + NOISE] += abs(slope) * noise
    for k in range(m):
        side = sides[k]
        if table[3 * k] == BALL:
            distance = sqrt(found[4 * k + VALUE])
            found[4 * k + VALUE] = side / 2 * (distance * distance - 1)
            found[4 * k + GAP] = side * (distance - 1)
            found[4 * k + SIZE] = side * (1 + sqrt(found[4 * k + SIZE]))
        else:
            found[4 * k + VALUE] -= side
            found[4 * k + GAP] = found[4 * k + VALUE]
            found[4 * k + SIZE] += abs(side)


def _failure(multipliers, constraints, found, slack, noise):
    """By how much x fails the worst condition, beyond what is allowed."""
    worst = 0.0
    for k in range(multipliers.size):
        gap = found[4 * k + GAP]
        # What has a multiplier must hold with equality.
        if constraints.table[3 * k] == EQUATION or multipliers[k] > 0:
            gap = abs(gap)
        allowed = slack * found[4 * k + SIZE] + noise * found[4 * k + NOISE]
        if not gap <= allowed and not gap <= worst:
            worst = gap
    return worst


def _step_template(respond, orthogonalize):
    def newton_step(x, y, steps, multipliers, constraints, response, memory):
        """One of Newton's steps, or the part of it on which the least sum rises; x follows.

        False if there is no step to take.
        """
        n, m = x.size, multipliers.size
        table = constraints.table
        gradients, free, found = response
        change, trial, moved, W, L, order = memory
        width = n + m
        for k in range(m):
            size = 0.0
            h = found[4 * k + VALUE]
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
            total = found[4 * order[j] + VALUE]
            for k in range(j):
                total -= L[order[j] * m + k] * trial[k]
            trial[j] = total / L[order[j] * m + j]
        for j in range(rank - 1, -1, -1):
            total = trial[j]
            for k in range(j + 1, rank):
                total -= L[order[k] * m + j] * change[order[k]]
            change[order[j]] = total / L[order[j] * m + j]
        # Where nothing is free, the least sum is linear, and the step endless: no more than some
        # times the way from y to the set.
        most = span = 0.0
        for i in range(n):
            total = 0.0
            for k in range(m):
                total += change[k] * gradients[k * width + i]
            most = larger(most, abs(total) * steps[i])
            span = larger(larger(span, abs(y[i])), abs(x[i]))
        unit = tallest = 0.0
        for k in range(m):
            unit = larger(unit, abs(change[k]))
            tallest = larger(tallest, abs(found[4 * k + VALUE]))
        span = larger(span, tallest)
        if not (0 < unit < inf and 0 < tallest < inf):
            return False
        t = 4 * span / most if most > 4 * span else 1.0
        low, high, below, above, before = 0.0, inf, 1.0, 0.0, 0.0
        for k in range(m):
            trial[k] = found[4 * k + VALUE] / tallest / unit
        for attempt in range(LINE_STEPS):
            first = 0.0
            for k in range(m):
                new = multipliers[k] + t * change[k]
                if table[3 * k] != EQUATION:
                    new = larger(new, 0.0)
                first += trial[k] * (new - multipliers[k])
                moved[k] = new
            respond(x, y, steps, moved, constraints, response)
            last = 0.0
            for k in range(m):
                last += found[4 * k + VALUE] / tallest / unit * (moved[k] - multipliers[k])
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

    return newton_step


PROJECTION = Projection(_template)
