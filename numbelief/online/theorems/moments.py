"""Adam and AMSGrad."""

from math import inf, sqrt

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
    steps_never_grow,
)
from numbelief.online.theorems.base import Findings, theorem
from numbelief.online.theorems.terms import adaptive_terms, inverse, product, sum_of_weights
from numbelief.rules import Adam


@theorem("amsgrad-4", Adam)
def amsgrad(run: Audit, printed: bool) -> Findings:
    r"""AMSGrad, theorem 4.

    Printed, for :math:`\alpha_t = \alpha/\sqrt t`, :math:`\beta_{1t} \le \beta_1` and
    :math:`\gamma = \beta_1/\sqrt{\beta_2} < 1`:

    .. math:: R(T) \le \frac{D_\infty^2\sqrt T}{1-\beta_1}\sum_i\hat v_{T,i}^{1/2}
        + \frac{D_\infty^2}{2(1-\beta_1)}\sum_{t,i}\frac{\beta_{1t}\hat v_{t,i}^{1/2}}{\alpha_t}
        + \frac{\alpha\sqrt{1+\log T}}{(1-\beta_1)^2(1-\gamma)\sqrt{1-\beta_2}}
          \sum_i\|g_{1:T,i}\|_2.

    Corrected, for steps :math:`\alpha_t/(\sqrt{\hat v_t + \epsilon_{root}} + \epsilon)`:

    .. math:: R(T) \le \frac{\sqrt T}{2\alpha}
        \sum_i D_i^2(\sqrt{\hat v_{T,i} + \epsilon_{root}} + \epsilon)
        + \frac{(1+\beta_1)\alpha}{2\sqrt{1-\beta_2}(1-\gamma)}\sum_{t,i}\frac{|g_{t,i}|}{\sqrt t}
        + \frac{\beta_1}{1-\beta_1}\sum_i D_i|m_{T,i}|.

    Notes
    -----
    The printed first term lacks :math:`1/\alpha`, and a run with a small :math:`\alpha` exceeds the
    bound; from :math:`\alpha \ge 1/2` on the rest makes up for it. The proof takes
    :math:`\beta_{1t}` for :math:`\beta_1` in a telescoping sum (Phuong and Phong); nonincreasing
    :math:`\beta_{1t}` repair it, see `adabelief`.

    The second term: :math:`m_t^2 \le (1-\beta_1)\sum_s\beta_1^{t-s}g_s^2` and
    :math:`\hat v_t \ge v_t \ge (1-\beta_2)\beta_2^{t-s}g_s^2` for each s give
    :math:`m_t^2/\sqrt{\hat v_t} \le \frac{1-\beta_1}{\sqrt{1-\beta_2}}\sum_s\gamma^{t-s}|g_s|`, and
    :math:`\sum_{t\ge s}\gamma^{t-s}/\sqrt t \le 1/((1-\gamma)\sqrt s)`. A decaying
    :math:`\beta_{1t}` has the same bound, as :math:`(1-b)/(1-b/\sqrt{\beta_2})` rises with b.

    References
    ----------
    S. J. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond", ICLR 2018, theorem
    4. T. T. Phuong and L. T. Phong, "On the convergence proof of AMSGrad and a new version", IEEE
    Access 7, 2019.
    """
    rule, D, beta, alpha = run.rule, run.extent(), run.beta1, run.alpha
    gamma = beta / sqrt(rule.beta2) if rule.beta2 > 0 else inf
    left = max(1 - gamma, 0.0)
    v, t = run.second, run.t
    eps_root, eps = (0.0, 0.0) if printed else (rule.eps_root, rule.eps)
    root = np.sqrt(v + eps_root) + eps
    name = "alpha_t / sqrt(v_t)" if printed else "alpha_t / (sqrt(v_t + eps_root) + eps)"
    slack = NEGLIGIBLE if printed else ROUNDING
    assumptions = [
        rate_over_root(run),
        steps_are(run, name + ", uncorrected", root * np.sqrt(t)[:, None] / alpha, slack),
        slot_never_falls(run, "v"),
        Assumption("beta1 / sqrt(beta2) < 1", gamma < 1, f"{gamma:.6g}"),
        directions_are_averages(run),
        projected_in_metric(run),
        no_coordinate_held(run),
    ]
    scale = inverse(sqrt(1 - rule.beta2) * left)
    if printed:
        sums = np.sqrt(run.sums["g2"]).sum(1)
        assumptions += [
            Assumption("alpha >= 1/2: the first term lacks it", alpha >= 0.5, f"{alpha:.6g}"),
            bounded_gradients(run),
        ]
        return (
            "R(T) <= D^2 sqrt(T) / (1 - beta1) sum v_T^(1/2) + ...",
            {
                "distance": D.max() ** 2 * np.sqrt(t) / (1 - beta) * root.sum(1),
                "momentum": D.max() ** 2 / (2 * (1 - beta)) * run.sums["belief"].sum(1),
                "gradients": product(alpha * np.sqrt(1 + np.log(t)) / (1 - beta) ** 2, sums, scale),
            },
            assumptions,
        )
    sums = (1 + beta) / 2 * run.sums["g1_by_root"].sum(1)
    terms = adaptive_terms(run, D**2 * root, product(sums, scale))
    if run.decay < 1:
        terms["momentum"] = sum_of_weights(run, rule.eps_root, rule.eps)
    return "R(T) <= sqrt(T) / (2 alpha) sum D_i^2 v_T,i^(1/2) + ...", terms, assumptions


@theorem("adam-4.1", Adam, variants=("printed",))
def adam(run: Audit, printed: bool) -> Findings:
    r"""Adam, theorem 4.1: false, and shown as printed only.

    For :math:`\alpha_t = \alpha/\sqrt t`, :math:`\beta_{1t} = \beta_1\lambda^{t-1}`,
    :math:`\gamma = \beta_1^2/\sqrt{\beta_2} < 1`, bounded gradients and distances:

    .. math:: R(T) \le \frac{D^2}{2\alpha(1-\beta_1)}\sum_i\sqrt{T\hat v_{T,i}}
        + \frac{\alpha(1+\beta_1)G_\infty}{(1-\beta_1)\sqrt{1-\beta_2}(1-\gamma)^2}
          \sum_i\|g_{1:T,i}\|_2
        + \sum_i\frac{D_\infty^2 G_\infty\sqrt{1-\beta_2}}{2\alpha(1-\beta_1)(1-\lambda)^2}.

    Notes
    -----
    The proof telescopes :math:`\sqrt{\hat v_t}/\alpha_t` as if it never fell; where it falls, the
    regret may grow like T. It is not among the printed assumptions, but it is checked here. Not
    even with it is there a proof for :math:`\hat v` as the algorithm has it.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", arXiv 1412.6980, theorem
    4.1. Refuted by S. J. Reddi, S. Kale and S. Kumar, ICLR 2018, theorem 1.
    """
    rule, beta, alpha, t = run.rule, run.beta1, run.alpha, run.t
    D, widest = run.length(), run.extent().max()
    gamma = beta**2 / sqrt(rule.beta2) if rule.beta2 > 0 else inf
    corrected = 1 - rule.beta2 ** t[:, None] if rule.bias_correction else 1.0
    v = run.second / corrected
    G = run.sums["largest"].max(1)
    later = sqrt(1 - rule.beta2)
    last = 1 - run.decay
    sums = np.sqrt(run.sums["g2"]).sum(1)
    terms = {
        "distance": product(
            D**2 / (2 * (1 - beta)), np.sqrt(t[:, None] * v).sum(1), inverse(alpha)
        ),
        "gradients": product(
            alpha * (1 + beta) / (1 - beta) * G * sums, inverse(later * max(1 - gamma, 0.0) ** 2)
        ),
        "momentum": product(
            run.n * widest**2 * later / (2 * (1 - beta)) * G, inverse(alpha * last**2)
        ),
    }
    grows = steps_never_grow(run)
    return (
        "R(T) <= D^2 / (2 alpha (1 - beta1)) sum (T v_T)^(1/2) + ...",
        terms,
        [
            Assumption("the theorem is true", False, "Reddi, Kale and Kumar refute it"),
            Assumption("sqrt(v_t) / alpha_t never falls (unstated)", grows.holds, grows.evidence),
            rate_over_root(run),
            decaying_beta1(run),
            Assumption("beta1^2 / sqrt(beta2) < 1", gamma < 1, f"{gamma:.6g}"),
            directions_are_averages(run),
            projected_in_metric(run),
            no_coordinate_held(run),
            bounded_gradients(run),
        ],
    )
