"""Rates from the squares of all past gradients: Adagrad and RMSProp."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from numbelief.rules.base import Rule


@dataclass(frozen=True)
class Adagrad(Rule):
    r"""Adagrad: divide by the root of the sum of all squared gradients.

    .. math::
        G &\leftarrow G + g^2 \\
        x &\leftarrow x - \alpha\, g / (\sqrt{G + \epsilon_{root}} + \epsilon)

    Parameters
    ----------
    learning_rate : float or callable, default 1e-2
        Step size :math:`\alpha`.
    eps : float, default 0
        Added outside the root (PyTorch's place for it; there the default is 1e-10).
    eps_root : float, default 1e-8
        Added inside the root.
    weight_decay, decoupled
        See `Rule`.

    Notes
    -----
    A coordinate whose gradients have all been zero does not move, whatever the two epsilons.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> rule = numbelief.Adagrad(learning_rate=0.5, eps_root=0.0)
    >>> numbelief.Optimizer(rule, x).step(np.array([100.0]))
    >>> x
    array([0.5])

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", JMLR 12, 2011, algorithm 1 with a diagonal matrix. The paper adds its
    :math:`\delta` outside the root: ``eps=delta, eps_root=0``.
    """

    eps: float = 0.0
    eps_root: float = 1e-8

    default_rate: ClassVar[float] = 1e-2
    slots: ClassVar[tuple[str, ...]] = ("G",)

    @staticmethod
    def update(x, g, c, G):
        G = G + g**2
        root = sqrt(G + c.eps_root) + c.eps
        return g, (c.rate / root if root > c.zero else c.zero), G


@dataclass(frozen=True)
class RMSProp(Rule):
    r"""RMSProp: divide by the root of a decaying mean of squared gradients.

    .. math::
        G &\leftarrow \beta_2 G + (1-\beta_2) g^2 \\
        x &\leftarrow x - \alpha\, g / (\sqrt{G + \epsilon_{root}} + \epsilon)

    With ``momentum`` :math:`\mu > 0`, :math:`v \leftarrow \mu v + g / (\sqrt{G + \epsilon_{root}} +
    \epsilon)` and :math:`x \leftarrow x - \alpha v`.

    Parameters
    ----------
    learning_rate : float or callable, default 1e-3
        Step size :math:`\alpha`.
    beta2 : float, default 0.9
        Decay of the mean square, in [0, 1) (:math:`\gamma` in the lecture, ``alpha`` in PyTorch).
    momentum : float, default 0
        Decay :math:`\mu` of the velocity, in [0, 1); 0 keeps no velocity.
    eps : float, default 0
        Added outside the root (PyTorch's place for it).
    eps_root : float, default 1e-8
        Added inside the root (the lecture's place for it).
    weight_decay, decoupled
        See `Rule`.

    Notes
    -----
    The mean square is not centred. Momentum sums the scaled gradients with the rate outside, as
    PyTorch's ``RMSprop(momentum=...)`` does. Momentum after an average of the gradients instead,
    as compared in section 6.4 of the Adam paper, is ``Adam(bias_correction=False)``.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> rule = numbelief.RMSProp(learning_rate=0.5, beta2=0.75, eps_root=0.0)
    >>> numbelief.Optimizer(rule, x).step(np.array([100.0]))
    >>> x
    array([0.])

    References
    ----------
    T. Tieleman and G. Hinton, "Lecture 6.5: RMSProp", Coursera, 2012.
    """

    beta2: float = 0.9
    momentum: float = 0.0
    eps: float = 0.0
    eps_root: float = 1e-8

    slots: ClassVar[tuple[str, ...]] = ("G",)
    slots_if: ClassVar[dict[str, str]] = {"momentum": "v"}
    scalars: ClassVar[tuple[str, ...]] = ("rate", "one_minus_beta2")

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        return rate, 1 - h.beta2

    @staticmethod
    def update(x, g, c, G, v=None):
        G = c.beta2 * G + c.one_minus_beta2 * g**2
        root = sqrt(G + c.eps_root) + c.eps
        if v is None:
            return g, (c.rate / root if root > c.zero else c.zero), G, v
        v = c.momentum * v + (g / root if root > c.zero else c.zero)
        return v, c.rate, G, v
