"""The published games: their losses, their seeds, and what is known of them."""

import numpy as np
import pytest

from numbelief.online import best_fixed, environments
from numbelief.sets import Box, Simplex

MAKERS = {
    "reddi_online": lambda **given: environments.reddi_online(rounds=1000, **given),
    "reddi_stochastic": lambda **given: environments.reddi_stochastic(rounds=1000, **given),
    "reddi_theorem1": lambda **given: environments.reddi_theorem1(rounds=1000, **given),
    "random_signs": lambda **given: environments.random_signs(rounds=1000, **given),
    "experts": lambda **given: environments.experts(rounds=1000, **given),
    "drifting_centers": lambda **given: environments.drifting_centers(rounds=1000, **given),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MAKERS)
def test_a_game_can_be_played(name, dtype):
    game = MAKERS[name](dtype=dtype)
    assert game.losses.rounds == 1000
    assert game.losses.dtype == game.x0.dtype == dtype
    assert game.x0.shape == (game.losses.n,)
    assert game.feasible_set.contains(game.x0)
    assert game.description
    best = best_fixed(game.losses, game.feasible_set)
    assert best.exact
    if game.best is not None:
        np.testing.assert_array_equal(best.x, game.best)


def test_every_environment_is_in_the_table():
    assert {*MAKERS} == {*environments.__all__} - {"Environment", "portfolio"}


@pytest.mark.parametrize("name", ["reddi_stochastic", "random_signs", "experts"])
def test_a_seed_makes_the_game(name):
    def table(seed):
        return MAKERS[name](seed=seed).losses.data[0]

    np.testing.assert_array_equal(table(1), table(1))
    assert (table(1) != table(2)).any()


def slopes(game):
    return game.losses.data[0][:, 0]


def test_reddi_online():
    rounds = np.arange(1, 1001)
    expected = np.where(rounds % 101 == 1, 1010.0, -10.0)
    np.testing.assert_array_equal(slopes(MAKERS["reddi_online"]()), expected)
    for upto in (1, 50, 101, 102, 1000):
        game = environments.reddi_online(rounds=upto)
        assert best_fixed(game.losses, game.feasible_set).x == -1


def test_three_million_rounds_take_eight_bytes_each():
    losses = environments.reddi_online().losses
    assert losses.rounds == 3_000_000
    assert sum(each.nbytes for each in losses.data) == 24_000_000
    base = losses.data[0]
    while base.base is not None:
        base = base.base
    assert base.nbytes == 24_000_000


def test_reddi_stochastic():
    values, counts = np.unique(
        slopes(environments.reddi_stochastic(rounds=100_000)), return_counts=True
    )
    np.testing.assert_array_equal(values, [-10, 1010])
    assert abs(counts[1] - 1000) < 150  # 5 standard deviations


@pytest.mark.parametrize("C", [2.5, 3.0, 10.0])
def test_reddi_theorem1(C):
    expected = np.where(np.arange(1, 8) % 3 == 1, C, -1.0)
    game = environments.reddi_theorem1(rounds=7, C=C)
    np.testing.assert_array_equal(slopes(game), expected)
    assert game.x0 == 1


def test_staying_at_one_has_the_regret_of_theorem1():
    game = environments.reddi_theorem1(rounds=3000)
    best = best_fixed(game.losses, game.feasible_set)
    assert (game.losses.total([1.0])[0] - best.value) / 3000 == pytest.approx((2 * 3 - 4) / 3)


def test_the_best_point_against_random_signs():
    values = [
        best_fixed(game.losses, game.feasible_set).value
        for game in (environments.random_signs(seed=seed) for seed in range(60))
    ]
    assert -np.mean(values) == pytest.approx(5 * np.sqrt(2 * 10_000 / np.pi), rel=0.1)


def test_hedge_keeps_its_bound():
    game = environments.experts()
    T, K = game.losses.data[0].shape
    sums = np.cumsum(game.losses.data[0], axis=0) - game.losses.data[0]
    weights = np.exp(-np.sqrt(8 * np.log(K) / T) * (sums - sums.min(axis=1, keepdims=True)))
    weights /= weights.sum(axis=1, keepdims=True)
    regret = game.losses.along(weights).sum() - best_fixed(game.losses, game.feasible_set).value
    assert 0 < regret < np.sqrt(T * np.log(K) / 2)


def test_a_small_static_regret_is_no_small_dynamic_one():
    static, dynamic = [], []
    for rounds in (5_000, 20_000):
        game = environments.drifting_centers(rounds)
        centers = game.losses.data[0]
        means = np.cumsum(centers, axis=0) / np.arange(1, rounds + 1)[:, None]
        played = game.losses.along(np.concatenate([game.x0[None], means[:-1]]))
        static.append(played.sum() - best_fixed(game.losses, game.feasible_set).value)
        dynamic.append(played.sum() - game.losses.along(centers).sum())
    assert all(0 < regret < 4 for regret in static)
    assert dynamic[1] / dynamic[0] == pytest.approx(4, rel=0.02)


def test_noise_and_phases_of_the_centers():
    game = environments.drifting_centers(8, n=2, period=8, noise=0.0)
    np.testing.assert_allclose(game.losses.data[0][0], np.sin(2 * np.pi * np.array([1, 2]) / 8))
    noisy = environments.drifting_centers(1000, n=2, noise=0.5, seed=3).losses.data[0]
    calm = environments.drifting_centers(1000, n=2).losses.data[0]
    assert (noisy - calm).std() == pytest.approx(0.5, rel=0.1)


def test_portfolio():
    prices = np.array([[1.0, 4.0], [2.0, 2.0], [1.0, 4.0]])
    game = environments.portfolio(prices=prices)
    np.testing.assert_array_equal(game.losses.data[0], prices[1:] / prices[:-1])
    np.testing.assert_array_equal(game.x0, [0.5, 0.5])
    same = environments.portfolio(prices[1:] / prices[:-1])
    np.testing.assert_array_equal(same.losses.data[0], game.losses.data[0])
    # Cover's example: two assets that go nowhere, and rebalancing between them makes 9/8 a pair.
    best = best_fixed(game.losses, game.feasible_set)
    assert np.exp(-best.value) == pytest.approx(1.25**2)
    assert isinstance(game.feasible_set, Simplex)
    assert isinstance(environments.reddi_online(5).feasible_set, Box)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: environments.reddi_online(0), ValueError, "rounds must be at least 1"),
        (lambda: environments.reddi_online("9"), TypeError, "rounds must be an integer"),
        (lambda: environments.reddi_theorem1(C=2), ValueError, "C must be a finite number above 2"),
        (lambda: environments.random_signs(n=0), ValueError, "n must be at least 1"),
        (lambda: environments.experts(K=0), ValueError, "K must be at least 1"),
        (lambda: environments.drifting_centers(period=0), ValueError, "period must be above 0"),
        (lambda: environments.drifting_centers(noise=-1), ValueError, "noise must be a number of"),
        (lambda: environments.portfolio(), TypeError, "either relatives or prices"),
        (lambda: environments.portfolio([[1]], prices=[[1]]), TypeError, "either relatives or"),
        (lambda: environments.portfolio(prices=[[1.0]]), ValueError, r"shape \(T \+ 1, n\)"),
        (lambda: environments.portfolio(prices=[[1], [0]]), ValueError, "above 0, got.*in row 1"),
        (lambda: environments.portfolio(prices=[["a"], ["b"]]), TypeError, "real numbers"),
        (lambda: environments.portfolio([[1.0], [-1]]), ValueError, "relatives.*in round 2"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
