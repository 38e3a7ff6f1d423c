"""Lookahead, which goes around a rule."""

from dataclasses import dataclass

from numbelief.rules.base import Method, Rule
from numbelief.rules.hyperparameters import Rate, number


@dataclass(frozen=True)
class Lookahead(Method):
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
    It stands wherever a rule does, except in ``numbelief.online``. Where `numbelief.minimize` has
    to find the learning rate by itself, a line search takes its place, and it is left out with a
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

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise TypeError(
                f"Lookahead needs a rule such as Adam(), and no other Lookahead, got {self.rule!r}"
            )
        k, alpha = number("k", self.k), number("alpha", self.alpha)
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

    @property
    def inner(self) -> Rule:
        """The rule that runs ahead."""
        return self.rule

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state arrays: those of the rule, and the slow weights."""
        return (*self.rule.state_names, "slow")

    @property
    def synchronization(self) -> tuple[int, float]:
        """The steps between two synchronizations, and the step size of the slow weights."""
        return self.k, self.alpha


def without_lookahead(rule: Rule | Lookahead) -> Rule:
    """The rule itself, out of its Lookahead if it has one."""
    return rule.inner
