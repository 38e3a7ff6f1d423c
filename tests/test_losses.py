"""Losses against a slow oracle, finite differences and bad input."""

import numba
import numpy as np
import pytest

from numbelief._compile.jit import jit
from numbelief._objective.compiled import Form, Objective, PerRow
from numbelief.online import (
    AbsoluteLosses,
    CallbackLosses,
    HingeLosses,
    LinearLosses,
    LogisticLosses,
    Losses,
    PortfolioLosses,
    SquaredLosses,
)
from numbelief.online.game import evaluate

T, N = 40, 3
RANDOM = np.random.default_rng(5)
TABLE, TARGETS = RANDOM.normal(size=(T, N)), RANDOM.normal(size=T)
LABELS = np.where(RANDOM.random(T) < 0.5, -1.0, 1.0)
RELATIVES = np.exp(0.1 * RANDOM.normal(size=(T, N)))
X = np.array([0.25, 0.5, 0.125])  # without rounding in float32, too
evaluate_compiled = jit(evaluate, cache=False)


class Pinball(Losses):
    def __init__(self, targets):
        super().__init__(targets=targets)

    @staticmethod
    def loss(z, y):
        slope = 0.1 if z > y else -0.9
        return slope * (z - y), slope, 0.0


def tilted(z, y):
    slope = 0.1 if z > y else -0.9
    return slope * (z - y), slope, 0.0


class Older(Pinball):
    """What `loss` was called works on."""

    @staticmethod
    def link(z, y):
        return tilted(z, y)


class Newer(Older):
    loss = staticmethod(numba.njit(tilted))


def margins(link):
    """The naive oracle of a loss of the margin: value and gradient of round t."""

    def oracle(table, y, t, x):
        value, slope = link(float(table[t] @ x), None if y is None else float(y[t]))
        return value, slope * table[t]

    return oracle


def coordinates(link):
    def oracle(table, y, t, x):
        pairs = [link(*each) for each in zip(x, table[t], strict=True)]
        return sum(v for v, _ in pairs), np.array([s for _, s in pairs])

    return oracle


def squared(z, y):
    return (z - y) ** 2 / 2, z - y


def absolute(z, y):
    return abs(z - y), np.sign(z - y)


def pinball(z, y):
    return (0.1 * (z - y), 0.1) if z > y else (0.9 * (y - z), -0.9)


def hinge(z, y):
    return max(0.0, 1 - y * z), (-y if 1 - y * z > 0 else 0.0)


def logistic(z, y):
    return np.log(1 + np.exp(-y * z)), -y / (1 + np.exp(y * z))


CASES = {
    "linear": (LinearLosses, (TABLE,), margins(lambda z, _: (z, 1.0))),
    "squared": (SquaredLosses, (TABLE,), coordinates(squared)),
    "least squares": (lambda a, b: SquaredLosses(b, a), (TABLE, TARGETS), margins(squared)),
    "absolute": (AbsoluteLosses, (TABLE,), coordinates(absolute)),
    "absolute error": (lambda a, b: AbsoluteLosses(b, a), (TABLE, TARGETS), margins(absolute)),
    "hinge": (HingeLosses, (TABLE, LABELS), margins(hinge)),
    "logistic": (LogisticLosses, (TABLE, LABELS), margins(logistic)),
    "portfolio": (PortfolioLosses, (RELATIVES,), margins(lambda z, _: (-np.log(z), -1 / z))),
    "own": (Pinball, (TABLE,), coordinates(pinball)),
    "own link": (Older, (TABLE,), coordinates(pinball)),
    "own loss after a link": (Newer, (TABLE,), coordinates(pinball)),
}
DTYPES = [np.float32, np.float64]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def made(case, dtype):
    make, data, oracle = case
    data = tuple(each.astype(dtype) for each in data)
    table, y = (*data, None)[:2]
    return make(*data), lambda t, x: oracle(table.astype(float), y, t, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_round_is_the_oracles(case, dtype):
    losses, oracle = made(case, dtype)
    assert (losses.rounds, losses.n, losses.dtype) == (T, N, dtype)
    for t in range(T):
        value, gradient = losses(t + 1, X)
        expected = oracle(t, X)
        np.testing.assert_allclose(value, expected[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_compiled_loop_plays_every_round(case, dtype):
    losses, oracle = made(case, dtype)
    rows = tuple(PerRow(each) for each in losses.data)
    objective, alive = Objective(losses.fun, None, Form.INPLACE, rows, losses.dtype).call(N)
    for t in (0, 1, T - 1):
        gradient = np.empty(N, dtype)
        value = evaluate_compiled(t, X.astype(dtype), gradient, objective)
        expected = oracle(t, X)
        np.testing.assert_allclose(value, expected[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(gradient, expected[1].astype(dtype), rtol=1e-6)
    del alive


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("upto", [1, 7, None])
def test_the_total_adds_the_rounds(case, dtype, upto):
    losses, oracle = made(case, dtype)
    rounds = [oracle(t, X) for t in range(upto or T)]
    value, gradient = losses.total(X, upto)
    np.testing.assert_allclose(value, sum(v for v, _ in rounds), rtol=1e-12)
    np.testing.assert_allclose(gradient, sum(g for _, g in rounds), rtol=1e-11, atol=1e-13)
    part = losses[: upto or T].total(X)
    assert part[0] == value
    np.testing.assert_array_equal(part[1], gradient)


def test_finite_differences_of_the_total(case):
    losses, _ = made(case, np.float64)
    _, gradient = losses.total(X)
    h = 1e-6
    for i, e in enumerate(np.eye(N)):
        slope = (losses.total(X + h * e)[0] - losses.total(X - h * e)[0]) / (2 * h)
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-6, atol=1e-7)


def test_the_model_of_smooth_losses(case):
    losses, _ = made(case, np.float64)
    if not losses.smooth:
        pytest.skip("it has corners")
    model = losses.model(X)
    value, gradient = losses.total(X)
    np.testing.assert_allclose([model.value, model.tangent, model.merit], value, rtol=1e-12)
    np.testing.assert_allclose(model.gradient, gradient, rtol=1e-11)
    h = 1e-6
    for i, e in enumerate(np.eye(N)):
        column = (losses.total(X + h * e)[1] - losses.total(X - h * e)[1]) / (2 * h)
        np.testing.assert_allclose(model.hessian[i], column, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["absolute", "absolute error", "hinge"])
@pytest.mark.parametrize("width", [1.0, 1e-1, 1e-3])
def test_the_model_of_losses_with_corners_is_below_them(name, width):
    losses, _ = made(CASES[name], np.float64)
    model = losses.model(X, width=width)
    assert model.value == pytest.approx(losses.total(X)[0], rel=1e-12)
    assert model.value - 3 * N * T * width <= model.tangent <= model.value
    for y in RANDOM.normal(size=(50, N)):
        below = model.tangent + model.gradient @ (y - X)
        assert below <= losses.total(y)[0] * (1 + 1e-12)
    h = width * 1e-4
    for i, e in enumerate(np.eye(N)):
        up, down = losses.model(X + h * e, width=width), losses.model(X - h * e, width=width)
        scale = np.abs(model.hessian).max()
        assert (up.merit - down.merit) / (2 * h) == pytest.approx(model.gradient[i], abs=1e-4)
        column = (up.gradient - down.gradient) / (2 * h)
        np.testing.assert_allclose(model.hessian[i], column, atol=1e-3 * scale)


def test_the_losses_along_a_sequence(case):
    losses, oracle = made(case, np.float64)
    points = RANDOM.uniform(0.1, 1, size=(T, N))
    expected = [oracle(t, x)[0] for t, x in enumerate(points)]
    np.testing.assert_allclose(losses.along(points), expected, rtol=1e-12, atol=1e-14)


def test_subgradients_at_corners():
    assert AbsoluteLosses([1.0])(1, [1.0]) == (0.0, np.zeros(1))
    assert HingeLosses([[1.0]], [1])(1, [1.0]) == (0.0, np.zeros(1))


def test_logistic_losses_do_not_overflow():
    losses = LogisticLosses([[1.0], [1.0]], [1, -1])
    for x in (-1e5, -800.0, 800.0, 1e5):
        value, gradient = losses.total([x])
        assert value == abs(x)
        assert gradient == [np.sign(x)]


def test_a_ruined_portfolio_loses_everything():
    assert PortfolioLosses([[0.0, 1.0]])(1, [1.0, 0.0])[0] == np.inf


def test_many_rounds_are_added_accurately():
    losses = AbsoluteLosses(np.full(3_000_000, 0.1))
    assert losses.total([0.0])[0] == pytest.approx(300_000, rel=1e-13)


def test_data_are_viewed_and_cannot_be_written():
    table = TABLE.copy()
    losses = LinearLosses(table)
    assert np.shares_memory(losses.data[0], table)
    assert table.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        losses.data[0][0, 0] = 1
    assert LinearLosses([1, 2, 3]).data[0].dtype == np.float64
    assert np.shares_memory(losses[5:9].data[0], table)


def test_labels_of_zero_and_one():
    ours, mapped = HingeLosses(TABLE, LABELS), HingeLosses(TABLE, LABELS > 0)
    np.testing.assert_array_equal(ours.data[1], mapped.data[1])
    np.testing.assert_array_equal(HingeLosses(TABLE, (LABELS + 1) / 2).data[1], LABELS)


def nan_in(row):
    table = TABLE.copy()
    table[row, 1] = np.nan
    return table


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LinearLosses("abc"), TypeError, "gradients must hold"),
        (lambda: LinearLosses(np.ones((2, 2), complex)), TypeError, "got dtype complex128"),
        (lambda: LinearLosses(np.ones((2, 2, 2))), ValueError, r"shape \(T, n\).*got \(2, 2, 2\)"),
        (lambda: LinearLosses(np.ones((0, 2))), ValueError, "not be empty"),
        (lambda: LinearLosses(nan_in(6)), ValueError, "gradients must be finite.*in round 7"),
        (lambda: SquaredLosses([1.0, np.inf]), ValueError, "targets must be finite.*in round 2"),
        (lambda: HingeLosses(TABLE, LABELS[1:]), ValueError, "one row for each round, got 40 and"),
        (lambda: HingeLosses(TABLE, TABLE), ValueError, r"labels must have shape \(T,\)"),
        (lambda: HingeLosses(TABLE[:2], [1, 2]), ValueError, "labels must be.*got 2 in round 2"),
        (lambda: HingeLosses(TABLE[:2], [0, -1]), ValueError, "labels must be.*got 0 in round 1"),
        (lambda: PortfolioLosses([[1, 1], [0, 0]]), ValueError, "not all 0.*in round 2"),
        (lambda: PortfolioLosses([[1, -1]]), ValueError, "at least 0.*in round 1"),
        (lambda: Losses(), TypeError, "needs features or targets"),
        (lambda: LinearLosses(TABLE).total([1.0]), ValueError, r"x must have shape \(3,\), got"),
        (lambda: LinearLosses(TABLE).total(X, 41), ValueError, "at most the number of rounds, 40"),
        (lambda: LinearLosses(TABLE).total(X, 0), ValueError, "upto must be at least 1"),
        (lambda: LinearLosses(TABLE)(0, X), ValueError, "round from 1 to 40, got 0"),
        (lambda: LinearLosses(TABLE)[3:3], ValueError, "consecutive and at least one"),
        (lambda: LinearLosses(TABLE).along(TABLE[1:]), ValueError, r"points must have shape"),
        (lambda: CallbackLosses(3, 1), TypeError, "function must be callable"),
        (lambda: CallbackLosses(abs, 0), ValueError, "n must be at least 1"),
        (lambda: CallbackLosses(abs, 1, 1.5), ValueError, "rounds must be an integer"),
    ],
)
def test_bad_data(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- callbacks


def drift(t, x):
    return 0.5 * ((x - t) ** 2).sum(), x - t


@pytest.mark.parametrize("function", [drift, numba.njit(drift)], ids=["Python", "compiled"])
def test_a_callback_is_a_loss(function):
    losses = CallbackLosses(function, n=2, rounds=5, oblivious=True)
    table = SquaredLosses(np.arange(1.0, 6)[:, None] * np.ones(2))
    x = np.array([0.5, 2.0])
    for upto in (1, 5):
        np.testing.assert_allclose(losses.total(x, upto)[0], table.total(x, upto)[0], rtol=1e-14)
        np.testing.assert_allclose(losses.total(x, upto)[1], table.total(x, upto)[1])
    points = np.ones((5, 2))
    np.testing.assert_allclose(losses.along(points), table.along(points))
    part = losses[1:4]
    np.testing.assert_allclose(part.along(points[:3]), table.along(points)[1:4])
    assert part.total(x)[0] == pytest.approx(table[1:4].total(x)[0])
    assert part[1:].data[0].tolist() == [3, 4]
    assert CallbackLosses(function, n=2)[:3].rounds == 3
    if losses.compiled:
        gradient = np.empty(2)
        assert losses.fun(x, gradient, losses.data[0][2]) == table(3, x)[0]
        np.testing.assert_array_equal(gradient, table(3, x)[1])
    else:
        assert losses.fun is None


def test_a_callback_gets_a_copy():
    def spoil(t, x):
        x[:] = 7
        return 0.0, np.zeros(1)

    x = np.ones(1)
    CallbackLosses(spoil, 1)(1, x)
    assert x == 1


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (1.0, TypeError, r"return \(loss, gradient\), got 1.0 in round 3"),
        ((1.0, "a"), TypeError, "in round 3"),
        ((1.0, np.ones(3)), ValueError, r"shape \(2,\), got \(3,\) in round 3"),
        ((np.nan, np.ones(2)), ValueError, "finite numbers, got nan.*in round 3"),
        ((1.0, np.array([1, np.inf])), ValueError, "finite numbers.*in round 3"),
    ],
)
def test_what_a_callback_must_return(returned, error, message):
    with pytest.raises(error, match=message):
        CallbackLosses(lambda t, x: returned, 2)(3, np.ones(2))


def test_an_adversary_has_no_sum():
    losses = CallbackLosses(drift, 2, rounds=5)
    with pytest.raises(ValueError, match="oblivious=True"):
        losses.total(np.ones(2))
    with pytest.raises(ValueError, match="oblivious=True"):
        losses.along(np.ones((5, 2)))
    with pytest.raises(ValueError, match="upto must be given"):
        CallbackLosses(drift, 2, oblivious=True).total(np.ones(2))
    with pytest.raises(ValueError, match="rounds must end"):
        CallbackLosses(drift, 2)[3:]
