"""play: a rule against convex losses on a feasible set, round by round."""

import inspect
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief import kernels, native, schedules
from numbelief.checks import as_reals, integer, positive
from numbelief.online import game
from numbelief.online.comparators import checkpoints
from numbelief.online.environments import Environment
from numbelief.online.losses import CallbackLosses, Losses
from numbelief.online.regret import Regret
from numbelief.optimizer import Optimizer
from numbelief.options import TrainingOptions, read_options
from numbelief.rules import SGD, Lookahead, Rule
from numbelief.sets import FeasibleSet, Simplex

if TYPE_CHECKING:
    from numbelief.online.bounds import Bound

__all__ = ["OGD", "Hedge", "OnlineResult", "play"]

# Rounds between two returns to Python, for Ctrl-C.
_CHUNK = 1 << 16
# A path of at most so many numbers is kept; more of them would take longer than the game.
_PATH = 1 << 20


@dataclass(frozen=True)
class OGD:
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


@dataclass(frozen=True)
class Hedge:
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


def play(
    method: str | Rule | OGD | Hedge,
    losses: Any,
    feasible_set: FeasibleSet | None = None,
    *,
    x0: ArrayLike | None = None,
    rounds: int | None = None,
    seed: int | None = None,
    beta1_decay: float = 1.0,
    options: dict[str, Any] | None = None,
) -> "OnlineResult":
    r"""Play the online game: in each round the player commits to x, then sees the loss.

    .. math:: f_t(x_t) \text{ is lost}, \quad g_t \in \partial f_t(x_t), \quad
        x_{t+1} = \Pi_{F, 1/\eta_t}(x_t - \eta_t d_t)

    with the direction and the rates of the rule, and the projection in the metric of its own step.

    Parameters
    ----------
    method : str, Rule, OGD or Hedge
        A rule or its name; its learning rate is used as given. Without one it is
        ``schedules.inverse_sqrt(rule.default_rate)``, as the theorems have it. "ogd" and "hedge"
        are `OGD` and `Hedge`.
    losses : Losses, CallbackLosses or Environment
        What is lost, see `numbelief.online.losses`. Convexity is the caller's promise: it cannot be
        seen, and without it the regret and its bounds say nothing. An `Environment` brings its
        feasible set and first point. A function that returns one, such as those of
        `numbelief.online.environments`, is called with the seed, and with rounds, if these are
        given and it has parameters of these names; without one named seed, its only argument is the
        seed.
    feasible_set : FeasibleSet, optional
        The set F; none is the whole space.
    x0 : array_like of shape (n,), optional
        The first point, in the set; default the projection of 0, for Hedge the uniform one.
    rounds : int, optional
        How many to play; default all that losses have.
    seed : int, optional
        For losses that are a function of it.
    beta1_decay : float, default 1
        :math:`\lambda` in (0, 1]: the rule's :math:`\beta_1` is :math:`\beta_1 \lambda^{t-1}` in
        round t, as some theorems have it.
    options : dict, optional
        Hyperparameters of a rule given by name.

    Returns
    -------
    OnlineResult

    Raises
    ------
    TypeError
        An argument is of another kind than it must be: losses take no seed, the method is a
        `Lookahead`, which no bound covers, or its learning rate is an array.
    ValueError
        There are fewer rounds, x0 is outside the set or of another shape, or OGD's set has no
        diameter. A loss or gradient that is not finite ends the game with a message that names the
        round. This exception, what a callback raises, and KeyboardInterrupt carry the rounds before
        as the attribute ``intermediate_result``.

    Examples
    --------
    >>> from numbelief import online, sets
    >>> losses = online.SquaredLosses([[1.0], [0.0], [1.0], [1.0]] * 100)
    >>> result = online.play("ogd", losses, sets.Box(0, 1))
    >>> bool(result.regret.final.upper < 10), result.x.round(1)
    (True, array([0.8]))
    """
    if not isinstance(losses, (Losses, CallbackLosses, Environment)) and callable(losses):
        losses = deal(losses, seed, rounds)
    if isinstance(losses, Environment):
        feasible_set = losses.feasible_set if feasible_set is None else feasible_set
        x0 = losses.x0 if x0 is None else x0
        losses = losses.losses
    if not isinstance(losses, (Losses, CallbackLosses)):
        raise TypeError(f"losses must be Losses such as LinearLosses(...), got {losses!r}")
    if feasible_set is not None and not isinstance(feasible_set, FeasibleSet):
        raise TypeError(f"feasible_set must be a set such as Ball(), got {feasible_set!r}")
    player = _Player(method, losses, feasible_set, x0, rounds, beta1_decay, options)
    player.go()
    return player.result()


class _Player:
    """A game between its rounds: the arrays of the loop, and what is made of them."""

    def __init__(
        self,
        method: Any,
        losses: Any,
        place: FeasibleSet | None,
        x0: Any,
        rounds: Any,
        beta1_decay: Any,
        options: dict[str, Any] | None,
    ) -> None:
        self.losses, self.place = losses, place
        self.rounds = _count(rounds, losses)
        self.method = _read(method, options)
        self.x0 = _first_point(x0, losses.n, place, isinstance(self.method, Hedge))
        self.decay = _share("beta1_decay", beta1_decay)
        self.scale = 0.0
        self.rule: Rule | None
        self.rule, self.schedule = self._rule()
        if self.decay < 1 and not hasattr(self.rule, "beta1"):
            raise ValueError(f"beta1_decay needs a rule with beta1, got {self.method!r}")
        self.at = np.append(checkpoints(self.rounds), -1)  # no round is the one after the last
        n, T = losses.n, self.rounds
        self.lost = np.zeros(T)
        self.totals, self.gradient = np.zeros(2), np.zeros(n)
        self.place_at = np.zeros(1, np.int64)
        self.sums = np.zeros((len(self.at) - 1, 1 + n))
        small = T * n <= _PATH
        self.path = np.zeros((T if small else 0, n))
        replayable = isinstance(losses, Losses)
        self.gradients = np.zeros((0 if replayable else T, n))
        self.played = 0
        self.x = self.x0.copy()

    def _rule(self) -> tuple[Rule | None, Any]:
        """The rule whose steps are taken, and its rates."""
        method, n, T = self.method, self.losses.n, self.rounds
        if isinstance(method, Hedge):
            if method.learning_rate is not None:
                return None, _as_schedule(method.learning_rate)
            rate = math.sqrt(8 * math.log(max(n, 2)) / T) / method.loss_range
            return None, schedules.constant(rate)
        if isinstance(method, OGD):
            if method.learning_rate is not None:
                return SGD(method.learning_rate), _as_schedule(method.learning_rate)
            D = method.D
            if D is None:
                if self.place is None:
                    raise ValueError("OGD needs a feasible_set with a diameter, or D, or a rate")
                D = self.place.diameter(n, norm=2)
            if method.G is None:
                self.scale = D
                return SGD(0.0), schedules.constant(0.0)
            return SGD(), schedules.inverse_sqrt(D / method.G)
        given = method.learning_rate
        if given is None:
            given = schedules.inverse_sqrt(method.default_rate)
        return replace(method, learning_rate=given), _as_schedule(given)

    # ---- rounds

    def go(self) -> None:
        """Play; on an exception, attach the rounds so far to it."""
        try:
            self._run()
        except BaseException as error:
            if self.played:
                error.intermediate_result = self.result()  # type: ignore[attr-defined]
            raise

    def audit(self) -> tuple[Any, ...]:
        """Play the same rounds again, and add up what the bounds need."""
        again = _Player.__new__(_Player)
        vars(again).update(vars(self))
        again.x = self.x0.copy()
        again.lost = np.zeros(self.played)
        again.totals, again.gradient = np.zeros(2), np.zeros(self.losses.n)
        again.place_at = np.zeros(1, np.int64)
        again.sums = np.zeros_like(self.sums)
        again.path = np.zeros((0, self.losses.n))
        again.rounds, again.played = self.played, 0
        again.gradients = np.zeros((0, self.losses.n))
        slots = 2 if self.rule is None else len(self.rule.state_names)
        beta1 = float(getattr(self.rule, "beta1", 0.0))
        audit = game.new_audit(self.losses.n, slots, self.at, beta1, self.decay)
        recorded = (self.lost, self.gradients) if len(self.gradients) else None
        again._run(audit, recorded)
        return audit

    def _run(
        self,
        audit: tuple[Any, ...] | None = None,
        recorded: tuple[NDArray[Any], ...] | None = None,
    ) -> None:
        g = np.zeros(self.losses.n)
        arrays, options = self._arrays(audit is not None)
        objective, _alive = self._objective(recorded)
        evaluate = None if objective else self._ask
        run = game.compile_game(self.rule, audited=audit is not None, evaluate=evaluate)
        kept = (
            self.scale, self.lost, self.totals, self.gradient, self.at, self.place_at, self.sums,
            self.path, self.gradients,
        )  # fmt: skip
        index = list(self.rule.numbers).index("beta1") if self.rule and self.decay < 1 else -1
        fading = (index, self.decay)
        later = int(isinstance(self.method, Hedge))  # its steps have the rate of the next round
        while self.played < self.rounds:
            first, count = self.played, min(_CHUNK, self.rounds - self.played)
            rates = kernels.tabulate(self.schedule, first + 1 + later, count)
            try:
                done = run(
                    first, rates, self.x, g, *arrays, options, kept, audit or (), fading,
                    objective,
                )  # fmt: skip
            except native.Raised:
                self.played = int(objective[2][native.ROW])
                self._lose(self.played, self.x)
                raise RuntimeError("the losses raised in machine code, and not again") from None
            self.played = first + done
            if done < count:
                t = self.played + 1
                raise ValueError(
                    f"the loss of round {t} must be finite, with its gradient, at x = {self.x}"
                )

    def _objective(self, recorded: tuple[NDArray[Any], ...] | None) -> tuple[Any, Any]:
        """What the compiled game calls, and what must stay alive; () for a Python callback."""
        fun = self.losses.fun
        if isinstance(self.losses, Losses):
            data = self.losses.data
        elif recorded is not None:
            fun, data = _recorded, recorded
        elif fun is not None:
            data = self.losses[: self.rounds].data
        else:
            return (), None
        marked = tuple(native.PerRow(each) for each in data)
        compiled = native.Objective(fun, None, "inplace", marked, np.dtype(np.float64))
        address, block, alive = compiled.block(self.losses.n)
        return (compiled.address, address, block), alive

    def _ask(self, t: int, x: NDArray[Any], g: NDArray[Any]) -> float:
        """The loss of a Python callback."""
        self.played = t
        value: float
        value, g[:] = self._lose(t, x)
        return value

    def _lose(self, t: int, x: NDArray[Any]) -> Any:
        """The loss of the round after so many, and its gradient, at x."""
        try:
            return self.losses(t + 1, x)
        except Exception as error:
            if not re.search(rf"round {t + 1}\b", str(error)):
                error.add_note(f"in round {t + 1}")
            raise

    def _arrays(self, audited: bool) -> tuple[Any, Any]:
        """What a step takes: (state, clock, numbers) and options."""
        if self.rule is None:
            return game.hedge_arrays(self.x0), (None,) * 9
        self.optimizer = Optimizer(self.rule, self.x, feasible_set=self.place, target="serial")
        options = list(self.optimizer.options)
        if audited and options[5] is None:
            options[5] = np.zeros((2, self.x.size))
        state, clock, numbers = self.optimizer.arrays
        return (state, clock, numbers.copy()), tuple(options)

    def result(self) -> "OnlineResult":
        """What is known now."""
        if self.rule is not None:
            self.optimizer.report()
        return OnlineResult(self)


class OnlineResult:
    """A game that was played.

    Attributes
    ----------
    method : Rule, OGD or Hedge
        Who played.
    losses, feasible_set
        The game.
    x0, x : ndarray of shape (n,)
        The first point, and the one after the last round.
    rounds : int
        Rounds played, T.
    loss : ndarray of shape (T,)
        :math:`f_t(x_t)`.
    path : ndarray of shape (T, n), or None
        The points, where these are at most 2**20 numbers.
    """

    def __init__(self, player: _Player) -> None:
        self._player = player
        T = player.played
        theirs = isinstance(player.method, (OGD, Hedge))
        self.method = player.method if theirs else player.rule
        self.losses, self.feasible_set = player.losses, player.place
        self.rounds = T
        self.x0, self.x = player.x0, player.x.copy()
        self.loss = player.lost[:T]
        self.path = player.path[:T] if len(player.path) else None
        self._regret: Regret | None = None
        self._audit: Any = None

    @property
    def name(self) -> str:
        """The method's name, for tables and plots."""
        return type(self.method).__name__

    @property
    def regret(self) -> Regret:
        """The regret against the best fixed point, as a certified interval; see `Regret`."""
        if self._regret is None:
            self._regret = Regret(self)
        return self._regret

    @property
    def linearized(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Rounds t, the sums of <g, x> up to them, and the sums of the gradients, in rows."""
        player = self._player
        known = int(player.place_at[0])
        at, sums = player.at[:known], player.sums[:known, 0]
        gradients = player.sums[:known, 1:]
        if not known or at[-1] != self.rounds:  # the game ended between two checkpoints
            at = np.append(at, self.rounds)
            sums = np.append(sums, player.totals[0])
            gradients = np.vstack([gradients, player.gradient])
        return at, sums, gradients

    def plot(self, ax: Any = None, bounds: Any = None) -> tuple[Any, ...]:
        r"""Draw R(t) as a band, bounds on it, and :math:`R(t)/\sqrt t`, on logarithmic axes.

        Parameters
        ----------
        ax : matplotlib Axes, or two of them, optional
            Where to draw R(t), and :math:`R(t)/\sqrt t` into the second; default a new figure.
        bounds : sequence, or mapping of labels, optional
            Theorems, or bounds as `bound` returns them; default the certificate, or the theorem of
            Hedge. One with a violated assumption is dotted. With bounds comes the trivial one.

        Returns
        -------
        tuple of matplotlib Axes

        Raises
        ------
        ImportError
            There is no matplotlib.
        """
        from numbelief import plotting

        return plotting.regret(self, ax, bounds)

    def bound(self, theorem: str, variant: str = "corrected", *, comparator: Any = None) -> "Bound":
        """A theorem's bound on the regret of this run, with its assumptions checked on the run.

        Parameters
        ----------
        theorem : str
            "certificate" (every rule), "ogd", "adagrad", "adabelief-2.1", "adabelief-2.1.1",
            "amsgrad-4", "adam-4.1" or "hedge"; `numbelief.online.bounds` states and derives them.
        variant : {"corrected", "printed"}, default "corrected"
            The theorem as it is true, or as its paper has it.
        comparator : "best" or array_like of shape (n,), optional
            For the certificate: the much tighter bound against the best fixed point, or the bound
            on the regret against this point.

        Returns
        -------
        Bound
            The curve, its terms, the trivial bound, and each assumption with the evidence. A
            violated assumption is marked, and the number is still there.

        Raises
        ------
        ValueError
            There is no such theorem or variant, the theorem is not about this method, or the set
            has no diameter.

        Examples
        --------
        >>> from numbelief import online
        >>> result = online.play("hedge", online.environments.experts(rounds=10_000))
        >>> bound = result.bound("hedge")
        >>> round(bound.final, 1), bound.holds
        (107.3, True)
        """
        from numbelief.online import bounds  # it is about results

        if self._audit is None:
            self._audit = bounds.Audit(self)
        return bounds.bound(self._audit, theorem, variant, comparator)

    def __repr__(self) -> str:
        return f"<OnlineResult: {self.name}, {self.rounds} rounds>"

    def __str__(self) -> str:
        return f"{self.name}: {self.rounds} rounds, loss {self.loss.sum():.6g}\n{self.regret}"


@numba.njit
def _recorded(x, grad, value, gradient):  # type: ignore[no-untyped-def]
    grad[:] = gradient
    return value


# ---- checks ------------------------------------------------------------------------------------


def _read(method: Any, options: dict[str, Any] | None) -> Any:
    if isinstance(method, str) and method.lower() in ("ogd", "hedge"):
        return {"ogd": OGD, "hedge": Hedge}[method.lower()](**(options or {}))
    if isinstance(method, (OGD, Hedge)):
        if options:
            raise ValueError(f"options are for a method given by name, got {method!r}")
        return method
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
    return rule


def deal(losses: Callable[..., Any], seed: int | None, rounds: int | None) -> Any:
    """Call a function of the seed by name: the first parameter may be the number of rounds."""
    signature = inspect.signature(losses)
    needed = [key for key, each in signature.parameters.items() if each.default is each.empty]
    names = [key for key in ("seed", *needed) if key in signature.parameters and key != "rounds"]
    if seed is not None and not names:
        raise TypeError(f"losses must have a parameter named seed to be given {seed}, got {losses}")
    named = {**dict.fromkeys(names[:1], seed), "rounds": rounds}
    given = {k: v for k, v in named.items() if k in signature.parameters and v is not None}
    try:
        signature.bind(**given)
    except TypeError as error:
        raise TypeError(f"losses must be a function of the seed, got {losses}: {error}") from None
    return losses(**given)


def _count(rounds: Any, losses: Any) -> int:
    if rounds is None:
        if losses.rounds is None:
            raise ValueError("rounds must be given where losses have no number of them")
        return int(losses.rounds)
    count = integer("rounds", rounds)
    if count < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    if losses.rounds is not None and count > losses.rounds:
        raise ValueError(f"rounds must be at most the {losses.rounds} of losses, got {count}")
    return count


def _first_point(
    x0: Any, n: int, place: FeasibleSet | None, positive_only: bool
) -> NDArray[np.float64]:
    if place is not None and place.size not in (None, n):
        raise ValueError(f"feasible_set must have {n} coordinates, as losses, got {place.size}")
    if positive_only and not (isinstance(place, Simplex) and place.total > 0):
        raise ValueError(f"Hedge plays on a Simplex with a total above 0, got {place!r}")
    if x0 is None:
        if positive_only:
            return np.full(n, place.total / n)  # type: ignore[union-attr]
        return np.zeros(n) if place is None else place.project(np.zeros(n))
    given = as_reals(x0, "x0")
    x = given.astype(np.float64)
    if x.ndim == 0:
        x = x.reshape(1)
    if x.shape != (n,):
        raise ValueError(f"x0 must have shape ({n},), as losses, got {given.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"x0 must be finite, got {x0!r}")
    if place is not None and not place.contains(x):
        raise ValueError(f"x0 must lie in the feasible set, got {x0!r}")
    return x.copy()


def _share(name: str, value: Any) -> float:
    number = positive(name, value)
    if number > 1:
        raise ValueError(f"{name} must be in (0, 1], got {value!r}")
    return number


def _as_schedule(rate: Any) -> Callable[[int], float]:
    return rate if callable(rate) else schedules.constant(positive("learning_rate", rate))


def names(results: Iterable[OnlineResult]) -> list[str]:
    """Names of several results, told apart by a number where they are alike."""
    given = [result.name for result in results]
    return [
        f"{name} {given[: i + 1].count(name)}" if given.count(name) > 1 else name
        for i, name in enumerate(given)
    ]
