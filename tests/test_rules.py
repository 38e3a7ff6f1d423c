"""Every rule against the oracle of reference.py and against numbers by hand; bad input."""

import functools
import inspect
import math
import re
from dataclasses import FrozenInstanceError, fields
from fractions import Fraction

import cases
import numpy as np
import pytest
from cases import CASES, FROZEN, RULES, in_turns, with_dtypes

import numbelief
from numbelief import (
    LAMB,
    SGD,
    AdaBelief,
    AdaBound,
    Adagrad,
    Adam,
    AdaMax,
    AdamW,
    AMSGrad,
    Momentum,
    Nesterov,
    RMSProp,
    Rule,
)

DTYPES = [np.float32, np.float64]
BUILT_IN = [cls for cls in Rule.registry.values() if cls.is_built_in()]

# How far the optimizer may be from the oracle, in units of the last place of |x| plus the length of
# the path so far: x is a sum of steps, so that is what a relative error of each step amounts to,
# wherever x is when we look.
ULPS = 8


def tolerance(rule, dtype):
    """The allowed relative error.

    Two rules lose digits in float64 coefficients, by cancellation that their formulas contain
    (RAdam's rho is a difference of terms near 2000; AdaBound's bounds are 1 - 1/(gamma t + 1)),
    while the oracle computes these exactly.
    """
    if dtype is np.float64 and (isinstance(rule, AdaBound) or getattr(rule, "rectify", False)):
        return 1e-12
    return ULPS * float(np.finfo(dtype).eps)


@functools.cache
def expected(name, kind, dtype):
    """The oracle's path: x after every step and its scale, and the same for every state array."""
    oracle = cases.oracle(RULES[name], cases.start(dtype=dtype))
    length = np.abs(oracle.x)
    memory = dict.fromkeys(oracle.state, 0)
    path = {key: ([], []) for key in ("x", *oracle.state)}
    for g in cases.gradients(kind, dtype=dtype):
        before = oracle.x
        oracle.step(g)
        length = np.maximum(np.abs(oracle.x), length) + np.abs(oracle.x - before)
        path["x"][0].append(oracle.x)
        path["x"][1].append(length)
        for key, value in oracle.state.items():
            # The rounding error of a large entry fades from an average no faster than it does.
            memory[key] = np.maximum(0.9 * memory[key], np.abs(value))
            path[key][0].append(value.copy())
            path[key][1].append(memory[key])
    return {key: (np.array(values), np.array(scales)) for key, (values, scales) in path.items()}


def assert_near(values, expected, allowed, what="x"):
    """|values - expected| <= allowed, or both the same infinity; in the order of steps."""
    same = values == expected
    error = np.abs(np.where(same, 0, values) - np.where(same, 0, expected))
    wrong = np.argwhere(~(same | (error <= allowed)))
    assert not wrong.size, f"{what} differs at {wrong[:5].tolist()}"


# The options of a rule run through the same compiled code in either target, so parallel walks once
# for each kernel that exists; test_kernels.py compares the bits.
WALKS = [(name, "serial") for name in RULES] + [(name, "parallel") for name, _ in cases.KERNELS]


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize(
    ("name", "target", "dtype"), with_dtypes(WALKS, lambda name, target: RULES[name])
)
def test_oracle(name, target, kind, dtype):
    rule = RULES[name]
    x = cases.start(dtype=dtype)
    opt = numbelief.Optimizer(rule, x, target=target)
    assert set(opt.state) == set(rule.state_names)
    path = {key: [] for key in ("x", *rule.state_names)}
    for g in cases.gradients(kind, dtype=dtype):
        opt.step(g)
        path["x"].append(x.copy())
        for key, value in opt.state.items():
            path[key].append(value.copy())
    assert opt.t == cases.STEPS

    tiny = np.finfo(dtype).tiny
    allowed = tolerance(rule, dtype)
    # With coupled decay the state averages g + decay x, whose error is x's: judge x alone.
    coupled = rule.weight_decay and not (rule.decoupled or rule.layerwise)
    for key, (values, scales) in expected(name, kind, dtype).items():
        got = np.array(path[key])
        if key == "x":
            assert np.all(np.isfinite(got))
            assert_near(got, values, allowed * scales)
            continue
        assert not np.any(np.isnan(got))
        assert np.all((got == 0) | (np.abs(got) >= tiny)), f"denormal numbers in {key}"
        if not coupled:
            assert_near(got, values, allowed * scales + 2 * tiny, key)


# Clipping and bounds, and their order with both kinds of decay. Each set of options is a signature
# that Numba compiles, so few rules go through it: none, two and three slots, and the layerwise one.
OPTIONS = {
    "norm": {"max_norm": 0.5},
    "norm-loose": {"max_norm": 1e40},
    "value": {"max_value": 0.25},
    "norm-value": {"max_norm": 5.0, "max_value": 0.5},
    "value-bounds": {"max_value": 0.5, "bounds": (-0.5, 0.25)},
}
CLIPPED = ["sgd-coupled", "sgd-decoupled", "adamw-amsgrad", "adabelief-pytorch-coupled"]
CLIPPED += ["lamb-segments"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, marks=in_turns((i + k) % 2))
        for i, name in enumerate(CLIPPED)
        for k, options in enumerate(OPTIONS)
    ],
)
def test_options(name, options):
    rule = RULES[name]
    # The dtypes take turns, so that each has all options and all rules.
    dtype = DTYPES[CLIPPED.index(name) // 2 % 2]
    options = OPTIONS[options]
    x = cases.start(dtype=dtype)
    oracle = cases.oracle(rule, x, **options)
    if "bounds" in options:
        options = options | {"bounds": [options["bounds"]] * x.size}
    opt = numbelief.Optimizer(rule, x, target="serial", **options)
    length = np.abs(x)
    allowed = tolerance(rule, dtype)
    for kind in ("ordinary", "scales"):
        for g in cases.gradients(kind, steps=30, dtype=dtype):
            before = oracle.x
            oracle.step(g)
            opt.step(g)
            length += np.abs(oracle.x - before)
            assert_near(x, oracle.x, allowed * length)


def schedule(t):
    """A rate that falls, and rises again."""
    return 0.1 / math.sqrt(t) if t < 20 else 0.02 * (1 + t % 3)


@pytest.mark.parametrize(
    ("cls", "dtype"), with_dtypes([(cls,) for cls in BUILT_IN], lambda cls: cls())
)
def test_schedule(cls, dtype):
    asked = []

    def rate(t):
        asked.append(t)
        return schedule(t)

    decay = {"weight_decay": 0.1, "decoupled": not cls.layerwise}
    rule = cls(rate, **decay)
    x = cases.start(dtype=dtype)
    oracle = cases.oracle(cls(schedule, **decay), x)
    opt = numbelief.Optimizer(rule, x, target="serial")
    length = np.abs(x)
    for g in cases.gradients("ordinary", dtype=dtype):
        before = oracle.x
        oracle.step(g)
        opt.step(g)
        length += np.abs(oracle.x - before)
        assert_near(x, oracle.x, tolerance(rule, dtype) * length)
    assert asked == list(range(1, cases.STEPS + 1))


@pytest.mark.parametrize("rate", [math.nan, math.inf, -0.1, "fast", None, 1j])
def test_schedule_returns_nonsense(rate):
    x = np.ones(2)
    opt = numbelief.Optimizer(SGD(lambda t: rate if t == 2 else 0.5), x, target="serial")
    opt.step(np.ones(2))
    with pytest.raises(ValueError, match=r"learning_rate\(2\) must be a finite number"):
        opt.step(np.ones(2))
    assert opt.t == 1
    assert x.tolist() == [0.5, 0.5]


# First steps by hand: (id, rule, options, x, gradient, x after the step).
# Adam's first moments with bias correction are m/b1 = g and v/b2 = g^2, so its step is
# rate g/(|g| + eps). With beta1 = 1/2 and beta2 = 3/4: m = g/2, v = g^2/4, b1 = 1/2, b2 = 1/4.
BY_HAND = [
    # 1 - 0.1 0.5; -2 + 0.1 4; 3
    ("sgd", SGD(0.1), {}, [1, -2, 3], [0.5, -4, 0], [0.95, -1.6, 3]),
    # g = 0.5 + 0.5 1 = 1: 1 - 0.1; g = -4 + 0.5 (-2) = -5: -2 + 0.5; g = 0 + 0.5 3 = 1.5: 3 - 0.15
    (
        "sgd-coupled",
        SGD(0.1, weight_decay=0.5),
        {},
        [1, -2, 3],
        [0.5, -4, 0],
        [0.9, -1.5, 2.85],
    ),
    # x (1 - 0.1 0.5) = 0.95 x, minus 0.1 g: 0.95 - 0.05; -1.9 + 0.4; 2.85
    (
        "sgd-decoupled",
        SGD(0.1, weight_decay=0.5, decoupled=True),
        {},
        [1, -2, 3],
        [0.5, -4, 0],
        [0.9, -1.5, 2.85],
    ),
    # |g| = 5, scaled by 2/5: [1.2, 1.6]; times 0.5: [0.6, 0.8]
    ("sgd-max-norm", SGD(0.5), {"max_norm": 2}, [1, 1], [3, 4], [0.4, 0.2]),
    # min(g, 3.5) = [3, 3.5]; times 0.5
    ("sgd-max-value", SGD(0.5), {"max_value": 3.5}, [1, 1], [3, 4], [-0.5, -0.75]),
    # First [1.2, 1.6], then [1.2, 1.5]; then decay adds [1, 1]: [2.2, 2.5]; times 0.5
    (
        "sgd-both-then-decay",
        SGD(0.5, weight_decay=1.0),
        {"max_norm": 2, "max_value": 1.5},
        [1, 1],
        [3, 4],
        [-0.1, -0.25],
    ),
    # [1 - 1.5, 1 - 2, 1 + 2] into [-0.75, 2]
    (
        "sgd-bounds",
        SGD(0.5),
        {"bounds": [(-0.75, 2)] * 3},
        [1, 1, 1],
        [3, 4, -4],
        [-0.5, -0.75, 2],
    ),
    # v = 0.1 g
    ("momentum", Momentum(0.1), {}, [1, -2, 3], [0.5, -4, 0], [0.95, -1.6, 3]),
    # v = 0.1 g; step 0.5 v + 0.1 g = 0.15 g: 0.075; -0.6
    ("nesterov", Nesterov(0.1, momentum=0.5), {}, [1, -2, 3], [0.5, -4, 0], [0.925, -1.4, 3]),
    # G = 16: root(16 + 9) + 3 = 8: 0.5 4/8 = 0.25; g = 0: 0
    ("adagrad", Adagrad(0.5, eps=3, eps_root=9), {}, [1, -1, 2], [4, -4, 0], [0.75, -0.75, 2]),
    # G = 64/4 = 16: root(16 + 9) + 3 = 8: 0.5 8/8 = 0.5
    (
        "rmsprop",
        RMSProp(0.5, beta2=0.75, eps=3, eps_root=9),
        {},
        [1, -1, 2],
        [8, -8, 0],
        [0.5, -0.5, 2],
    ),
    # v = 8/8 = 1; step 0.5 v
    (
        "rmsprop-momentum",
        RMSProp(0.5, beta2=0.75, momentum=0.9, eps=3, eps_root=9),
        {},
        [1, -1, 2],
        [8, -8, 0],
        [0.5, -0.5, 2],
    ),
    # 0.5 4/(4 + 1) = 0.4; 0.5 (-1)/(1 + 1) = -0.25
    ("adam", Adam(0.5, eps=1), {}, [1, -2, 3], [4, -1, 0], [0.6, -1.75, 3]),
    # 0.5 4/(root(16 + 9) + 3) = 0.25
    ("adam-eps-root", Adam(0.5, eps=3, eps_root=9), {}, [1, -1, 2], [4, -4, 0], [0.75, -0.75, 2]),
    # 0.5 root(1/4)/(1/2) = 0.5; m = 2; root(v) + eps = 2 + 2: 0.5 2/4 = 0.25
    (
        "adam-eps-hat",
        Adam(0.5, beta1=0.5, beta2=0.75, eps=2, eps_hat=True),
        {},
        [1, -1, 2],
        [4, -4, 0],
        [0.75, -0.75, 2],
    ),
    # 0.4 2/(2 + 2) = 0.2
    (
        "adam-uncorrected",
        Adam(0.4, beta1=0.5, beta2=0.75, eps=2, bias_correction=False),
        {},
        [1, -1, 2],
        [4, -4, 0],
        [0.8, -0.8, 2],
    ),
    # The maximum of one v is that v
    ("adam-amsgrad", Adam(0.5, eps=1, amsgrad=True), {}, [1, -2], [4, -1], [0.6, -1.75]),
    # g = 2 + 2 1 = 4: 0.5 4/5 = 0.4
    ("adam-coupled", Adam(0.5, eps=1, weight_decay=2), {}, [1], [2], [0.6]),
    # Without bias correction: 0.4 2/(2 + 2) = 0.2
    (
        "amsgrad",
        AMSGrad(0.4, beta1=0.5, beta2=0.75, eps=2),
        {},
        [1, -1, 2],
        [4, -4, 0],
        [0.8, -0.8, 2],
    ),
    # x (1 - 0.5 0.2) = 0.9 x, then Adam: 0.9 - 0.4; -1.8 + 0.25; 2.7
    ("adamw", AdamW(0.5, eps=1, weight_decay=0.2), {}, [1, -2, 3], [4, -1, 0], [0.5, -1.55, 2.7]),
    # m/b1 = g, u = |g|: 0.5 sign(g), and nothing where g = 0
    ("adamax", AdaMax(0.5), {}, [1, -2, 3], [4, -1, 0], [0.5, -1.5, 3]),
    # 0.5 4/(4 + 1) = 0.4; 0.5 (-1)/(1 + 1) = -0.25
    ("adamax-eps", AdaMax(0.5, eps=1), {}, [1, -2, 3], [4, -1, 0], [0.6, -1.75, 3]),
    # m = 2, r = 4 - 2 = 2, s = 4/4 + 3 = 4, s/b2 = 16, root + eps = 4 + 4: 0.5 4/8 = 0.25
    (
        "adabelief",
        AdaBelief(0.5, beta1=0.5, beta2=0.75, eps=4, eps_root=3),
        {},
        [1, -1, 2],
        [4, -4, 0],
        [0.75, -0.75, 2],
    ),
    # m/b1 = g, s/b2 = (0.9 g)^2: 0.45/0.9 = 0.5 whatever the size; 10 times less without b1
    ("adabelief-no-eps", AdaBelief(0.45, eps=0, eps_root=0), {}, [1, 1], [100, -1e-3], [0.5, 1.5]),
    # 0.5 2/(root(4) + 2) = 0.25
    (
        "adabelief-uncorrected",
        AdaBelief(0.5, beta1=0.5, beta2=0.75, eps=2, eps_root=3, bias_correction=False),
        {},
        [1, -1, 2],
        [4, -4, 0],
        [0.75, -0.75, 2],
    ),
    # rho = 1 at t = 1: gradient descent, 0.125 4 = 0.5
    ("adabelief-rectify", AdaBelief(0.125, rectify=True), {}, [1, 2], [4, 0], [0.5, 2]),
    # or no step at all
    (
        "adabelief-waits",
        AdaBelief(0.125, rectify=True, degenerated_to_sgd=False),
        {},
        [1, 2],
        [4, 0],
        [1, 2],
    ),
    # 0.5 root(1/4)/(1/2) = 0.5; bounds 0.1 (1 - 1/2) = 0.05 and 0.1 (1 + 1) = 0.2.
    # g = 4: 0.5/(2 + 2) = 0.125, times m = 2: 0.25. g = 40: 0.5/22 < 0.05, times 20: 1.
    # g = 0.4: 0.5/2.2 > 0.2, times 0.2: 0.04
    (
        "adabound",
        AdaBound(0.5, beta1=0.5, beta2=0.75, eps=2, final_lr=0.1, gamma=1),
        {},
        [1, 1, 1, 1],
        [4, 40, 0.4, 0],
        [0.75, 0, 0.96, 1],
    ),
    # 0.25/(2 + 2) = 0.0625, times m = 2
    (
        "adabound-uncorrected",
        AdaBound(0.25, beta1=0.5, beta2=0.75, eps=2, gamma=1, bias_correction=False, amsgrad=True),
        {},
        [1, 1],
        [4, -4],
        [0.875, 1.125],
    ),
    # g/(|g| + 1) = [0.6, 0.8], of norm 1; |x| = 5: 0.1 5 [0.6, 0.8]
    ("lamb", LAMB(0.1, eps=1), {}, [3, 4], [1.5, 4], [2.7, 3.6]),
    # [0.6, 0.8] + 0.2 [3, 4] = [1.2, 1.6], of norm 2: 0.1 (5/2) [1.2, 1.6]
    ("lamb-decay", LAMB(0.1, eps=1, weight_decay=0.2), {}, [3, 4], [1.5, 4], [2.7, 3.6]),
    # Each segment by itself; where |x| = 0, and where the direction is 0, the ratio is 1
    (
        "lamb-segments",
        LAMB(0.1, eps=1, segments=(0, 2, 3)),
        {},
        [3, 4, 0, 7, 8],
        [1.5, 4, 4, 0, 0],
        [2.7, 3.6, -0.08, 7, 8],
    ),
]


@pytest.mark.parametrize(
    ("name", "rule", "options", "x", "g", "after", "dtype"),
    with_dtypes(BY_HAND, lambda name, rule, *_: rule),
)
def test_first_step_by_hand(name, rule, options, x, g, after, dtype):
    x = np.array(x, dtype)
    numbelief.Optimizer(rule, x, target="serial", **options).step(np.array(g, dtype))
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(x, after, rtol=8 * eps, atol=8 * eps)


def test_every_rule_has_a_first_step_by_hand():
    assert {type(row[1]) for row in BY_HAND} == set(BUILT_IN)


@pytest.mark.parametrize(
    ("name", "dtype"),
    with_dtypes([(name,) for name, rule in CASES if not rule.weight_decay], RULES.__getitem__),
)
def test_zero_gradients_do_not_move(name, dtype):
    for kind in ("ordinary", "wild"):
        before = cases.start(dtype=dtype)
        sequence = cases.gradients(kind, dtype=dtype)
        x, opt = cases.run(RULES[name], before, sequence, target="serial")
        assert cases.same_bits(x[FROZEN], before[FROZEN])
        assert not np.any(np.isnan(x))
        assert all(not np.any(np.isnan(value)) for value in opt.state.values())


@pytest.mark.parametrize("name", RULES)
def test_gradient_is_only_read(name):
    g = cases.gradients("scales", steps=1)[0]
    copy = g.copy()
    for writable in (True, False):
        g.flags.writeable = writable
        cases.run(RULES[name], cases.start(), [g, g], target="serial")
        assert cases.same_bits(g, copy)


@pytest.mark.parametrize("dtype", DTYPES)
def test_adamax_bears_the_smallest_numbers(dtype):
    tiny = float(np.finfo(dtype).tiny)
    g = (tiny * np.array([1e-5, 0.1, 0.9, 1.5, 100])).astype(dtype)
    x = np.zeros_like(g)
    opt = numbelief.Optimizer(AdaMax(learning_rate=0.5), x, target="serial")
    for sign in (1, -1, 1, -1):
        opt.step((sign * g).astype(dtype))
        assert np.isfinite(x).all()
    assert np.abs(x).max() <= 2


def test_clipping_only_reads_the_gradient():
    g = cases.gradients("scales", steps=1)[0]
    copy = g.copy()
    options = {"max_norm": 1.0, "max_value": 0.5}
    cases.run(SGD(), cases.start(), [g, g], target="serial", **options)
    assert cases.same_bits(g, copy)


def test_adabelief_without_momentum_warns():
    with pytest.warns(UserWarning, match=r"beta1=0 makes g - m = 0") as caught:
        rule = AdaBelief(0.01, beta1=0, eps=1e-8, eps_root=1e-8)
    assert caught[0].filename == __file__
    sequence = cases.gradients("ordinary")
    x, _ = cases.run(rule, cases.start(), sequence, target="serial")
    oracle = cases.oracle(rule, cases.start())
    for g in sequence:
        oracle.step(g)
    np.testing.assert_allclose(x, oracle.x, rtol=1e-12, atol=1e-12)


def test_large_gradient_is_not_forgotten_by_amsgrad():
    # g = 16, then 0 (beta1 = 0, beta2 = 3/4): v = 64, then 48; v_max stays 64.
    g = np.array([16.0])
    for rule, kept in ((Adam(beta1=0.0, beta2=0.75), [48]), (AMSGrad(beta1=0.0, beta2=0.75), [64])):
        _, opt = cases.run(rule, np.ones(1), [g, 0 * g], target="serial")
        assert opt.state[rule.state_names[-1]].tolist() == kept


BAD = [
    ("nan", lambda: SGD(math.nan), ValueError, "learning_rate must be a finite number.*nan"),
    ("inf", lambda: SGD(math.inf), ValueError, "learning_rate must be a finite number.*inf"),
    ("negative", lambda: SGD(-0.1), ValueError, "learning_rate must be .* of at least 0.*-0.1"),
    ("str", lambda: SGD("0.1"), TypeError, "learning_rate must be a real number.*'0.1'.*str"),
    ("bytes", lambda: SGD(b"1"), TypeError, "learning_rate must be a real number"),
    ("bool", lambda: SGD(True), TypeError, "learning_rate must be a real number.*True.*bool"),
    ("complex", lambda: SGD(1j), TypeError, "learning_rate must be a real number.*1j.*complex"),
    ("list", lambda: SGD([0.1]), TypeError, "learning_rate must be a real number"),
    ("array", lambda: SGD(np.ones((2, 2))), TypeError, "learning_rate must be a real number"),
    ("np-bool", lambda: SGD(np.True_), TypeError, "learning_rate must be a real number"),
    ("np-complex", lambda: Adam(beta1=np.complex128(1)), TypeError, "beta1 must be a real number"),
    ("beta1-one", lambda: Adam(beta1=1.0), ValueError, r"beta1 must be .* in \[0, 1\), got 1.0"),
    ("beta1-negative", lambda: Adam(beta1=-0.1), ValueError, r"beta1 must be .* in \[0, 1\)"),
    ("beta1-nan", lambda: AdaBelief(beta1=math.nan), ValueError, "beta1 must be .*nan"),
    ("beta1-none", lambda: Adam(beta1=None), TypeError, "beta1 must be a real number.*None"),
    ("beta2-one", lambda: RMSProp(beta2=1), ValueError, r"beta2 must be .* in \[0, 1\), got 1"),
    ("beta2-large", lambda: LAMB(beta2=999), ValueError, r"beta2 must be .* in \[0, 1\)"),
    ("eps-negative", lambda: Adam(eps=-1e-8), ValueError, "eps must be .* at least 0"),
    ("eps-inf", lambda: Adagrad(eps=math.inf), ValueError, "eps must be a finite number"),
    ("eps-nan", lambda: AdaMax(eps=math.nan), ValueError, "eps must be a finite number"),
    ("eps-str", lambda: AdaBound(eps="tiny"), TypeError, "eps must be a real number"),
    ("eps-root", lambda: AdaBelief(eps_root=-1), ValueError, "eps_root must be .* at least 0"),
    ("eps-root-nan", lambda: Adam(eps_root=math.nan), ValueError, "eps_root must be .*nan"),
    ("decay", lambda: AdamW(weight_decay=-0.1), ValueError, "weight_decay must be .* at least 0"),
    ("decay-nan", lambda: SGD(weight_decay=math.nan), ValueError, "weight_decay must be .*nan"),
    ("decay-none", lambda: SGD(weight_decay=None), TypeError, "weight_decay must be a real number"),
    ("momentum", lambda: Momentum(momentum=1), ValueError, r"momentum must be .* in \[0, 1\)"),
    ("nesterov", lambda: Nesterov(momentum=-1), ValueError, r"momentum must be .* in \[0, 1\)"),
    ("rmsprop", lambda: RMSProp(momentum="0"), TypeError, "momentum must be a real number"),
    ("final-lr", lambda: AdaBound(final_lr=-1), ValueError, "final_lr must be .* at least 0"),
    ("gamma", lambda: AdaBound(gamma=0), ValueError, "gamma must be above 0"),
    ("gamma-negative", lambda: AdaBound(gamma=-1), ValueError, "gamma must be"),
    ("decoupled", lambda: SGD(decoupled=1), TypeError, "decoupled must be True or False, got 1"),
    ("amsgrad", lambda: Adam(amsgrad="yes"), TypeError, "amsgrad must be True or False, got 'yes'"),
    ("rectify", lambda: AdaBelief(rectify=None), TypeError, "rectify must be True or False"),
    ("eps-hat", lambda: Adam(eps_hat=1e-8), TypeError, "eps_hat must be True or False, got 1e-08"),
    ("bias", lambda: LAMB(bias_correction=0), TypeError, "bias_correction must be True or False"),
    (
        "degenerated",
        lambda: AdaBelief(degenerated_to_sgd=1),
        TypeError,
        "degenerated_to_sgd must be True or False",
    ),
    (
        "rectify-uncorrected",
        lambda: AdaBelief(rectify=True, bias_correction=False),
        ValueError,
        "rectify needs bias_correction=True",
    ),
    ("amsgrad-fixed", lambda: AMSGrad(amsgrad=False), TypeError, "amsgrad"),
    ("lamb-decoupled", lambda: LAMB(decoupled=True), ValueError, "decoupled must be False"),
    ("segments-start", lambda: LAMB(segments=(1, 2)), ValueError, "segments must start with 0"),
    ("segments-fall", lambda: LAMB(segments=(0, 3, 2)), ValueError, "segments must .* increase"),
    ("segments-equal", lambda: LAMB(segments=(0, 3, 3)), ValueError, "segments must .* increase"),
    ("segments-empty", lambda: LAMB(segments=()), ValueError, "segments must start with 0"),
    ("segments-part", lambda: LAMB(segments=(0, 1.5)), ValueError, "segments must"),
    ("segments-int", lambda: LAMB(segments=3), TypeError, "segments must be a sequence"),
    ("segments-str", lambda: LAMB(segments=["a"]), TypeError, "segments must be a sequence"),
    ("segments-nan", lambda: LAMB(segments=(0, math.nan)), TypeError, "segments must"),
    ("segments-inf", lambda: LAMB(segments=(0, math.inf)), TypeError, "segments must"),
    ("unknown", lambda: SGD(momentum=0.9), TypeError, "momentum"),
    ("positional", lambda: SGD(0.1, 0.9), TypeError, "positional"),
]


@pytest.mark.parametrize(
    ("make", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_bad_hyperparameters(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_segments_must_fit():
    with pytest.raises(ValueError, match="segments must start below n = 3"):
        numbelief.Optimizer(LAMB(segments=(0, 3)), np.ones(3))


def test_numbers_of_any_kind_are_taken():
    rule = AdaBelief(np.float32(0.5), beta1=Fraction(1, 2), eps=0, amsgrad=np.True_)
    assert rule == AdaBelief(0.5, beta1=0.5, eps=0.0, amsgrad=True)
    assert hash(rule) == hash(AdaBelief(0.5, beta1=0.5, eps=0.0, amsgrad=True))
    assert type(rule.eps) is float and rule.amsgrad is True
    assert LAMB(segments=np.array([0, 2])).segments == LAMB(segments=[0, 2.0]).segments == (0, 2)


def test_a_rule_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SGD().learning_rate = 1.0


def test_two_optimizers_share_a_rule_and_no_state():
    rule = Adam()
    g = np.ones(3)
    x, opt = cases.run(rule, np.ones(3), [g, g], target="serial")
    y, other = cases.run(rule, np.ones(3), [g], target="serial")
    assert (opt.t, other.t) == (2, 1)
    assert not any(np.shares_memory(opt.state[k], other.state[k]) for k in opt.state)
    other.step(g)
    assert cases.same_bits(x, y)


def test_registry():
    for cls in BUILT_IN:
        assert Rule.registry[cls.__name__.lower()] is cls
        assert getattr(numbelief, cls.__name__) is cls


def test_every_rule_and_option_is_in_the_table():
    assert {type(rule) for _, rule in CASES} == set(BUILT_IN)
    assert len(RULES) == len(CASES)
    for cls in BUILT_IN:
        rules = [rule for _, rule in CASES if type(rule) is cls]
        decays = {(rule.weight_decay > 0, rule.decoupled) for rule in rules}
        assert (True, False) in decays
        assert cls.layerwise or (True, True) in decays
        # An inherited option is the parent's text and has its case there.
        for f in fields(cls):
            if f.init and f.name in cls.__annotations__:
                assert {getattr(rule, f.name) for rule in rules} - {f.default}, (cls, f.name)


def stated_defaults(cls):
    """The defaults that a docstring's list of parameters states, as text, by name."""
    stated = {}
    for line in re.findall(r"^\w[\w, ]* : .*$", inspect.getdoc(cls), re.M):
        names, kind = line.split(" : ")
        if ", default " in kind:
            values = kind.split(", default ")[1].split(", ")
            stated |= zip(names.split(", "), values, strict=True)
        elif kind.endswith(", optional"):
            stated |= dict.fromkeys(names.split(", "), "None")
    return stated


@pytest.mark.parametrize("cls", BUILT_IN)
def test_docstring_states_the_defaults(cls):
    stated = stated_defaults(cls)
    # By position, too: what a base class declares takes its place before the rule's own.
    parameters = inspect.signature(cls).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [name for name in positional if name in stated] == [
        name for name in stated if name in positional
    ]
    hyperparameters = {f.name: f.default for f in fields(cls) if f.init}
    assert stated.keys() <= hyperparameters.keys()
    for name, default in hyperparameters.items():
        assert re.search(rf"\b{name}\b", cls.__doc__), f"{name} is not explained"
        if name not in stated:
            # Explained once, where it is defined: in Rule or in the parent class.
            assert name not in cls.__annotations__, f"the default of {name} is not stated"
        elif name == "learning_rate":
            assert default is None
            assert float(stated[name]) == cls.default_rate
        elif default is None or isinstance(default, bool):
            assert stated[name] == str(default)
        else:
            assert float(stated[name]) == default


# What the papers (and theory.md) give. AdaBelief's epsilons are chosen by measurement.
DEFAULTS = {
    SGD: {"weight_decay": 0, "decoupled": False},
    Momentum: {"momentum": 0.9},
    Nesterov: {"momentum": 0.9},
    RMSProp: {"beta2": 0.9, "momentum": 0},
    Adam: {
        "default_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "eps_root": 0,
        "amsgrad": False,
    },
    AMSGrad: {"amsgrad": True, "bias_correction": False},
    AdamW: {"default_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled": True},
    AdaMax: {"default_rate": 2e-3, "beta1": 0.9, "beta2": 0.999},
    AdaBelief: {
        "default_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "rectify": False,
        "amsgrad": False,
    },
    AdaBound: {"default_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "final_lr": 0.1, "gamma": 1e-3},
    LAMB: {"default_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0},
}


@pytest.mark.parametrize("cls", DEFAULTS)
def test_defaults_are_the_papers(cls):
    rule = cls()
    assert {name: getattr(rule, name) for name in DEFAULTS[cls]} == DEFAULTS[cls]
