"""AdaBelief."""

import numpy as np

from numbelief.online.audit import (
    NEGLIGIBLE,
    ROUNDING,
    Assumption,
    Audit,
    bounded_gradients,
    decaying_beta1,
    directions_are_averages,
    no_coordinate_held,
    projected_in_metric,
    rate_over_root,
    slot_never_falls,
    steps_are,
)
from numbelief.online.theorems.base import Findings, Terms, theorem
from numbelief.online.theorems.terms import adaptive_terms, inverse, product, sum_of_weights
from numbelief.rules import AdaBelief


@theorem("adabelief-2.1", AdaBelief)
def adabelief(run: Audit, printed: bool) -> Findings:
    r"""AdaBelief, theorem 2.1.

    Printed, for :math:`\alpha_t = \alpha/\sqrt t`, :math:`\beta_{1t} \le \beta_1`,
    :math:`s_t \le s_{t+1}`, :math:`s_{t,i} \ge c`:

    .. math:: R(T) \le \frac{D_\infty^2\sqrt T}{2\alpha(1-\beta_1)}\sum_i s_{T,i}^{1/2}
        + \frac{(1+\beta_1)\alpha\sqrt{1+\log T}}{2\sqrt c(1-\beta_1)^3}\sum_i\|g^2_{1:T,i}\|_2
        + \frac{D_\infty^2}{2(1-\beta_1)}\sum_{t,i}\frac{\beta_{1t}s_{t,i}^{1/2}}{\alpha_t},

    where :math:`\|g^2_{1:T,i}\|_2` is :math:`(\sum_t g_{t,i}^4)^{1/2}`: with
    :math:`(\sum_t g_{t,i}^2)^{1/2}` the two sides have different units, and runs violate it.

    Corrected, for AdaBelief with the AMSGrad maximum :math:`\hat s`, no bias correction and steps
    :math:`\alpha_t/(\sqrt{\hat s_t} + \epsilon)`:

    .. math:: R(T) \le \frac{\sqrt T}{2\alpha}\sum_i D_i^2(\sqrt{\hat s_{T,i}} + \epsilon)
        + \frac{(1+\beta_1)\alpha}{2(1-\beta_1)}
          \sum_i\frac1{\sqrt{\hat s_{1,i}} + \epsilon}\sum_t\frac{g_{t,i}^2}{\sqrt t}
        + \frac{\beta_1}{1-\beta_1}\sum_i D_i|m_{T,i}|,

    which is :math:`O(\sqrt T)` for bounded gradients and constant :math:`\beta_1`.

    Notes
    -----
    What was corrected. :math:`s_t \le s_{t+1}` is no property of AdaBelief: only the maximum has
    it, and without it a run may exceed the printed bound by any factor. :math:`c` is the smallest
    :math:`s`, which can be as small as :math:`\epsilon_{root}`: 1e-16 multiplies the second term by
    1e8. For constant :math:`\beta_1` the third term grows like :math:`T^{3/2}`, so that the theorem
    says nothing; where :math:`\beta_{1t}` decays, :math:`g - m` does too and
    :math:`s \to \epsilon_{root}/(1-\beta_2)`: the belief vanishes. The step of the algorithm has an
    :math:`\epsilon` and a bias correction, the theorem has not.

    How. The certificate with :math:`H_t = \sqrt t(\sqrt{\hat s_t} + \epsilon)/\alpha`, which never
    falls. In its second term, :math:`m_t^2 \le (1-\beta_1)\sum_s\beta_1^{t-s}g_s^2` by convexity,
    so that :math:`\sum_t m_t^2/\sqrt t \le \sum_s g_s^2/\sqrt s` without a factor
    :math:`(1-\beta_1)^{-2}` or :math:`\sqrt{1+\log T}`.

    Where :math:`\beta_{1t}` decays, :math:`g_t = (m_t - \beta_{1t}m_{t-1})/(1-\beta_{1t})` and
    :math:`-\langle m_{t-1}, x_t - x\rangle \le \tfrac12\|m_{t-1}\|^2_{H_t^{-1}} +
    \tfrac12\|x_t - x\|^2_{H_t}`. The first term is then divided by :math:`1-\beta_1`, as
    :math:`H_t/(1-\beta_{1t})` rises by at most :math:`(H_t - H_{t-1})/(1-\beta_{1t})`; the second
    stays; the third is the printed one, with :math:`D_i` and :math:`\epsilon`.

    References
    ----------
    J. Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients",
    NeurIPS 2020, arXiv 2010.07468, theorem 2.1.
    """
    if printed:
        statement = "R(T) <= D^2 sqrt(T) / (2 alpha (1 - beta1)) sum s_T^(1/2) + ..."
        return statement, _printed_terms(run), _assumptions(run, printed)
    statement = "R(T) <= sqrt(T) / (2 alpha) sum D_i^2 (s_T,i^(1/2) + eps) + ..."
    terms = _corrected_terms(run)
    if run.decay < 1:
        terms["momentum"] = sum_of_weights(run, 0.0, run.rule.eps)
    return statement, terms, _assumptions(run, printed)


@theorem("adabelief-2.1.1", AdaBelief)
def adabelief_corollary(run: Audit, printed: bool) -> Findings:
    r"""AdaBelief, corollary 2.1.1: theorem 2.1 with :math:`\beta_{1t} = \beta_1\lambda^{t-1}`.

    Printed, with :math:`\|g_t\|_\infty \le G_\infty/2`, the third term of the theorem is

    .. math:: \frac{D_\infty^2\beta_1 G_\infty}{2(1-\beta_1)(1-\lambda)^2\alpha}.

    Corrected,

    .. math:: \frac{\beta_1}{2(1-\beta_1)(1-\lambda)^2\alpha}
        \sum_i D_i^2(\sqrt{\hat s_{T,i}} + \epsilon)

    beside the corrected terms of the theorem.

    Notes
    -----
    By :math:`\sum_t\lambda^{t-1}\sqrt t \le \sum_t t\lambda^{t-1} = (1-\lambda)^{-2}`. The printed
    one forgets the sum over coordinates, so that it is up to n times too small to follow from the
    theorem; it sets :math:`\beta_{1t} = \beta_1\lambda^t`, which contradicts the theorem's
    :math:`\beta_{11} = \beta_1`; and its :math:`G_\infty` must bound :math:`\sqrt s`, which
    :math:`\epsilon_{root}/(1-\beta_2)` may exceed where gradients are small. Constant
    :math:`\beta_1` is :math:`\lambda = 1`, and the bound infinite.

    References
    ----------
    J. Zhuang et al., arXiv 2010.07468, corollary 2.1.1.
    """
    statement = "theorem 2.1 with beta1_t = beta1 lambda^(t-1): third term O(1)"
    beta, root = run.beta1, np.sqrt(run.second)
    factor = product(beta / (2 * (1 - beta)), inverse(run.alpha), inverse((1 - run.decay) ** 2))
    assumptions = [*_assumptions(run, printed), decaying_beta1(run)]
    if not printed:
        terms = _corrected_terms(run)
        terms["momentum"] = product(factor, run.extent() ** 2, root + run.rule.eps).sum(1)
        return statement, terms, assumptions
    G = 2 * run.sums["largest"].max(1)
    top = float(root.max())
    assumptions += [
        Assumption("n = 1, or the third term a sum over i", run.n == 1, f"n = {run.n}"),
        Assumption("G bounds sqrt(s)", top <= G[-1], f"{G[-1]:.6g}, and sqrt(s) up to {top:.6g}"),
    ]
    terms = _printed_terms(run)
    terms["momentum"] = product(factor, run.extent().max() ** 2, G)
    return statement, terms, assumptions


def _corrected_terms(run: Audit) -> Terms:
    """The corrected terms of theorem 2.1."""
    D, beta, eps = run.extent(), run.beta1, run.rule.eps
    first = np.sqrt(run.second[0]) + eps
    gradients = product(run.sums["g2_by_root"], inverse(first)).sum(1)
    return adaptive_terms(
        run, D**2 * (np.sqrt(run.second) + eps), (1 + beta) / (2 * (1 - beta)) * gradients
    )


def _printed_terms(run: Audit) -> Terms:
    D, alpha, beta = run.extent().max(), run.alpha, run.beta1
    c = run.figures["least_slot"]
    fourth = np.sqrt(run.sums["g4"]).sum(1)
    logarithm = np.sqrt(1 + np.log(run.t))
    return {
        "distance": product(
            D**2 * np.sqrt(run.t) / (2 * (1 - beta)), np.sqrt(run.second).sum(1), inverse(alpha)
        ),
        "gradients": product(
            (1 + beta) * alpha * logarithm / (2 * (1 - beta) ** 3), fourth, inverse(np.sqrt(c))
        ),
        "momentum": D**2 / (2 * (1 - beta)) * run.sums["belief"].sum(1),
    }


def _assumptions(run: Audit, printed: bool) -> list[Assumption]:
    eps = 0.0 if printed else run.rule.eps
    name = "alpha_t / sqrt(s_t)" if printed else "alpha_t / (sqrt(s_t) + eps), uncorrected"
    weights = (np.sqrt(run.second) + eps) * np.sqrt(run.t)[:, None] / run.alpha
    checked = [
        rate_over_root(run),
        steps_are(run, name, weights, NEGLIGIBLE if printed else ROUNDING),
        slot_never_falls(run, "s"),
        directions_are_averages(run),
        projected_in_metric(run),
        no_coordinate_held(run),
    ]
    if printed:
        c, sure = float(run.figures["least_slot"][-1]), run.rule.eps_root
        seen = f"the least s of this run is {c:.3g}; beforehand only eps_root = {sure:.3g} is known"
        checked += [Assumption("s >= c > 0", c > 0, seen), bounded_gradients(run)]
    return checked
