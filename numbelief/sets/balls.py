"""Balls: of the Euclidean norm and of the sum of magnitudes."""

from dataclasses import dataclass
from math import copysign, inf, isnan, sqrt
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from numbelief._compile.arrays import SUM_BLOCK, largest
from numbelief._compile.internals import array_at, larger, number_at, smaller, window
from numbelief._compile.jit import part
from numbelief._compile.template import bind
from numbelief.checks import as_finite, as_nonnegative
from numbelief.sets.base import FeasibleSet, freeze
from numbelief.sets.cuts import BALL, L1_BALL, Cut, CutBox
from numbelief.sets.linear_programs import System
from numbelief.sets.one_multiplier import (
    INFINITY,
    ONE,
    ZERO,
    one_multiplier,
)
from numbelief.sets.projector import (
    EPS,
    SAMPLE,
    Projection,
    Projector,
    give_up,
    rounding,
)
from numbelief.sets.vectors import norm

# By how much a box around a ball is wider than the ball, and than rounding its points to float32.
_MARGIN = 2.0**-16
_NEWTON_STEPS = 200

# ---- the projection onto a Euclidean ball --------------------------------------------------------
#
# The nearest point to y in |x - c| <= r is c + (y - c) / (1 + t steps) for the t at which its
# distance from c is r. Newton's method on 1 / distance, which is concave and nearly linear in t:
# from anywhere, one iteration leads to the left of the root, and then it rises to it.
# Here steps are divided by the largest one and multiplied by |y - c| / r.


def _ball_template(center_at):
    def block(template):
        return part(bind(template, center_at=center_at), fastmath={"reassoc"}, allocates=False)

    return bind(
        _project_template,
        center_at=center_at,
        square_distance=block(_square_distance_template),
        squares=block(_squares_template),
        newton=bind(_newton_template, moments=block(_moments_template)),
        shrink=block(_shrink_template),
    )


def _square_distance_template(center_at):
    def square_distance(x, c, scale):
        """The square of x - c in units of 1 / scale."""
        total = 0.0
        for i in range(x.size):
            offset = (np.float64(x[i]) - center_at(c, i)) * scale
            total += offset * offset
        return total

    return square_distance


def _squares_template(center_at):
    def squares(x, steps, c, scale, lo, hi):
        """Squares of x - c, of those of them with step 0, and of x, in units of 1 / scale."""
        of_all = of_heavy = of_x = 0.0
        x, steps = window(x, lo, hi), window(steps, lo, hi)
        for i in range(x.size):
            scaled = np.float64(x[i]) * scale
            offset = (np.float64(x[i]) - center_at(c, lo + i)) * scale
            square = offset * offset
            of_all += square
            of_heavy += 0.0 if steps[i] > 0 else square
            of_x += scaled * scaled
        return of_all, of_heavy, of_x

    return squares


def _moments_template(center_at):
    def moments(x, steps, c, scale, pace, spread, t, stride, lo, hi):
        """The sums of q², q²p and q²p², where q = (x - c) / r / (1 + t s), p = s / (1 + t s)."""
        first = second = third = 0.0
        start = lo * stride
        x, steps = window(x, start, hi * stride), window(steps, start, hi * stride)
        for k in range(hi - lo):
            i = k * stride
            s = np.float64(steps[i]) * pace * spread
            share = 1 / (1 + t * s)
            q = (np.float64(x[i]) - center_at(c, start + i)) * scale * share
            p = s * share
            first += q * q
            second += q * q * p
            third += q * q * p * p
        return first, second, third

    return moments


def _shrink_template(center_at):
    def shrink(x, steps, c, scale, pace, spread, t, lo, hi):
        """Divide x - c by 1 + t s; return its new sum of squares in units of the radius."""
        total = 0.0
        x, steps = window(x, lo, hi), window(steps, lo, hi)
        for i in range(x.size):
            s = np.float64(steps[i]) * pace * spread
            v = (np.float64(x[i]) - center_at(c, lo + i)) / (1 + t * s)
            x[i] = center_at(c, lo + i) + v
            v *= scale
            total += v * v
        return total

    return shrink


def _newton_template(moments):
    def newton(x, steps, c, scale, pace, spread, t, least, stride, precision):
        """The t at which the sum of q² is 1."""
        count = x.size // stride
        for _ in range(_NEWTON_STEPS):
            first = second = third = 0.0
            for lo in range(0, count, SUM_BLOCK):
                hi = smaller(count, lo + SUM_BLOCK)
                if stride == 1:  # as a constant, for code that is faster
                    found = moments(x, steps, c, scale, pace, spread, t, 1, lo, hi)
                else:
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
            new = larger(least, t + move)
            done = bend * move * move <= precision or abs(new - t) <= EPS * t
            t = new
            if done:
                break
        return t

    return newton


def _project_template(center_at, square_distance, squares, newton, shrink):
    def project(x, steps, words):
        n, c = x.size, words.first
        radius = array_at(words.numbers, 1, np.float64)[0]
        scale = 1 / radius if radius > 1e-307 else inf
        # Most iterates lie inside, where the metric does not matter: a third of the time at
        # n = 100.
        if n <= SUM_BLOCK and square_distance(x, c, scale) < 1:
            return 0.0
        unit = 1.0
        while True:
            of_all = of_heavy = of_x = 0.0
            for lo in range(0, n, SUM_BLOCK):
                found = squares(x, steps, c, scale / unit, lo, smaller(n, lo + SUM_BLOCK))
                of_all += found[0]
                of_heavy += found[1]
                of_x += found[2]
            if of_all < inf or unit > 1 or isnan(of_all):
                break
            for i in range(n):  # the squares overflow: measure in units of the largest
                unit = larger(unit, abs((np.float64(x[i]) - center_at(c, i)) * scale))
        distance, heavy, size = unit * sqrt(of_all), unit * sqrt(of_heavy), unit * sqrt(of_x)
        top = largest(steps)
        if isnan(of_all) or not top < inf:
            inside = largest(x) < inf and top < inf
            if not inside:
                return give_up(x)
        slack = rounding(x) * (1 + size)
        if distance <= 1 + slack:
            return 0.0
        if not distance < 1e300:
            from_infinity(x, steps, c, radius)
            return 0.0
        if heavy >= 1:  # those that were to stay must move, now that the others have
            for i in range(n):
                v = np.float64(x[i]) - center_at(c, i)
                x[i] = center_at(c, i) + (0.0 if steps[i] > 0 else v / heavy)
            return 0.0
        pace, spread, least = 1 / top, distance, 1 - 1 / distance
        t = least
        stride = n // SAMPLE if n >= 4 * SAMPLE else 1
        while True:  # of a sample, then of all
            precision = EPS if stride == 1 else 1e-3
            t = newton(x, steps, c, scale, pace, spread, t, least, stride, precision)
            if stride == 1:
                break
            stride = 1
        of_all = 0.0
        for lo in range(0, n, SUM_BLOCK):
            hi = smaller(n, lo + SUM_BLOCK)
            of_all += shrink(x, steps, c, scale, pace, spread, t, lo, hi)
        if abs(of_all - 1) > 2 * slack:
            ratio = 1 / sqrt(of_all)
            for i in range(n):
                x[i] = center_at(c, i) + (np.float64(x[i]) - center_at(c, i)) * ratio
        return 0.0

    def from_infinity(x, steps, c, radius):
        """Move x to the ball from infinitely far away: along (x - c) / steps, after steps of 0."""
        left = radius
        for moving in (False, True):
            far, least, total = 0.0, inf, 0.0
            for i in range(x.size):
                if (steps[i] > 0) == moving:
                    far = larger(far, abs(np.float64(x[i]) - center_at(c, i)))
                    least = smaller(least, np.float64(steps[i]))
            for turn in range(2):
                for i in range(x.size):
                    if (steps[i] > 0) == moving and far > 0:
                        way = (np.float64(x[i]) - center_at(c, i)) / far
                        way *= least / np.float64(steps[i]) if moving else 1.0
                        if turn == 0:
                            total += way * way
                        elif moving or far * sqrt(total) > left:
                            x[i] = center_at(c, i) + left * way / sqrt(total)
            if not moving and far > 0:  # how far the others may be
                share = far * sqrt(total) / left if left > 0 else 1.0
                left *= sqrt(larger(0.0, 1 - share * share))

    return project


# ---- the projection onto an L1 ball: what `one_multiplier` searches ------------------------------


def _magnitude(x, a, i):
    return abs(x)


def _signed(x, a, i, value):
    return copysign(value, x)


def _distance(x, a, i):
    return abs(x - number_at(a, i))


def _beside(x, a, i, value):
    center = number_at(a, i)
    return center + copysign(value, x - center)


def _center_size(a, i):
    return abs(number_at(a, i))


_ORTHANT = {"normal_at": ONE, "lower_at": ZERO, "upper_at": INFINITY}


# ---- the sets ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Centered(FeasibleSet):
    """What the balls share: a radius along each coordinate, and a center."""

    radius: float = 1.0
    center: Any = 0.0
    _kind: ClassVar[int]

    def __post_init__(self) -> None:
        freeze(self, radius=as_nonnegative("radius", self.radius), center=as_center(self.center))

    @property
    def size(self) -> int | None:
        """The number of coordinates of the center, or None if it is a scalar."""
        return self.center.size if self.center.ndim else None

    def diameter(self, n: int | None = None, norm: float | None = None) -> Any:
        """As in `FeasibleSet.diameter`; with a norm, n does not matter."""
        return super().diameter(1 if norm and n is None and self.size is None else n, norm)

    _projection: ClassVar[Projection]
    _projection_moved: ClassVar[Projection]

    def _choose_projection(self, n: int) -> tuple[Projection, list[NDArray[Any]]]:
        """The projection for a center at zero or elsewhere, and its arrays."""
        if not self.center.any():
            return self._projection, []
        center = np.ascontiguousarray(np.broadcast_to(self.center, (n,)))
        return self._projection_moved, [center]

    def _widths(self, n: int) -> NDArray[np.float64]:
        return np.full(n, 2 * self.radius)

    def _length(self, widths: NDArray[np.float64]) -> float:
        return 2 * self.radius

    def _cut_box(self, n: int) -> CutBox:
        center = np.broadcast_to(self.center, (n,))
        if self.radius == 0:
            return CutBox(center, center, [])
        # A box around it bounds what is squared.
        reach = self.radius + _MARGIN * (self.radius + np.abs(center))
        cut = Cut(self._kind, 0, n, center, self.radius)
        return CutBox(center - reach, center + reach, [cut])


@dataclass(frozen=True, eq=False)
class Ball(_Centered):
    r"""All x with a Euclidean distance of at most a radius from a center.

    The projection is

    .. math:: x_i = c_i + \frac{a_i}{a_i + \lambda} (y_i - c_i)

    for the :math:`\lambda \ge 0` at which x lies on the sphere, found by Newton's method on
    :math:`1 / \|x - c\| = 1 / r`.

    Parameters
    ----------
    radius : float, default 1
        At least 0.
    center : array_like of shape (n,) or scalar, default 0

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        An argument is not finite, the radius is negative, or the center has another shape.

    Examples
    --------
    >>> from numbelief.sets import Ball
    >>> Ball(1.0).project([3.0, 4.0])
    array([0.6, 0.8])

    References
    ----------
    J. J. Moré and D. C. Sorensen, "Computing a trust region step", SIAM Journal on Scientific and
    Statistical Computing 4 (1983).
    """

    _kind = BALL
    _projection = Projection(_ball_template, center_at=ZERO)
    _projection_moved = Projection(_ball_template, center_at=number_at)

    def _projector(self, n: int, dtype: Any) -> Projector:
        projection, arrays = self._choose_projection(n)
        return Projector(projection, n, dtype, arrays=arrays, numbers=[self.radius])

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        slack = ulp * (self.radius + norm(x))
        return bool(norm(x - self.center) <= self.radius + tol + slack)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        top = np.abs(g).max()
        if top == 0:
            return np.broadcast_to(self.center, g.shape).copy()
        g = g / top
        return np.asarray(self.center - self.radius * (g / norm(g)))


@dataclass(frozen=True, eq=False)
class L1Ball(_Centered):
    r"""All x whose differences from a center have magnitudes that add up to at most a radius.

    The projection is

    .. math:: x_i = c_i + \operatorname{sign}(y_i - c_i) \max(|y_i - c_i| - \tau / a_i, 0)

    for the :math:`\tau \ge 0` at which x lies on the surface, found as for a `Simplex`.

    Parameters
    ----------
    radius : float, default 1
        At least 0.
    center : array_like of shape (n,) or scalar, default 0

    Raises
    ------
    TypeError
        An argument is not real.
    ValueError
        An argument is not finite, the radius is negative, or the center has another shape.

    Examples
    --------
    >>> from numbelief.sets import L1Ball
    >>> L1Ball(1.0).project([2.0, -1.5, 0.25])
    array([ 0.75, -0.25,  0.  ])

    References
    ----------
    J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, "Efficient projections onto the l1-ball
    for learning in high dimensions", ICML 2008.
    """

    _kind = L1_BALL
    _projection = Projection(
        one_multiplier, fold=_magnitude, unfold=_signed, center_size=ZERO, **_ORTHANT
    )
    _projection_moved = Projection(
        one_multiplier, fold=_distance, unfold=_beside, center_size=_center_size, **_ORTHANT
    )

    def _projector(self, n: int, dtype: Any) -> Projector:
        projection, arrays = self._choose_projection(n)
        numbers = [self.radius, 0]
        return Projector(
            projection, n, dtype, arrays=arrays, numbers=numbers, scratch=n, integers=n
        )

    def _contains(self, x: NDArray[Any], tol: Any, ulp: float) -> bool:
        slack = ulp * (self.radius + float(np.abs(x).sum()))
        return bool(np.abs(x - self.center).sum() <= self.radius + tol + slack)

    def _linear_minimum(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.broadcast_to(self.center, g.shape).copy()
        i = int(np.argmax(np.abs(g)))
        x[i] -= self.radius * np.sign(g[i])
        return x

    def _system(self, n: int) -> System:
        # |x - c| <= t, coordinate by coordinate, and the sum of t is at most the radius.
        eye = scipy.sparse.eye_array(n)
        center = np.broadcast_to(self.center, (n,))
        above = scipy.sparse.block_array(
            [[eye, -eye], [-eye, -eye], [None, np.ones((1, n))]], format="csr"
        )
        free = np.full(2 * n, inf)
        return System(-free, free, above, np.concatenate([center, -center, [self.radius]]))


def as_center(value: Any) -> NDArray[np.float64]:
    """A point, or one number for all of its coordinates."""
    center = as_finite("center", value)
    if center.ndim > 1 or center.size == 0:
        raise ValueError(f"center must be a number or have shape (n,), got {center.shape}")
    return center
