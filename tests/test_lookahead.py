"""Lookahead against the paper's pseudo-code; targets, sets, files, minimize; bad input."""

import copy
import pickle

import cases
import numba
import numpy as np
import pytest
import reference
from scipy.optimize import OptimizeWarning, rosen, rosen_der
from scipy.optimize import minimize as scipy_minimize

import numbelief
from numbelief import (
    LAMB,
    SGD,
    AdaBelief,
    Adam,
    Lookahead,
    Optimizer,
    RMSProp,
    minimize,
    minimize_many,
    schedules,
)
from numbelief._compile.threads import RELEASE_GIL_FROM
from numbelief.rules import Rule
from numbelief.sets import Ball

# k and alpha are arguments of the kernels; a rule in a dtype is what compiles.
SETTINGS = [(1, 0.5), (5, 0.5), (10, 0.8), (3, 1.0)]
KINDS = [
    (SGD(0.1, weight_decay=0.1), np.float64),
    (AdaBelief(schedules.inverse_sqrt(0.1)), np.float32),
    (AdaBelief(schedules.inverse_sqrt(0.1)), np.float64),
    (RMSProp(0.01, momentum=0.9), np.float32),
    (LAMB(0.01, segments=(0, 1, 70), weight_decay=0.1), np.float64),
]


def walk(rule, oracle, x, sequence, **options):
    """Step both, and compare them after every step, in units of the way so far."""
    x = x.copy()
    opt = Optimizer(rule, x, **options)
    length = np.abs(x) + 1e-3
    ulps = 16 * np.finfo(x.dtype).eps
    for g in sequence:
        before = oracle.x
        opt.step(g)
        oracle.step(g)
        length += np.abs(oracle.x - before)
        assert np.all(np.abs(x - oracle.x) <= ulps * length), opt.t
    return x, opt


@pytest.mark.parametrize(("k", "alpha"), SETTINGS)
@pytest.mark.parametrize(
    ("rule", "dtype"), KINDS, ids=lambda value: getattr(value, "__name__", type(value).__name__)
)
def test_oracle(rule, dtype, k, alpha):
    x = cases.start(dtype=dtype)
    oracle = reference.Lookahead(cases.oracle(rule, x), k, alpha)
    sequence = cases.gradients("ordinary", steps=43, dtype=dtype)
    x, opt = walk(Lookahead(rule, k, alpha), oracle, x, sequence, target="serial")
    assert opt.rule == Lookahead(rule, k, alpha)
    assert [*opt.state] == [*rule.state_names, "slow"]
    np.testing.assert_allclose(opt.state["slow"], oracle.phi, rtol=1e-4, atol=1e-4)
    # 43 is no multiple of k except k = 1, where x and the slow weights are one.
    assert cases.same_bits(opt.state["slow"], x) == (k == 1)


@pytest.mark.parametrize(
    ("rule", "dtype", "n"),
    [(AdaBelief(0.01), np.float32, 2 * RELEASE_GIL_FROM + 5), (KINDS[-1][0], np.float64, 10_000)],
    ids=["elementwise", "layerwise"],
)
def test_parallel_has_the_same_bits(rule, dtype, n):
    x = cases.start(n, dtype)
    sequence = cases.gradients("ordinary", n, steps=12, dtype=dtype)
    serial, parallel = (
        cases.run(Lookahead(rule, 5), x, sequence, target=target)
        for target in ("serial", "parallel")
    )
    assert cases.same_bits(serial[0], parallel[0])
    assert cases.same_bits(serial[1].state["slow"], parallel[1].state["slow"])


def test_all_the_way_after_each_step_is_the_rule_itself():
    rule = AdaBelief(0.01)
    x = cases.start()
    walk(Lookahead(rule, k=1, alpha=1.0), cases.oracle(rule, x), x, cases.gradients("ordinary"))


@pytest.mark.parametrize(("k", "alpha"), SETTINGS)
def test_bounds(k, alpha):
    rule = AdaBelief(0.05)
    x = cases.start()
    x[::3] += 3  # outside, where the slow weights must not start
    bounds = -0.5, 0.7
    oracle = reference.Lookahead(cases.oracle(rule, x, bounds=bounds), k, alpha)
    sequence = cases.gradients("ordinary", steps=31)
    x, opt = walk(Lookahead(rule, k, alpha), oracle, x, sequence, bounds=[bounds] * x.size)
    for inside in (x, opt.state["slow"]):
        assert inside.min() >= -0.5 and inside.max() <= 0.7
    assert (x == 0.7).any() and (x == -0.5).any()


def test_ball():
    def project(y):
        return y / max(np.linalg.norm(y), 1)

    k, alpha, rate = 3, 0.8, 0.3
    x = theta = np.full(7, 2.0)
    phi = project(theta)
    sequence = np.random.default_rng(0).standard_normal((20, 7))
    opt = Optimizer(Lookahead(SGD(rate), k, alpha), x := x.copy(), feasible_set=Ball(1.0))
    for t, g in enumerate(sequence, start=1):
        opt.step(g)
        theta = project(theta - rate * g)
        if t % k == 0:
            theta = phi = phi + alpha * (theta - phi)
        np.testing.assert_allclose(x, theta, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(opt.state["slow"], phi, rtol=1e-12, atol=1e-12)
        assert Ball(1.0).contains(x, tol=0.0)


# ---- files and copies


def test_a_loaded_run_is_bit_identical(tmp_path):
    rule = Lookahead(AdaBelief(schedules.inverse_sqrt(0.1)), k=5, alpha=0.8)
    sequence = cases.gradients("ordinary", steps=20)
    x, opt = cases.run(rule, cases.start(), sequence[:7])  # in the middle of the second round
    opt.save(tmp_path / "run")
    y = np.zeros_like(x)
    loaded = Optimizer.load(tmp_path / "run", y)
    assert loaded.rule == rule
    twin = pickle.loads(pickle.dumps(opt))
    other = copy.deepcopy(opt)
    for g in sequence[7:]:
        for each in (opt, loaded, twin, other):
            each.step(g)
    for each in (loaded, twin, other):
        assert cases.same_bits(each.x, x)
        assert cases.same_bits(each.state["slow"], opt.state["slow"])
    assert not np.shares_memory(other.x, x)


@pytest.mark.parametrize(
    ("saved", "given", "message"),
    [
        (Lookahead(SGD(0.1)), Lookahead(SGD(0.1), k=6), r"'k': 5.*in the file, \{'k': 6"),
        (Lookahead(SGD(0.1)), Lookahead(SGD(0.1), alpha=0.8), r"'alpha': 0.5.*'alpha': 0.8"),
        (Lookahead(SGD(0.1)), SGD(0.1), "lookahead = .* in the file, None given"),
        (SGD(0.1), Lookahead(SGD(0.1)), "lookahead = None in the file"),
        (Lookahead(SGD(0.1)), Lookahead(SGD(0.2)), "learning_rate = 0.1 in the file, 0.2 given"),
        (Lookahead(SGD(0.1)), Lookahead(Adam(0.1)), "rule sgd in the file, adam given"),
    ],
)
def test_the_file_of_another_lookahead(saved, given, message, tmp_path):
    x = np.ones(3)
    Optimizer(saved, x).save(tmp_path / "run")
    with pytest.raises(ValueError, match=f"does not match: .*{message}"):
        Optimizer.load(tmp_path / "run", x, rule=given)


# ---- minimize

RULE = Lookahead(AdaBelief(0.02), k=4, alpha=0.8)


@numba.njit
def valley(x, grad):
    grad[0] = -2 * (1 - x[0]) - 40 * x[0] * (x[1] - x[0] ** 2)
    grad[1] = 20 * (x[1] - x[0] ** 2)
    return (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2


def test_minimize_in_python_in_machine_code_and_many():
    X0 = np.array([[-1.2, 1.0], [0.0, 2.0], [2.0, -1.0]])
    options = {"maxiter": 203, "iterate": "last"}
    arguments = {"method": RULE, "jac": "inplace"}
    one = minimize(valley, X0[0], options=options, **arguments)
    python = minimize(valley, X0[0], options=options | {"compiled": False}, **arguments)
    many = minimize_many(valley, X0, options=options, **arguments)
    assert cases.same_bits(one.x, python.x)
    assert cases.same_bits(one.x, many.x[0])
    third = minimize(valley, X0[2], options=options, **arguments)
    assert cases.same_bits(third.x, many.x[2])
    bare = minimize(valley, X0[0], method=RULE.rule, jac="inplace", options=options)
    assert not cases.same_bits(one.x, bare.x)


def test_minimize_resumes(tmp_path):
    arguments = {"method": RULE, "jac": rosen_der}
    whole = minimize(rosen, [-1.2, 1.0], options={"maxiter": 50}, **arguments)
    path = {"checkpoint": tmp_path / "run"}
    minimize(rosen, [-1.2, 1.0], options={"maxiter": 22, **path}, **arguments)
    resumed = minimize(
        rosen, [-1.2, 1.0], options={"maxiter": 50, "resume": True, **path}, **arguments
    )
    assert cases.same_bits(resumed.x, whole.x)
    arguments["method"] = Lookahead(RULE.rule, k=3, alpha=0.8)
    with pytest.raises(ValueError, match="'k': 4"):
        minimize(rosen, [-1.2, 1.0], options={"resume": True, **path}, **arguments)


def test_scipy_takes_it_as_a_method():
    options = {"maxiter": 100}
    ours = minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=RULE, options=options)
    theirs = scipy_minimize(rosen, [-1.2, 1.0], jac=rosen_der, method=RULE, options=options)
    assert cases.same_bits(ours.x, theirs.x)


def test_a_line_search_takes_its_place():
    start = [-1.2, 1.0]
    with pytest.warns(OptimizeWarning, match="Lookahead is left out: it needs a learning rate"):
        res = minimize(rosen, start, jac=rosen_der, method=Lookahead(AdaBelief()))
    assert cases.same_bits(res.x, minimize(rosen, start, jac=rosen_der, method=AdaBelief()).x)
    with pytest.warns(OptimizeWarning, match="Lookahead is left out"):
        many = minimize_many(valley, [start], jac="inplace", method=Lookahead(AdaBelief()))
    assert many.success.all()


def test_an_optimizer_takes_the_rate_of_the_paper():
    x, _ = cases.run(Lookahead(SGD(), k=2), np.ones(1), [np.ones(1)] * 2)
    assert x == pytest.approx(1 - SGD.default_rate)


# ---- what it is


def test_its_attributes():
    rule = Lookahead(SGD(0.1))
    assert (rule.k, rule.alpha, rule.learning_rate) == (5, 0.5, 0.1)
    assert Lookahead(SGD(), k=np.int64(3)).k == 3
    assert rule == Lookahead(SGD(0.1)) != Lookahead(SGD(0.2))
    assert hash(rule) == hash(Lookahead(SGD(0.1)))
    assert repr(rule).startswith("Lookahead(rule=SGD(learning_rate=0.1")
    assert "lookahead" not in Rule.registry
    assert numbelief.Lookahead is Lookahead and "Lookahead" in numbelief.__all__


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Lookahead("adam"), TypeError, "needs a rule such as Adam"),
        (lambda: Lookahead(Adam), TypeError, "needs a rule such as Adam"),
        (lambda: Lookahead(Lookahead(Adam())), TypeError, "no other Lookahead"),
        (lambda: Lookahead(Adam(), k=0), ValueError, "k must be a whole number of at least 1"),
        (lambda: Lookahead(Adam(), k=2.5), ValueError, "k must be a whole number"),
        (lambda: Lookahead(Adam(), k="5"), TypeError, "k must be a real number"),
        (lambda: Lookahead(Adam(), k=True), TypeError, "k must be a real number"),
        (lambda: Lookahead(Adam(), alpha=0), ValueError, r"alpha must be a number in \(0, 1\]"),
        (lambda: Lookahead(Adam(), alpha=1.5), ValueError, r"alpha must be a number in \(0, 1\]"),
        (lambda: Lookahead(Adam(), alpha=np.nan), ValueError, "alpha must be a finite number"),
        (lambda: Adam(Lookahead(Adam())), TypeError, "learning_rate must be a real number"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_options_do_not_reach_the_rule():
    with pytest.warns(OptimizeWarning, match="Unknown solver options: beta1"):
        minimize(rosen, [1.0, 1.0], jac=rosen_der, method=RULE, options={"beta1": 0.5})
