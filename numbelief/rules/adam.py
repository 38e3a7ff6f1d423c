"""Adam and its closest relatives: AMSGrad, AdamW, AdaMax."""

from dataclasses import KW_ONLY, dataclass, field
from math import sqrt
from typing import ClassVar

from numbelief.rules.base import Rule


@dataclass(frozen=True)
class Adam(Rule):
    r"""Adam: the mean of the gradients over the root of the mean of their squares.

    .. math::
        m &\leftarrow \beta_1 m + (1-\beta_1) g \\
        v &\leftarrow \beta_2 v + (1-\beta_2) g^2 \\
        x &\leftarrow x - \alpha\, \frac{m / (1-\beta_1^t)}
                                       {\sqrt{v / (1-\beta_2^t) + \epsilon_{root}} + \epsilon}

    Parameters
    ----------
    learning_rate : float or callable, default 1e-3
        Step size :math:`\alpha`.
    beta1, beta2 : float, default 0.9, 0.999
        Decay of the first and second moment, in [0, 1).
    eps : float, default 1e-8
        Added outside the root.
    eps_root : float, default 0
        Added inside the root, to the corrected second moment.
    bias_correction : bool, default True
        False leaves out both :math:`1-\beta^t`: RMSProp with momentum, section 6.4 of the paper.
    amsgrad : bool, default False
        Divide by the largest second moment so far. With ``bias_correction=True`` the maximum is
        taken of :math:`v` and then divided by the current :math:`1-\beta_2^t`, as in PyTorch;
        optax takes the maximum of the quotients.
    eps_hat : bool, default False
        Read ``eps`` as the :math:`\hat\epsilon` of the paper's section 2, :math:`\alpha
        \sqrt{1-\beta_2^t}/(1-\beta_1^t) \cdot m/(\sqrt v + \hat\epsilon)`: the form of Keras,
        ensmallen and scikit-learn.
    weight_decay, decoupled
        See `Rule`.

    Notes
    -----
    A coordinate whose gradients have all been zero does not move, even with ``eps=0``.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> rule = numbelief.Adam(learning_rate=0.5, eps=0.0)
    >>> numbelief.Optimizer(rule, x).step(np.array([100.0]))
    >>> x
    array([0.5])

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", arXiv 1412.6980,
    algorithm 1.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    bias_correction: bool = True
    amsgrad: bool = False
    eps_hat: bool = False

    slots: ClassVar[tuple[str, ...]] = ("m", "v")
    slots_if: ClassVar[dict[str, str]] = {"amsgrad": "v_max"}
    scalars: ClassVar[tuple[str, ...]] = (
        "rate", "epsilon", "inv_bias2", "one_minus_beta1", "one_minus_beta2",
    )  # fmt: skip

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        if not h.bias_correction:
            bias1 = bias2 = 1.0
        epsilon = h.eps / sqrt(bias2) if h.eps_hat else h.eps
        return rate / bias1, epsilon, 1 / bias2, 1 - h.beta1, 1 - h.beta2

    @staticmethod
    def update(x, g, c, m, v, v_max=None):
        m = c.beta1 * m + c.one_minus_beta1 * g
        v = c.beta2 * v + c.one_minus_beta2 * g**2
        if v_max is None:
            v_hat = v * c.inv_bias2
        else:
            v_max = max(v_max, v)
            v_hat = v_max * c.inv_bias2
        root = sqrt(v_hat + c.eps_root) + c.epsilon
        return m, (c.rate / root if root > c.zero else c.zero), m, v, v_max


@dataclass(frozen=True)
class AMSGrad(Adam):
    r"""AMSGrad: Adam that never forgets a large gradient, and so converges where Adam need not.

    .. math::
        m &\leftarrow \beta_1 m + (1-\beta_1) g \\
        v &\leftarrow \beta_2 v + (1-\beta_2) g^2 \\
        \hat v &\leftarrow \max(\hat v, v) \\
        x &\leftarrow x - \alpha\, m / (\sqrt{\hat v} + \epsilon)

    Parameters
    ----------
    bias_correction : bool, default False
        The paper has none. True gives PyTorch's ``Adam(amsgrad=True)``: the maximum is taken of the
        uncorrected :math:`v` and divided by the current :math:`1-\beta_2^t`. (optax takes the
        maximum of :math:`v/(1-\beta_2^t)`, which is a different algorithm.)
    learning_rate, beta1, beta2, eps, eps_root, eps_hat, weight_decay, decoupled
        See `Adam`; the paper has no :math:`\epsilon`.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> rule = numbelief.AMSGrad(learning_rate=0.5, beta1=0.5, beta2=0.75, eps=0.0)
    >>> numbelief.Optimizer(rule, x).step(np.array([100.0]))
    >>> x
    array([0.5])

    References
    ----------
    S. J. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond", ICLR 2018,
    algorithm 2.
    """

    bias_correction: bool = False
    amsgrad: bool = field(default=True, init=False, repr=False)


@dataclass(frozen=True)
class AdamW(Adam):
    r"""AdamW: Adam with weight decay applied to the weights instead of the gradient.

    .. math::
        x &\leftarrow (1 - \alpha\lambda) x \\
        x &\leftarrow x - \alpha\, \hat m / (\sqrt{\hat v} + \epsilon)

    with :math:`\hat m, \hat v` as in `Adam`.

    Parameters
    ----------
    weight_decay : float, default 0.01
        Decay :math:`\lambda`.
    decoupled : bool, default True
        What makes it AdamW.
    learning_rate, beta1, beta2, eps, eps_root, bias_correction, amsgrad, eps_hat
        See `Adam`.

    Notes
    -----
    The decay is multiplied by the learning rate, as in PyTorch and optax. The paper multiplies it
    by a schedule :math:`\eta_t` only: its :math:`\lambda` is :math:`\alpha\lambda` here.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> rule = numbelief.AdamW(learning_rate=0.5, weight_decay=0.5)
    >>> numbelief.Optimizer(rule, x).step(np.array([0.0]))
    >>> x
    array([0.75])

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", arXiv 1711.05101,
    algorithm 2.
    """

    _: KW_ONLY
    weight_decay: float = 0.01
    decoupled: bool = True


@dataclass(frozen=True)
class AdaMax(Rule):
    r"""AdaMax: Adam with the infinity norm in place of the root mean square.

    .. math::
        m &\leftarrow \beta_1 m + (1-\beta_1) g \\
        u &\leftarrow \max(\beta_2 u, |g|) \\
        x &\leftarrow x - \frac{\alpha}{1-\beta_1^t}\, m / (u + \epsilon)

    Parameters
    ----------
    learning_rate : float or callable, default 2e-3
        Step size :math:`\alpha`.
    beta1, beta2 : float, default 0.9, 0.999
        Decay of the first moment and of the norm, in [0, 1).
    eps : float, default 0
        Added to the norm (Keras and Optimisers.jl); the paper has none.
    bias_correction : bool, default True
        False leaves out :math:`1-\beta_1^t`.
    weight_decay, decoupled
        See `Rule`.

    Notes
    -----
    A coordinate whose gradients have all been zero (u = 0) does not move. PyTorch and optax put
    :math:`|g| + \epsilon` inside the maximum instead.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0, 1.0])
    >>> numbelief.Optimizer(numbelief.AdaMax(learning_rate=0.5), x).step(np.array([100.0, 0.0]))
    >>> x
    array([0.5, 1. ])

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", arXiv 1412.6980,
    algorithm 2.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 0.0
    bias_correction: bool = True

    default_rate: ClassVar[float] = 2e-3
    slots: ClassVar[tuple[str, ...]] = ("m", "u")
    scalars: ClassVar[tuple[str, ...]] = ("rate", "one_minus_beta1")

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        return (rate / bias1 if h.bias_correction else rate), 1 - h.beta1

    @staticmethod
    def update(x, g, c, m, u):
        m = c.beta1 * m + c.one_minus_beta1 * g
        u = max(c.beta2 * u, abs(g))
        norm = u + c.eps
        # The rate of a coordinate whose gradients are the smallest there are stays finite.
        rate = c.rate / max(norm, c.rate * c.tiny) if norm > c.zero else c.zero
        return m, rate, m, u
