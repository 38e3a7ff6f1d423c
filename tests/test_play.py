"""play: the rounds of a game against a slow loop, known outcomes, and what ends a game."""

import functools
import pickle

import numba
import numpy as np
import pytest

from numbelief import SGD, AdaBelief, Adam, AMSGrad, Lookahead, Optimizer, online, schedules, sets
from numbelief.online import environments, regret

RANDOM = np.random.default_rng(0)
FEATURES, LABELS = RANDOM.normal(size=(60, 3)), RANDOM.choice([-1.0, 1.0], 60)
RELATIVES = RANDOM.uniform(0.8, 1.2, (60, 3))
GAMES = {
    "linear in a box": (online.LinearLosses(FEATURES), sets.Box(-1, 1)),
    "squared in a ball": (online.SquaredLosses(FEATURES), sets.Ball(0.5)),
    "hinge in a ball": (online.HingeLosses(FEATURES, LABELS), sets.Ball(2.0)),
    "logistic in an l1 ball": (online.LogisticLosses(FEATURES, LABELS), sets.L1Ball(2.0)),
    "portfolio on the simplex": (online.PortfolioLosses(RELATIVES), sets.Simplex()),
    "absolute in the space": (online.AbsoluteLosses(FEATURES), None),
}
EACH = pytest.mark.parametrize(("losses", "place"), GAMES.values(), ids=GAMES)


def slowly(rule, losses, place, x0):
    """The same game with an Optimizer, round by round."""
    x, path, lost = x0.copy(), [], []
    opt = Optimizer(rule, x, feasible_set=place)
    for t in range(1, losses.rounds + 1):
        loss, grad = losses(t, x)
        path.append(x.copy())
        lost.append(loss)
        opt.step(grad)
    return np.array(path), np.array(lost), x


@EACH
@pytest.mark.parametrize("method", ["amsgrad", AMSGrad(schedules.inverse_sqrt(0.3))], ids=str)
def test_against_an_optimizer(losses, place, method):
    result = online.play(method, losses, place)
    path, lost, x = slowly(result.method, losses, place, result.x0)
    np.testing.assert_array_equal(result.path, path)
    np.testing.assert_array_equal(result.loss, lost)
    np.testing.assert_array_equal(result.x, x)
    if method == "amsgrad":
        assert result.method.learning_rate == schedules.inverse_sqrt(AMSGrad.default_rate)


@EACH
def test_the_same_game_from_python(losses, place):
    """Callbacks are played by Python, or compiled, to the same bits."""
    callback = online.CallbackLosses(losses, losses.n, losses.rounds, oblivious=True)
    result = online.play("amsgrad", callback, place)
    compiled = online.play("amsgrad", losses, place)
    np.testing.assert_array_equal(result.loss, compiled.loss)
    for mine, other in zip(result._match.review(), compiled._match.review(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_compiled_adversary():
    @numba.njit
    def wrong(t, x):
        sign = np.where(x >= 0, 1.0, -1.0)
        return (sign * x).sum(), sign

    fast = online.play("ogd", online.CallbackLosses(wrong, 2), sets.Box(-1, 1), rounds=200)
    slow = online.CallbackLosses(wrong.py_func, 2)
    slow = online.play("ogd", slow, sets.Box(-1, 1), rounds=200)
    np.testing.assert_array_equal(fast.loss, slow.loss)
    assert fast.loss.sum() >= 0  # it never loses, and the best point in hindsight does
    assert (fast.regret.lower == -np.inf).all()
    assert 0 < fast.regret.final.upper < 3 * np.sqrt(2) * np.sqrt(8) * np.sqrt(200)


@EACH
def test_an_audit_plays_the_same_game(losses, place):
    result = online.play(AMSGrad(), losses, place, beta1_decay=0.9)
    review = result._match.review()
    sums, (figures,) = review.sums, review.figures
    np.testing.assert_array_equal(sums["point"], result.x)
    np.testing.assert_array_equal(review.before, result.path[-1])
    gradients = np.array([losses(t + 1, x)[1] for t, x in enumerate(result.path)])
    np.testing.assert_allclose(sums["g2"], (gradients**2).sum(axis=0), rtol=1e-12)
    roots = np.sqrt(np.arange(1, 61))
    fading = (np.abs(gradients) / roots[:, None]).sum(axis=0)
    np.testing.assert_allclose(sums["g1_by_root"], fading, rtol=1e-12)
    assert figures["longest"] == pytest.approx(np.linalg.norm(gradients, axis=1).max())
    assert figures["beta1"] == pytest.approx(0.9 * 0.9**60)


def test_beta1_decays():
    losses = online.SquaredLosses(FEATURES)
    result = online.play(Adam(0.1), losses, sets.Box(-9, 9), beta1_decay=0.5)
    x, m, v, bias = np.zeros(3), 0.0, 0.0, 0.0
    for t in range(1, 61):
        np.testing.assert_allclose(result.path[t - 1], x, rtol=1e-9, atol=1e-12)
        beta = 0.9 * 0.5 ** (t - 1)
        grad = losses(t, x)[1]
        m, v = beta * m + (1 - beta) * grad, 0.999 * v + 0.001 * grad**2
        bias = beta * bias + 1 - beta
        x = x - 0.1 * (m / bias) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


# ---- the players of theory


@pytest.mark.parametrize("G", [None, 3.0])
def test_ogd(G):
    losses, place = GAMES["hinge in a ball"]
    result = online.play(online.OGD(G), losses, place)
    x, squares = np.zeros(3), 0.0
    for t in range(1, 61):
        np.testing.assert_allclose(result.path[t - 1], x, rtol=1e-9, atol=1e-14)
        grad = losses(t, x)[1]
        squares += grad @ grad
        rate = 4 / (G * np.sqrt(t)) if G else 4 / np.sqrt(2 * squares) if squares else 0.0
        x = place.project(x - rate * grad)


def test_hedge():
    game = environments.experts(100, 4, seed=3)
    result = online.play("hedge", game)
    rate = np.sqrt(8 * np.log(4) / 100)
    costs = np.cumsum(np.vstack([np.zeros(4), game.losses.data[0]]), axis=0)[:-1]
    weights = np.exp(-rate * costs)
    np.testing.assert_allclose(
        result.path, weights / weights.sum(axis=1, keepdims=True), rtol=1e-10
    )
    doubled = online.play(online.Hedge(schedules.inverse_sqrt(0.5)), game)
    weights = np.exp(-0.5 / np.sqrt(np.arange(1, 101))[:, None] * costs)
    np.testing.assert_allclose(
        doubled.path, weights / weights.sum(axis=1, keepdims=True), rtol=1e-10
    )


# ---- known outcomes


@pytest.mark.parametrize(
    ("rule", "x", "average"),
    [
        (Adam, 1.0, 0.2154),
        (AdaBelief, 1.0, 0.2174),
        (AMSGrad, -0.9985, 0.0203),
    ],
)
def test_reddis_online_example(rule, x, average):
    rate = schedules.inverse_sqrt(0.5)
    options = {"beta2": 0.99, "eps": 1e-8}
    if rule is not AMSGrad:
        options["bias_correction"] = False
    if rule is AdaBelief:
        options["eps_root"] = 1e-8
    result = online.play(rule(rate, **options), environments.reddi_online())
    assert result.x[0] == pytest.approx(x, abs=1e-3)
    assert result.regret.average.upper == pytest.approx(average, abs=2e-3)


# ---- what ends a game


def breaking(how):
    def function(t, x):
        if t == 8:
            if how is None:
                raise RuntimeError("no more")
            return how
        return 0.0, np.zeros(2)

    return function


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        (None, RuntimeError, "no more"),
        ((np.nan, np.zeros(2)), ValueError, "finite numbers, got nan .* in round 8"),
        ((0.0, np.array([0.0, np.inf])), ValueError, "in round 8"),
        ((0.0, np.zeros(3)), ValueError, r"shape \(2,\), got \(3,\) in round 8"),
        (7.0, TypeError, "must return .* in round 8"),
    ],
    ids=["raises", "nan", "inf", "shape", "no pair"],
)
def test_the_rounds_before_an_error_are_kept(how, error, message):
    losses = online.CallbackLosses(breaking(how), 2, 20)
    with pytest.raises(error, match=message) as caught:
        online.play(AMSGrad(), losses, sets.Ball())
    result = caught.value.intermediate_result
    assert result.rounds == len(result.loss) == 7
    assert result.regret.t[-1] == 7


def test_a_compiled_loss_that_is_not_finite():
    @numba.njit
    def function(t, x):
        return (np.nan if t == 8 else 0.0), np.zeros(2)

    with pytest.raises(ValueError, match="round 8 must be finite") as caught:
        online.play(AMSGrad(), online.CallbackLosses(function, 2, 20), sets.Ball())
    assert caught.value.intermediate_result.rounds == 7


@pytest.mark.parametrize("given", [1.0, np.ones(1), np.ones((3, 1))], ids=np.shape)
def test_a_compiled_gradient_of_another_shape(given):
    """Numba would spread it over the coordinates."""

    @numba.njit
    def function(t, x):
        return 0.5 * (x * x).sum(), given

    losses = online.CallbackLosses(function, 3, 20, oblivious=True)
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(.*\) in round 1"):
        online.play("ogd", losses, sets.Ball())
    with pytest.raises(ValueError, match="gradient of the shape of x"):
        losses.total(np.ones(3))


LINEAR = GAMES["linear in a box"][0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("adam", [1.0]), TypeError, "losses must be Losses"),
        (("adam", LINEAR, "box"), TypeError, "feasible_set must be a set"),
        (("adam", LINEAR, sets.Ball(center=[0.0])), ValueError, "must have 3 coordinates"),
        (("adamm", LINEAR), ValueError, "unknown method 'adamm'"),
        (("hedge", LINEAR, sets.Ball()), ValueError, "Hedge plays on a Simplex"),
        (("hedge", LINEAR, sets.Simplex(0.0)), ValueError, "total above 0"),
        ((Lookahead(SGD(0.1)), LINEAR), TypeError, "without Lookahead"),
        ((SGD(np.ones(3)), LINEAR), TypeError, "learning_rate must be a number or a schedule"),
        ((online.OGD(learning_rate=np.ones(3)), LINEAR), TypeError, "learning_rate"),
        (("ogd", environments.reddi_online, {"seed": 4}), TypeError, "parameter named seed"),
        (("ogd", lambda a, b: LINEAR, {"seed": 4}), TypeError, "function of the seed.*'b'"),
        (("ogd", LINEAR), ValueError, "OGD needs a feasible_set with a diameter"),
        (("ogd", LINEAR, sets.HalfSpace([1.0, 1, 1], 0)), ValueError, "unbounded"),
        (("adam", LINEAR, None, {"rounds": 61}), ValueError, "at most the 60"),
        (("adam", LINEAR, None, {"rounds": 0}), ValueError, "rounds must be at least 1"),
        (("adam", LINEAR, None, {"x0": [1.0]}), ValueError, r"x0 must have shape \(3,\)"),
        (("adam", LINEAR, sets.Ball(), {"x0": [1.0, 1, 1]}), ValueError, "lie in the feasible set"),
        (("adam", LINEAR, None, {"x0": [1.0, 1, np.nan]}), ValueError, "x0 must be finite"),
        (("sgd", LINEAR, None, {"beta1_decay": 0.5}), ValueError, "needs a rule with beta1"),
        (("adam", LINEAR, None, {"beta1_decay": 1.5}), ValueError, r"in \(0, 1\]"),
        (("adam", online.CallbackLosses(breaking(0), 2)), ValueError, "rounds must be given"),
    ],
)
def test_bad_arguments(arguments, error, message):
    *positional, keywords = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    with pytest.raises(error, match=message):
        online.play(*positional, **keywords)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, "much"])
def test_bad_bounds_of_ogd(value):
    with pytest.raises((TypeError, ValueError), match="G"):
        online.OGD(G=value)


@pytest.mark.parametrize(
    "make",
    [
        environments.random_signs,
        functools.partial(environments.random_signs, n=5),
        lambda s: environments.random_signs(50, seed=s),
        lambda seed: environments.random_signs(50, seed=seed),
    ],
)
def test_a_seed_is_handed_over_as_the_seed(make):
    expected = environments.random_signs(50, seed=4).losses.data[0]
    result = online.play("ogd", make, seed=4, rounds=50)
    np.testing.assert_array_equal(result.losses.data[0], expected)


# ---- regret


def test_regret_lies_in_its_interval():
    """Against the best point of a fine grid."""
    losses = online.LogisticLosses(FEATURES[:, :1], LABELS)
    result = online.play("amsgrad", losses, sets.Box(-2, 2))
    grid = np.linspace(-2, 2, 4001)[:, None]
    for t, low, high in zip(result.regret.t, result.regret.lower, result.regret.upper, strict=True):
        best = min(losses.total(x, int(t))[0] for x in grid[:: 1 if t < 9 else 8])
        regret = result.loss[:t].sum() - best
        assert low - 1e-9 <= regret + 1e-4
        assert regret <= high + 1e-9
    assert (result.regret.upper <= result.regret.linearized + 1e-9).all()


def test_dynamic_regret():
    drifting = environments.drifting_centers(200)
    result = online.play("ogd", drifting)
    centers = drifting.losses.data[0]
    against = result.regret.dynamic(centers)
    assert against.lower == against.upper == pytest.approx(result.loss.sum())
    one = result.regret.dynamic(segments=[0, 200])
    assert one.lower == pytest.approx(result.regret.final.lower)
    many = result.regret.dynamic(segments=[0, 50, 100, 150, 200])
    assert many.lower > one.lower
    with pytest.raises(ValueError, match="points or segments"):
        result.regret.dynamic()
    for wrong in ([0, 10], [5, 200], [0, 201], [0, 100, 100, 200], [0], [0.0, 200.0]):
        with pytest.raises(ValueError, match="from 0 to T = 200"):
            result.regret.dynamic(segments=wrong)
    short = online.play("ogd", drifting, rounds=30).regret
    assert short.dynamic(segments=[0, 30]).lower == pytest.approx(short.final.lower)
    with pytest.raises(ValueError, match="from 0 to T = 30"):
        short.dynamic(segments=[0, 200])


def halves(t, x):
    return 0.5 * (x[0] - t % 2) ** 2, np.array([x[0] - t % 2])


@pytest.mark.parametrize("function", [halves, numba.njit(halves)], ids=["Python", "compiled"])
def test_dynamic_regret_of_callbacks(function):
    table = online.SquaredLosses(np.arange(1, 51) % 2)
    expected = online.play("ogd", table, sets.Box(-1, 1)).regret
    losses = online.CallbackLosses(function, n=1, oblivious=True)
    found = online.play("ogd", losses, sets.Box(-1, 1), rounds=50).regret
    points, segments = np.full((50, 1), 0.25), [0, 7, 50]
    assert found.dynamic(points) == pytest.approx(expected.dynamic(points))
    low, high = found.dynamic(segments=segments)
    assert low - 1e-9 <= expected.dynamic(segments=segments).lower <= high
    adversary = online.CallbackLosses(function, n=1)
    found = online.play("ogd", adversary, sets.Box(-1, 1), rounds=50).regret
    for against in ({"points": points}, {"segments": segments}):
        with pytest.raises(ValueError, match="oblivious=True"):
            found.dynamic(**against)


def test_the_slope_of_a_root():
    result = online.play("ogd", environments.random_signs(20_000, n=2, seed=0))
    slope = result.regret.slope
    assert slope.lower < slope.value < slope.upper
    assert 0.2 < slope.value < 0.8


def test_players_of_one_game_share_their_comparators(monkeypatch):
    asked = []
    monkeypatch.setattr(regret, "curve", lambda *given: asked.append(given) or online.curve(*given))
    labels, place = LABELS.copy(), sets.Ball()
    losses = online.LogisticLosses(FEATURES, labels)
    one, two, short = (online.play("ogd", losses, place, rounds=T).regret for T in (60, 60, 40))
    assert one.comparators is two.comparators and len(asked) == 2
    alone = online.curve(losses, place, short.t)
    assert [each.value for each in short.comparators] == [each.value for each in alone]
    labels[:] = 1.0  # the losses are views of it
    other = online.play("ogd", losses, place).regret
    assert other.comparators[-1].value != one.comparators[-1].value


def test_without_a_set_the_space_is_played_on():
    squared = online.play("adam", online.SquaredLosses(FEATURES)).regret
    best = squared.comparators[-1]
    np.testing.assert_allclose(best.x, FEATURES.mean(axis=0))
    assert squared.final.lower == squared.final.upper and not squared.unknown


@pytest.mark.parametrize("place", [None, sets.HalfSpace([1.0, 1, 1], 1)], ids=["none", "unbounded"])
def test_what_has_no_best_point_can_be_printed(place):
    result = online.play("adam", LINEAR, place)
    assert result.regret.final == (-np.inf, np.inf)
    assert np.isnan(result.regret.slope.value)
    text = str(result)
    assert text.startswith(f"Adam: 60 rounds, loss {result.loss.sum():.6g}\n")
    assert "no best fixed point: " in text and "without end" in text


def test_an_exception_of_a_callback_names_its_round():
    def fails(t, x):
        if t == 3:
            raise KeyError("mine")
        return 0.0, np.zeros(2)

    with pytest.raises(KeyError, match="mine") as caught:
        online.play("adam", online.CallbackLosses(fails, 2), sets.Ball(1.0), rounds=5)
    assert caught.value.__notes__ == ["in round 3"]
    assert caught.value.intermediate_result.rounds == 2


@pytest.mark.parametrize("x0", [[1j, 0], "ab", ["a", "b"]])
def test_x0_holds_real_numbers(x0):
    with pytest.raises(TypeError, match="x0 must hold real numbers, got dtype"):
        online.play("adam", online.LinearLosses([[1.0, 0.0]] * 3), sets.Ball(1.0), x0=x0)


def test_a_moving_comparator_is_finite():
    result = online.play("adam", online.LinearLosses([[1.0, 0.0]] * 3), sets.Ball(1.0))
    with pytest.raises(ValueError, match="points must be finite, got .* for round 2"):
        result.regret.dynamic([[0.0, 0.0], [np.nan, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("method", ["ogd", "hedge", "amsgrad"])
def test_a_result_can_be_pickled(method):
    result = online.play(method, environments.experts(30, 3))
    again = pickle.loads(pickle.dumps(result))
    theorem = result.default_theorem
    assert again.regret.final == result.regret.final
    assert again.bound(theorem).final == result.bound(theorem).final
