"""AdaBound and AMSBound: Adam between bounds on the rate."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from numbelief.rules.base import Rule


@dataclass(frozen=True)
class AdaBound(Rule):
    r"""AdaBound: Adam whose step sizes are clipped between bounds that close in on one rate.

    .. math::
        m &\leftarrow \beta_1 m + (1-\beta_1) g \\
        v &\leftarrow \beta_2 v + (1-\beta_2) g^2 \\
        \eta &= \mathrm{clip}\!\left(
            \frac{\alpha\sqrt{1-\beta_2^t}}{(1-\beta_1^t)(\sqrt v+\epsilon)},\;
            \alpha^*\Big(1 - \frac{1}{\gamma t + 1}\Big),\;
            \alpha^*\Big(1 + \frac{1}{\gamma t}\Big)\right) \\
        x &\leftarrow x - \eta\, m

    Parameters
    ----------
    learning_rate : float or callable, default 1e-3
        Step size :math:`\alpha`.
    beta1, beta2 : float, default 0.9, 0.999
        Decay of the first and second moment, in [0, 1).
    eps : float, default 1e-8
        Added to the root.
    final_lr : float, default 0.1
        The rate :math:`\alpha^*` that both bounds approach.
    gamma : float, default 1e-3
        Speed :math:`\gamma > 0` at which they do.
    bias_correction : bool, default True
        False leaves out both :math:`1-\beta^t`, as in the paper's algorithm; the official code
        corrects.
    amsgrad : bool, default False
        Use the largest :math:`v` so far: AMSBound.
    weight_decay, decoupled
        See `Rule`.

    Notes
    -----
    The official code scales ``final_lr`` with a learning-rate schedule; here it stays as given, and
    scales with an automatic rate, in units of the default one: it has the units of x. The paper
    divides the clipped rate by :math:`\sqrt t` for its regret bound only.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> rule = numbelief.AdaBound(learning_rate=0.5, final_lr=0.1, gamma=1.0, beta1=0.0)
    >>> numbelief.Optimizer(rule, x).step(np.array([1.0]))
    >>> x
    array([0.8])

    References
    ----------
    L. Luo, Y. Xiong, Y. Liu and X. Sun, "Adaptive gradient methods with dynamic bound of learning
    rate", ICLR 2019, algorithms 2 and 3.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    final_lr: float = 0.1
    gamma: float = 1e-3
    bias_correction: bool = True
    amsgrad: bool = False

    slots: ClassVar[tuple[str, ...]] = ("m", "v")
    slots_if: ClassVar[dict[str, str]] = {"amsgrad": "v_max"}
    scalars: ClassVar[tuple[str, ...]] = (
        "rate", "lower", "upper", "one_minus_beta1", "one_minus_beta2",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma == 0:
            raise ValueError("gamma must be above 0, got 0.0")

    @classmethod
    def number_names(cls):
        return (*super().number_names(), "own_rate")

    @property
    def own_rate(self) -> float:
        """The rate that final_lr belongs to, where the rate is free; else 0."""
        return self.default_rate if self.learning_rate is None else 0.0

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        if not h.bias_correction:
            bias1 = bias2 = 1.0
        final = h.final_lr * (rate / h.own_rate if h.own_rate > 0 else 1.0)
        lower = final * (1 - 1 / (h.gamma * t + 1))
        upper = final * (1 + 1 / (h.gamma * t))
        return rate * sqrt(bias2) / bias1, lower, upper, 1 - h.beta1, 1 - h.beta2

    @staticmethod
    def update(x, g, c, m, v, v_max=None):
        m = c.beta1 * m + c.one_minus_beta1 * g
        v = c.beta2 * v + c.one_minus_beta2 * g**2
        if v_max is None:
            root = sqrt(v) + c.eps
        else:
            v_max = max(v_max, v)
            root = sqrt(v_max) + c.eps
        rate = c.rate / root if root > c.zero else c.upper
        return m, min(max(rate, c.lower), c.upper), m, v, v_max
