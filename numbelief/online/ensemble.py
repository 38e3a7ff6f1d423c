r"""Several players: on one game, and on many random games with common random numbers.

The same seed gives the same losses to every player. Then what two players differ in is not what the
losses happened to be: the difference of their regrets,

.. math:: R_a(t) - R_b(t) = \sum_{s\le t} f_s(x^a_s) - \sum_{s\le t} f_s(x^b_s),

does not even depend on the best fixed point, and its mean over the seeds has a narrow confidence
band where the means of the regrets themselves have wide ones.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from numbelief.checks import integer, positive
from numbelief.online.match import make_game, play
from numbelief.online.result import OnlineResult, names
from numbelief.sets import FeasibleSet

__all__ = ["Comparison", "Curves", "Ensemble", "Mean", "compare", "play_many"]


class Mean(NamedTuple):
    """A mean and its confidence interval."""

    value: float
    lower: float
    upper: float


class Band(NamedTuple):
    """The two ends of a band."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """The regrets of one player on many games, or the differences of two players' regrets.

    Attributes
    ----------
    name : str
        The player, or "a - b".
    t : ndarray of shape (K,)
        Rounds.
    lower, upper : ndarray of shape (S, K)
        For each seed, the interval of R(t). The ends of a difference are equal.
    confidence : float
        Of the band.
    """

    name: str
    t: NDArray[np.int64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    confidence: float
    _lost: NDArray[np.float64]
    _game: object

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean over the seeds, of the middles of the intervals."""
        middle: NDArray[np.float64] = (self.lower + self.upper).mean(axis=0) / 2
        return middle

    @property
    def band(self) -> Band:
        """The confidence band of the mean, round for round, by Student's t distribution.

        It is wider by the intervals of the regrets, where these have a width.
        """
        return Band(
            self.lower.mean(axis=0) - self._margin(self.lower),
            self.upper.mean(axis=0) + self._margin(self.upper),
        )

    @property
    def final(self) -> Mean:
        """The mean of R(T)."""
        lower, upper = self.band
        return Mean(float(self.mean[-1]), float(lower[-1]), float(upper[-1]))

    def __sub__(self, other: "Curves") -> "Curves":
        """How much more this player lost, seed for seed."""
        if not isinstance(other, Curves):
            return NotImplemented
        if self._game is not other._game:
            raise ValueError(f"{self.name} and {other.name} played different games")
        more = self._lost - other._lost
        name = f"{self.name} - {other.name}"
        return Curves(name, self.t, more, more, self.confidence, more, self._game)

    def _margin(self, values: NDArray[np.float64]) -> Any:
        seeds = len(values)
        quantile = stats.t.ppf((1 + self.confidence) / 2, seeds - 1)
        return quantile * values.std(axis=0, ddof=1) / np.sqrt(seeds)


class Ensemble(Mapping[str, Curves]):
    """What `play_many` returns: the `Curves` of each player, by name.

    Attributes
    ----------
    t : ndarray of shape (K,)
        Rounds, the last one T.
    seeds : tuple of int
    confidence : float
    """

    def __init__(
        self,
        t: NDArray[np.int64],
        seeds: Iterable[int],
        confidence: float,
        lost: dict[str, NDArray[np.float64]],
        value: NDArray[np.float64],
        gap: NDArray[np.float64],
    ) -> None:
        self.t, self.seeds, self.confidence = t, tuple(seeds), confidence
        self._curves = {
            name: Curves(name, t, mine - value, mine - value + gap, confidence, mine, value)
            for name, mine in lost.items()
        }

    def __getitem__(self, name: str) -> Curves:
        return self._curves[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._curves)

    def __len__(self) -> int:
        return len(self._curves)

    def plot(self, ax: Any = None) -> tuple[Any, ...]:
        """Draw the means with their confidence bands; see `OnlineResult.plot` for ax."""
        from numbelief import plotting

        return plotting.ensemble(self, ax)

    def __repr__(self) -> str:
        return f"<Ensemble: {', '.join(self)}; {len(self.seeds)} seeds, {self.t[-1]} rounds>"

    def __str__(self) -> str:
        T = float(self.t[-1])
        best = min(self, key=lambda name: self[name].mean[-1])
        width, column = max(map(len, self)), max(22, len(best) + 10)
        lines = [
            f"mean of {len(self.seeds)} seeds after {self.t[-1]} rounds, "
            f"{100 * self.confidence:g} % confidence",
            f"{'':{width}} {'regret':>22} {'R/T':>10} {'R/sqrt(T)':>10} "
            f"{'more than ' + best:>{column}}",
        ]
        for name, curves in self.items():
            final = curves.final
            more = "" if name == best else _plus_minus((curves - self[best]).final)
            line = (
                f"{name:{width}} {_plus_minus(final):>22} {final.value / T:10.4g} "
                f"{final.value / T**0.5:10.4g} {more:>{column}}"
            )
            lines.append(line.rstrip())
        return "\n".join(lines)


def play_many(
    methods: Mapping[str, Any] | Iterable[Any],
    losses: Callable[[int], Any],
    feasible_set: FeasibleSet | None = None,
    *,
    seeds: int | Iterable[int],
    x0: ArrayLike | None = None,
    rounds: int | None = None,
    beta1_decay: float = 1.0,
    confidence: float = 0.95,
) -> Ensemble:
    """Play random games, one a seed: every method gets the same losses.

    Parameters
    ----------
    methods : mapping of str to methods, or sequence of methods
        As in `play`; a mapping names them.
    losses : callable
        A function of the seed that returns Losses or an Environment, as in `play`. An adversary has
        no place here: what it does to one player is not what it does to another.
    feasible_set, x0, rounds, beta1_decay
        As in `play`.
    seeds : int or sequence of int
        At least two, all different; a number N means 0, ..., N - 1.
    confidence : float, default 0.95
        Of the bands, in (0, 1).

    Returns
    -------
    Ensemble

    Raises
    ------
    TypeError, ValueError
        As in `play`; losses is not a function; there are fewer than two seeds, or one twice; the
        games are of different lengths. What a game raises carries a note with its seed, and, where
        two seeds were played before, these as the attribute ``intermediate_result``.

    Examples
    --------
    >>> from numbelief import online
    >>> def signs(seed):
    ...     return online.environments.random_signs(rounds=500, n=2, seed=seed)
    >>> many = online.play_many({"OGD": online.OGD(), "OGD, D": online.OGD(D=1)}, signs, seeds=5)
    >>> many["OGD"].upper.shape == (5, many.t.size)
    True
    >>> more = many["OGD, D"] - many["OGD"]
    >>> more.name, bool(more.final.lower < more.final.value < more.final.upper)
    ('OGD, D - OGD', True)
    """
    if not callable(losses):
        raise TypeError(f"losses must be a function of the seed, got {losses!r}")
    chosen = _read_seeds(seeds)
    if not 0 < positive("confidence", confidence) < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}")
    players = list(methods.values()) if isinstance(methods, Mapping) else list(methods)
    if not players:
        raise ValueError("methods must hold at least one method")
    called: list[str] = list(methods) if isinstance(methods, Mapping) else []

    t = np.empty(0, np.int64)
    lost: list[NDArray[np.float64]] = []
    best: list[NDArray[np.float64]] = []

    def so_far() -> Ensemble:
        value, gap = np.array(best).transpose(1, 0, 2)
        table = dict(zip(called, np.array(lost).swapaxes(0, 1), strict=True))
        return Ensemble(t, chosen[: len(lost)], float(confidence), table, value, gap)

    for seed in chosen:
        try:
            game = make_game(losses, seed, rounds)
            results = [
                play(each, game, feasible_set, x0=x0, rounds=rounds, beta1_decay=beta1_decay)
                for each in players
            ]
            # The losses are those of all players, and so is the best point.
            comparators = results[0].regret.comparators
            if not comparators:
                raise ValueError(f"losses must have a best point: {results[0].regret.unknown}")
            if lost and results[0].rounds != t[-1]:
                raise ValueError(f"the game has {results[0].rounds} rounds, others {t[-1]}")
        except BaseException as error:
            error.add_note(f"in the game of seed {seed}")
            if len(lost) > 1:
                error.intermediate_result = so_far()  # type: ignore[attr-defined]
            raise
        called = called or names(results)
        t = results[0].regret.t
        lost.append(np.array([np.cumsum(each.loss)[t - 1] for each in results]))
        best.append(np.array([[each.value, each.gap] for each in comparators]).T)
    return so_far()


class Comparison:
    """Several results side by side; see `compare`.

    Attributes
    ----------
    results : dict of str to OnlineResult
    """

    def __init__(self, results: dict[str, OnlineResult]) -> None:
        self.results = results

    @classmethod
    def of(cls, results: Mapping[str, OnlineResult] | Iterable[OnlineResult]) -> Self:
        """Read what `compare` takes."""
        given = list(results.values() if isinstance(results, Mapping) else results)
        if not given or not all(isinstance(each, OnlineResult) for each in given):
            raise TypeError(f"results must be one or more of what play returns, got {results!r}")
        called = list(results) if isinstance(results, Mapping) else names(given)
        return cls(dict(zip(called, given, strict=True)))

    def plot(self, ax: Any = None) -> tuple[Any, ...]:
        """Draw all regret bands into one picture; see `OnlineResult.plot` for ax."""
        from numbelief import plotting

        return plotting.comparison(self, ax)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max(map(len, self.results))
        lines = [
            f"{'':{width}} {'rounds':>9} {'regret':>12} {'to':>12} {'R(T)/T':>11} "
            f"{'R(T)/sqrt(T)':>12} {'R ~ t^':>7} {'95 % confidence':>16}"
        ]
        for name, result in self.results.items():
            low, high = result.regret.final
            T, slope = result.rounds, result.regret.slope
            line = f"{name:{width}} {T:9d} {low:12.6g} {high:12.6g} {high / T:11.4g} "
            line += f"{high / T**0.5:12.4g} {slope.value:7.2f}"
            lines.append(f"{line} {f'{slope.lower:.2f} to {slope.upper:.2f}':>16}")
        for name, result in self.results.items():
            if result.regret.unknown:
                lines.append(f"{name}: no best fixed point: {result.regret.unknown}")
        return "\n".join(lines)


def compare(results: Mapping[str, OnlineResult] | Iterable[OnlineResult]) -> Comparison:
    """Put results of `play` side by side: ``print`` it for a table, ``plot()`` it for a picture.

    Parameters
    ----------
    results : mapping of str to OnlineResult, or sequence of OnlineResult
        A mapping names them.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError
        These are no results, or none.

    Examples
    --------
    >>> from numbelief import online, sets
    >>> losses = online.SquaredLosses([[1.0], [0.0], [1.0], [1.0]] * 100)
    >>> results = [online.play(OGD, losses, sets.Box(0, 1)) for OGD in (online.OGD(), "ogd")]
    >>> list(online.compare(results).results)
    ['OGD 1', 'OGD 2']
    """
    return Comparison.of(results)


# ---- parts -------------------------------------------------------------------------------------


def _read_seeds(seeds: Any) -> tuple[int, ...]:
    if isinstance(seeds, Iterable):
        chosen = tuple(integer("seeds", each) for each in seeds)
    else:
        chosen = tuple(range(integer("seeds", seeds)))
    if len(chosen) < 2:
        raise ValueError(f"seeds must be at least two: one has no spread, got {seeds!r}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"seeds must differ: the same one twice is no new game, got {seeds!r}")
    return chosen


def _plus_minus(mean: Mean) -> str:
    return f"{mean.value:.5g} ± {(mean.upper - mean.lower) / 2:.2g}"
