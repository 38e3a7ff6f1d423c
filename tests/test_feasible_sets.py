"""Optimizer, minimize and minimize_many in sets other than boxes."""

import copy
import pickle

import numba
import numpy as np
import pytest
from scipy.optimize import OptimizeWarning

from numbelief import AdaBelief, Adagrad, Adam, Optimizer, minimize, minimize_many, sets

RANDOM = np.random.default_rng(0)
SETS = {
    "ball": sets.Ball(0.5),
    "l1 ball": sets.L1Ball(0.7),
    "simplex": sets.Simplex(),
    "half-space": sets.HalfSpace([1.0, 2.0, -1.0, 0.5], 0.3),
    "affine": sets.Affine([[1.0, 1.0, 1.0, 1.0]], [0.3]),
    "cut box": sets.BoxHyperplane(0.0, 1.0, [1.0, 1.0, 2.0, 1.0], 0.8),
    "product": sets.Product([sets.Simplex(), sets.Box(0, 1)], [2, 2]),
    "intersection": sets.Intersection(sets.Box(0, 1), sets.Ball(0.6)),
}
EACH = pytest.mark.parametrize("place", SETS.values(), ids=SETS)
CENTER = np.array([0.9, 0.3, -0.2, 0.1])
WEIGHTS = np.array([1.0, 1.0, 30.0, 3.0])


@numba.njit
def bowl(x, grad, center, weights):
    value = 0.0
    for i in range(x.size):
        away = x[i] - center[i]
        grad[i] = 2 * weights[i] * away
        value += weights[i] * away * away
    return value


ARGS = (CENTER, WEIGHTS)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=[pytest.mark.thorough] if rare else [])
        for dtype in (np.float64, np.float32)
        for name in SETS
        for rare in [dtype is np.float32 and name not in ("ball", "simplex", "product")]
    ],
)
def test_each_step_is_projected_in_its_own_metric(name, dtype):
    """Against a step without a set, and a projection in the metric of the rates it took."""
    place = SETS[name]
    x = place.project(RANDOM.normal(size=4).astype(dtype))
    opt = Optimizer(Adagrad(0.3), x, feasible_set=place)
    state = np.zeros(4, dtype)
    for _ in range(5):
        grad = RANDOM.normal(size=4).astype(dtype)
        state += grad**2
        rates = 0.3 / np.sqrt(state.astype(float) + 1e-8)
        free = x - rates * grad
        opt.step(grad)
        expected = place.project(free, metric=1 / rates)
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-12 if dtype == np.float64 else 1e-5)
        assert place.contains(x)


@pytest.mark.parametrize(("place", "regret"), [(sets.Simplex(), 0.45), (sets.Ball(), 2.04)])
def test_another_metric_would_never_move(place, regret):
    """theory.md, section 2: a Euclidean projection of Adagrad's steps is wrong."""
    grad = np.array([0.1, 1.0])
    best = grad @ place.linear_minimum(grad)
    x = place.project(np.array([0.5, 0.5]))
    opt = Optimizer(Adagrad(1.0, eps_root=0.0), x, feasible_set=place)
    lost = 0.0
    for _ in range(10_000):
        lost += grad @ x - best
        opt.step(grad)
    assert lost == pytest.approx(regret, rel=0.01)
    wrong = sets.Simplex().project(np.array([0.5, 0.5]))
    squares = np.zeros(2)
    for _ in range(100):
        squares += grad**2
        wrong = sets.Simplex().project(wrong - grad / np.sqrt(squares))
    np.testing.assert_allclose(wrong, 0.5)


@EACH
@pytest.mark.parametrize("method", ["adabelief", AdaBelief(0.02)], ids=["auto", "fixed"])
def test_minimize_finds_the_point_of_the_set(place, method):
    options = {"gtol": 1e-7, "maxiter": 20_000}
    x0 = place.project(np.full(4, 0.25))
    kind = {"jac": "inplace", "method": method, "feasible_set": place, "options": options}
    result = minimize(bowl, x0, ARGS, **kind)
    assert result.success, result
    assert place.contains(result.x)
    np.testing.assert_allclose(result.x, place.project(CENTER, metric=WEIGHTS), atol=1e-6)
    in_python = minimize(bowl, x0, ARGS, **{**kind, "options": {**options, "compiled": False}})
    for name in ("x", "fun", "jac", "nit", "nfev", "status"):
        np.testing.assert_array_equal(result[name], in_python[name])


def test_minimize_many_gives_the_bits_of_minimize():
    place = SETS["intersection"]
    X0 = np.stack([place.project(x) for x in RANDOM.normal(size=(6, 4))])
    many = minimize_many(bowl, X0, ARGS, jac="inplace", feasible_set=place)
    assert many.success.all()
    for row, x0 in enumerate(X0):
        alone = minimize(bowl, x0, ARGS, jac="inplace", feasible_set=place)
        np.testing.assert_array_equal(many.x[row], alone.x)
        assert (many.nit[row], many.nfev[row]) == (alone.nit, alone.nfev)


def test_a_start_outside_is_moved_in():
    with pytest.warns(OptimizeWarning, match="not within the feasible set"):
        result = minimize(bowl, np.ones(4), ARGS, jac="inplace", feasible_set=sets.Ball(0.5))
    assert result.success
    with pytest.warns(OptimizeWarning, match="not within the feasible set"):
        minimize_many(bowl, np.ones((2, 4)), ARGS, jac="inplace", feasible_set=sets.Ball(0.5))


def test_copies_and_files_keep_the_set(tmp_path):
    place, path = sets.Simplex(), tmp_path / "run.npz"
    grads = RANDOM.normal(size=(6, 4))
    x = np.full(4, 0.25)
    opt = Optimizer(Adam(0.1), x, feasible_set=place)
    for grad in grads[:3]:
        opt.step(grad)
    opt.save(path)
    others = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    others.append(Optimizer.load(path, np.zeros(4), feasible_set=sets.Simplex()))
    for grad in grads[3:]:
        opt.step(grad)
        for other in others:
            other.step(grad)
    for other in others:
        np.testing.assert_array_equal(other.x, x)
    for wrong in (None, sets.Simplex(2.0), sets.Ball()):
        target = np.zeros(4)
        with pytest.raises(ValueError, match="another feasible_set in the file"):
            Optimizer.load(path, target, feasible_set=wrong)
        assert not target.any()


def test_a_run_resumes_in_its_set_only(tmp_path):
    place, path = SETS["ball"], tmp_path / "run.npz"
    whole = minimize(bowl, np.zeros(4), ARGS, jac="inplace", feasible_set=place)
    kind = {"jac": "inplace", "feasible_set": place}
    minimize(bowl, np.zeros(4), ARGS, options={"checkpoint": path, "maxiter": 3}, **kind)
    resumed = minimize(bowl, np.zeros(4), ARGS, options={"resume": path}, **kind)
    np.testing.assert_array_equal(resumed.x, whole.x)
    kind["feasible_set"] = sets.Ball(0.4)
    with pytest.raises(ValueError, match="other bounds or set"):
        minimize(bowl, np.zeros(4), ARGS, options={"resume": path}, **kind)


def test_a_projection_that_does_not_end_is_told():
    """Newton's method is not there after one step."""
    far = sets.Intersection(sets.Ball(1.0), sets.HalfSpace([1.0, 1e-3], 0.999), maxiter=1)
    opt = Optimizer(Adagrad(1.0), np.zeros(2), feasible_set=far)
    with pytest.warns(RuntimeWarning, match="away from the Intersection"):
        opt.step(np.array([-5.0, -4.0]))


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("ball", TypeError, "feasible_set must be a set such as"),
        (sets.Ball(center=np.zeros(3)), ValueError, "feasible_set must have 4 coordinates"),
    ],
)
def test_what_is_no_set_for_x(place, error, message):
    x = np.zeros(4)
    for call in (
        lambda: Optimizer(Adam(), x, feasible_set=place),
        lambda: minimize(bowl, x, ARGS, jac="inplace", feasible_set=place),
        lambda: minimize_many(bowl, x[None], ARGS, jac="inplace", feasible_set=place),
    ):
        with pytest.raises(error, match=message):
            call()
