"""Smooth unconstrained minimization problems with known minima.

``PROBLEMS`` lists them and ``by_name`` finds one. ``p.fun(x, g, *p.args)`` returns the value at
``x`` and overwrites ``g`` with the gradient; both are float64 arrays of the length of ``p.x0``.
``fun`` is compiled by Numba at its first call, never at import, and works inside other compiled
functions. ``p(x)`` returns the value and a new gradient, as SciPy's ``jac=True`` wants them.

``f_star`` is the value of the minimum that descent from ``x0`` leads to, zero or the published
value where there is one. The others, and the digits that publications leave out, are the lowest
values of SciPy's L-BFGS-B, BFGS, CG, trust-ncg, trust-exact (Hessians from differences of the
gradient) and Nelder-Mead from ``x0`` at tolerance zero, polished by trust-exact; they agree to
1e-8 of f(x0) - f_star or better. The start of a function with many minima lies near the one meant.

The family ``mgh`` is the collection of Moré, Garbow & Hillstrom, "Testing unconstrained
optimization software", ACM TOMS 7 (1981), with its starting points. A value is the sum of squared
residuals, without a factor 1/2. Formulas count indices from 1, as the paper does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import atan, cos, exp, log, pi, sin, sqrt, tan

import numpy as np
from numba import njit
from numpy.typing import NDArray

# In NumPy's error model a division by zero gives inf or nan; Python's would raise.
compiled = njit(cache=True, error_model="numpy")


@dataclass(frozen=True, eq=False)
class SmoothProblem:
    name: str
    family: str  # "mgh", "classic", "quadratic" or "data"
    fun: Callable[..., float]  # fun(x, g, *args)
    x0: NDArray[np.float64]  # read-only
    f_star: float
    data: Callable[[], tuple] = tuple  # makes args, at their first use

    def __post_init__(self):
        self.x0.flags.writeable = False

    @cached_property
    def args(self):
        return self.data()

    def __call__(self, x):
        g = np.empty(len(x))
        return self.fun(x, g, *self.args), g


@compiled
def square(g, r, *slopes):
    """Return r² and add its gradient 2r (∂r/∂x₁, ∂r/∂x₂, ...) to g."""
    for j in range(len(slopes)):
        g[j] += 2 * r * slopes[j]
    return r * r


# Moré, Garbow & Hillstrom: a, b, c, ... are x₁, x₂, x₃, ...


@compiled
def rosenbrock(x, g):
    """Σ over odd i of 100(xᵢ₊₁ - xᵢ²)² + (1 - xᵢ)²"""
    f = 0.0
    for i in range(0, len(x), 2):
        r, s = x[i + 1] - x[i] ** 2, 1 - x[i]
        g[i] = -400 * r * x[i] - 2 * s
        g[i + 1] = 200 * r
        f += 100 * r**2 + s**2
    return f


@compiled
def freudenstein_roth(x, g):
    """(a + ((5 - b)b - 2)b - 13)² + (a + ((b + 1)b - 14)b - 29)²"""
    g[:] = 0
    a, b = x[0], x[1]
    return square(g, a + ((5 - b) * b - 2) * b - 13, 1.0, 10 * b - 3 * b**2 - 2) + square(
        g, a + ((b + 1) * b - 14) * b - 29, 1.0, 3 * b**2 + 2 * b - 14
    )


@compiled
def powell_badly_scaled(x, g):
    """(10⁴ab - 1)² + (e⁻ᵃ + e⁻ᵇ - 1.0001)²"""
    g[:] = 0
    a, b = x[0], x[1]
    f = square(g, 1e4 * a * b - 1, 1e4 * b, 1e4 * a)
    return f + square(g, exp(-a) + exp(-b) - 1.0001, -exp(-a), -exp(-b))


@compiled
def brown_badly_scaled(x, g):
    """(a - 10⁶)² + (b - 2·10⁻⁶)² + (ab - 2)²"""
    g[:] = 0
    a, b = x[0], x[1]
    return square(g, a - 1e6, 1.0, 0.0) + square(g, b - 2e-6, 0.0, 1.0) + square(g, a * b - 2, b, a)


@compiled
def beale(x, g):
    """Σ (yᵢ - a(1 - bⁱ))², y = (1.5, 2.25, 2.625)"""
    g[:] = 0
    a, b = x[0], x[1]
    f = square(g, 1.5 - a * (1 - b), b - 1, a)
    f += square(g, 2.25 - a * (1 - b**2), b**2 - 1, 2 * a * b)
    return f + square(g, 2.625 - a * (1 - b**3), b**3 - 1, 3 * a * b**2)


@compiled
def jennrich_sampson(x, g):
    """Σ (2 + 2i - e^(ia) - e^(ib))², i ≤ 10"""
    g[:] = 0
    f = 0.0
    for i in range(1, 11):
        u, v = exp(i * x[0]), exp(i * x[1])
        f += square(g, 2 + 2 * i - u - v, -i * u, -i * v)
    return f


@compiled
def helical_valley(x, g):
    """100(c - 10θ)² + 100(ρ - 1)² + c², (a, b) = ρ(cos 2πθ, sin 2πθ), -1/4 < θ < 3/4"""
    g[:] = 0
    a, b, c = x[0], x[1], x[2]
    theta = atan(b / a) / (2 * pi) + (0.5 if a < 0 else 0.0)
    rho = sqrt(a**2 + b**2)
    k = 100 / (2 * pi * rho**2)
    f = square(g, 10 * (c - 10 * theta), k * b, -k * a, 10.0)
    return (
        f + square(g, 10 * (rho - 1), 10 * a / rho, 10 * b / rho, 0.0) + square(g, c, 0.0, 0.0, 1.0)
    )


@compiled
def bard(x, g, y):
    """Σ (yᵢ - a - i / ((16 - i)b + min(i, 16 - i)c))²"""
    g[:] = 0
    f = 0.0
    for i in range(1, 16):
        v, w = 16 - i, min(i, 16 - i)
        s = v * x[1] + w * x[2]
        f += square(g, y[i - 1] - x[0] - i / s, -1.0, i * v / s**2, i * w / s**2)
    return f


@compiled
def gaussian(x, g, y):
    """Σ (a exp(-b(tᵢ - c)²/2) - yᵢ)², tᵢ = (8 - i)/2"""
    g[:] = 0
    f = 0.0
    for i in range(15):
        s = (7 - i) / 2 - x[2]
        e = exp(-x[1] * s**2 / 2)
        f += square(g, x[0] * e - y[i], e, -x[0] * e * s**2 / 2, x[0] * e * x[1] * s)
    return f


@compiled
def meyer(x, g, y):
    """Σ (a exp(b / (tᵢ + c)) - yᵢ)², tᵢ = 45 + 5i"""
    g[:] = 0
    f = 0.0
    for i in range(16):
        s = 50 + 5 * i + x[2]
        e = exp(x[1] / s)
        f += square(g, x[0] * e - y[i], e, x[0] * e / s, -x[0] * e * x[1] / s**2)
    return f


@compiled
def gulf(x, g):
    """Σ (exp(-|yᵢ - b|ᶜ/a) - tᵢ)², tᵢ = i/100, yᵢ = 25 + (-50 ln tᵢ)^(2/3), i < 100"""
    g[:] = 0
    a, b, c = x[0], x[1], x[2]
    f = 0.0
    for i in range(1, 100):
        t = i / 100
        u = 25 + (-50 * log(t)) ** (2 / 3) - b
        p = abs(u) ** c
        e = exp(-p / a)
        f += square(g, e - t, e * p / a**2, e * p * c / (a * u), -e * p * log(abs(u)) / a)
    return f


@compiled
def box_3d(x, g):
    """Σ (e^(-ta) - e^(-tb) - c(e^(-t) - e^(-10t)))², t = i/10, i ≤ 10"""
    g[:] = 0
    f = 0.0
    for i in range(1, 11):
        t = i / 10
        u, v, w = exp(-t * x[0]), exp(-t * x[1]), exp(-t) - exp(-10 * t)
        f += square(g, u - v - x[2] * w, -t * u, t * v, -w)
    return f


@compiled
def powell_singular(x, g):
    """Σ over blocks of four of (a + 10b)² + 5(c - d)² + (b - 2c)⁴ + 10(a - d)⁴"""
    f = 0.0
    for i in range(0, len(x), 4):
        p, q = x[i] + 10 * x[i + 1], x[i + 2] - x[i + 3]
        r, s = x[i + 1] - 2 * x[i + 2], x[i] - x[i + 3]
        g[i] = 2 * p + 40 * s**3
        g[i + 1] = 20 * p + 4 * r**3
        g[i + 2] = 10 * q - 8 * r**3
        g[i + 3] = -10 * q - 40 * s**3
        f += p**2 + 5 * q**2 + r**4 + 10 * s**4
    return f


@compiled
def wood(x, g):
    """100(b - a²)² + (1 - a)² + 90(d - c²)² + (1 - c)² + 10(b + d - 2)² + (b - d)²/10"""
    a, b, c, d = x[0], x[1], x[2], x[3]
    p, q, s, t = b - a**2, d - c**2, b + d - 2, b - d
    g[0] = -400 * p * a - 2 * (1 - a)
    g[1] = 200 * p + 20 * s + t / 5
    g[2] = -360 * q * c - 2 * (1 - c)
    g[3] = 180 * q + 20 * s - t / 5
    return 100 * p**2 + (1 - a) ** 2 + 90 * q**2 + (1 - c) ** 2 + 10 * s**2 + t**2 / 10


@compiled
def kowalik_osborne(x, g, u, y):
    """Σ (yᵢ - a(uᵢ² + uᵢb) / (uᵢ² + uᵢc + d))²"""
    g[:] = 0
    f = 0.0
    for i in range(len(u)):
        p, q = u[i] ** 2 + u[i] * x[1], u[i] ** 2 + u[i] * x[2] + x[3]
        k = x[0] * p / q**2
        f += square(g, y[i] - x[0] * p / q, -p / q, -x[0] * u[i] / q, k * u[i], k)
    return f


@compiled
def brown_dennis(x, g):
    """Σ ((a + tb - eᵗ)² + (c + d sin t - cos t)²)², t = i/5, i ≤ 20"""
    g[:] = 0
    f = 0.0
    for i in range(1, 21):
        t = i / 5
        p, q = x[0] + t * x[1] - exp(t), x[2] + sin(t) * x[3] - cos(t)
        f += square(g, p**2 + q**2, 2 * p, 2 * p * t, 2 * q, 2 * q * sin(t))
    return f


@compiled
def osborne_1(x, g, y):
    """Σ (yᵢ - a - b e^(-td) - c e^(-te))², t = 10(i - 1)"""
    g[:] = 0
    f = 0.0
    for i in range(len(y)):
        t = 10 * i
        u, v = exp(-t * x[3]), exp(-t * x[4])
        r = y[i] - x[0] - x[1] * u - x[2] * v
        f += square(g, r, -1.0, -u, -v, t * x[1] * u, t * x[2] * v)
    return f


@compiled
def biggs_exp6(x, g):
    """Σ (c e^(-ta) - d e^(-tb) + h e^(-te) - yᵢ)², t = i/10, i ≤ 13; y has c, d, h = 1, 5, 3"""
    g[:] = 0
    f = 0.0
    for i in range(1, 14):
        t = i / 10
        u, v, w = exp(-t * x[0]), exp(-t * x[1]), exp(-t * x[4])
        y = exp(-t) - 5 * exp(-10 * t) + 3 * exp(-4 * t)
        r = x[2] * u - x[3] * v + x[5] * w - y
        f += square(g, r, -t * x[2] * u, t * x[3] * v, u, -v, -t * x[5] * w, w)
    return f


@compiled
def osborne_2(x, g, y):
    """Σ (yᵢ - x₁e^(-tx₅) - Σ over j = 2, 3, 4 of xⱼ exp(-(t - xⱼ₊₇)²xⱼ₊₄))², t = (i - 1)/10"""
    g[:] = 0
    f = 0.0
    for i in range(len(y)):
        t = i / 10
        r = y[i] - x[0] * exp(-t * x[4])
        for j in range(1, 4):
            r -= x[j] * exp(-((t - x[j + 7]) ** 2) * x[j + 4])
        f += r**2
        g[0] -= 2 * r * exp(-t * x[4])
        g[4] += 2 * r * t * x[0] * exp(-t * x[4])
        for j in range(1, 4):
            s = t - x[j + 7]
            e = exp(-(s**2) * x[j + 4])
            g[j] -= 2 * r * e
            g[j + 4] += 2 * r * x[j] * e * s**2
            g[j + 7] -= 4 * r * x[j] * e * s * x[j + 4]
    return f


@compiled
def watson(x, g):
    """Σ (p'(t) - p(t)² - 1)² + x₁² + (x₂ - x₁² - 1)², p(t) = Σ xⱼtʲ⁻¹, t = i/29, i ≤ 29"""
    g[:] = 0
    f = square(g, x[0], 1.0) + square(g, x[1] - x[0] ** 2 - 1, -2 * x[0], 1.0)
    for i in range(1, 30):
        t = i / 29
        p = dp = 0.0
        for j in range(len(x)):
            p += x[j] * t**j
            dp += j * x[j] * t ** (j - 1)
        r = dp - p**2 - 1
        for j in range(len(x)):
            g[j] += 2 * r * (j * t ** (j - 1) - 2 * p * t**j)
        f += r**2
    return f


@compiled
def penalty_1(x, g):
    """10⁻⁵ Σ (xⱼ - 1)² + (Σ xⱼ² - 1/4)²"""
    s = np.sum(x**2) - 0.25
    g[:] = 2e-5 * (x - 1) + 4 * s * x
    return 1e-5 * np.sum((x - 1) ** 2) + s**2


@compiled
def penalty_2(x, g):
    """
    (x₁ - 0.2)² + (Σ (n - j + 1)xⱼ² - 1)² + 10⁻⁵ Σ over j > 1 of
    (u(xⱼ) + u(xⱼ₋₁) - u(j) - u(j - 1))² + (u(xⱼ) - u(-1))², u(z) = e^(z/10)
    """
    n = len(x)
    s = -1.0
    for j in range(n):
        s += (n - j) * x[j] ** 2
    for j in range(n):
        g[j] = 4 * s * (n - j) * x[j]
    g[0] += 2 * (x[0] - 0.2)
    f = s**2 + (x[0] - 0.2) ** 2
    for j in range(1, n):
        u, v = exp(x[j] / 10), exp(x[j - 1] / 10)
        r, q = u + v - exp((j + 1) / 10) - exp(j / 10), u - exp(-1 / 10)
        g[j] += 2e-6 * (r + q) * u
        g[j - 1] += 2e-6 * r * v
        f += 1e-5 * (r**2 + q**2)
    return f


@compiled
def variably_dimensioned(x, g):
    """Σ (xⱼ - 1)² + s² + s⁴, s = Σ j(xⱼ - 1)"""
    s = 0.0
    for j in range(len(x)):
        s += (j + 1) * (x[j] - 1)
    for j in range(len(x)):
        g[j] = 2 * (x[j] - 1) + (2 * s + 4 * s**3) * (j + 1)
    return np.sum((x - 1) ** 2) + s**2 + s**4


@compiled
def trigonometric(x, g):
    """Σ (n - Σ cos xⱼ + i(1 - cos xᵢ) - sin xᵢ)²"""
    i = np.arange(1, len(x) + 1)
    r = np.sum(1 - np.cos(x)) + i * (1 - np.cos(x)) - np.sin(x)
    g[:] = 2 * (np.sum(r) * np.sin(x) + r * (i * np.sin(x) - np.cos(x)))
    return np.sum(r**2)


@compiled
def brown_almost_linear(x, g):
    """Σ over i < n of (xᵢ + Σ xⱼ - (n + 1))² + (Π xⱼ - 1)²"""
    n = len(x)
    r = x + np.sum(x) - (n + 1)
    r[n - 1] = 0
    q = np.prod(x) - 1
    for j in range(n):
        g[j] = 2 * (np.sum(r) + r[j] + q * np.prod(x[:j]) * np.prod(x[j + 1 :]))
    return np.sum(r**2) + q**2


@compiled
def boundary_value(x, g):
    """Σ (2xᵢ - xᵢ₋₁ - xᵢ₊₁ + h²(xᵢ + ih + 1)³/2)², h = 1/(n + 1), x₀ = xₙ₊₁ = 0"""
    n = len(x)
    h = 1 / (n + 1)
    g[:] = 0
    f = 0.0
    for i in range(n):
        s = x[i] + (i + 1) * h + 1
        r = 2 * x[i] + h**2 * s**3 / 2
        if i > 0:
            r -= x[i - 1]
        if i < n - 1:
            r -= x[i + 1]
        f += r**2
        g[i] += 2 * r * (2 + 1.5 * h**2 * s**2)
        if i > 0:
            g[i - 1] -= 2 * r
        if i < n - 1:
            g[i + 1] -= 2 * r
    return f


@compiled
def integral_equation(x, g):
    """Σ (xᵢ + h/2 Σ K(tᵢ, tⱼ)(xⱼ + tⱼ + 1)³)², K(s, t) = min(s, t)(1 - max(s, t)), tⱼ = jh"""
    n = len(x)
    h = 1 / (n + 1)
    g[:] = 0
    f = 0.0
    for i in range(n):
        r = x[i]
        for j in range(n):
            k = (min(i, j) + 1) * h * (1 - (max(i, j) + 1) * h)
            r += h / 2 * k * (x[j] + (j + 1) * h + 1) ** 3
        f += r**2
        g[i] += 2 * r
        for j in range(n):
            k = (min(i, j) + 1) * h * (1 - (max(i, j) + 1) * h)
            g[j] += 3 * r * h * k * (x[j] + (j + 1) * h + 1) ** 2
    return f


@compiled
def broyden_tridiagonal(x, g):
    """Σ ((3 - 2xᵢ)xᵢ - xᵢ₋₁ - 2xᵢ₊₁ + 1)², x₀ = xₙ₊₁ = 0"""
    n = len(x)
    g[:] = 0
    f = 0.0
    for i in range(n):
        r = (3 - 2 * x[i]) * x[i] + 1
        if i > 0:
            r -= x[i - 1]
        if i < n - 1:
            r -= 2 * x[i + 1]
        f += r**2
        g[i] += 2 * r * (3 - 4 * x[i])
        if i > 0:
            g[i - 1] -= 2 * r
        if i < n - 1:
            g[i + 1] -= 4 * r
    return f


@compiled
def broyden_banded(x, g):
    """Σ (xᵢ(2 + 5xᵢ²) + 1 - Σ xⱼ(1 + xⱼ))², j from i - 5 to i + 1 without i"""
    n = len(x)
    g[:] = 0
    f = 0.0
    for i in range(n):
        r = x[i] * (2 + 5 * x[i] ** 2) + 1
        for j in range(max(0, i - 5), min(n, i + 2)):
            if j != i:
                r -= x[j] * (1 + x[j])
        f += r**2
        g[i] += 2 * r * (2 + 15 * x[i] ** 2)
        for j in range(max(0, i - 5), min(n, i + 2)):
            if j != i:
                g[j] -= 2 * r * (1 + 2 * x[j])
    return f


@compiled
def linear_full_rank(x, g):
    """Σ over i ≤ n of (xᵢ - s)² + Σ over n < i ≤ m of s², s = 2/m Σ xⱼ + 1, m = 2n"""
    n = len(x)
    s = np.sum(x) / n + 1
    g[:] = 2 * (x - s) - 2 * np.sum(x - s) / n + 2 * s
    return np.sum((x - s) ** 2) + n * s**2


@compiled
def linear_rank_1(x, g):
    """Σ over i ≤ m of (i Σ jxⱼ - 1)², m = 2n"""
    j = np.arange(1, len(x) + 1)
    i = np.arange(1, 2 * len(x) + 1)
    r = i * np.sum(j * x) - 1
    g[:] = 2 * np.sum(i * r) * j
    return np.sum(r**2)


@compiled
def linear_rank_1_zeros(x, g):
    """2 + Σ over 1 < i < m of ((i - 1) Σ over 1 < j < n of jxⱼ - 1)², m = 2n"""
    n = len(x)
    j = np.arange(1, n + 1)
    j[0] = j[n - 1] = 0
    i = np.arange(1, 2 * n - 1)
    r = i * np.sum(j * x) - 1
    g[:] = 2 * np.sum(i * r) * j
    return 2 + np.sum(r**2)


@compiled
def chebyquad(x, g):
    """Σ (1/n Σ Tᵢ(xⱼ) - ∫Tᵢ)², Tᵢ the Chebyshev polynomial shifted to [0, 1]"""
    n = len(x)
    y = 2 * x - 1
    f = 0.0
    g[:] = 0
    below, t, slope_below, slope = np.ones(n), y.copy(), np.zeros(n), np.full(n, 2.0)
    for i in range(1, n + 1):
        r = np.mean(t) - (1 / (1 - i**2) if i % 2 == 0 else 0.0)
        f += r**2
        g += 2 * r * slope / n
        slope_below, slope = slope, 4 * t + 2 * y * slope - slope_below
        below, t = t, 2 * y * t - below
    return f


def _numbers(text):
    return np.array(text.split(), float)


def _bard():
    return (_numbers(".14 .18 .22 .25 .29 .32 .35 .39 .37 .58 .73 .96 1.34 2.10 4.39"),)


def _gaussian():
    half = _numbers(".0009 .0044 .0175 .0540 .1295 .2420 .3521 .3989")
    return (np.concatenate((half, half[-2::-1])),)


def _meyer():
    return (
        _numbers(
            "34780 28610 23650 19630 16370 13720 11540 9744 8261 7030 6005 5147 4427 3820 3307 2872"
        ),
    )


def _kowalik_osborne():
    return (
        _numbers("4 2 1 .5 .25 .167 .125 .1 .0833 .0714 .0625"),
        _numbers(".1957 .1947 .1735 .1600 .0844 .0627 .0456 .0342 .0323 .0235 .0246"),
    )


def _osborne_1():
    return (
        _numbers(
            ".844 .908 .932 .936 .925 .908 .881 .850 .818 .784 .751 .718 .685 .658 .628 .603 .580"
            " .558 .538 .522 .506 .490 .478 .467 .457 .448 .438 .431 .424 .420 .414 .411 .406"
        ),
    )


def _osborne_2():
    return (
        _numbers(
            "1.366 1.191 1.112 1.013 .991 .885 .831 .847 .786 .725 .746 .679 .608 .655 .616 .606"
            " .602 .626 .651 .724 .649 .649 .694 .644 .624 .661 .612 .558 .533 .495 .500 .423 .395"
            " .375 .372 .391 .396 .405 .428 .429 .523 .562 .607 .653 .672 .708 .633 .668 .645 .632"
            " .591 .559 .597 .625 .739 .710 .729 .720 .636 .581 .428 .292 .162 .098 .054"
        ),
    )


def _mgh():
    def add(name, fun, x0, f_star, data=tuple):
        problems.append(SmoothProblem(name, "mgh", fun, np.array(x0, float), f_star, data))

    problems = []
    add("rosenbrock", rosenbrock, [-1.2, 1], 0.0)
    add("freudenstein_roth", freudenstein_roth, [0.5, -2], 48.98425367924001)
    add("powell_badly_scaled", powell_badly_scaled, [0, 1], 0.0)
    add("brown_badly_scaled", brown_badly_scaled, [1, 1], 0.0)
    add("beale", beale, [1, 1], 0.0)
    add("jennrich_sampson", jennrich_sampson, [0.3, 0.4], 124.36218235561489)
    add("helical_valley", helical_valley, [-1, 0, 0], 0.0)
    add("bard", bard, [1, 1, 1], 8.214877306578963e-3, _bard)
    add("gaussian", gaussian, [0.4, 1, 0], 1.1279327696188652e-8, _gaussian)
    add("meyer", meyer, [0.02, 4000, 250], 87.94585517002414, _meyer)
    add("gulf", gulf, [5, 2.5, 0.15], 0.0)
    add("box_3d", box_3d, [0, 10, 20], 0.0)
    add("powell_singular", powell_singular, [3, -1, 0, 1], 0.0)
    add("wood", wood, [-3, -1, -3, -1], 0.0)
    x0 = [0.25, 0.39, 0.415, 0.39]
    add("kowalik_osborne", kowalik_osborne, x0, 3.0750560384924e-4, _kowalik_osborne)
    add("brown_dennis", brown_dennis, [25, 5, -5, -1], 85822.20162635628)
    add("osborne_1", osborne_1, [0.5, 1.5, -1, 0.01, 0.02], 5.4648946974825123e-05, _osborne_1)
    # Trust-region Newton methods go on to zero from this start; L-BFGS-B, BFGS, CG and Nelder-Mead
    # end at this published minimum.
    add("biggs_exp6", biggs_exp6, [1, 2, 1, 1, 1, 1], 0.0056556499254998)
    x0 = [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5]
    add("osborne_2", osborne_2, x0, 0.04013773629354771, _osborne_2)
    for n, f_star in (
        (6, 0.0022876700535523417),
        (9, 1.3997601380890356e-06),
        (12, 4.722381106047296e-10),
    ):
        add(f"watson_{n}", watson, np.zeros(n), f_star)
    for n in 10, 100:
        add(f"extended_rosenbrock_{n}", rosenbrock, [-1.2, 1] * (n // 2), 0.0)
    for n in 12, 100:
        add(f"extended_powell_{n}", powell_singular, [3, -1, 0, 1] * (n // 4), 0.0)
    for n, f_star in (4, 2.249977500899937e-05), (10, 7.087651467090369e-05):
        add(f"penalty_1_{n}", penalty_1, np.arange(1, n + 1), f_star)
    for n, f_star in (4, 9.376293007355437e-06), (10, 0.00029366053745674594):
        add(f"penalty_2_{n}", penalty_2, np.full(n, 0.5), f_star)
    for n in 10, 50:
        j = np.arange(1, n + 1)
        add(f"variably_dimensioned_{n}", variably_dimensioned, 1 - j / n, 0.0)
    for n, f_star in (5, 0.0), (10, 2.7950561218787543e-05):
        add(f"trigonometric_{n}", trigonometric, np.full(n, 1 / n), f_star)
    for n in 5, 10:
        add(f"brown_almost_linear_{n}", brown_almost_linear, np.full(n, 0.5), 0.0)
    for n in 10, 50:
        t = np.arange(1, n + 1) / (n + 1)
        add(f"boundary_value_{n}", boundary_value, t * (t - 1), 0.0)
        add(f"integral_equation_{n}", integral_equation, t * (t - 1), 0.0)
    for n in 10, 100:
        add(f"broyden_tridiagonal_{n}", broyden_tridiagonal, np.full(n, -1), 0.0)
        add(f"broyden_banded_{n}", broyden_banded, np.full(n, -1), 0.0)
    add("linear_full_rank", linear_full_rank, np.ones(10), 10.0)
    add("linear_rank_1", linear_rank_1, np.ones(10), 380 / 82)
    add("linear_rank_1_zeros", linear_rank_1_zeros, np.ones(10), 454 / 74)
    for n, f_star in (7, 0.0), (8, 0.0035168737256779208), (9, 0.0):
        add(f"chebyquad_{n}", chebyquad, np.arange(1, n + 1) / (n + 1), f_star)
    return problems


# Classic test functions


@compiled
def chained_rosenbrock(x, g):
    """Σ over i < n of 100(xᵢ₊₁ - xᵢ²)² + (1 - xᵢ)²"""
    g[:] = 0
    f = 0.0
    for i in range(len(x) - 1):
        r, s = x[i + 1] - x[i] ** 2, 1 - x[i]
        g[i] -= 400 * r * x[i] + 2 * s
        g[i + 1] += 200 * r
        f += 100 * r**2 + s**2
    return f


@compiled
def himmelblau(x, g):
    """(a² + b - 11)² + (a + b² - 7)²"""
    g[:] = 0
    a, b = x[0], x[1]
    return square(g, a**2 + b - 11, 2 * a, 1.0) + square(g, a + b**2 - 7, 1.0, 2 * b)


@compiled
def booth(x, g):
    """(a + 2b - 7)² + (2a + b - 5)²"""
    g[:] = 0
    return square(g, x[0] + 2 * x[1] - 7, 1.0, 2.0) + square(g, 2 * x[0] + x[1] - 5, 2.0, 1.0)


@compiled
def matyas(x, g):
    """0.26(a² + b²) - 0.48ab"""
    a, b = x[0], x[1]
    g[0], g[1] = 0.52 * a - 0.48 * b, 0.52 * b - 0.48 * a
    return 0.26 * (a**2 + b**2) - 0.48 * a * b


@compiled
def cube(x, g):
    """100(b - a³)² + (1 - a)²"""
    g[:] = 0
    a, b = x[0], x[1]
    return square(g, 10 * (b - a**3), -30 * a**2, 10.0) + square(g, 1 - a, -1.0)


@compiled
def three_hump_camel(x, g):
    """2a² - 1.05a⁴ + a⁶/6 + ab + b²"""
    a, b = x[0], x[1]
    g[0], g[1] = 4 * a - 4.2 * a**3 + a**5 + b, a + 2 * b
    return 2 * a**2 - 1.05 * a**4 + a**6 / 6 + a * b + b**2


@compiled
def six_hump_camel(x, g):
    """4a² - 2.1a⁴ + a⁶/3 + ab - 4b² + 4b⁴"""
    a, b = x[0], x[1]
    g[0], g[1] = 8 * a - 8.4 * a**3 + 2 * a**5 + b, a - 8 * b + 16 * b**3
    return 4 * a**2 - 2.1 * a**4 + a**6 / 3 + a * b - 4 * b**2 + 4 * b**4


@compiled
def goldstein_price(x, g):
    """(1 + (s + 1)²(19 - 14s + 3s²))(30 + v²(18 - 16v + 3v²)), s = a + b, v = 2a - 3b"""
    s, v = x[0] + x[1], 2 * x[0] - 3 * x[1]
    p, q = 19 - 14 * s + 3 * s**2, 18 - 16 * v + 3 * v**2
    t, w = 1 + (s + 1) ** 2 * p, 30 + v**2 * q
    dt = 2 * (s + 1) * p + (s + 1) ** 2 * (6 * s - 14)
    dw = 2 * v * q + v**2 * (6 * v - 16)
    g[0], g[1] = dt * w + 2 * t * dw, dt * w - 3 * t * dw
    return t * w


@compiled
def branin(x, g):
    """(b - 5.1a²/(4π²) + 5a/π - 6)² + 10(1 - 1/(8π)) cos a + 10"""
    g[:] = 0
    a, b = x[0], x[1]
    p, k = 5.1 / (4 * pi**2), 10 - 10 / (8 * pi)
    f = square(g, b - p * a**2 + 5 * a / pi - 6, 5 / pi - 2 * p * a, 1.0)
    g[0] -= k * sin(a)
    return f + k * cos(a) + 10


@compiled
def mccormick(x, g):
    """sin(a + b) + (a - b)² - 1.5a + 2.5b + 1"""
    a, b = x[0], x[1]
    g[0] = cos(a + b) + 2 * (a - b) - 1.5
    g[1] = cos(a + b) - 2 * (a - b) + 2.5
    return sin(a + b) + (a - b) ** 2 - 1.5 * a + 2.5 * b + 1


@compiled
def easom(x, g):
    """-cos a cos b exp(-(a - π)² - (b - π)²)"""
    a, b = x[0], x[1]
    e = exp(-((a - pi) ** 2) - (b - pi) ** 2)
    g[0] = e * cos(b) * (sin(a) + 2 * (a - pi) * cos(a))
    g[1] = e * cos(a) * (sin(b) + 2 * (b - pi) * cos(b))
    return -cos(a) * cos(b) * e


@compiled
def zettl(x, g):
    """(a² + b² - 2a)² + a/4"""
    a, b = x[0], x[1]
    r = a**2 + b**2 - 2 * a
    g[0], g[1] = 4 * r * (a - 1) + 0.25, 4 * r * b
    return r**2 + a / 4


@compiled
def wayburn_seader(x, g):
    """(a⁶ + b⁴ - 17)² + (2a + b - 4)²"""
    g[:] = 0
    a, b = x[0], x[1]
    f = square(g, a**6 + b**4 - 17, 6 * a**5, 4 * b**3)
    return f + square(g, 2 * a + b - 4, 2.0, 1.0)


@compiled
def miele_cantrell(x, g):
    """(eᵃ - b)⁴ + 100(b - c)⁶ + tan⁴(c - d) + a⁸"""
    a, b, c, d = x[0], x[1], x[2], x[3]
    r, s, t = exp(a) - b, b - c, tan(c - d)
    dt = 4 * t**3 * (1 + t**2)
    g[0] = 4 * r**3 * exp(a) + 8 * a**7
    g[1] = 600 * s**5 - 4 * r**3
    g[2] = dt - 600 * s**5
    g[3] = -dt
    return r**4 + 100 * s**6 + t**4 + a**8


@compiled
def power_sum(x, g):
    """Σ over k ≤ 4 of (Σ xⱼᵏ - bₖ)², b = (8, 18, 44, 114), zero at the orders of (1, 2, 2, 3)"""
    g[:] = 0
    f = 0.0
    for k, b in enumerate((8, 18, 44, 114), 1):
        r = np.sum(x**k) - b
        g += 2 * r * k * x ** (k - 1)
        f += r**2
    return f


@compiled
def hartmann(x, g, a, p):
    """-Σ αᵢ exp(-Σ aᵢⱼ(xⱼ - pᵢⱼ)²), α = (1, 1.2, 3, 3.2)"""
    g[:] = 0
    f = 0.0
    for i, alpha in enumerate((1.0, 1.2, 3.0, 3.2)):
        e = alpha * exp(-np.sum(a[i] * (x - p[i]) ** 2))
        g += 2 * e * a[i] * (x - p[i])
        f -= e
    return f


@compiled
def shekel(x, g, c, beta):
    """-Σ 1/(|x - cᵢ|² + βᵢ)"""
    g[:] = 0
    f = 0.0
    for i in range(len(c)):
        q = 1 / (np.sum((x - c[i]) ** 2) + beta[i])
        g += 2 * q**2 * (x - c[i])
        f -= q
    return f


@compiled
def styblinski_tang(x, g):
    """Σ (xᵢ⁴ - 16xᵢ² + 5xᵢ)/2"""
    g[:] = 2 * x**3 - 16 * x + 2.5
    return np.sum(x**4 - 16 * x**2 + 5 * x) / 2


@compiled
def zakharov(x, g):
    """Σ xᵢ² + s² + s⁴, s = Σ ixᵢ/2"""
    i = np.arange(1, len(x) + 1)
    s = np.sum(i * x) / 2
    g[:] = 2 * x + (s + 2 * s**3) * i
    return np.sum(x**2) + s**2 + s**4


@compiled
def dixon_price(x, g):
    """(x₁ - 1)² + Σ over i > 1 of i(2xᵢ² - xᵢ₋₁)²"""
    g[:] = 0
    f = square(g, x[0] - 1, 1.0)
    for i in range(1, len(x)):
        r = 2 * x[i] ** 2 - x[i - 1]
        g[i] += 8 * (i + 1) * r * x[i]
        g[i - 1] -= 2 * (i + 1) * r
        f += (i + 1) * r**2
    return f


@compiled
def trid(x, g):
    """Σ (xᵢ - 1)² - Σ xᵢxᵢ₋₁"""
    g[:] = 2 * (x - 1)
    g[1:] -= x[:-1]
    g[:-1] -= x[1:]
    return np.sum((x - 1) ** 2) - np.sum(x[1:] * x[:-1])


@compiled
def sum_squares(x, g):
    """Σ ixᵢ²"""
    i = np.arange(1, len(x) + 1)
    g[:] = 2 * i * x
    return np.sum(i * x**2)


@compiled
def sum_quartic(x, g):
    """Σ ixᵢ⁴"""
    i = np.arange(1, len(x) + 1)
    g[:] = 4 * i * x**3
    return np.sum(i * x**4)


@compiled
def power_of_each(x, g):
    """Σ |xᵢ|ⁱ⁺¹"""
    f = 0.0
    for i in range(len(x)):
        g[i] = (i + 2) * abs(x[i]) ** i * x[i]
        f += abs(x[i]) ** (i + 2)
    return f


@compiled
def chung_reynolds(x, g):
    """(Σ xᵢ²)²"""
    s = np.sum(x**2)
    g[:] = 4 * s * x
    return s**2


@compiled
def qing(x, g):
    """Σ (xᵢ² - i)²"""
    r = x**2 - np.arange(1, len(x) + 1)
    g[:] = 4 * r * x
    return np.sum(r**2)


@compiled
def exponential(x, g):
    """-exp(-Σ xᵢ²/2)"""
    e = exp(-np.sum(x**2) / 2)
    g[:] = e * x
    return -e


@compiled
def schwefel_double_sum(x, g):
    """Σ over i of (Σ over j ≤ i of xⱼ)²"""
    s = np.cumsum(x)
    g[:] = 2 * np.cumsum(s[::-1])[::-1]
    return np.sum(s**2)


@compiled
def hilbert(x, g):
    """Σ xᵢxⱼ/(i + j - 1)"""
    for i in range(len(x)):
        g[i] = 0
        for j in range(len(x)):
            g[i] += 2 * x[j] / (i + j + 1)
    return np.sum(x * g) / 2


@compiled
def rastrigin(x, g):
    """Σ xᵢ² + 10 - 10 cos 2πxᵢ"""
    g[:] = 2 * x + 20 * pi * np.sin(2 * pi * x)
    return np.sum(x**2 + 10 - 10 * np.cos(2 * pi * x))


@compiled
def griewank(x, g):
    """1 + Σ xᵢ²/4000 - Π cos(xᵢ/√i)"""
    i = np.sqrt(np.arange(1, len(x) + 1))
    q = np.prod(np.cos(x / i))
    g[:] = x / 2000 + q * np.tan(x / i) / i
    return 1 + np.sum(x**2) / 4000 - q


@compiled
def levy(x, g):
    """
    sin² πw₁ + Σ over i < n of (wᵢ - 1)²(1 + 10 sin²(πwᵢ + 1)) + (wₙ - 1)²(1 + sin² 2πwₙ),
    wᵢ = 1 + (xᵢ - 1)/4
    """
    n = len(x)
    w = 1 + (x - 1) / 4
    g[:] = 0
    f = sin(pi * w[0]) ** 2
    g[0] = pi * sin(2 * pi * w[0]) / 4
    for i in range(n):
        k, s, ds = 10, pi * w[i] + 1, pi
        if i == n - 1:
            k, s, ds = 1, 2 * pi * w[i], 2 * pi
        q = 1 + k * sin(s) ** 2
        g[i] += (2 * (w[i] - 1) * q + (w[i] - 1) ** 2 * k * sin(2 * s) * ds) / 4
        f += (w[i] - 1) ** 2 * q
    return f


# From CUTE


@compiled
def arwhead(x, g):
    """Σ over i < n of (xᵢ² + xₙ²)² - 4xᵢ + 3"""
    r = x[:-1] ** 2 + x[-1] ** 2
    g[:-1] = 4 * r * x[:-1] - 4
    g[-1] = 4 * np.sum(r) * x[-1]
    return np.sum(r**2 - 4 * x[:-1] + 3)


@compiled
def liarwhd(x, g):
    """Σ 4(xᵢ² - x₁)² + (xᵢ - 1)²"""
    r = x**2 - x[0]
    g[:] = 16 * r * x + 2 * (x - 1)
    g[0] -= 8 * np.sum(r)
    return np.sum(4 * r**2 + (x - 1) ** 2)


@compiled
def nondquar(x, g):
    """(x₁ - x₂)² + (xₙ₋₁ + xₙ)² + Σ over i < n - 1 of (xᵢ + xᵢ₊₁ + xₙ)⁴"""
    r = x[:-2] + x[1:-1] + x[-1]
    p, q = x[0] - x[1], x[-2] + x[-1]
    g[:] = 0
    g[:-2] += 4 * r**3
    g[1:-1] += 4 * r**3
    g[0] += 2 * p
    g[1] -= 2 * p
    g[-2] += 2 * q
    g[-1] = 2 * q + 4 * np.sum(r**3)
    return p**2 + q**2 + np.sum(r**4)


@compiled
def engval(x, g):
    """Σ over i < n of (xᵢ² + xᵢ₊₁²)² - 4xᵢ + 3"""
    r = x[:-1] ** 2 + x[1:] ** 2
    g[:] = 0
    g[:-1] += 4 * r * x[:-1] - 4
    g[1:] += 4 * r * x[1:]
    return np.sum(r**2 - 4 * x[:-1] + 3)


@compiled
def dixmaan(x, g, alpha, beta, gamma, delta, k):
    """
    1 + α Σ xᵢ²(i/n)ᵏ + β Σ over i < n of xᵢ²(xᵢ₊₁ + xᵢ₊₁²)² + γ Σ over i ≤ 2m of xᵢ²xᵢ₊ₘ⁴
    + δ Σ over i ≤ m of xᵢxᵢ₊₂ₘ(i/n)ᵏ, m = n/3
    """
    n = len(x)
    m = n // 3
    g[:] = 0
    f = 1.0
    for i in range(n):
        w = ((i + 1) / n) ** k
        g[i] += 2 * alpha * x[i] * w
        f += alpha * x[i] ** 2 * w
        if i < n - 1:
            y = x[i + 1] + x[i + 1] ** 2
            g[i] += 2 * beta * x[i] * y**2
            g[i + 1] += 2 * beta * x[i] ** 2 * y * (1 + 2 * x[i + 1])
            f += beta * x[i] ** 2 * y**2
        if i < 2 * m:
            g[i] += 2 * gamma * x[i] * x[i + m] ** 4
            g[i + m] += 4 * gamma * x[i] ** 2 * x[i + m] ** 3
            f += gamma * x[i] ** 2 * x[i + m] ** 4
        if i < m:
            g[i] += delta * x[i + 2 * m] * w
            g[i + 2 * m] += delta * x[i] * w
            f += delta * x[i] * x[i + 2 * m] * w
    return f


@compiled
def cosine(x, g):
    """Σ over i < n of cos(xᵢ² - xᵢ₊₁/2)"""
    r = x[:-1] ** 2 - x[1:] / 2
    g[:] = 0
    g[:-1] -= 2 * np.sin(r) * x[:-1]
    g[1:] += np.sin(r) / 2
    return np.sum(np.cos(r))


@compiled
def tridia(x, g):
    """(x₁ - 1)² + Σ over i > 1 of i(2xᵢ - xᵢ₋₁)²"""
    g[:] = 0
    f = square(g, x[0] - 1, 1.0)
    for i in range(1, len(x)):
        r = 2 * x[i] - x[i - 1]
        g[i] += 4 * (i + 1) * r
        g[i - 1] -= 2 * (i + 1) * r
        f += (i + 1) * r**2
    return f


@compiled
def bdqrtic(x, g):
    """Σ over i < n - 3 of (3 - 4xᵢ)² + (xᵢ² + 2xᵢ₊₁² + 3xᵢ₊₂² + 4xᵢ₊₃² + 5xₙ²)²"""
    n = len(x)
    g[:] = 0
    f = 0.0
    for i in range(n - 4):
        q = 5 * x[n - 1] ** 2
        for j in range(4):
            q += (j + 1) * x[i + j] ** 2
        for j in range(4):
            g[i + j] += 4 * q * (j + 1) * x[i + j]
        g[n - 1] += 20 * q * x[n - 1]
        g[i] -= 8 * (3 - 4 * x[i])
        f += (3 - 4 * x[i]) ** 2 + q**2
    return f


@compiled
def edensch(x, g):
    """16 + Σ over i < n of (xᵢ - 2)⁴ + (xᵢ - 2)²xᵢ₊₁² + (xᵢ₊₁ + 1)²"""
    r, y = x[:-1] - 2, x[1:]
    g[:] = 0
    g[:-1] += 4 * r**3 + 2 * r * y**2
    g[1:] += 2 * r**2 * y + 2 * (y + 1)
    return 16 + np.sum(r**4 + r**2 * y**2 + (y + 1) ** 2)


@compiled
def dixon_chain(x, g):
    """(x₁ - 1)² + Σ (xᵢ - xᵢ₊₁)² + (xₙ - 1)²"""
    r = x[:-1] - x[1:]
    g[:] = 0
    g[:-1] += 2 * r
    g[1:] -= 2 * r
    g[0] += 2 * (x[0] - 1)
    g[-1] += 2 * (x[-1] - 1)
    return (x[0] - 1) ** 2 + np.sum(r**2) + (x[-1] - 1) ** 2


@compiled
def tquartic(x, g):
    """(x₁ - 1)² + Σ (x₁² - xᵢ²)²"""
    r = x[0] ** 2 - x**2
    g[:] = -4 * r * x
    g[0] += 2 * (x[0] - 1) + 4 * np.sum(r) * x[0]
    return (x[0] - 1) ** 2 + np.sum(r**2)


def _hartmann_3():
    a = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
    p = [[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]
    return a, np.array(p) * 1e-4


def _hartmann_6():
    a = "10 3 17 3.5 1.7 8 .05 10 17 .1 8 14 3 3.5 1.7 10 17 8 17 8 .05 10 .1 14"
    p = (
        "1312 1696 5569 124 8283 5886 2329 4135 8307 3736 1004 9991"
        " 2348 1451 3522 2883 3047 6650 4047 8828 8732 5743 1091 381"
    )
    return _numbers(a).reshape(4, 6), _numbers(p).reshape(4, 6) * 1e-4


def _shekel():
    c = "4 4 1 1 8 8 6 6 3 7 2 9 5 3 8 1 6 2 7 3.6"
    c = np.tile(_numbers(c).reshape(10, 2), 2)
    c[6] = 5, 5, 3, 3
    return c, _numbers(".1 .2 .2 .4 .4 .6 .3 .7 .5 .5")


def _classic():
    def add(name, fun, x0, f_star, data=tuple):
        problems.append(SmoothProblem(name, "classic", fun, np.array(x0, float), f_star, data))

    problems = []
    for n in 10, 100:
        add(f"chained_rosenbrock_{n}", chained_rosenbrock, np.zeros(n), 0.0)
    add("himmelblau", himmelblau, [0, 0], 0.0)
    add("booth", booth, [-5, 5], 0.0)
    add("matyas", matyas, [5, -3], 0.0)
    add("cube", cube, [-1.2, -1], 0.0)
    add("three_hump_camel", three_hump_camel, [1, 0.5], 0.0)
    add("six_hump_camel", six_hump_camel, [0.5, -0.5], -1.031628453489877)
    add("goldstein_price", goldstein_price, [0.2, -0.8], 3.0)
    add("branin", branin, [2.5, 5], 0.39788735772973816)
    add("mccormick", mccormick, [0, 0], -1.9132229549810362)
    add("easom", easom, [2.5, 3.5], -1.0)
    add("zettl", zettl, [1, 1], -0.003791237220468656)
    add("wayburn_seader", wayburn_seader, [0.5, 1.5], 0.0)
    add("miele_cantrell", miele_cantrell, [1, 2, 2, 2], 0.0)
    add("colville", wood, [0, 0, 0, 0], 0.0)
    add("power_sum", power_sum, [0.5, 1.5, 2.5, 3.5], 0.0)
    add("hartmann_3", hartmann, [0.2, 0.6, 0.8], -3.862779787332663, _hartmann_3)
    x0 = [0.3, 0.2, 0.4, 0.3, 0.4, 0.6]
    add("hartmann_6", hartmann, x0, -3.322368011415515, _hartmann_6)
    add("shekel", shekel, [4.3, 3.8, 4.2, 3.7], -10.536409816692046, _shekel)
    for n in 2, 10:
        add(f"zakharov_{n}", zakharov, np.ones(n), 0.0)
        add(f"dixon_price_{n}", dixon_price, np.ones(n), 0.0)
    for n in 6, 30:
        add(f"trid_{n}", trid, np.zeros(n), -n * (n + 4) * (n - 1) / 6)
    add("styblinski_tang_10", styblinski_tang, np.zeros(10), -391.6616570377142)
    add("sum_squares_30", sum_squares, np.ones(30), 0.0)
    add("sum_quartic_30", sum_quartic, np.ones(30), 0.0)
    add("power_of_each_6", power_of_each, np.linspace(1, -0.5, 6), 0.0)
    add("chung_reynolds_10", chung_reynolds, np.ones(10), 0.0)
    add("qing_10", qing, np.ones(10), 0.0)
    add("exponential_10", exponential, np.full(10, 0.5), -1.0)
    add("schwefel_double_sum_20", schwefel_double_sum, np.ones(20), 0.0)
    add("hilbert_10", hilbert, np.full(10, -3), 0.0)
    add("rastrigin_5", rastrigin, np.linspace(-0.3, 0.3, 5), 0.0)
    add("griewank_10", griewank, np.linspace(-1, 1.5, 10), 0.0)
    add("levy_10", levy, np.linspace(0, 2, 10), 0.0)
    add("arwhead_100", arwhead, np.ones(100), 0.0)
    add("liarwhd_100", liarwhd, np.full(100, 4), 0.0)
    add("nondquar_100", nondquar, [1, -1] * 50, 0.0)
    add("engval_100", engval, np.full(100, 109.0881361430921), 109.0)
    add("dixmaan_a_90", dixmaan, np.full(90, 2), 1.0, lambda: (1.0, 0.0, 0.125, 0.125, 0.0))
    add("dixmaan_l_90", dixmaan, np.full(90, 2), 1.0, lambda: (1.0, 0.26, 0.26, 0.26, 2.0))
    add("cosine_100", cosine, np.ones(100), -99.0)
    add("tridia_100", tridia, np.ones(100), 0.0)
    add("bdqrtic_100", bdqrtic, np.ones(100), 378.76919180868396)
    add("edensch_100", edensch, np.full(100, 603.2845920207643), 600.0)
    add("dixon_chain_100", dixon_chain, np.full(100, -1), 0.0)
    add("tquartic_100", tquartic, np.full(100, 0.1), 0.0)
    return problems


# Quadratics


@compiled
def quadratic(x, g, minimum, eigenvalues, order, cosines, sines):
    """1/2 Σ λᵢyᵢ², y = Q(x - minimum), Q a product of plane rotations.

    Stage k of Q rotates the planes (order[k, 0], order[k, 1]), (order[k, 2], order[k, 3]), ...;
    2 log₂ n stages over random planes mix all the coordinates in O(n log n) operations.
    """
    y = x - minimum
    for k in range(len(order)):
        for p in range(cosines.shape[1]):
            i, j, c, s = order[k, 2 * p], order[k, 2 * p + 1], cosines[k, p], sines[k, p]
            y[i], y[j] = c * y[i] - s * y[j], s * y[i] + c * y[j]
    f = np.sum(eigenvalues * y**2) / 2
    g[:] = eigenvalues * y
    for k in range(len(order) - 1, -1, -1):
        for p in range(cosines.shape[1]):
            i, j, c, s = order[k, 2 * p], order[k, 2 * p + 1], cosines[k, p], sines[k, p]
            g[i], g[j] = c * g[i] + s * g[j], c * g[j] - s * g[i]
    return f


def _quadratics():
    def add(n, condition, stages):
        def data():
            rng = np.random.default_rng(n + 1)
            order = np.array([rng.permutation(n) for _ in range(stages)], int).reshape(-1, n)
            angle = rng.uniform(0, 2 * np.pi, (stages, n // 2))
            eigenvalues = np.geomspace(1, condition, n)
            return rng.normal(size=n), eigenvalues, order, np.cos(angle), np.sin(angle)

        kind = "rotated" if stages else "aligned"
        name = f"quadratic_{kind}_{condition:.0e}_{n}".replace("e+0", "e")
        x0 = np.random.default_rng(n).normal(size=n)
        problems.append(SmoothProblem(name, "quadratic", quadratic, x0, 0.0, data))

    problems = []
    for n in 2, 10, 100, 1000:
        for condition in 1, 1e2, 1e4, 1e6:
            add(n, condition, 0)
            if condition > 1:  # a rotation leaves the sphere as it is
                add(n, condition, 2 * int(np.ceil(np.log2(n))))
    return problems


# Data


@compiled
def logistic(x, g, rows, l2):
    """Mean of log(1 + exp(-aᵢᵀx)) + l2/2 |x|², aᵢ a row times its label ±1"""
    z = rows @ x
    f = 0.0
    for i in range(len(z)):
        e = exp(-abs(z[i]))
        f += np.log1p(e) + max(-z[i], 0.0)
        z[i] = -(e if z[i] > 0 else 1.0) / (1 + e)
    g[:] = z @ rows / len(z) + l2 * x
    return f / len(z) + l2 / 2 * np.sum(x**2)


@compiled
def softmax(x, g, rows, labels, l2):
    """Mean of log Σ over k of exp(aᵢᵀxₖ - aᵢᵀx_label(i)) + l2/2 |x|², xₖ the columns of x"""
    z = rows @ x.reshape(rows.shape[1], -1)
    f = 0.0
    for i in range(len(z)):
        z[i] -= np.max(z[i])
        f -= z[i, labels[i]]
        z[i] = np.exp(z[i])
        f += log(np.sum(z[i]))
        z[i] /= np.sum(z[i])
        z[i, labels[i]] -= 1
    g[:] = (rows.T @ z).ravel() / len(z) + l2 * x
    return f / len(z) + l2 / 2 * np.sum(x**2)


@compiled
def poisson(x, g, rows, counts):
    """Mean of exp(aᵢᵀx) - yᵢaᵢᵀx"""
    z = rows @ x
    e = np.exp(z)
    g[:] = (e - counts) @ rows / len(z)
    return np.mean(e - counts * z)


@compiled
def pseudo_huber(x, g, rows, y):
    """Mean of √(1 + rᵢ²) - 1, rᵢ = aᵢᵀx - yᵢ"""
    r = rows @ x - y
    s = np.sqrt(1 + r**2)
    g[:] = (r / s) @ rows / len(r)
    return np.mean(s - 1)


@compiled
def log_sum_exp(x, g, rows, y):
    """Log Σ exp(aᵢᵀx - yᵢ)"""
    z = rows @ x - y
    top = np.max(z)
    e = np.exp(z - top)
    g[:] = e @ rows / np.sum(e)
    return top + log(np.sum(e))


@compiled
def exponential_decay(x, g, t, y):
    """Σ (a e^(-btᵢ) + c e^(-dtᵢ) - yᵢ)²"""
    g[:] = 0
    f = 0.0
    for i in range(len(t)):
        u, v = exp(-x[1] * t[i]), exp(-x[3] * t[i])
        r = x[0] * u + x[2] * v - y[i]
        f += square(g, r, u, -x[0] * t[i] * u, v, -x[2] * t[i] * v)
    return f


@compiled
def misra(x, g, t, y):
    """Σ (a(1 - e^(-btᵢ)) - yᵢ)²"""
    g[:] = 0
    f = 0.0
    for i in range(len(t)):
        e = exp(-x[1] * t[i])
        f += square(g, x[0] * (1 - e) - y[i], 1 - e, x[0] * t[i] * e)
    return f


@compiled
def factorization(x, g, m):
    """1/2 Σ (UVᵀ - M)ᵢⱼ², x = (U, V) row by row"""
    rows, columns = m.shape
    rank = len(x) // (rows + columns)
    u, v = x[: rows * rank].reshape(rows, rank), x[rows * rank :].reshape(columns, rank)
    r = u @ v.T - m
    g[: rows * rank] = (r @ v).ravel()
    g[rows * rank :] = (r.T @ u).ravel()
    return np.sum(r**2) / 2


@compiled
def network(x, g, inputs, targets, l2):
    """Mean of (Σ over k of cₖ tanh(wₖtᵢ + bₖ) - yᵢ)² + l2/2 |x|², x = (w, b, c)"""
    k = len(x) // 3
    w, b, c = x[:k], x[k : 2 * k], x[2 * k :]
    g[:] = l2 * x
    f = 0.0
    for i in range(len(inputs)):
        h = np.tanh(w * inputs[i] + b)
        r = np.sum(c * h) - targets[i]
        d = 2 * r / len(inputs) * c * (1 - h**2)
        g[:k] += d * inputs[i]
        g[k : 2 * k] += d
        g[2 * k :] += 2 * r / len(inputs) * h
        f += r**2
    return f / len(inputs) + l2 / 2 * np.sum(x**2)


@compiled
def smoothed_variation(x, g, y, weight, width):
    """1/2 |x - y|² + weight Σ √((xᵢ₊₁ - xᵢ)² + width²)"""
    d = x[1:] - x[:-1]
    s = np.sqrt(d**2 + width**2)
    g[:] = x - y
    g[1:] += weight * d / s
    g[:-1] -= weight * d / s
    return np.sum((x - y) ** 2) / 2 + weight * np.sum(s)


def _noise(*shape):
    """Return numbers of mean 0 and variance 1 that no random generator's version can change."""
    return np.sqrt(2) * np.cos(np.arange(1.0, np.prod(shape) + 1) ** 2).reshape(shape)


def _with_ones(rows):
    return np.column_stack((rows, np.ones(len(rows))))


def _standardized(rows):
    deviation = np.std(rows, axis=0)
    return (rows - np.mean(rows, axis=0)) / np.where(deviation > 0, deviation, 1)


def _labelled(rows, positive):
    rows = _with_ones(rows)
    return rows * np.where(positive, 1.0, -1.0)[:, None], 1 / len(rows)


def _cancer_standardized():
    from sklearn.datasets import load_breast_cancer

    rows, y = load_breast_cancer(return_X_y=True)
    return _labelled(_standardized(rows), y == 1)


def _cancer_raw():
    from sklearn.datasets import load_breast_cancer

    rows, y = load_breast_cancer(return_X_y=True)
    return _labelled(rows / 100, y == 1)


def _iris_two():
    from sklearn.datasets import load_iris

    rows, y = load_iris(return_X_y=True)
    return _labelled(rows[50:], y[50:] == 2)


def _iris_three():
    from sklearn.datasets import load_iris

    rows, y = load_iris(return_X_y=True)
    return _with_ones(rows), y, 1 / len(rows)


def _digits_one():
    from sklearn.datasets import load_digits

    rows, y = load_digits(return_X_y=True)
    return _labelled(rows / 16, y == 8)


def _digits_ten():
    from sklearn.datasets import load_digits

    rows, y = load_digits(return_X_y=True)
    return _with_ones(rows[:500] / 16), y[:500], 1 / 500


def _diabetes():
    from sklearn.datasets import load_diabetes

    rows, y = load_diabetes(return_X_y=True, scaled=False)
    return _with_ones(_standardized(rows)), y / 50


def _poisson():
    rows = _with_ones(_noise(100, 7) / 2)
    return rows, np.round(np.exp(rows @ np.linspace(-1, 1.5, 8)))


def _log_sum_exp():
    return _noise(100, 20), _noise(100)


def _exponential_decay():
    t = np.linspace(0, 4, 40)
    return t, 3 * np.exp(-0.5 * t) + 2 * np.exp(-3 * t) + 0.05 * _noise(40)


def _misra():
    return (
        _numbers("77.6 114.9 141.1 190.8 239.9 289 332.8 378.4 434.8 477.3 536.8 593.1 689.1 760"),
        _numbers(
            "10.07 14.73 17.94 23.93 29.61 35.18 40.02 44.82 50.76 55.05 61.01 66.4 75.47 81.78"
        ),
    )


def _factorization():
    return (_noise(12, 3) @ _noise(3, 8) + 0.3 * _noise(12, 8),)


def _network():
    t = np.linspace(-2, 2, 50)
    return t, np.sin(2 * t), 1e-3


def _smoothed_variation():
    return np.repeat([0.0, 2, 1, 3], 25) + 0.3 * _noise(100), 0.5, 0.01


def _data():
    def add(name, fun, x0, f_star, data):
        problems.append(SmoothProblem(name, "data", fun, np.array(x0, float), f_star, data))

    problems = []
    add("logistic_cancer", logistic, np.zeros(31), 0.0663940698234062, _cancer_standardized)
    add("logistic_cancer_raw", logistic, np.zeros(31), 0.21381443357443108, _cancer_raw)
    add("logistic_iris", logistic, np.zeros(5), 0.3168540571954693, _iris_two)
    add("logistic_digits", logistic, np.zeros(65), 0.11523519891776694, _digits_one)
    add("softmax_iris", softmax, np.zeros(15), 0.24567121823705196, _iris_three)
    add("softmax_digits", softmax, np.zeros(650), 0.28434018250512305, _digits_ten)
    add("pseudo_huber_diabetes", pseudo_huber, np.zeros(11), 0.3985042086999019, _diabetes)
    add("poisson", poisson, np.zeros(8), -7.364446546870966, _poisson)
    add("log_sum_exp", log_sum_exp, np.ones(20), 4.338532221545911, _log_sum_exp)
    add(
        "exponential_decay",
        exponential_decay,
        [1, 1, 1, 2],
        0.08905303349572018,
        _exponential_decay,
    )
    add("misra", misra, [250, 5e-4], 0.12455138894438902, _misra)
    add("factorization", factorization, _noise(60) / 2, 1.9178271974584873, _factorization)
    add("network", network, _noise(15), 0.010493877089106752, _network)
    add(
        "smoothed_variation",
        smoothed_variation,
        np.zeros(100),
        6.6306231685050445,
        _smoothed_variation,
    )
    return problems


PROBLEMS = _mgh() + _classic() + _quadratics() + _data()


def by_name(name):
    return {p.name: p for p in PROBLEMS}[name]
