"""The shared tables of the tests: rules with their options, gradients, how to run both."""

from dataclasses import fields

import numpy as np
import pytest
import reference

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
)

SIZE = 203  # not a multiple of any vector width
STEPS = 70

# Every registered rule and every option of it; the ids are the tests' ids.
CASES = [
    ("sgd", SGD()),
    ("sgd-coupled", SGD(0.1, weight_decay=0.1)),
    ("sgd-decoupled", SGD(0.1, weight_decay=0.1, decoupled=True)),
    ("momentum", Momentum()),
    ("momentum-zero", Momentum(0.1, momentum=0.0)),
    ("momentum-coupled", Momentum(0.05, momentum=0.8, weight_decay=0.1)),
    ("momentum-decoupled", Momentum(0.05, momentum=0.8, weight_decay=0.1, decoupled=True)),
    ("nesterov", Nesterov()),
    ("nesterov-coupled", Nesterov(0.05, momentum=0.8, weight_decay=0.1)),
    ("nesterov-decoupled", Nesterov(0.05, weight_decay=0.1, decoupled=True)),
    ("adagrad", Adagrad()),
    ("adagrad-pytorch", Adagrad(eps=1e-10, eps_root=0.0)),
    ("adagrad-no-eps", Adagrad(0.1, eps_root=0.0)),
    ("adagrad-coupled", Adagrad(weight_decay=0.1)),
    ("adagrad-decoupled", Adagrad(0.1, weight_decay=0.1, decoupled=True)),
    ("rmsprop", RMSProp()),
    ("rmsprop-no-eps", RMSProp(0.01, beta2=0.5, eps_root=0.0)),
    ("rmsprop-momentum", RMSProp(momentum=0.9)),
    ("rmsprop-momentum-pytorch", RMSProp(0.01, beta2=0.99, momentum=0.5, eps=1e-8, eps_root=0.0)),
    ("rmsprop-momentum-no-eps", RMSProp(momentum=0.7, eps_root=0.0)),
    ("rmsprop-coupled", RMSProp(momentum=0.5, weight_decay=0.1)),
    ("rmsprop-decoupled", RMSProp(0.01, weight_decay=0.1, decoupled=True)),
    ("adam", Adam()),
    ("adam-no-eps", Adam(0.1, eps=0.0)),
    ("adam-eps-root", Adam(0.1, eps=0.0, eps_root=1e-6)),
    ("adam-eps-hat", Adam(0.01, eps=1e-4, eps_hat=True)),
    ("adam-uncorrected", Adam(0.01, bias_correction=False)),
    ("adam-betas", Adam(0.01, beta1=0.0, beta2=0.5)),
    ("adam-amsgrad", Adam(0.01, beta2=0.9, amsgrad=True)),
    ("adam-amsgrad-eps-hat", Adam(0.01, beta2=0.9, amsgrad=True, eps_hat=True)),
    ("adam-coupled", Adam(0.01, weight_decay=0.1)),
    ("adam-decoupled", Adam(0.01, weight_decay=0.1, decoupled=True)),
    ("amsgrad", AMSGrad()),
    ("amsgrad-corrected", AMSGrad(0.01, beta2=0.8, bias_correction=True, weight_decay=0.1)),
    ("amsgrad-decoupled", AMSGrad(0.01, weight_decay=0.1, decoupled=True)),
    ("adamw", AdamW()),
    ("adamw-amsgrad", AdamW(0.01, beta2=0.9, weight_decay=0.2, amsgrad=True)),
    ("adamw-coupled", AdamW(0.01, weight_decay=0.2, decoupled=False)),
    ("adamax", AdaMax()),
    ("adamax-eps", AdaMax(0.01, beta1=0.8, beta2=0.9, eps=1e-8)),
    ("adamax-uncorrected", AdaMax(0.01, bias_correction=False, weight_decay=0.1)),
    ("adamax-decoupled", AdaMax(weight_decay=0.1, decoupled=True)),
    ("adabelief", AdaBelief()),
    ("adabelief-betas", AdaBelief(0.01, beta1=0.5, beta2=0.99)),
    ("adabelief-first-version", AdaBelief(eps_root=0.0)),
    ("adabelief-no-eps", AdaBelief(0.01, beta2=0.9, eps=0.0, eps_root=0.0)),
    ("adabelief-optax", AdaBelief(eps=1e-16, eps_root=1e-16)),
    ("adabelief-pytorch", AdaBelief(eps=1e-16, eps_root=1e-16, rectify=True)),
    (
        "adabelief-pytorch-decoupled",
        AdaBelief(0.01, eps=1e-16, eps_root=1e-16, rectify=True, weight_decay=0.1, decoupled=True),
    ),
    (
        "adabelief-pytorch-coupled",
        AdaBelief(0.01, eps=1e-16, eps_root=1e-16, weight_decay=0.1),
    ),
    (
        "adabelief-waits",
        AdaBelief(eps=1e-14, eps_root=1e-14, rectify=True, degenerated_to_sgd=False),
    ),
    ("adabelief-uncorrected", AdaBelief(0.01, bias_correction=False)),
    ("adabelief-amsgrad", AdaBelief(0.01, beta2=0.9, amsgrad=True)),
    ("adabelief-amsgrad-rectify", AdaBelief(0.01, beta2=0.9, amsgrad=True, rectify=True)),
    ("adabound", AdaBound()),
    ("adabound-tight", AdaBound(0.01, final_lr=0.05, gamma=0.1, eps=0.0)),
    ("adabound-uncorrected", AdaBound(0.01, gamma=0.01, bias_correction=False)),
    ("adabound-amsbound", AdaBound(0.01, beta2=0.9, amsgrad=True, weight_decay=0.1)),
    ("adabound-decoupled", AdaBound(beta1=0.5, weight_decay=0.1, decoupled=True)),
    ("lamb", LAMB()),
    ("lamb-betas", LAMB(0.01, beta1=0.5, beta2=0.9)),
    ("lamb-segments", LAMB(0.01, segments=(0, 1, 70, 128), weight_decay=0.1)),
    ("lamb-uncorrected", LAMB(0.01, eps=0.0, bias_correction=False, segments=(0, 100))),
]
RULES = dict(CASES)

# One instance per combination of class and state slots: enough where only the kernels are at stake.
KERNELS = {(type(rule), rule.state_names): (name, rule) for name, rule in reversed(CASES)}
KERNELS = [KERNELS[key] for key in reversed(KERNELS)]

KINDS = ("ordinary", "sparse", "scales", "wild")

# Coordinates whose gradient is zero for ever, in every kind.
FROZEN = slice(0, None, 10)


def gradients(kind, n=SIZE, steps=STEPS, dtype=np.float64, seed=0):
    """Gradients of ``steps`` steps, shape (steps, n).

    Every kind holds exact zeros, sign flips, constant coordinates and coordinates that are zero for
    ever. "ordinary": about 1. "sparse": nine in ten are zero. "scales": each coordinate has its own
    magnitude, from 1e-30 to 1e30. "wild": every single number has.
    """
    random = np.random.default_rng([seed, KINDS.index(kind), n])
    g = random.standard_normal((steps, n)) + random.standard_normal(n)
    g[:, 1::10] = g[0, 1::10]  # constant
    g[:, 2::10] = g[0, 2::10] * np.where(np.arange(steps) % 2, 1, -1)[:, None]  # flips
    g[random.random((steps, n)) < (0.9 if kind == "sparse" else 0.05)] = 0
    if kind == "scales":
        g *= 10.0 ** np.linspace(-30, 30, n)
    elif kind == "wild":
        g *= 10.0 ** random.uniform(-30, 30, (steps, n))
    g[:, FROZEN] = 0
    return g.astype(dtype)


def start(n=SIZE, dtype=np.float64, seed=0):
    """A starting point: half of it zero, where the smallest step shows, half of it about 1."""
    x = np.random.default_rng([seed, n]).standard_normal(n)
    x[(np.arange(n) // 5) % 2 == 1] = 0
    return x.astype(dtype)


def oracle(rule, x, **options):
    """The independent oracle of tests/reference.py for this rule's hyperparameters."""
    settings = {f.name: getattr(rule, f.name) for f in fields(rule)}
    if settings["learning_rate"] is None:
        settings["learning_rate"] = rule.default_rate
    return reference.make(type(rule).__name__, x, **settings, **options)


def run(rule, x, sequence, **options):
    """The optimizer after the gradients of ``sequence``, on a copy of ``x``; returns (x, opt)."""
    x = x.copy()
    opt = numbelief.Optimizer(rule, x, **options)
    for g in sequence:
        opt.step(g)
    return x, opt


def same_bits(a, b):
    """Whether two arrays hold the same bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# What a file of `minimize` may not hold: an array's name, and what it is there (None: nothing).
DAMAGE = [
    ("best", lambda array: array[:, :1]),
    ("best", lambda array: array.astype(np.float32)),
    ("g", lambda array: array[:1]),
    ("g", None),
    ("control", None),
    ("history", lambda array: array[:2]),
    ("allvecs", lambda array: array[:2]),
    ("allvecs", lambda array: array[:, :1]),
    ("previous", lambda array: np.append(array, 0)),
    ("pairs", lambda array: array[:-1]),
    ("pairs", lambda array: np.append(array, array, axis=0)),
    ("products", lambda array: array[:1]),
]


def damage(path, name, change):
    """Change an array of a file, or leave it out."""
    with np.load(path) as file:
        arrays = {each: file[each] for each in file.files}
    given = arrays.pop(name)
    np.savez(path, **arrays, **({} if change is None else {name: change(given)}))


def in_turns(more):
    """The mark of what only -m thorough tests: with each run of `.ci/run` another share of it."""
    return [pytest.mark.thorough] if more else []


_KINDS = [(type(rule), rule.state_names) for _, rule in KERNELS]


def with_dtypes(rows, rule_of):
    """Each row with each dtype, float32 for a third of the kernels: these take long to compile.

    ``rule_of(*row)`` is the rule.
    """
    found = []
    for row in rows:
        rule = rule_of(*row)
        rare = _KINDS.index((type(rule), rule.state_names)) % 3 != 1
        for dtype in (np.float64, np.float32):
            marks = in_turns(rare and dtype == np.float32)
            found.append(pytest.param(*row, dtype, marks=marks))
    return found
