"""Gradient descent and Adagrad."""

import numpy as np

from numbelief.online.audit import (
    NEGLIGIBLE,
    Assumption,
    Audit,
    directions_are_averages,
    no_coordinate_held,
    projected_in_metric,
    steps_are,
    steps_never_grow,
)
from numbelief.online.players import OGD
from numbelief.online.theorems.base import Findings, theorem
from numbelief.online.theorems.terms import inverse, product
from numbelief.rules import SGD, Adagrad


@theorem("ogd", OGD, SGD)
def ogd(run: Audit, printed: bool) -> Findings:
    r"""Online gradient descent.

    Printed, for :math:`\eta_t = D/(G\sqrt t)`: with :math:`\|g_t\| \le G` and the Euclidean
    diameter D,

    .. math:: R(T) \le \tfrac32 G D \sqrt T.

    That is true for the G and D of the step; a G read off the run afterwards, beside another step,
    proves nothing.

    Corrected: all steps that never grow have

    .. math:: R(T) \le \frac{D^2}{2\eta_T} + \tfrac12\sum_t \eta_t\|g_t\|^2.

    With the step's own numbers D', G' and :math:`\sum_{t\le T} 1/\sqrt t \le 2\sqrt T` that is
    :math:`(D^2 G'/(2D') + D' G^2/G')\sqrt T` with :math:`G \ge G'` at least the largest gradient
    seen: 3/2 G D √T where the step knew both, and true where it did not. Without G, for
    :math:`\eta_t = D'/\sqrt{2 S_t}`, :math:`S_t = \sum_{s\le t}\|g_s\|^2`, the sum is at most
    :math:`D'\sqrt{S_T/2}` by :math:`\sum_t a_t/\sqrt{S_t} \le 2\sqrt{S_T}`, in total
    :math:`\sqrt2 D\sqrt{S_T}` for D' = D. Other schedules have the two sums as they are.

    References
    ----------
    M. Zinkevich, "Online convex programming and generalized infinitesimal gradient ascent", ICML
    2003, theorem 1; with D and G, E. Hazan, "Introduction to online convex optimization", 2016,
    theorem 3.1; without G, F. Orabona, arXiv 1912.13213, theorem 4.14.
    """
    D = run.length()
    seen, root = run.figures["longest"], np.sqrt(run.t)
    by_theory = isinstance(run.method, OGD) and run.method.learning_rate is None
    own = run.method if by_theory else OGD()
    known = own.G is not None
    step = D if own.D is None else own.D
    common = [directions_are_averages(run), projected_in_metric(run)]
    top = float(seen[-1])
    if printed:
        G = own.G if own.G is not None else top
        given = f"G = {G:.6g} was {'given' if known else 'seen, not given'}"
        return (
            "R(T) <= 3/2 G D sqrt(T)",
            {"distance": 0.5 * G * D * root, "gradients": G * D * root},
            [
                Assumption("step D / (G sqrt(t)), G known beforehand", known, given),
                Assumption("|g_t| <= G", top <= G * (1 + 1e-12), f"the largest was {top:.6g}"),
                Assumption("D is the diameter", step == D, f"D = {step:.6g}, and {D:.6g} of F"),
                *common,
            ],
        )
    if own.G is not None:
        most = np.maximum(own.G, seen)
        statement = "R(T) <= 3/2 G D sqrt(T), or with the largest gradient for G if that is larger"
        terms = {
            "distance": product(D**2 * own.G / 2, inverse(step), root),
            "gradients": step * most**2 / own.G * root,
        }
    elif by_theory:
        S = run.sums["g2"].sum(1)
        statement = "R(T) <= sqrt(2) D sqrt(sum |g_t|^2)"
        terms = {
            "distance": product(D**2, np.sqrt(S / 2), inverse(step)),
            "gradients": step * np.sqrt(S / 2),
        }
    else:
        statement = "R(T) <= D^2 / (2 eta_T) + sum eta_t |g_t|^2 / 2"
        terms = {
            "distance": product(D**2 / 2, inverse(run.figures["rate"])),
            "gradients": 0.5 * run.figures["quadratic"],
        }
    return statement, terms, [steps_never_grow(run), *common]


@theorem("adagrad", Adagrad)
def adagrad(run: Audit, printed: bool) -> Findings:
    r"""Adagrad with a diagonal matrix.

    Printed, for :math:`\eta_{t,i} = \alpha/s_{t,i}`, :math:`s_{t,i} = \|g_{1:t,i}\|_2`:

    .. math:: R(T) \le \frac{D_\infty^2}{2\alpha}\sum_i s_{T,i} + \alpha\sum_i s_{T,i},

    which is :math:`\sqrt2 D_\infty\sum_i s_{T,i}` for :math:`\alpha = D_\infty/\sqrt2`.

    Corrected, for :math:`\eta_{t,i} = \alpha_t/(\sqrt{s_{t,i}^2 + \epsilon_{root}} + \epsilon)`:
    the first term has the whole denominator, as large epsilons make steps so small that the regret
    exceeds the printed bound; it has the :math:`D_i` of each coordinate, and :math:`\alpha_T`; the
    second has the largest :math:`\alpha_t`, by :math:`\sum_t g_t^2/s_t \le 2 s_T`.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", JMLR 12, 2011, theorem 5 and corollary 6 (composite mirror descent).
    """
    D, s = run.extent(), np.sqrt(run.sums["g2"])
    rates = run.rates()
    rate = run.at(rates)[:, None]
    rule = run.rule
    common = [
        steps_never_grow(run),
        directions_are_averages(run),
        projected_in_metric(run),
        no_coordinate_held(run),
    ]
    if printed:
        alpha = float(rates[0])
        constant = bool((rates == alpha).all())
        return (
            "R(T) <= D^2 / (2 alpha) sum s_T + alpha sum s_T",
            {
                "distance": product(D.max() ** 2 / 2, s.sum(1), inverse(alpha)),
                "gradients": alpha * s.sum(1),
            },
            [
                Assumption("constant alpha", constant, f"from {alpha:.6g} to {rates[-1]:.6g}"),
                steps_are(run, "alpha / s_t", s / alpha, NEGLIGIBLE),
                *common,
            ],
        )
    root = np.sqrt(s**2 + rule.eps_root) + rule.eps
    largest = run.at(np.maximum.accumulate(rates))
    return (
        "R(T) <= sum D_i^2 (s_T,i + eps) / (2 alpha_T) + max alpha_t sum s_T,i",
        {
            "distance": product(D**2 / 2, root, inverse(rate)).sum(1),
            "gradients": largest * s.sum(1),
        },
        [steps_are(run, "alpha_t / (sqrt(s_t^2 + eps_root) + eps)", root / rate), *common],
    )
