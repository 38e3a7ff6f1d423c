"""Pictures of regret: what is drawn, and what is said where matplotlib is missing."""

import subprocess
import sys

import numpy as np
import pytest

from numbelief import AdaBelief, online, plotting, schedules, sets
from numbelief.online import environments

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def result():
    return online.play("ogd", environments.random_signs(300, n=2, seed=1))


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def bands(axes):
    """The corners of each band."""
    return [band.get_paths()[0].vertices for band in axes.collections]


def test_two_panels_on_logarithmic_axes(result):
    left, right = result.plot()
    assert left.figure is right.figure
    assert list(lines(left)) == list(lines(right)) == ["regret", "certificate", "trivial bound"]
    curve, bound = result.regret, result.bound("certificate")
    root = np.sqrt(curve.t)
    for axes, scale in ((left, 1.0), (right, root)):
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert axes.get_xlabel() and axes.get_ylabel()
        drawn = lines(axes)
        shown = drawn["regret"].get_ydata()
        positive = curve.upper > 0
        np.testing.assert_allclose(shown[positive], (curve.upper / scale)[positive])
        assert np.isnan(shown[~positive]).all()
        np.testing.assert_allclose(drawn["certificate"].get_ydata(), bound.value / scale)
        np.testing.assert_allclose(drawn["trivial bound"].get_ydata(), bound.trivial / scale)
        low, high = axes.get_ylim()
        assert low < np.nanmin(shown) and high > (bound.value / scale).max()
    (legend,) = left.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(lines(left))


def test_draws_where_it_is_told(result):
    _, (one, two) = plt.subplots(1, 2)
    assert result.plot(one, bounds=()) == (one,)
    assert not two.lines and list(lines(one)) == ["regret"]
    assert one.get_legend() is not None and one.get_title() == "OGD"
    assert result.plot((one, two)) == (one, two)
    assert two.lines
    with pytest.raises(ValueError, match="one or two axes, got 3"):
        result.plot((one, two, two))


def test_the_band_is_the_interval():
    random = np.random.default_rng(0)
    losses = online.LogisticLosses(random.normal(size=(64, 2)), random.choice([-1, 1], 64))
    result = online.play("ogd", losses, sets.Box(-1, 1))
    axes, _ = result.plot(bounds=())
    (corners,) = bands(axes)
    assert set(result.regret.lower) | set(result.regret.upper) == set(corners[:, 1])


def test_no_band_against_an_adversary():
    losses = online.CallbackLosses(lambda t, x: (abs(x[0]), np.sign(x)), n=1)
    result = online.play("ogd", losses, sets.Box(-1, 1), x0=[1.0], rounds=20)
    axes, _ = result.plot(bounds=())
    assert not bands(axes)
    np.testing.assert_allclose(lines(axes)["regret"].get_ydata(), result.regret.linearized)


def test_a_violated_assumption_shows():
    rule = AdaBelief(schedules.inverse_sqrt(0.1))
    result = online.play(rule, environments.random_signs(300, n=2, seed=1))
    bounds = ("certificate", "adabelief-2.1", result.bound("adabelief-2.1", "printed"))
    drawn = lines(result.plot(bounds=bounds)[0])
    violated = "adabelief-2.1 (assumption violated)"
    assert list(drawn)[1:3] == ["certificate", violated]
    assert list(drawn)[3].startswith("adabelief-2.1, as printed")
    assert drawn["certificate"].get_linestyle() == "--"
    assert drawn[violated].get_linestyle() == ":"
    named = lines(result.plot(bounds={"mine": "certificate"})[0])
    assert list(named) == ["regret", "mine", "trivial bound"]
    assert list(lines(result.plot(bounds="certificate")[0])) == [
        "regret",
        "certificate",
        "trivial bound",
    ]


def test_hedge_has_its_own_theorem():
    result = online.play("hedge", environments.experts(100, K=3))
    assert "hedge" in lines(result.plot()[0])


def test_an_unbounded_set_has_no_certificate():
    losses = online.SquaredLosses(np.ones((20, 2)))
    method = online.OGD(learning_rate=0.5)
    result = online.play(method, losses, sets.HalfSpace([1.0, 0.0], 0.5))
    axes, _ = result.plot()
    assert list(lines(axes)) == ["regret"]
    assert "no certificate: a bound needs" in axes.figure.get_suptitle()
    linear = online.play(method, online.LinearLosses(np.ones((20, 2))), result.feasible_set)
    for drawn in (linear.plot(), online.compare([linear]).plot()):
        assert "no best fixed point" in drawn[0].figure.get_suptitle()
        drawn[0].figure.canvas.draw()


def test_regret_below_0_is_not_drawn():
    # A player who follows slow centres beats every fixed point.
    game = environments.drifting_centers(200, period=200)
    result = online.play(online.OGD(learning_rate=1.0), game)
    assert result.regret.upper[-1] < 0
    axes, _ = result.plot(bounds=())
    assert np.isnan(lines(axes)["regret"].get_ydata()[-1])


def test_nothing_positive_is_drawn_linearly():
    losses = online.LinearLosses(np.zeros((8, 1)))
    axes, _ = online.play("ogd", losses, sets.Box(-1, 1)).plot(bounds=())
    assert axes.get_yscale() == "linear"
    axes.figure.canvas.draw()


def test_compare_draws_each_result(result):
    other = online.play(online.OGD(G=2.0), environments.random_signs(300, n=2, seed=1))
    left, right = online.compare({"a": result, "b": other}).plot()
    for axes in (left, right):
        drawn = lines(axes)
        assert list(drawn) == ["a", "b"] and len(bands(axes)) == 2
        assert drawn["a"].get_color() != drawn["b"].get_color()


def test_ensemble_draws_means_and_bands():
    def signs(seed):
        return environments.random_signs(300, n=2, seed=seed)

    many = online.play_many({"a": online.OGD(), "b": online.OGD(G=2.0)}, signs, seeds=5)
    axes, _ = many.plot()
    np.testing.assert_allclose(lines(axes)["b"].get_ydata(), many["b"].mean)
    corners = bands(axes)[1][:, 1]
    assert set(many["b"].band.upper) | set(many["b"].band.lower) == set(corners)
    assert "5 seeds" in axes.figure.get_suptitle()


def test_more_results_than_colours(result):
    several = online.compare({str(i): result for i in range(len(plotting.COLORS) + 1)})
    assert len(lines(several.plot()[0])) == len(plotting.COLORS) + 1


def test_a_missing_matplotlib_is_one_clear_error(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install numbelief\[plot\]"):
        result.plot()


def test_matplotlib_is_imported_when_something_is_drawn():
    code = (
        "import sys, numbelief.online, numbelief.plotting; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
