"""A little of everything, compiled in a minute: what `.ci/run` tries with the lowest versions."""

import numba
import numpy as np
import pytest
from problems import rosenbrock, rosenbrock_grad

import numbelief
from numbelief import AdaBelief, Adam, Lookahead, Optimizer, online, schedules, sets

X0 = np.array([-1.2, 1.0])


@numba.njit
def compiled(x, grad):
    grad[0] = -400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0])
    grad[1] = 200 * (x[1] - x[0] ** 2)
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


@pytest.mark.parametrize("target", ["serial", "parallel"])
def test_steps(target):
    x = np.ones(40_000, np.float32)
    opt = Optimizer(
        Lookahead(AdaBelief(0.1, weight_decay=0.1), 2),
        x,
        target=target,
        max_norm=1.0,
        bounds=[(-1, 1)] * x.size,
    )
    for _ in range(3):
        opt.step(x.copy())
    assert opt.t == 3
    assert 0 < x.max() < 1


@pytest.mark.parametrize("rate", [None, 0.05])
def test_minimize(rate):
    plain = numbelief.minimize(rosenbrock, X0, jac=rosenbrock_grad, method=AdaBelief(rate))
    whole = numbelief.minimize(compiled, X0, jac="inplace", method=AdaBelief(rate))
    assert plain.success and whole.success
    np.testing.assert_allclose(plain.x, 1, atol=1e-3)
    np.testing.assert_allclose(whole.x, 1, atol=1e-3)
    assert plain.nfev == whole.nfev


def test_minimize_many():
    X = np.random.default_rng(0).normal(size=(20, 2))
    result = numbelief.minimize_many(compiled, X, jac="inplace")
    np.testing.assert_allclose(result.x, 1, atol=1e-3)


def test_minimize_stochastic():
    A = np.random.default_rng(0).normal(size=(200, 3))

    def loss(x, A):
        residual = A @ (x - 1)
        return residual @ residual / len(A), 2 * A.T @ residual / len(A)

    result = numbelief.minimize_stochastic(
        loss, np.zeros(3), A, batch_size=16, epochs=30, jac=True, seed=0, method=Adam(0.1)
    )
    np.testing.assert_allclose(result.x, 1, atol=1e-2)


@pytest.mark.parametrize("kind", [sets.Ball, sets.L1Ball, sets.Simplex])
def test_projections(kind):
    assert kind().contains(kind().project([3.0, -1.0, 2.0], [1.0, 2.0, 3.0]), 1e-12)


def test_game():
    losses = online.LinearLosses(np.random.default_rng(0).normal(size=(100, 2)))
    result = online.play(AdaBelief(schedules.inverse_sqrt(0.1)), losses, sets.Box([-1, -1], [1, 1]))
    assert result.bound("certificate").holds
