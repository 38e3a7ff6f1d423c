"""AdaBelief, with the options of its published variants."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from numbelief.rules.base import Rule


@dataclass(frozen=True)
class AdaBelief(Rule):
    r"""AdaBelief: step far where the gradient is as expected, and little where it surprises.

    .. math::
        m &\leftarrow \beta_1 m + (1-\beta_1) g \\
        s &\leftarrow \beta_2 s + (1-\beta_2) (g - m)^2 + \epsilon_{root} \\
        x &\leftarrow x - \alpha\, \frac{m / (1-\beta_1^t)}{\sqrt{s / (1-\beta_2^t)} + \epsilon}

    Parameters
    ----------
    learning_rate : float or callable, default 1e-3
        Step size :math:`\alpha`.
    beta1, beta2 : float, default 0.9, 0.999
        Decay of the mean and of the belief, in [0, 1).
    eps : float, default 1e-16
        Added outside the root.
    eps_root : float, default 1e-16
        Added to :math:`s` and stored there, every step.
    bias_correction : bool, default True
        False leaves out both :math:`1-\beta^t`.
    amsgrad : bool, default False
        Divide by the largest :math:`s` so far (taken before the bias correction). Honoured together
        with ``rectify``, where the official code silently ignores it.
    rectify : bool, default False
        RAdam's variance rectification, below.
    degenerated_to_sgd : bool, default True
        With ``rectify``: while the variance is unknown, step along :math:`\alpha\, m/(1-\beta_1^t)`
        (True) or stand still (False).
    weight_decay, decoupled
        See `Rule`.

    Notes
    -----
    With ``rectify``, let :math:`\rho_\infty = 2/(1-\beta_2) - 1` and :math:`\rho = \rho_\infty -
    2t\beta_2^t/(1-\beta_2^t)`. Where :math:`\rho \ge 5`,

    .. math::
        x \leftarrow x - \frac{\alpha}{1-\beta_1^t}
            \sqrt{(1-\beta_2^t)\frac{(\rho-4)(\rho-2)\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\rho}}
            \; \frac{m}{\sqrt s + \epsilon}.

    The published variants, all with ``beta1=0.9, beta2=0.999``:

    ==========================================  ==================================================
    variant                                     settings
    ==========================================  ==================================================
    paper, final version (algorithm 2)          ``eps=1e-8, eps_root=1e-8``
    paper, first version                        ``eps=1e-8, eps_root=0``
    optax 0.2                                   ``eps=1e-16, eps_root=1e-16`` (the default)
    adabelief-pytorch 0.2, ``rectify=False``    ``eps=1e-16, eps_root=1e-16`` (the default)
    adabelief-pytorch 0.2, ``rectify=True``     the same and ``rectify=True``
    its ``weight_decouple=True`` (default)      ``weight_decay=..., decoupled=True``
    its ``weight_decouple=False``               ``weight_decay=..., decoupled=False``
    adabelief-tf                                ``eps=1e-14, eps_root=1e-14, rectify=True``
    Optimisers.jl                               ``eps=1e-16, eps_root=1e-16``
    ensmallen, quimb                            ``eps=1e-8, eps_root=1e-8``
    ==========================================  ==================================================

    **The epsilons matter more than in Adam.** The stored :math:`\epsilon_{root}` adds exactly
    :math:`\epsilon_{root}/(1-\beta_2)` to :math:`s/(1-\beta_2^t)`: 1e-8 acts as 1e-5 under the
    root. Where gradients are much smaller than :math:`\sqrt{\epsilon_{root}/(1-\beta_2)}`, it
    dominates :math:`s` and the rule is momentum with a fixed rate; with 1e-8 that begins at 3e-3,
    with the default at 3e-7. On a constant gradient without noise :math:`s` sinks to that value and
    the step grows, to :math:`\sqrt{(1-\beta_2)/\epsilon_{root}}` times the gradient and the rate:
    316 with 1e-8, and 3.2 million with the default, where bounds or ``max_norm`` may be wanted.
    The default is the best, within the spread, of the pairs that
    ``asv_benchmarks/adabelief_epsilon.py`` measures over problems with and without noise, units of
    the objective, and learning rates (final version of the paper: 75 % of the runs without noise
    solved, 61 % with it; default: 93 % and 66 %).

    Warns
    -----
    UserWarning
        If ``beta1 = 0``: then :math:`g - m = 0`, the belief never sees the gradient, and the rule
        is gradient descent with a rate that only :math:`\epsilon_{root}` limits.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> rule = numbelief.AdaBelief(learning_rate=0.45, eps=0.0, eps_root=0.0)
    >>> numbelief.Optimizer(rule, x).step(np.array([100.0]))
    >>> x.round(12)
    array([0.5])

    References
    ----------
    J. Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients",
    NeurIPS 2020, arXiv 2010.07468, algorithm 2. L. Liu et al., "On the variance of the adaptive
    learning rate and beyond", ICLR 2020 (the rectification; its threshold is 4, the official
    AdaBelief code and this one use 5).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-16
    eps_root: float = 1e-16
    bias_correction: bool = True
    amsgrad: bool = False
    rectify: bool = False
    degenerated_to_sgd: bool = True

    slots: ClassVar[tuple[str, ...]] = ("m", "s")
    slots_if: ClassVar[dict[str, str]] = {"amsgrad": "s_max"}
    scalars: ClassVar[tuple[str, ...]] = (
        "rate", "adaptive", "inv_bias2", "one_minus_beta1", "one_minus_beta2",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rectify and not self.bias_correction:
            raise ValueError("rectify needs bias_correction=True: it is a form of it")
        if self.beta1 == 0:
            import warnings  # here, because the rest of this floor is mathematics

            warnings.warn(
                "beta1=0 makes g - m = 0: AdaBelief's s never sees the gradient, "
                "and only eps_root limits the step",
                UserWarning,
                stacklevel=3,
            )

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        if not h.bias_correction:
            bias1 = bias2 = 1.0
        rate = rate / bias1
        adaptive = 1.0
        inv_bias2 = 1 / bias2
        if h.rectify:
            inv_bias2 = 1.0
            rho_inf = 2 / (1 - h.beta2) - 1
            rho = rho_inf - 2 * t * (1 - bias2) / bias2
            if rho >= 5:
                variance = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
                rate = rate * sqrt(bias2 * variance)
            else:
                adaptive = 0.0
                rate = rate if h.degenerated_to_sgd else 0.0
        return rate, adaptive, inv_bias2, 1 - h.beta1, 1 - h.beta2

    @staticmethod
    def update(x, g, c, m, s, s_max=None):
        m = c.beta1 * m + c.one_minus_beta1 * g
        s = c.beta2 * s + c.one_minus_beta2 * (g - m) ** 2 + c.eps_root
        if s_max is None:
            s_hat = s * c.inv_bias2
        else:
            s_max = max(s_max, s)
            s_hat = s_max * c.inv_bias2
        root = sqrt(s_hat) + c.eps if c.adaptive > c.zero else c.one
        return m, (c.rate / root if root > c.zero else c.zero), m, s, s_max
