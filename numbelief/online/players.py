"""Who plays: rules, and the players of theory."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbelief import schedules
from numbelief._solve.options import TrainingOptions, read_options
from numbelief.checks import positive
from numbelief.online.steps import RuleSteps, Steps, WeightSteps
from numbelief.rules import SGD, Lookahead, Rule
from numbelief.sets import FeasibleSet, Simplex

__all__ = ["OGD", "Hedge"]


class Moves(NamedTuple):
    """How a player moves in a game.

    Attributes
    ----------
    rule : Rule or None
        Whose steps are taken.
    schedule : callable
        The number of a round, from 1, to the rate of the step after it.
    scale : float
        Above 0, the rate of a step is scale / sqrt(2 sum |g|^2) instead.
    """

    rule: Rule | None
    schedule: Callable[[int], float]
    scale: float = 0.0


class Player:
    """The base of those who play: `OGD` and `Hedge` by name, rules by `RulePlayer`."""

    registry: ClassVar[dict[str, type["Player"]]] = {}

    #: The round whose rate the first step has.
    first_rate: ClassVar[int] = 1

    #: The theorem that is about every game of this player.
    theorem: ClassVar[str] = "certificate"

    def __init_subclass__(cls, *, named: bool = True) -> None:
        if named:
            Player.registry.setdefault(cls.__name__.lower(), cls)

    def first_point(self, n: int, feasible_set: FeasibleSet | None) -> NDArray[np.float64]:
        """Where play begins if x0 is not given."""
        zero = np.zeros(n)
        return zero if feasible_set is None else feasible_set.project(zero)

    def check_set(self, feasible_set: FeasibleSet | None) -> None:
        """Refuse a set that the player cannot play on."""

    def moves(self, n: int, rounds: int, feasible_set: FeasibleSet | None) -> Moves:
        """How the player moves in a game of n coordinates."""
        raise NotImplementedError

    def steps(
        self, moves: Moves, x: NDArray[Any], feasible_set: FeasibleSet | None, traced: bool = False
    ) -> Steps:
        """The steps of these moves from x on; ``traced``: with their rates and directions."""
        assert moves.rule is not None
        return RuleSteps(moves.rule, x, feasible_set, traced=traced)

    def method(self, moves: Moves) -> Any:
        """What a result calls the method."""
        return self


@dataclass(frozen=True)
class RulePlayer(Player, named=False):
    """A rule that plays."""

    rule: Rule

    def moves(self, n: int, rounds: int, feasible_set: FeasibleSet | None) -> Moves:
        """The steps of the rule; without a rate, with that of the theorems."""
        rate = self.rule.learning_rate
        if rate is None:
            rate = schedules.inverse_sqrt(self.rule.default_rate)
        return Moves(replace(self.rule, learning_rate=rate), _as_schedule(rate))

    def method(self, moves: Moves) -> Any:
        """The rule, with its rate."""
        return moves.rule

    def __repr__(self) -> str:
        return repr(self.rule)


@dataclass(frozen=True)
class OGD(Player):
    r"""Online gradient descent with the step of its theory.

    .. math:: x_{t+1} = \Pi_F(x_t - \eta_t g_t), \quad
        \eta_t = \frac{D}{G \sqrt t} \text{ or } \frac{D}{\sqrt{2 \sum_{s \le t} \|g_s\|^2}}

    Parameters
    ----------
    G : float, optional
        A bound of the Euclidean norms of the gradients, known beforehand; without one, the second
        step is taken, which needs none.
    D : float, optional
        The diameter; default that of the feasible set.
    learning_rate : float or callable, optional
        Steps in place of both.

    References
    ----------
    M. Zinkevich, "Online convex programming and generalized infinitesimal gradient ascent", ICML
    2003; for the second step, F. Orabona, "A modern introduction to online learning", arXiv
    1912.13213, theorem 4.14.
    """

    G: float | None = None
    D: float | None = None
    learning_rate: Any = None

    def __post_init__(self) -> None:
        for name in ("G", "D"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, positive(name, getattr(self, name)))

    def moves(self, n: int, rounds: int, feasible_set: FeasibleSet | None) -> Moves:
        """Gradient steps with one of the three rates."""
        if self.learning_rate is not None:
            return Moves(SGD(self.learning_rate), _as_schedule(self.learning_rate))
        D = self.D
        if D is None:
            if feasible_set is None:
                raise ValueError("OGD needs a feasible_set with a diameter, or D, or a rate")
            D = feasible_set.diameter(n, norm=2)
        if self.G is None:
            return Moves(SGD(0.0), schedules.constant(0.0), scale=D)
        return Moves(SGD(), schedules.inverse_sqrt(D / self.G))


@dataclass(frozen=True)
class Hedge(Player):
    r"""Exponential weights on the simplex.

    .. math:: x_{t+1, i} \propto x_{1, i} \exp\Big(-\eta_{t+1} \sum_{s \le t} g_{s, i}\Big)

    Parameters
    ----------
    learning_rate : float or callable, optional
        :math:`\eta`; default :math:`\sqrt{8 \ln n / T} / L`, for a game of T rounds.
    loss_range : float, default 1
        L, how far the losses of two coordinates may lie apart.

    References
    ----------
    Y. Freund and R. Schapire, "A decision-theoretic generalization of on-line learning", JCSS 55,
    1997; N. Cesa-Bianchi and G. Lugosi, "Prediction, learning, and games", 2006, theorem 2.2.
    """

    learning_rate: Any = None
    loss_range: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss_range", positive("loss_range", self.loss_range))

    first_rate = 2
    theorem = "hedge"

    def first_point(self, n: int, feasible_set: FeasibleSet | None) -> NDArray[np.float64]:
        """Equal weights."""
        return np.full(n, feasible_set.total / n)  # type: ignore[union-attr]

    def check_set(self, feasible_set: FeasibleSet | None) -> None:
        """Only a simplex, with a total above 0, will do."""
        if not (isinstance(feasible_set, Simplex) and feasible_set.total > 0):
            raise ValueError(f"Hedge plays on a Simplex with a total above 0, got {feasible_set!r}")

    def moves(self, n: int, rounds: int, feasible_set: FeasibleSet | None) -> Moves:
        """No rule's steps, but rates."""
        if self.learning_rate is not None:
            return Moves(None, _as_schedule(self.learning_rate))
        rate = math.sqrt(8 * math.log(max(n, 2)) / rounds) / self.loss_range
        return Moves(None, schedules.constant(rate))

    def steps(
        self, moves: Moves, x: NDArray[Any], feasible_set: FeasibleSet | None, traced: bool = False
    ) -> Steps:
        """Exponential weights, which keep to the simplex by themselves and have no directions."""
        return WeightSteps(x)


def as_player(method: Any, options: dict[str, Any] | None) -> Player:
    """Read the ``method`` of a game."""
    name = method.lower() if isinstance(method, str) else None
    if name in Player.registry:
        return Player.registry[name](**(options or {}))
    if options and not isinstance(method, str):
        raise ValueError(f"options are for a method given by name, got {method!r}")
    if isinstance(method, Player):
        return method
    if options and isinstance(method, str):
        kind = Rule.registry.get(name or "")
        names = {} if kind is None else {each.name for each in fields(kind) if each.init}
        unknown = [] if kind is None else sorted(map(str, options.keys() - names))
        if unknown:
            raise ValueError(
                f"options of a game are hyperparameters of its rule, got {', '.join(unknown)}"
            )
    rule, _ = read_options(method, None, options, TrainingOptions)
    if isinstance(rule, Lookahead):
        raise TypeError(
            "method must be a rule without Lookahead, which goes back part of the way: "
            f"no bound covers that, got {rule!r}"
        )
    if np.ndim(rule.learning_rate) > 0:  # type: ignore[arg-type]
        raise TypeError(
            "learning_rate must be a number or a schedule: in a game there is one for all "
            f"coordinates, got {rule.learning_rate!r}"
        )
    return RulePlayer(rule)


def _as_schedule(rate: Any) -> Callable[[int], float]:
    return rate if callable(rate) else schedules.constant(positive("learning_rate", rate))
