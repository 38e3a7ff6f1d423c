"""What a game says of itself."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from numbelief.online.regret import Regret

if TYPE_CHECKING:
    from numbelief.online.bounds import Bound
    from numbelief.online.match import Match

__all__ = ["OnlineResult"]


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

    def __init__(self, match: "Match") -> None:
        self._match = match
        T, record = match.played, match.record
        self.method = match.player.method(match.moves)
        self.losses, self.feasible_set = match.losses, match.feasible_set
        self.rounds = T
        self.x0, self.x = match.x0, match.x.copy()
        self.loss = record.loss[:T]
        self.path = record.path[:T] if len(record.path) else None
        self._regret: Regret | None = None
        self._audit: Any = None

    @property
    def name(self) -> str:
        """The method's name, for tables and plots."""
        return type(self.method).__name__

    @property
    def default_theorem(self) -> str:
        """The theorem that a plot shows if it is not told which."""
        return self._match.player.theorem

    @property
    def regret(self) -> Regret:
        """The regret against the best fixed point, as a certified interval; see `Regret`."""
        if self._regret is None:
            self._regret = Regret(self)
        return self._regret

    @property
    def linearized(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Rounds t, the sums of <g, x> up to them, and the sums of the gradients, in rows."""
        record = self._match.record
        totals = record.totals[0]
        known = int(totals["next_row"])
        at, inner = record.checkpoints[:known], record.inner_at[:known]
        gradients = record.gradient_at[:known]
        if not known or at[-1] != self.rounds:  # the game ended between two checkpoints
            at = np.append(at, self.rounds)
            inner = np.append(inner, totals["inner"])
            gradients = np.vstack([gradients, record.gradient])
        return at, inner, gradients

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
        from numbelief.online import audit, bounds  # they are about results

        if self._audit is None:
            self._audit = audit.Audit(self)
        return bounds.bound(self._audit, theorem, variant, comparator)

    def __repr__(self) -> str:
        return f"<OnlineResult: {self.name}, {self.rounds} rounds>"

    def __str__(self) -> str:
        return f"{self.name}: {self.rounds} rounds, loss {self.loss.sum():.6g}\n{self.regret}"


def names(results: Iterable[OnlineResult]) -> list[str]:
    """Names of several results, told apart by a number where they are alike."""
    given = [result.name for result in results]
    return [
        f"{name} {given[: i + 1].count(name)}" if given.count(name) > 1 else name
        for i, name in enumerate(given)
    ]
