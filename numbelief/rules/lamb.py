"""LAMB: Adam with a trust ratio for each layer."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from numbelief.rules.base import Rule


@dataclass(frozen=True)
class LAMB(Rule):
    r"""LAMB: Adam with each layer's step scaled to the size of that layer's parameters.

    .. math::
        m &\leftarrow \beta_1 m + (1-\beta_1) g \\
        v &\leftarrow \beta_2 v + (1-\beta_2) g^2 \\
        u &= \frac{m/(1-\beta_1^t)}{\sqrt{v/(1-\beta_2^t)} + \epsilon} + \lambda x \\
        x &\leftarrow x - \alpha \frac{\|x\|}{\|u\|} u

    with the norms taken over each segment, and the ratio 1 where either norm is 0.

    Parameters
    ----------
    learning_rate : float or callable, default 1e-3
        Step size :math:`\alpha`.
    beta1, beta2 : float, default 0.9, 0.999
        Decay of the first and second moment, in [0, 1).
    eps : float, default 1e-6
        Added outside the root.
    weight_decay : float, default 0
        :math:`\lambda` in u.
    bias_correction : bool, default True
        False leaves out both :math:`1-\beta^t`.
    segments : tuple of int, optional
        Offsets at which the layers start within the flat array, beginning with 0 and strictly
        increasing. None: one segment.

    Notes
    -----
    ``decoupled`` has no meaning here and must stay False. The paper's :math:`\phi` is the identity.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([3.0, 4.0, 1.0])
    >>> rule = numbelief.LAMB(learning_rate=0.1, segments=(0, 2), eps=0.0)
    >>> numbelief.Optimizer(rule, x).step(np.array([1.0, 1.0, 1.0]))
    >>> x.round(4)
    array([2.6464, 3.6464, 0.9   ])

    References
    ----------
    Y. You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR
    2020, algorithm 2.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = True
    segments: tuple[int, ...] | None = None

    slots: ClassVar[tuple[str, ...]] = ("m", "v")
    scalars: ClassVar[tuple[str, ...]] = (
        "rate", "inv_bias1", "inv_bias2", "one_minus_beta1", "one_minus_beta2",
    )  # fmt: skip
    layerwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoupled:
            raise ValueError("decoupled must be False: LAMB's decay is part of its direction")

    @staticmethod
    def decay(h, rate):
        return 1.0, 0.0

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        if not h.bias_correction:
            bias1 = bias2 = 1.0
        return rate, 1 / bias1, 1 / bias2, 1 - h.beta1, 1 - h.beta2

    @staticmethod
    def update(x, g, c, m, v):
        m = c.beta1 * m + c.one_minus_beta1 * g
        v = c.beta2 * v + c.one_minus_beta2 * g**2
        root = sqrt(v * c.inv_bias2) + c.eps
        adam = m * c.inv_bias1 / root if root > c.zero else c.zero
        return adam + c.weight_decay * x, c.rate, m, v
