"""Gradient descent, alone and with momentum."""

from dataclasses import dataclass
from typing import ClassVar

from numbelief.rules.base import Rule


@dataclass(frozen=True)
class SGD(Rule):
    r"""Gradient descent: step against the gradient.

    .. math:: x \leftarrow x - \alpha g

    Parameters
    ----------
    learning_rate : float or callable, default 1e-2
        Step size :math:`\alpha`.
    weight_decay, decoupled
        See `Rule`.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0, -2.0])
    >>> numbelief.Optimizer(numbelief.SGD(learning_rate=0.5), x).step(x.copy())
    >>> x
    array([ 0.5, -1. ])

    References
    ----------
    H. Robbins and S. Monro, "A stochastic approximation method", Ann. Math. Statist. 22, 1951.
    """

    default_rate: ClassVar[float] = 1e-2

    @staticmethod
    def update(x, g, c):
        return g, c.rate


@dataclass(frozen=True)
class Momentum(Rule):
    r"""Heavy ball: the step is a decaying sum of all gradients so far.

    .. math::
        v &\leftarrow \mu v + \alpha g \\
        x &\leftarrow x - v

    Parameters
    ----------
    learning_rate : float or callable, default 1e-2
        Step size :math:`\alpha`.
    momentum : float, default 0.9
        Decay :math:`\mu` of the velocity, in [0, 1).
    weight_decay, decoupled
        See `Rule`.

    Notes
    -----
    The rate is part of the velocity, as in Polyak's paper. PyTorch keeps it outside
    (:math:`v \leftarrow \mu v + g`, :math:`x \leftarrow x - \alpha v`); the two differ only when
    :math:`\alpha` changes during the run.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> opt = numbelief.Optimizer(numbelief.Momentum(learning_rate=0.5, momentum=0.5), x)
    >>> for _ in range(2):
    ...     opt.step(np.array([1.0]))
    >>> x
    array([-0.25])

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Comput.
    Math. Math. Phys. 4(5), 1964.
    """

    momentum: float = 0.9

    default_rate: ClassVar[float] = 1e-2
    slots: ClassVar[tuple[str, ...]] = ("v",)

    @staticmethod
    def update(x, g, c, v):
        v = c.momentum * v + c.rate * g
        return v, c.one, v


@dataclass(frozen=True)
class Nesterov(Rule):
    r"""Nesterov's accelerated gradient: momentum, with the gradient taken at the look-ahead point.

    .. math::
        v &\leftarrow \mu v + \alpha g \\
        x &\leftarrow x - (\mu v + \alpha g)

    Parameters
    ----------
    learning_rate : float or callable, default 1e-2
        Step size :math:`\alpha`.
    momentum : float, default 0.9
        Decay :math:`\mu` of the velocity, in [0, 1).
    weight_decay, decoupled
        See `Rule`.

    Notes
    -----
    Sutskever et al. write :math:`v \leftarrow \mu v - \alpha\nabla f(\theta + \mu v)`,
    :math:`\theta \leftarrow \theta + v`. Here ``x`` is the look-ahead point
    :math:`\theta + \mu v` itself, so that the caller's gradient is always the gradient at ``x``;
    the substitution is exact, and is PyTorch's ``nesterov=True`` too while :math:`\alpha` is
    constant.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> opt = numbelief.Optimizer(numbelief.Nesterov(learning_rate=0.5, momentum=0.5), x)
    >>> opt.step(np.array([1.0]))
    >>> x
    array([0.25])

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and
    momentum in deep learning", ICML 2013, equations 3 and 4; the substitution is in section 3.5 of
    Y. Bengio, N. Boulanger-Lewandowski and R. Pascanu, "Advances in optimizing recurrent
    networks", arXiv 1212.0901.
    """

    momentum: float = 0.9

    default_rate: ClassVar[float] = 1e-2
    slots: ClassVar[tuple[str, ...]] = ("v",)

    @staticmethod
    def update(x, g, c, v):
        v = c.momentum * v + c.rate * g
        return c.momentum * v + c.rate * g, c.one, v
