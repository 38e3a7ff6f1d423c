"""What holds for every rule."""

from typing import Any

import numpy as np

from numbelief.checks import as_array
from numbelief.online.audit import (
    Audit,
    Vector,
    constant_beta1,
    directions_are_averages,
    no_coordinate_held,
    projected_in_metric,
)
from numbelief.online.players import OGD
from numbelief.online.search import frank_wolfe_gap
from numbelief.online.theorems.base import Findings, theorem
from numbelief.online.theorems.terms import product
from numbelief.rules import Rule


@theorem("certificate", Rule, OGD, variants=("corrected",))
def certificate(run: Audit, printed: bool, comparator: Any = None) -> Findings:
    r"""One theorem for every rule that steps along an average of the gradients.

    For constant :math:`\beta_1 = \beta`, :math:`m_0 = 0`, :math:`H_t = \mathrm{diag}(1/\eta_t)`
    with the steps :math:`\eta_t` really taken, and :math:`x_{t+1} = \Pi_{F,H_t}(x_t - \eta_t m_t)`,

    .. math:: R(T) \le \tfrac12\sum_i D_i^2 \mathrm{PV}_i
        + \frac{1+\beta}{2(1-\beta)}\sum_{t,i}\eta_{t,i} m_{t,i}^2
        + \frac{\beta}{1-\beta}\sum_i D_i|m_{T,i}|, \quad
        \mathrm{PV}_i = \sum_t (H_{t,i} - H_{t-1,i})_+.

    No step need shrink: the bound holds for Adam as well, and blows up where Adam does. A rule
    without :math:`\beta_1` has :math:`\beta = 0`.

    Notes
    -----
    From :math:`g_t = (m_t - \beta m_{t-1})/(1-\beta)` follows, with :math:`b = \beta/(1-\beta)`,

    .. math:: \langle g_t, x_t - x\rangle = \langle m_t, x_t - x\rangle
        + b\,[\langle m_t, x_t - x\rangle - \langle m_{t-1}, x_{t-1} - x\rangle]
        + b\,\langle m_{t-1}, x_{t-1} - x_t\rangle.

    The bracket telescopes to :math:`b\langle m_T, x_T - x\rangle`. The first and the last product
    are those at the top of this file, which add up to :math:`\tfrac12 + b = (1+\beta)/(2(1-\beta))`
    times the second sum, and to

    .. math:: \tfrac12\sum_t \|x_t - x\|^2_{H_t - H_{t-1}} - \tfrac12\|x_{T+1} - x\|^2_{H_T},
        \quad H_0 = 0.

    That is at most the first term; with a known x it is, multiplied out, :math:`\tfrac12[\sum_i
    H_{T,i}x_i^2 - 2\langle B, x\rangle + C] - \tfrac12\|x_{T+1} - x\|^2_{H_T}` with the sums
    :math:`B = \sum\Delta H_t x_t` and :math:`C = \sum\langle\Delta H_t, x_t^2\rangle`, and
    :math:`D_i|m_{T,i}|` is :math:`m_{T,i}(x_{T,i} - x_i)`. With ``comparator`` these are the terms:
    for a point, the bound is on the regret against it; for "best", on R(T), against the comparator
    that `Regret` found, plus its gap (an adversary is bounded against the best point of the
    linearized losses). In the median of random runs it is several times tighter.

    A coordinate with :math:`\eta = 0` and :math:`m \ne 0` costs at most :math:`D_i|m_{t,i}|` in
    that round: the term "idle", if there is one.

    References
    ----------
    numbelief. The telescoping follows A. Alacaoglu, Y. Malitsky, P. Mertikopoulos and V. Cevher, "A
    new regret analysis for Adam-type algorithms", ICML 2020; the variation and the known comparator
    are ours.
    """
    beta = run.beta1
    b = beta / (1 - beta)
    steps = (0.5 + b) * run.figures["quadratic"]
    D = run.extent(comparator is not None)
    m = run.sums["direction"]
    if comparator is None:
        statement = (
            "R(T) <= sum D^2 PV / 2 + (1 + beta) / (2 (1 - beta)) sum eta m^2 "
            "+ beta / (1 - beta) sum D |m_T|"
        )
        terms = {
            "variation": 0.5 * product(D**2, run.sums["variation"]).sum(1),
            "steps": steps,
            "momentum": b * (D * abs(m)).sum(1),
        }
    else:
        x, gap = _comparators(run, comparator)
        H = run.sums["weight"]
        passed = (H * x**2 - 2 * run.sums["drift"] * x).sum(1) + run.figures["curvature"]
        left = (H * (run.sums["point"] - x) ** 2).sum(1)
        statement = (
            "R(T) <= sum_t |x_t - x|^2_(H_t - H_(t-1)) / 2 - |x_(T+1) - x|^2_(H_T) / 2 "
            "+ (1 + beta) / (2 (1 - beta)) sum eta m^2 + beta / (1 - beta) <m_T, x_T - x>"
        )
        terms = {
            "variation": 0.5 * (passed - left),
            "steps": steps,
            "momentum": b * (m * (run.sums["before"] - x)).sum(1),
        }
        if gap.any():
            terms["gap"] = gap
    idle = run.sums["idle"]
    if idle.any():
        terms["idle"] = product(D, idle).sum(1)
    return (
        statement,
        terms,
        [
            constant_beta1(run),
            directions_are_averages(run),
            projected_in_metric(run),
            no_coordinate_held(run),
        ],
    )


def _comparators(run: Audit, comparator: Any) -> tuple[Vector, Vector]:
    """The points to compare with, one for each checkpoint or for all, and their gaps."""
    none = np.zeros(len(run.t))
    if not isinstance(comparator, str):
        x = as_array(comparator, "comparator").astype(np.float64)
        if x.shape != (run.n,):
            raise ValueError(f"comparator must have shape ({run.n},), got {x.shape}")
        if not np.isfinite(x).all() or not run.feasible_set.contains(x):
            raise ValueError(f"comparator must be a point of the feasible set, got {comparator!r}")
        return x[None], none
    if comparator != "best":
        raise ValueError(f"comparator must be 'best' or a point, got {comparator!r}")
    found = run.result.regret.comparators
    if found:
        return np.array([each.x for each in found]), np.array([each.gap for each in found])
    _, _, gradients = run.result.linearized
    try:
        points = [run.feasible_set.linear_minimum(g) for g in gradients]
    except NotImplementedError as error:
        raise ValueError(f"comparator must be a point here, not 'best': {error}") from None
    gaps = [frank_wolfe_gap(run.feasible_set, g, x) for g, x in zip(gradients, points, strict=True)]
    return np.array(points), np.array(gaps)
