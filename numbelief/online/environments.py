r"""Games from the literature: losses, the set they are played on, where play begins.

Each function returns an `Environment`. Random ones take a seed, and the same seed gives the same
losses; so ``online.play("ogd", environments.experts, rounds=100, seed=4)`` plays the game of that
seed. The rounds of a game in one dimension take 8 bytes each.

>>> from numbelief.online import environments
>>> game = environments.reddi_online(rounds=1000)
>>> game.losses, game.feasible_set.contains(game.x0)
(LinearLosses(rounds=1000, n=1, dtype=float64), True)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numbelief import sets
from numbelief.checks import as_reals, integer, positive, real
from numbelief.online.losses import LinearLosses, Losses, PortfolioLosses, SquaredLosses

__all__ = [
    "Environment",
    "drifting_centers",
    "experts",
    "portfolio",
    "random_signs",
    "reddi_online",
    "reddi_stochastic",
    "reddi_theorem1",
]


@dataclass(frozen=True, eq=False)
class Environment:
    """A game that can be played.

    Attributes
    ----------
    losses : Losses
    feasible_set : set of `numbelief.sets`
    x0 : ndarray of shape (n,)
        The first point, in the set, of the dtype of the losses.
    description : str
        What the game is, in one line.
    best : ndarray of shape (n,), or None
        The best fixed point of all rounds, where the construction fixes it.
    """

    losses: Losses
    feasible_set: Any
    x0: NDArray[Any]
    description: str
    best: NDArray[Any] | None = None


def reddi_online(rounds: int = 3_000_000, dtype: Any = np.float64) -> Environment:
    r"""The online example on which Adam does not converge.

    .. math:: f_t(x) = 1010x \text{ if } t \bmod 101 = 1 \text{ else } -10x, \quad F = [-1, 1].

    In each period of 101 rounds the sum is 10 x, so that -1 is best. Adam forgets the rare large
    gradient: with :math:`\beta_1 = 0.9, \beta_2 = 0.99, \alpha_t = 0.5/\sqrt t` and no bias
    correction, Adam and AdaBelief end at +1, AMSGrad near -1.

    Parameters
    ----------
    rounds : int, default 3,000,000
    dtype : dtype, default float64
        Of the losses and of x0: float64 or float32.

    Returns
    -------
    Environment
        On [-1, 1], with x0 = 0.

    Raises
    ------
    TypeError, ValueError
        rounds is not an integer of at least 1.

    Examples
    --------
    >>> from numbelief.online import environments
    >>> environments.reddi_online(rounds=202).losses.total([1.0])[0]
    20.0

    References
    ----------
    Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, 2018, section 5.
    """
    slopes = np.full(_rounds(rounds), -10.0, dtype)
    slopes[::101] = 1010.0
    # Until the 101st round the sum is above 0 as well: it starts at 1010 and loses 10 a round.
    return _interval(
        slopes, 0.0, "Reddi's online example: 1010x every 101 rounds, else -10x", [-1.0]
    )


def reddi_stochastic(
    rounds: int = 1_000_000, seed: int | None = 0, dtype: Any = np.float64
) -> Environment:
    r"""The stochastic example on which Adam does not converge.

    .. math:: f_t(x) = 1010x \text{ with probability } 0.01 \text{ else } -10x, \quad F = [-1, 1].

    The expected loss is 0.2 x, so that -1 is best on average.

    Parameters
    ----------
    rounds, dtype
        As in `reddi_online`, but 1,000,000 rounds by default.
    seed : int or None, default 0
        For ``numpy.random.default_rng``.

    Returns
    -------
    Environment
        On [-1, 1], with x0 = 0.

    Examples
    --------
    >>> from numbelief.online import environments
    >>> sorted(set(environments.reddi_stochastic(rounds=1000).losses.data[0][:, 0].tolist()))
    [-10.0, 1010.0]

    References
    ----------
    Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, 2018, section 5.
    """
    slopes = np.full(_rounds(rounds), -10.0, dtype)
    slopes[_uniform(seed, slopes.size) < 0.01] = 1010.0
    return _interval(
        slopes, 0.0, "Reddi's stochastic example: 1010x with probability 0.01, else -10x"
    )


def reddi_theorem1(rounds: int = 300_000, C: float = 3.0, dtype: Any = np.float64) -> Environment:
    r"""The family of games that proves that Adam may have linear regret.

    .. math:: f_t(x) = Cx \text{ if } t \bmod 3 = 1 \text{ else } -x, \quad F = [-1, 1], \; C > 2.

    With :math:`\beta_1 = 0, \beta_2 = 1/(1 + C^2), \alpha_t = \alpha/\sqrt t`, Adam from 1 returns
    to 1 after every third round, so that each three rounds cost it 2C - 4 more than -1 does.

    Parameters
    ----------
    rounds, dtype
        As in `reddi_online`, but 300,000 rounds by default.
    C : float, default 3
        A finite number above 2.

    Returns
    -------
    Environment
        On [-1, 1], with x0 = 1.

    Examples
    --------
    >>> from numbelief.online import environments
    >>> environments.reddi_theorem1(rounds=6).losses.data[0][:, 0]
    array([ 3., -1., -1.,  3., -1., -1.])

    References
    ----------
    Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, 2018, theorem 1.
    """
    C = real("C", C, -np.inf)
    if not 2 < C < np.inf:
        raise ValueError(f"C must be a finite number above 2, got {C!r}")
    slopes = np.full(_rounds(rounds), -1.0, dtype)
    slopes[::3] = C
    return _interval(slopes, 1.0, f"Reddi's theorem 1: {C:g}x every 3 rounds, else -x", [-1.0])


def random_signs(
    rounds: int = 10_000, n: int = 5, seed: int | None = 0, dtype: Any = np.float64
) -> Environment:
    r"""Linear losses with random signs, on which every player has the same expected regret.

    .. math:: f_t(x) = \langle \sigma_t, x\rangle, \; \sigma_{t,i} = \pm1, \quad F = [-1, 1]^n.

    No player can expect to lose less than 0, and the best fixed point loses
    :math:`-\sum_i |\sum_t \sigma_{t,i}|`, about :math:`-n\sqrt{2T/\pi}`: no bound on the regret can
    be below that.

    Parameters
    ----------
    rounds : int, default 10,000
    n : int, default 5
        Number of coordinates.
    seed : int or None, default 0
        For ``numpy.random.default_rng``.
    dtype : dtype, default float64
        Of the losses and of x0: float64 or float32.

    Returns
    -------
    Environment
        On the box, with x0 = 0.

    Raises
    ------
    TypeError, ValueError
        rounds or n is not an integer of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from numbelief.online import environments
    >>> np.abs(environments.random_signs(rounds=100).losses.data[0]).min()
    np.float64(1.0)

    References
    ----------
    Abernethy, Bartlett, Rakhlin and Tewari, Optimal Strategies and Minimax Lower Bounds for Online
    Convex Games, 2008.
    """
    n = _count("n", n)
    bits = np.random.default_rng(seed).integers(0, 2, size=(_rounds(rounds), n), dtype=np.int8)
    signs = (2 * bits - 1).astype(dtype)
    box = sets.Box(-np.ones(n), np.ones(n))
    return Environment(LinearLosses(signs), box, np.zeros(n, dtype), f"random signs in {n} D")


def experts(
    rounds: int = 10_000, K: int = 10, seed: int | None = 0, dtype: Any = np.float64
) -> Environment:
    r"""Prediction with the advice of K experts whose losses are uniform in [0, 1].

    .. math:: f_t(x) = \langle \ell_t, x\rangle, \; \ell_{t,i} \in [0, 1], \quad
       F = \{x \ge 0, \textstyle\sum_i x_i = 1\}.

    Hedge with the rate :math:`\sqrt{8\log K/T}` has a regret of at most
    :math:`\sqrt{T\log(K)/2}`.

    Parameters
    ----------
    rounds : int, default 10,000
    K : int, default 10
        Number of experts.
    seed : int or None, default 0
        For ``numpy.random.default_rng``.
    dtype : dtype, default float64
        Of the losses and of x0: float64 or float32.

    Returns
    -------
    Environment
        On the simplex, from equal weights.

    Raises
    ------
    TypeError, ValueError
        rounds or K is not an integer of at least 1.

    Examples
    --------
    >>> from numbelief.online import environments
    >>> environments.experts(rounds=100, K=4).x0
    array([0.25, 0.25, 0.25, 0.25])

    References
    ----------
    Cesa-Bianchi and Lugosi, Prediction, Learning, and Games, 2006, theorem 2.2.
    """
    K = _count("K", K)
    table = _uniform(seed, (_rounds(rounds), K)).astype(dtype, copy=False)
    return Environment(
        LinearLosses(table), sets.Simplex(), np.full(K, 1 / K, dtype), f"{K} experts"
    )


def drifting_centers(
    rounds: int = 10_000,
    n: int = 1,
    period: float = 25.0,
    noise: float = 0.0,
    seed: int | None = 0,
    dtype: Any = np.float64,
) -> Environment:
    r"""Squared distances to centres that go round and round.

    .. math:: f_t(x) = \tfrac12\|x - c_t\|^2, \quad
       c_{t,i} = \sin\bigl(2\pi(t/P + i/(4n))\bigr) + \sigma \xi_{t,i}, \quad F = [-1, 1]^n.

    The step 1/t plays the mean of the centres so far. Its regret against the best fixed point grows
    with log T only (it is 1.99 after 10,000 rounds); against the centres themselves it grows like
    T: a small static regret does not mean that a player follows.

    Parameters
    ----------
    rounds : int, default 10,000
    n : int, default 1
        Number of coordinates, which are i/(4n) of a period apart, i = 0, ..., n - 1.
    period : float, default 25
        P, in rounds; above 0.
    noise : float, default 0
        The standard deviation of the normal noise; at least 0.
    seed : int or None, default 0
        For ``numpy.random.default_rng``; without noise nothing is random.
    dtype : dtype, default float64
        Of the losses and of x0: float64 or float32.

    Returns
    -------
    Environment
        On the box, with x0 = 0.

    Raises
    ------
    TypeError, ValueError
        A parameter is out of range.

    Examples
    --------
    >>> from numbelief.online import environments
    >>> environments.drifting_centers(rounds=4, period=4).losses.data[0][:, 0].round(3)
    array([ 1.,  0., -1., -0.])

    References
    ----------
    Zinkevich, Online Convex Programming and Generalized Infinitesimal Gradient Ascent, 2003,
    section 2.2 (dynamic regret).
    """
    n, rounds = _count("n", n), _rounds(rounds)
    period, noise = positive("period", period), real("noise", noise, 0.0)
    turns = np.arange(1, rounds + 1)[:, None] / period + np.arange(n) / (4 * n)
    centers = np.sin(2 * np.pi * turns)
    if noise > 0:
        centers += noise * np.random.default_rng(seed).standard_normal((rounds, n))
    box = sets.Box(-np.ones(n), np.ones(n))
    return Environment(
        SquaredLosses(centers.astype(dtype, copy=False)),
        box,
        np.zeros(n, dtype),
        f"squared distance to centres with period {period:g}",
    )


def portfolio(
    relatives: ArrayLike | None = None, *, prices: ArrayLike | None = None
) -> Environment:
    r"""Rebalance a portfolio every round; the sum of losses is minus the logarithm of wealth.

    .. math:: f_t(x) = -\log\langle r_t, x\rangle, \quad F = \{x \ge 0, \textstyle\sum_i x_i = 1\}.

    The best fixed point is the best constantly rebalanced portfolio.

    Parameters
    ----------
    relatives : array_like of shape (T, n), optional
        Price relatives: the price of each asset after round t over its price before.
    prices : array_like of shape (T + 1, n), optional
        Instead of relatives; above 0.

    Returns
    -------
    Environment
        On the simplex, from equal parts.

    Raises
    ------
    TypeError
        Neither or both are given, or they are not real numbers.
    ValueError
        Prices are not above 0 (the row is named), or fewer than two rows; relatives as in
        `PortfolioLosses`.

    Examples
    --------
    >>> from numbelief.online import environments
    >>> environments.portfolio(prices=[[1.0, 4.0], [2.0, 2.0], [1.0, 4.0]]).losses.data[0]
    array([[2. , 0.5],
           [0.5, 2. ]])

    References
    ----------
    Cover, Universal Portfolios, 1991.
    """
    if (relatives is None) == (prices is None):
        raise TypeError("portfolio takes either relatives or prices")
    if prices is not None:
        relatives = _relatives(prices)
    losses = PortfolioLosses(relatives)  # type: ignore[arg-type]
    n = losses.n
    return Environment(
        losses, sets.Simplex(), np.full(n, 1 / n, losses.dtype), f"portfolio of {n} assets"
    )


def _relatives(prices: ArrayLike) -> NDArray[Any]:
    table = as_reals(prices, "prices")
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"prices must have shape (T + 1, n), T at least 1, got {table.shape}")
    bad = ~(np.isfinite(table) & (table > 0)).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"prices must be finite and above 0, got {table[row]} in row {row}")
    return np.asarray(table[1:] / table[:-1])


def _interval(
    slopes: NDArray[Any], x0: float, description: str, best: list[float] | None = None
) -> Environment:
    losses = LinearLosses(slopes)
    return Environment(
        losses,
        sets.Box([-1.0], [1.0]),
        np.array([x0], slopes.dtype),
        description,
        None if best is None else np.array(best),
    )


def _uniform(seed: int | None, shape: Any) -> NDArray[np.float64]:
    return np.asarray(np.random.default_rng(seed).random(shape))


def _rounds(rounds: int) -> int:
    return _count("rounds", rounds)


def _count(name: str, value: Any) -> int:
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    return number
