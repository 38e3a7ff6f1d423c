r"""The update rules: every algorithm of numbelief, each written once.

A rule is a frozen dataclass of hyperparameters and two static functions over plain numbers:

``coefficients(h, rate, t, bias1, bias2)``
    runs once per step, in float64. ``h`` holds the hyperparameters, ``rate`` is the learning rate
    of step ``t`` (counted from 1), ``bias1`` and ``bias2`` are :math:`1-\beta_1^t` and
    :math:`1-\beta_2^t` (1 where the rule has no such hyperparameter). It returns the numbers that
    ``scalars`` names.
``update(x, g, c, *slots)``
    runs once per coordinate. ``c`` holds the hyperparameters, the scalars and the constants
    ``zero``, ``one`` and ``tiny``, all in the precision of ``x``. It returns the direction
    :math:`d`, the per-coordinate rate :math:`\eta` and the new slots; whoever calls it computes
    :math:`x - \eta d`. A slot that the rule's options leave out arrives as None.

The functions are ordinary Python: ``kernels.py`` compiles them. Write numbers that are not in
``c`` as integer exponents only: a literal such as ``1 - c.beta1`` would turn float32 arithmetic
into float64. To add a rule, add a class; the registry takes it from there.
"""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, Protocol


class Array(Protocol):
    """A NumPy array, which this floor does not import."""

    def __array__(self) -> Any:
        """Return it."""


Rate = float | Callable[[int], float] | str | Array

# Where a hyperparameter may lie: (lowest, highest); the highest value itself is excluded.
_RANGES = {
    "beta1": (0.0, 1.0),
    "beta2": (0.0, 1.0),
    "momentum": (0.0, 1.0),
    "eps": (0.0, math.inf),
    "eps_root": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "learning_rate": (0.0, math.inf),
    "final_lr": (0.0, math.inf),
    "gamma": (0.0, math.inf),
}


@dataclass(frozen=True)
class Rule:
    r"""What every rule has: a learning rate and weight decay.

    Parameters
    ----------
    learning_rate : float, callable, ndarray or "auto", optional
        Step size :math:`\alpha`, or a schedule that maps the step number (from 1) to it. "auto",
        the same as None and the default, leaves it open: `numbelief.minimize` then finds the rate
        by itself, and `numbelief.Optimizer` takes ``default_rate``, the value of the rule's paper.
        An array of one dimension, of which a read-only float64 copy is kept, gives each coordinate
        its own rate; for `LAMB` also each segment. What a step reports as its rate is then the
        largest, decoupled decay and the limits of `AdaBound` shrink with a coordinate's share of
        it, and a coordinate whose rate is 0 stays where it is.
    weight_decay : float, default 0
        Decay :math:`\lambda \ge 0`.
    decoupled : bool, default False
        False adds :math:`\lambda x` to the gradient (L2 regularization); True multiplies x by
        :math:`1 - \alpha\lambda` before the step (Loshchilov & Hutter 2017). The caller's gradient
        array is never changed.

    Raises
    ------
    TypeError
        A hyperparameter is not a number (or not a bool where one is expected).
    ValueError
        A hyperparameter is NaN, infinite or outside its range; an array of rates is empty.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0, 1.0])
    >>> rule = numbelief.SGD(learning_rate=np.array([0.5, 0.0]))
    >>> numbelief.Optimizer(rule, x).step(np.array([1.0, 1.0]))
    >>> x
    array([0.5, 1. ])
    """

    learning_rate: Rate | None = None
    _: KW_ONLY
    weight_decay: float = 0.0
    decoupled: bool = False

    registry: ClassVar[dict[str, type["Rule"]]] = {}
    default_rate: ClassVar[float] = 1e-3
    slots: ClassVar[tuple[str, ...]] = ()
    slots_if: ClassVar[dict[str, str]] = {}
    scalars: ClassVar[tuple[str, ...]] = ("rate",)
    layerwise: ClassVar[bool] = False
    # A rule is a method of scipy.optimize.minimize; minimize.py provides the call.
    __call__: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls) -> None:
        name = cls.__name__.lower()
        # A rule of one's own may be defined again, as a notebook cell that runs twice does.
        if name in Rule.registry and Rule.registry[name].__module__ == __name__:
            raise ValueError(f"a rule named {name!r} exists already in numbelief")
        Rule.registry[name] = cls
        # Those of a dataclass ask an array of rates whether it is true.
        cls.__eq__, cls.__hash__ = Rule.__eq__, Rule.__hash__  # type: ignore[method-assign]

    def _key(self) -> tuple[Any, ...]:
        """What tells this rule from others of its class."""
        values = (getattr(self, f.name) for f in fields(self))
        return tuple(v.tobytes() if _is_array(v) else v for v in values)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "segments" or (f.name == "learning_rate" and _is_free(value)):
                continue
            if f.name == "learning_rate" and isinstance(value, str) and value == "auto":
                object.__setattr__(self, f.name, None)
                continue
            if f.name == "learning_rate" and _is_array(value):
                object.__setattr__(self, f.name, _rates(value))
                continue
            checked = (
                _flag(f.name, value) if isinstance(f.default, bool) else _number(f.name, value)
            )
            object.__setattr__(self, f.name, checked)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state arrays that this instance's options need."""
        extra = (slot for option, slot in self.slots_if.items() if getattr(self, option))
        return (*self.slots, *extra)

    @classmethod
    def number_names(cls) -> tuple[str, ...]:
        """Names of the hyperparameters that compiled code sees."""
        return tuple(f.name for f in fields(cls) if f.name not in ("learning_rate", "segments"))

    @property
    def numbers(self) -> dict[str, float]:
        """The hyperparameters that compiled code sees, as floats."""
        return {name: float(getattr(self, name)) for name in self.number_names()}

    @staticmethod
    def decay(h, rate):
        """The factor on x, and the factor of x that is added to the gradient."""
        if h.decoupled:
            return 1 - rate * h.weight_decay, 0.0
        return 1.0, h.weight_decay

    @staticmethod
    def coefficients(h, rate, t, bias1, bias2):
        return (rate,)

    @staticmethod
    def update(x, g, c, *slots):
        raise NotImplementedError("a rule defines update(x, g, c, *slots)")


def _is_free(rate: Any) -> bool:
    return rate is None or (callable(rate) and not isinstance(rate, (Rule, Lookahead, type)))


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and getattr(value, "ndim", None) == 1


def _rates(given: Any) -> Any:
    """A read-only copy of an array of rates."""
    array = given.__array__()
    if array.dtype.kind not in "fiu":
        raise TypeError(f"learning_rate must hold real numbers, got dtype {array.dtype}")
    rates = array.astype("float64")
    if not (rates.size and rates.min() >= 0 and rates.max() < math.inf):
        raise ValueError(
            f"learning_rate must hold finite numbers of at least 0, and not be empty, got {given!r}"
        )
    rates.setflags(write=False)
    return rates


def _flag(name: str, value: Any) -> bool:
    # numpy.bool is not a bool; its type is named "bool" too, and this floor does not import NumPy.
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _number(name: str, value: Any) -> float:
    kind = type(value).__name__
    # A NumPy complex number has __float__ and drops its imaginary part there.
    refused = isinstance(value, (str, bytes)) or kind.startswith(("bool", "complex"))
    if refused or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a real number, got {value!r} ({kind})")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a real number, got {value!r} ({kind})") from error
    low, high = _RANGES.get(name, (-math.inf, math.inf))
    if not (math.isfinite(number) and low <= number < high):
        until = "a finite number" if high == math.inf else f"a number in [{low:g}, {high:g})"
        at_least = f" of at least {low:g}" if high == math.inf and low > -math.inf else ""
        raise ValueError(f"{name} must be {until}{at_least}, got {value!r}")
    return number


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
        if self.segments is not None:
            object.__setattr__(self, "segments", _offsets(self.segments))

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


def _offsets(segments: Any) -> tuple[int, ...]:
    try:
        offsets = tuple(int(offset) for offset in segments)
        exact = all(offset == given for offset, given in zip(offsets, segments, strict=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"segments must be a sequence of integers, got {segments!r}") from error
    rising = list(offsets) == sorted(set(offsets))
    if not (exact and rising and offsets and offsets[0] == 0):
        raise ValueError(f"segments must start with 0 and increase, got {segments!r}")
    return offsets


@dataclass(frozen=True)
class Lookahead:
    r"""Lookahead: let a rule run ahead for k steps, then go part of the way to where it got.

    .. math::
        \theta_{t,0} &= \phi_{t-1}, \qquad
            \theta_{t,i} = \theta_{t,i-1} + A(\theta_{t,i-1}), \quad i = 1, \dots, k \\
        \phi_t &= \phi_{t-1} + \alpha (\theta_{t,k} - \phi_{t-1})

    with the steps :math:`A` of the rule. x holds the fast weights :math:`\theta`, and after every
    k-th step the slow weights :math:`\phi`; ``optimizer.state["slow"]`` holds these at all times.

    Parameters
    ----------
    rule : Rule
        The rule that runs ahead. Its own state goes on through the k-th steps.
    k : int, default 5
        Steps between two synchronizations, at least 1.
    alpha : float, default 0.5
        Step size :math:`\alpha` of the slow weights, in (0, 1].

    Raises
    ------
    TypeError
        rule is not a Rule (nor may it be a Lookahead); k or alpha is not a number.
    ValueError
        k or alpha is outside its range.

    Notes
    -----
    It stands wherever a rule does, but for ``numbelief.online``. Where `numbelief.minimize` has to
    find the learning rate by itself, a line search takes its place, and it is left out with a
    warning. The paper also uses ``alpha=0.8`` and ``k=10``.

    Within bounds or a feasible set the slow weights are, too: they start from the projection of x
    and stay between points of the set.

    Examples
    --------
    >>> import numpy as np, numbelief
    >>> x = np.array([1.0])
    >>> rule = numbelief.Lookahead(numbelief.SGD(learning_rate=0.5), k=2, alpha=0.5)
    >>> opt = numbelief.Optimizer(rule, x)
    >>> for _ in range(2):
    ...     opt.step(np.array([1.0]))
    ...     print(x, opt.state["slow"])
    [0.5] [1.]
    [0.5] [0.5]

    References
    ----------
    M. R. Zhang, J. Lucas, G. Hinton and J. Ba, "Lookahead optimizer: k steps forward, 1 step back",
    NeurIPS 2019, arXiv 1907.08610, algorithm 1.
    """

    rule: Rule
    k: int = 5
    alpha: float = 0.5

    # As for a rule.
    __call__: ClassVar[Callable[..., Any]]

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise TypeError(
                f"Lookahead needs a rule such as Adam(), and no other Lookahead, got {self.rule!r}"
            )
        k, alpha = _number("k", self.k), _number("alpha", self.alpha)
        if not (k >= 1 and k.is_integer()):
            raise ValueError(f"k must be a whole number of at least 1, got {self.k!r}")
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be a number in (0, 1], got {self.alpha!r}")
        object.__setattr__(self, "k", int(k))
        object.__setattr__(self, "alpha", alpha)

    @property
    def learning_rate(self) -> Rate | None:
        """The learning rate of the rule."""
        return self.rule.learning_rate


def without_lookahead(rule: Rule | Lookahead) -> Rule:
    """The rule itself, out of its Lookahead if it has one."""
    return rule.rule if isinstance(rule, Lookahead) else rule


if not TYPE_CHECKING:  # a type checker sees the classes themselves, and cannot read this list
    __all__ = ["Rule", *(rule.__name__ for rule in Rule.registry.values()), "Lookahead"]
