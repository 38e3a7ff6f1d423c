"""Many games with common random numbers, and results side by side."""

import math

import numpy as np
import pytest
from scipy import stats

from numbelief import SGD, online, schedules, sets
from numbelief.online import environments

T = 300


def signs(seed):
    return environments.random_signs(T, n=2, seed=seed)


def slow(rate=0.05):
    return SGD(schedules.inverse_sqrt(rate))


@pytest.fixture(scope="module")
def many():
    return online.play_many({"OGD": online.OGD(), "slow": slow()}, signs, seeds=6)


def test_every_curve_is_that_of_a_single_game(many):
    for name, method in (("OGD", online.OGD()), ("slow", slow())):
        for row, seed in enumerate(many.seeds):
            alone = online.play(method, signs, seed=seed).regret
            np.testing.assert_array_equal(many.t, alone.t)
            np.testing.assert_allclose(many[name].lower[row], alone.lower, atol=1e-12)
            np.testing.assert_allclose(many[name].upper[row], alone.upper, atol=1e-12)


def test_band_is_students(many):
    curves = many["OGD"]
    final = curves.upper[:, -1]
    expected = stats.ttest_1samp(final, 0.0).confidence_interval(0.95)
    assert math.isclose(curves.final.value, final.mean())
    np.testing.assert_allclose(curves.final[1:], expected)
    assert curves.mean.shape == many.t.shape
    assert (curves.band.lower <= curves.mean).all() and (curves.mean <= curves.band.upper).all()


def test_confidence_can_be_chosen(many):
    wide = online.play_many([online.OGD()], signs, seeds=many.seeds, confidence=0.99)["OGD"].final
    assert wide.lower < many["OGD"].final.lower
    assert wide.value == many["OGD"].final.value


def test_band_covers_the_truth_as_often_as_it_says():
    # Whoever plays, the mean regret on random signs is n E|sum of T signs|.
    distances = np.abs(2 * np.arange(101) - 100)
    truth = 2 * (stats.binom.pmf(np.arange(101), 100, 0.5) * distances).sum()
    covered = []
    for first in range(0, 1600, 8):
        seeds = range(first, first + 8)
        game = online.play_many(
            ["ogd"], lambda s: environments.random_signs(100, n=2, seed=s), seeds=seeds
        )
        final = game["OGD"].final
        covered.append(final.lower <= truth <= final.upper)
    assert 0.90 <= np.mean(covered) <= 0.99  # 200 times 95 %: 0.92 to 0.98


def test_differences_are_paired(many):
    more = many["slow"] - many["OGD"]
    assert more.name == "slow - OGD"
    by_seed = many["slow"].upper - many["OGD"].upper
    np.testing.assert_allclose(more.lower, by_seed, atol=1e-9)
    np.testing.assert_array_equal(more.lower, more.upper)
    expected = stats.ttest_rel(many["slow"].upper[:, -1], many["OGD"].upper[:, -1])
    np.testing.assert_allclose(more.final[1:], expected.confidence_interval(0.95), atol=1e-9)


def test_common_random_numbers_narrow_the_band(many):
    similar = online.play_many({"a": slow(0.05), "b": slow(0.06)}, signs, seeds=6)
    width = {each.name: each.final.upper - each.final.lower for each in similar.values()}
    more = (similar["a"] - similar["b"]).final
    assert more.upper - more.lower < min(width.values()) / 5
    with pytest.raises(ValueError, match="different games"):
        similar["a"] - many["OGD"]
    with pytest.raises(TypeError):
        similar["a"] - 1.0


def test_differences_do_not_feel_the_gap_of_the_comparator():
    def hinges(seed):
        random = np.random.default_rng(seed)
        return online.HingeLosses(random.normal(size=(50, 2)), random.choice([-1, 1], 50))

    many = online.play_many({"a": slow(0.05), "b": slow(0.06)}, hinges, sets.Box(-1, 1), seeds=2)
    assert (many["a"].upper >= many["a"].lower).all()
    more = many["a"] - many["b"]
    np.testing.assert_array_equal(more.lower, more.upper)


def test_environments_take_the_seed_and_the_rounds():
    game = online.play_many(["ogd"], environments.random_signs, seeds=(4, 2), rounds=50)["OGD"]
    for row, seed in enumerate((4, 2)):
        alone = online.play("ogd", environments.random_signs(50, seed=seed)).regret
        np.testing.assert_allclose(game.upper[row], alone.upper, atol=1e-12)


def test_each_seed_makes_one_game():
    asked = []

    def counted(seed):
        asked.append(seed)
        return signs(seed)

    online.play_many(["ogd", online.OGD(G=2.0)], counted, seeds=(4, 2))
    assert asked == [4, 2]


def test_table(many):
    lines = str(many).splitlines()
    assert lines[0] == "mean of 6 seeds after 300 rounds, 95 % confidence"
    best = min(many, key=lambda name: many[name].final.value)
    assert lines[1].endswith(f"more than {best}")
    assert [line.split()[0] for line in lines[2:]] == ["OGD", "slow"]
    regret, _, margin = lines[2].split()[1:4]
    final = many["OGD"].final
    assert math.isclose(float(regret), final.value, rel_tol=1e-4)
    assert math.isclose(float(margin), final.upper - final.value, rel_tol=0.1)
    assert sum(line.count("±") for line in lines) == 3
    assert "6 seeds" in repr(many)


def test_names_tell_alike_methods_apart():
    many = online.play_many(["ogd", online.OGD(G=2.0)], signs, seeds=2)
    assert list(many) == ["OGD 1", "OGD 2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": signs(0)}, "function of the seed"),
        ({"seeds": 1}, "at least two"),
        ({"seeds": [3, 3]}, "must differ"),
        ({"seeds": 2.5}, "seeds must be"),
        ({"methods": []}, "at least one method"),
        ({"confidence": 1.0}, "confidence must be in"),
        ({"losses": lambda s: environments.random_signs(5 + s)}, "rounds, others 5"),
        (
            {
                "losses": lambda s: online.CallbackLosses(lambda t, x: (0.0, 0 * x), n=1),
                "feasible_set": sets.Box(-1, 1),
                "rounds": 3,
            },
            "adversary",
        ),
    ],
)
def test_bad_input(change, message):
    arguments = {"methods": ["ogd"], "losses": signs, "seeds": 2} | change
    with pytest.raises((TypeError, ValueError), match=message):
        online.play_many(**arguments)


def test_what_was_played_is_not_lost():
    def third_is_bad(seed):
        if seed < 2:
            return signs(seed)
        return environments.random_signs(T, n=0)

    with pytest.raises(ValueError, match="n must be at least 1") as raised:
        online.play_many(["ogd"], third_is_bad, seeds=4)
    assert raised.value.__notes__ == ["in the game of seed 2"]
    before = raised.value.intermediate_result
    assert before.seeds == (0, 1)
    np.testing.assert_array_equal(
        before["OGD"].upper, online.play_many(["ogd"], signs, seeds=2)["OGD"].upper
    )


# ---- compare -----------------------------------------------------------------------------------


def test_compare_prints_a_table():
    results = {"quick": online.play("ogd", signs(0)), "slow one": online.play(slow(), signs(0))}
    text = str(online.compare(results))
    assert repr(online.compare(results)) == text
    _, *lines = text.splitlines()
    for (name, result), line in zip(results.items(), lines, strict=True):
        assert line.startswith(name)
        rounds, low, high, average, *_ = line[len(name) :].split()
        assert int(rounds) == T
        np.testing.assert_allclose((float(low), float(high)), result.regret.final, rtol=1e-5)
        assert math.isclose(float(average), result.regret.average.upper, rel_tol=1e-3)


def test_compare_takes_results_of_different_lengths():
    results = [online.play("ogd", signs(0)), online.play("ogd", signs(0), rounds=100)]
    compared = online.compare(results)
    assert list(compared.results) == ["OGD 1", "OGD 2"]
    assert " 100 " in str(compared)


def test_compare_takes_results_without_a_best_point():
    linear = online.LinearLosses(np.ones((9, 2)))
    endless = online.play(slow(), linear, sets.HalfSpace([1.0, 1.0], 1.0))
    text = str(online.compare({"known": online.play("ogd", signs(0)), "endless": endless}))
    assert "endless: no best fixed point: " in text and "known: " not in text


@pytest.mark.parametrize("results", [[], {}, ["ogd"], {"a": "ogd"}])
def test_compare_refuses_what_is_no_result(results):
    with pytest.raises((TypeError, ValueError), match="results must"):
        online.compare(results)
