"""Rates given as arrays: one per coordinate, or per segment of LAMB."""

import copy
import pickle
from dataclasses import replace

import cases
import numpy as np
import pytest

from numbelief import (
    LAMB,
    SGD,
    AdaBelief,
    AdaBound,
    AdamW,
    Lookahead,
    Optimizer,
    RMSProp,
    minimize,
)
from numbelief.sets import Ball

# Five rates in turns; 0 freezes.
VALUES = np.array([0.01, 0.1, 0.0, 0.03, 0.005])
RATES = np.resize(VALUES, cases.SIZE)


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [
        (SGD(RATES), np.float64),
        (RMSProp(RATES, momentum=0.9), np.float64),
        (AdamW(RATES, weight_decay=0.3), np.float32),
        (AdaBound(RATES, gamma=0.1), np.float64),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_each_coordinate_goes_its_own_way(rule, dtype):
    first = cases.start(dtype=dtype)
    sequence = cases.gradients("ordinary", steps=40, dtype=dtype)
    x, _ = cases.run(rule, first, sequence)
    for rate in VALUES:
        changes = {"learning_rate": rate}
        if isinstance(rule, AdaBound):  # the limits shrink with the rate
            changes["final_lr"] = rule.final_lr * rate / VALUES.max()
        oracle = cases.oracle(replace(rule, **changes), first)
        length = np.abs(first)
        for g in sequence:
            before = oracle.x
            oracle.step(g)
            length = length + np.abs(oracle.x - before)
        its = rate == RATES
        error = np.abs(x - oracle.x)[its]
        assert np.all(error <= 16 * np.finfo(dtype).eps * length[its] + 1e-300)
        if rate == 0:
            assert cases.same_bits(x[its], first[its])


def test_each_segment_of_lamb_has_its_own():
    rule = LAMB(VALUES[[0, 1, 3]], segments=(0, 50, 120), weight_decay=0.1)
    first = cases.start()
    sequence = cases.gradients("ordinary", steps=30)
    x, _ = cases.run(rule, first, sequence)
    edges = (*rule.segments, first.size)
    for lo, hi, rate in zip(edges, edges[1:], rule.learning_rate, strict=False):
        oracle = cases.oracle(replace(rule, learning_rate=rate, segments=None), first[lo:hi])
        for g in sequence:
            oracle.step(g[lo:hi])
        np.testing.assert_allclose(x[lo:hi], oracle.x, rtol=1e-12, atol=1e-14)


def test_lamb_takes_one_per_coordinate_too():
    first, g = np.array([3.0, 4.0, 1.0]), np.ones(3)
    whole, _ = cases.run(LAMB(0.1, segments=(0, 2)), first, [g])
    x, _ = cases.run(LAMB(np.array([0.1, 0.0, 0.05]), segments=(0, 2)), first, [g])
    np.testing.assert_allclose(x, first + (whole - first) * [1, 0, 0.5], rtol=1e-14)
    one, _ = cases.run(LAMB(np.array([0.1])), first, [g])
    np.testing.assert_array_equal(one, cases.run(LAMB(0.1), first, [g])[0])


def test_the_projection_is_in_the_metric_of_the_rates():
    first, rates, g = np.array([0.6, 0.6, 0.1]), np.array([0.1, 0.5, 0.0]), -np.ones(3)
    x, _ = cases.run(SGD(rates), first, [g], feasible_set=Ball(1.0))
    y = first - rates * g
    weights = 1 / np.maximum(rates, 1e-12)
    np.testing.assert_allclose(x, Ball(1.0).project(y, weights), rtol=1e-9)
    assert x[2] == first[2]


def test_lookahead_leaves_frozen_coordinates_alone():
    rule = Lookahead(SGD(np.array([0.5, 0.0])), k=2)
    x, _ = cases.run(rule, np.array([1.0, 0.3]), [np.ones(2)] * 5)
    assert x.tolist() == [-0.5, 0.3]


def test_all_frozen():
    x, _ = cases.run(AdaBound(np.zeros(3)), np.ones(3), [np.ones(3)])
    assert x.tolist() == [1.0] * 3


def test_minimize_reports_the_largest():
    rates = np.array([0.1, 0.4])
    res = minimize(
        lambda x: ((x - 1) ** 2).sum(),
        [0.0, 0.0],
        jac=lambda x: 2 * (x - 1),
        method=SGD(rates),
        options={"history": True},
    )
    assert res.success
    assert set(res.history.learning_rate[1:]) == {0.4}
    np.testing.assert_allclose(1 - res.x[0], 0.8**res.nit, rtol=1e-9)


# ---- what a rule keeps


def test_a_rule_keeps_a_copy():
    given = np.array([0.1, 0.2], np.float32)
    rule = AdaBelief(given)
    given[0] = 5
    kept = rule.learning_rate
    assert kept.dtype == np.float64 and not kept.flags.writeable
    assert kept.tolist() == np.float32([0.1, 0.2]).astype(float).tolist()
    assert SGD(np.array([1, 2])).learning_rate.tolist() == [1.0, 2.0]
    assert SGD(np.float64(0.1)).learning_rate == SGD(np.array(0.1)).learning_rate == 0.1


def test_rules_compare():
    rates = np.array([0.1, 0.2])
    rule = AdaBelief(rates)
    assert rule == AdaBelief(rates) == copy.deepcopy(rule) == pickle.loads(pickle.dumps(rule))
    assert hash(rule) == hash(AdaBelief(rates))
    assert rule != AdaBelief(rates[::-1]) and rule != AdaBelief(0.1) and rule != AdamW(rates)
    assert rule != AdaBelief(rates, beta1=0.5) and rule != "adabelief"
    assert "0.1, 0.2" in repr(rule)
    assert Lookahead(rule) == Lookahead(AdaBelief(rates))


def test_files(tmp_path):
    rule = SGD(np.array([0.5, 0.0]))
    x = np.array([1.0, 0.3])
    Optimizer(rule, x).save(tmp_path / "run")
    with pytest.raises(ValueError, match="learning rate is an array.*pass rule="):
        Optimizer.load(tmp_path / "run", x)
    with pytest.raises(ValueError, match="learning_rate = .* in the file"):
        Optimizer.load(tmp_path / "run", x, rule=SGD(np.array([0.5, 0.1])))
    with pytest.raises(ValueError, match="learning_rate = .* in the file, 0.5 given"):
        Optimizer.load(tmp_path / "run", x, rule=SGD(0.5))
    opt = Optimizer.load(tmp_path / "run", x, rule=rule)
    opt.step(np.ones(2))
    assert x.tolist() == [0.5, 0.3]
    twin = pickle.loads(pickle.dumps(opt))
    twin.step(np.ones(2))
    assert twin.x.tolist() == [0.0, 0.3]


@pytest.mark.parametrize(
    ("rates", "error", "message"),
    [
        (np.array([]), ValueError, "and not be empty"),
        (np.array([0.1, -0.1]), ValueError, "finite numbers of at least 0"),
        (np.array([0.1, np.nan]), ValueError, "finite numbers of at least 0"),
        (np.array([0.1, np.inf]), ValueError, "finite numbers of at least 0"),
        (np.array([True, False]), TypeError, "must hold real numbers, got dtype bool"),
        (np.array([0.1j]), TypeError, "must hold real numbers, got dtype complex128"),
        (np.array(["0.1"]), TypeError, "must hold real numbers"),
        (np.array([0.1, None]), TypeError, "must hold real numbers, got dtype object"),
        (np.ones((2, 2)), TypeError, "learning_rate must be a real number"),
        ([0.1, 0.2], TypeError, "learning_rate must be a real number"),
    ],
)
def test_bad_rates(rates, error, message):
    with pytest.raises(error, match=message):
        AdaBelief(rates)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (SGD(np.ones(2)), "learning_rate must have as many rates as x has coordinates, 3, got 2"),
        (Lookahead(SGD(np.ones(4))), "as many rates as x has coordinates, 3, got 4"),
        (LAMB(np.ones(4), segments=(0, 1)), "coordinates, 3, or as there are segments, 2, got 4"),
        (LAMB(np.ones(2)), "or as there are segments, 1, got 2"),
    ],
)
def test_rates_of_another_size(rule, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(rule, np.ones(3))
