"""play: a rule against convex losses on a feasible set, round by round."""

import copy
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief._compile.arrays import copy as copy_array
from numbelief._compile.jit import jit, key_of
from numbelief._compile.pointers import Stored
from numbelief._compile.template import named
from numbelief._objective.compiled import ROW, Form, Objective, PerRow, Raised
from numbelief.checks import as_reals, integer, positive
from numbelief.online import game
from numbelief.online.comparators import checkpoints
from numbelief.online.environments import Environment
from numbelief.online.losses.base import GameLosses
from numbelief.online.players import OGD, Hedge, as_player
from numbelief.online.result import OnlineResult
from numbelief.online.review import NO_REVIEWER, Review, Reviewer, new_review, reviewer_of
from numbelief.online.steps import Steps
from numbelief.rules import Rule
from numbelief.schedules import table
from numbelief.sets import FeasibleSet

__all__ = ["play"]

# Rounds between two returns to Python, for Ctrl-C.
_CHUNK = 1 << 16
# A path of at most this many numbers is kept; more of them would take longer than the game.
_PATH = 1 << 20


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
) -> OnlineResult:
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
    if not isinstance(losses, (GameLosses, Environment)) and callable(losses):
        losses = make_game(losses, seed, rounds)
    if isinstance(losses, Environment):
        feasible_set = losses.feasible_set if feasible_set is None else feasible_set
        x0 = losses.x0 if x0 is None else x0
        losses = losses.losses
    if not isinstance(losses, GameLosses):
        raise TypeError(f"losses must be Losses such as LinearLosses(...), got {losses!r}")
    if feasible_set is not None and not isinstance(feasible_set, FeasibleSet):
        raise TypeError(f"feasible_set must be a set such as Ball(), got {feasible_set!r}")
    match = Match(method, losses, feasible_set, x0, rounds, beta1_decay, options)
    match.play()
    return match.result()


class Match:
    """A game between its rounds: what it is played with, and what was written down."""

    def __init__(
        self,
        method: Any,
        losses: Any,
        feasible_set: FeasibleSet | None,
        x0: Any,
        rounds: Any,
        beta1_decay: Any,
        options: dict[str, Any] | None,
    ) -> None:
        self.losses, self.feasible_set = losses, feasible_set
        self.rounds = _count_rounds(rounds, losses)
        self.player = as_player(method, options)
        self.x0 = self._first_point(x0)
        self.decay = _share("beta1_decay", beta1_decay)
        self.moves = self.player.moves(losses.n, self.rounds, feasible_set)
        self.rule = self.moves.rule
        if self.decay < 1 and not hasattr(self.rule, "beta1"):
            raise ValueError(f"beta1_decay needs a rule with beta1, got {self.player!r}")
        # No number of rounds is -1.
        self.checkpoints = np.append(checkpoints(self.rounds), -1)
        small = self.rounds * losses.n <= _PATH
        self._begin(path=small, gradients=not losses.replayable)

    def _first_point(self, x0: Any) -> NDArray[np.float64]:
        n, feasible_set = self.losses.n, self.feasible_set
        if feasible_set is not None and feasible_set.size not in (None, n):
            raise ValueError(
                f"feasible_set must have {n} coordinates, as losses, got {feasible_set.size}"
            )
        self.player.check_set(feasible_set)
        if x0 is None:
            return self.player.first_point(n, feasible_set)
        given = as_reals(x0, "x0")
        x = given.astype(np.float64)
        if x.ndim == 0:
            x = x.reshape(1)
        if x.shape != (n,):
            raise ValueError(f"x0 must have shape ({n},), as losses, got {given.shape}")
        if not np.isfinite(x).all():
            raise ValueError(f"x0 must be finite, got {x0!r}")
        if feasible_set is not None and not feasible_set.contains(x):
            raise ValueError(f"x0 must lie in the feasible set, got {x0!r}")
        return x.copy()

    def _begin(self, **kept: bool) -> None:
        """Go to the first round; ``kept`` tells what is written down of every round."""
        n = self.losses.n
        self.x, self.played = self.x0.copy(), 0
        self.record = game.new_record(self.rounds, n, self.checkpoints, self.moves.scale, **kept)

    def play(self) -> None:
        """Play all rounds; on an exception, attach those so far to it."""
        steps = self.player.steps(self.moves, self.x, self.feasible_set)
        try:
            self._play(steps, NO_REVIEWER)
        except BaseException as error:
            if self.played:
                steps.report()
                error.intermediate_result = self.result()  # type: ignore[attr-defined]
            raise
        steps.report()

    def review(self) -> Review:
        """Play the same rounds again, and add up what the bounds need."""
        again = copy.copy(self)
        again.rounds = self.played
        again._begin(path=False, gradients=False)
        steps = self.player.steps(self.moves, again.x, self.feasible_set, traced=True)
        beta1 = float(getattr(self.rule, "beta1", 0.0))
        review = new_review(steps, self.checkpoints, beta1, self.decay)
        reviewer, _data = reviewer_of(review)
        again._play(steps, reviewer, recorded=None if self.losses.replayable else self.record)
        return review

    def _play(self, steps: Steps, reviewer: Reviewer, recorded: game.Record | None = None) -> None:
        x, g, fading = self.x, np.zeros(self.losses.n), self._fading(steps)
        stored = Stored(game.Round(x, g, steps.call, reviewer, fading, self.record))
        objective, _alive = self._objective(recorded)
        run: Any
        if objective is None:
            in_python = game.game_in_python(self._evaluate, stored)
            run = functools.partial(in_python, x=x, g=g)
        else:
            compiled = game.compile_game(stored.layout)
            run = functools.partial(compiled, data=stored.address, objective=objective)
        while self.played < self.rounds:
            first, count = self.played, min(_CHUNK, self.rounds - self.played)
            rates = table(self.moves.schedule, first + self.player.first_rate, count)
            try:
                done = int(run(first, rates))
            except Raised:
                self.played = int(objective.block[ROW])
                self.evaluate_loss(self.played, self.x)
                raise RuntimeError("the losses raised in compiled code, and not again") from None
            self.played = first + done
            if done < count:
                t = self.played + 1
                raise ValueError(
                    f"the loss of round {t} must be finite, with its gradient, at x = {self.x}"
                )

    def _objective(self, recorded: game.Record | None) -> tuple[Any, Any]:
        """What the compiled game calls, and what must stay alive; None for a Python callback."""
        fun, form = self.losses.fun, Form.TRUSTED
        if recorded is not None:
            fun, data = _compile_recorded(), (recorded.loss, recorded.gradients)
        elif fun is not None:
            data = self.losses[: self.rounds].data
            form = Form.TRUSTED if self.losses.is_built_in() else Form.INPLACE
        else:
            return None, None
        rows = tuple(PerRow(each) for each in data)
        compiled = Objective(fun, None, form, rows, np.dtype(np.float64))
        return compiled.call(self.losses.n)

    def _fading(self, steps: Steps) -> game.Fading:
        state = steps.state
        position = -1
        if self.rule is not None and self.decay < 1:
            position = list(self.rule.numbers).index("beta1")
        return game.Fading(state.timestep, state.numbers, position, self.decay)

    def _evaluate(self, t: int, x: NDArray[Any], g: NDArray[Any], objective: None) -> float:
        """The loss of a Python callback."""
        self.played = t
        value: float
        value, g[:] = self.evaluate_loss(t, x)
        return value

    def evaluate_loss(self, t: int, x: NDArray[Any]) -> Any:
        """The loss of the round after t others, and its gradient, at x."""
        try:
            return self.losses(t + 1, x)
        except Exception as error:
            if not re.search(rf"round {t + 1}\b", str(error)):
                error.add_note(f"in round {t + 1}")
            raise

    def result(self) -> OnlineResult:
        """What is known now."""
        return OnlineResult(self)


def _recorded(x, grad, value, gradient):  # type: ignore[no-untyped-def]
    """A loss of a game that was played."""
    copy_array(gradient, grad)
    return value


@functools.cache
def _compile_recorded() -> Any:
    return jit(named(_recorded, key_of()), allocates=False)


# ---- checks ------------------------------------------------------------------------------------


def make_game(losses: Callable[..., Any], seed: int | None, rounds: int | None) -> Any:
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


def _count_rounds(rounds: Any, losses: Any) -> int:
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


def _share(name: str, value: Any) -> float:
    number = positive(name, value)
    if number > 1:
        raise ValueError(f"{name} must be in (0, 1], got {value!r}")
    return number
