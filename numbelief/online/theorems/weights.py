"""Exponential weights."""

import numpy as np

from numbelief.online.audit import ROUNDING, Assumption, Audit
from numbelief.online.players import Hedge
from numbelief.online.theorems.base import Findings, theorem
from numbelief.online.theorems.terms import inverse, product


@theorem("hedge", Hedge)
def hedge(run: Audit, printed: bool) -> Findings:
    r"""Exponential weights.

    Printed, for n experts with losses in [0, 1], equal weights at first, a constant rate
    :math:`\eta`:

    .. math:: R(T) \le \frac{\ln n}\eta + \frac{\eta T}8,

    which is :math:`\sqrt{T\ln n/2}` for :math:`\eta = \sqrt{8\ln n/T}`.

    Corrected, on the simplex of sum r, from :math:`x_1 = r p`, with rates that never grow and
    gradients whose coordinates lie within L of each other:

    .. math:: R(T) \le r\Big(\frac{\max_i\ln(1/p_i)}{\eta_T} + \frac{L^2}8\sum_t\eta_t\Big).

    L is the ``loss_range`` of the method, or what was seen where that is more: so it holds whatever
    was promised.

    Notes
    -----
    Hoeffding's lemma, :math:`\langle g_t, p_t\rangle \le -\frac1{\eta_t}\ln\sum_i p_{t,i}
    e^{-\eta_t g_{t,i}} + \eta_t L^2/8`. The first term on the right is :math:`\Phi_{t-1}(\eta_t) -
    \Phi_t(\eta_t)` with :math:`\Phi_t(\eta) = \frac1\eta\ln\sum_i p_i e^{-\eta G_{t,i}}`,
    :math:`G_t = g_1 + \dots + g_t`, which does not fall as :math:`\eta` grows (it is the logarithm
    of a power mean); so the sum is at most :math:`-\Phi_T(\eta_T) \le G_{T,i} + \ln(1/p_i)/\eta_T`.
    The first round is played at :math:`p` whatever its rate, and takes that of the second.

    References
    ----------
    N. Cesa-Bianchi and G. Lugosi, "Prediction, learning, and games", 2006, theorem 2.2; rates that
    fall, theorem 2.3.
    """
    T, r = run.result.rounds, float(run.feasible_set.total)
    later = run.rates(2)
    rates = np.concatenate([later[:1], later])[:T]
    constant = bool((rates == rates[0]).all())
    falls = bool((np.diff(rates) <= 0).all())
    seen = run.figures["range"]
    prior = run.result.x0 / r
    alike = Assumption(
        "equal weights at first",
        bool(np.ptp(prior) <= ROUNDING * prior.max()),
        f"from {prior.min():.4g} to {prior.max():.4g}",
    )
    if printed:
        eta = float(rates[0])
        return (
            "R(T) <= ln(n) / eta + eta T / 8",
            {
                "start": np.full(len(run.t), product(np.log(run.n), inverse(eta))),
                "losses": eta * run.t / 8,
            },
            [
                alike,
                Assumption("weights of sum 1", r == 1, f"{r:g}"),
                Assumption("constant rate", constant, f"from {rates[0]:.4g} to {rates[-1]:.4g}"),
                Assumption(
                    "losses within 1 of each other",
                    bool(seen[-1] <= 1),
                    f"at most {seen[-1]:.6g} apart",
                ),
            ],
        )
    L = np.maximum(run.method.loss_range, seen)
    return (
        "R(T) <= r (max ln(1 / p_i) / eta_T + L^2 sum eta_t / 8)",
        {
            "start": product(r * np.log(inverse(prior.min())), inverse(run.at(rates))),
            "losses": r * L**2 / 8 * run.at(np.cumsum(rates)),
        },
        [
            Assumption("rates never grow", falls, f"from {rates[0]:.4g} to {rates[-1]:.4g}"),
            Assumption(
                "losses within L of each other",
                True,
                f"at most {seen[-1]:.6g} apart, {run.method.loss_range:g} was promised",
            ),
        ],
    )
