"""Variants that are named after another library, against that library itself, in float64."""

import cases
import numpy as np
import pytest

import numbelief
from numbelief import (
    LAMB,
    SGD,
    AdaBelief,
    Adagrad,
    Adam,
    AdaMax,
    AdamW,
    AMSGrad,
    Momentum,
    Nesterov,
    RMSProp,
)

STEPS = 60

# Of the path's length plus |x|. Everybody computes 1 - 0.999^t in float64, where it loses three
# digits; RAdam's rho is a small difference of terms near 2000 on top of that.
TOLERANCE = 1e-12
RECTIFIED = 1e-10


def compare(rule, peer, kind, tolerance=TOLERANCE):
    """Walk with both from the same start along the same gradients; compare after every step."""
    sequence = cases.gradients(kind, steps=STEPS)
    x = cases.start()
    opt = numbelief.Optimizer(rule, x)
    length = np.abs(x)
    before = x.copy()
    for g, other in zip(sequence, peer(x.copy(), sequence), strict=True):
        opt.step(g)
        length += np.abs(other - before)
        before = other
        assert np.all(np.abs(x - other) <= tolerance * length), f"step {opt.t}"


def torch_path(make):
    """The path of a PyTorch optimizer, as a generator of arrays."""
    torch = pytest.importorskip("torch")

    def path(x, sequence):
        p = torch.nn.Parameter(torch.from_numpy(x))
        optimizer = make([p])
        for g in sequence:
            p.grad = torch.from_numpy(g.copy())  # adabelief-pytorch writes into it
            optimizer.step()
            yield p.detach().numpy().copy()

    return path


def optax_path(transformation, segments=()):
    """The path of an optax transformation; ``segments`` splits the array into leaves."""
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")

    def path(x, sequence):
        with jax.enable_x64(True):
            leaves = [jax.numpy.asarray(part) for part in np.split(x, segments)]
            state = transformation.init(leaves)
            for g in sequence:
                grads = [jax.numpy.asarray(part) for part in np.split(g, segments)]
                updates, state = transformation.update(grads, state, leaves)
                leaves = optax.apply_updates(leaves, updates)
                yield np.concatenate([np.asarray(leaf) for leaf in leaves])

    return path


TORCH = {
    "sgd": (SGD(0.1), "SGD", {"lr": 0.1}),
    "sgd-coupled": (SGD(0.1, weight_decay=0.1), "SGD", {"lr": 0.1, "weight_decay": 0.1}),
    "momentum": (Momentum(0.1, momentum=0.8), "SGD", {"lr": 0.1, "momentum": 0.8}),
    "nesterov": (
        Nesterov(0.1, momentum=0.8),
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    ),
    "nesterov-coupled": (
        Nesterov(0.01, weight_decay=0.1),
        "SGD",
        {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "adagrad": (Adagrad(0.1, eps=1e-10, eps_root=0.0), "Adagrad", {"lr": 0.1}),
    "rmsprop": (
        RMSProp(0.01, beta2=0.99, eps=1e-8, eps_root=0.0),
        "RMSprop",
        {"lr": 0.01},
    ),
    "rmsprop-momentum": (
        RMSProp(0.01, beta2=0.9, momentum=0.8, eps=1e-8, eps_root=0.0),
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.8},
    ),
    "adam": (Adam(), "Adam", {}),
    "adam-coupled": (Adam(0.01, weight_decay=0.1), "Adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adam-amsgrad": (
        Adam(0.01, beta2=0.9, amsgrad=True),
        "Adam",
        {"lr": 0.01, "betas": (0.9, 0.9), "amsgrad": True},
    ),
    "amsgrad": (
        AMSGrad(beta2=0.9, bias_correction=True),
        "Adam",
        {"betas": (0.9, 0.9), "amsgrad": True},
    ),
    "adamw": (AdamW(), "AdamW", {}),
    "adamw-amsgrad": (
        AdamW(0.01, weight_decay=0.2, amsgrad=True),
        "AdamW",
        {"lr": 0.01, "weight_decay": 0.2, "amsgrad": True},
    ),
    # PyTorch and optax take max(beta2 u, |g| + eps), so their eps must not be seen.
    "adamax": (AdaMax(), "Adamax", {"eps": 1e-300}),
    "adamax-coupled": (
        AdaMax(0.01, beta2=0.9, weight_decay=0.1),
        "Adamax",
        {"lr": 0.01, "betas": (0.9, 0.9), "eps": 1e-300, "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("kind", ["ordinary", "scales"])
@pytest.mark.parametrize("name", TORCH)
def test_torch(name, kind):
    torch = pytest.importorskip("torch")
    rule, peer, options = TORCH[name]
    compare(rule, torch_path(lambda p: getattr(torch.optim, peer)(p, **options)), kind)


OFFICIAL = {
    "rectify": (AdaBelief(eps=1e-16, eps_root=1e-16, rectify=True), {}),
    "plain": (AdaBelief(eps=1e-16, eps_root=1e-16), {"rectify": False}),
    "eps": (AdaBelief(eps=1e-8, eps_root=1e-8), {"rectify": False, "eps": 1e-8}),
    "rectify-waits": (
        AdaBelief(0.01, eps=1e-8, eps_root=1e-8, rectify=True, degenerated_to_sgd=False),
        {"lr": 0.01, "eps": 1e-8, "degenerated_to_sgd": False},
    ),
    "rectify-decoupled": (
        AdaBelief(0.01, eps=1e-16, eps_root=1e-16, rectify=True, weight_decay=0.1, decoupled=True),
        {"lr": 0.01, "weight_decay": 0.1},
    ),
    "plain-decoupled": (
        AdaBelief(0.01, eps=1e-16, eps_root=1e-16, weight_decay=0.1, decoupled=True),
        {"lr": 0.01, "weight_decay": 0.1, "rectify": False},
    ),
    "rectify-coupled": (
        AdaBelief(0.01, eps=1e-16, eps_root=1e-16, rectify=True, weight_decay=0.1),
        {"lr": 0.01, "weight_decay": 0.1, "weight_decouple": False},
    ),
    "plain-coupled": (
        AdaBelief(0.01, eps=1e-16, eps_root=1e-16, weight_decay=0.1),
        {"lr": 0.01, "weight_decay": 0.1, "weight_decouple": False, "rectify": False},
    ),
    "amsgrad": (
        AdaBelief(0.01, beta2=0.9, eps=1e-16, eps_root=1e-16, amsgrad=True),
        {"lr": 0.01, "betas": (0.9, 0.9), "amsgrad": True, "rectify": False},
    ),
}


@pytest.mark.parametrize("kind", ["ordinary", "scales"])
@pytest.mark.parametrize("name", OFFICIAL)
def test_adabelief_pytorch(name, kind):
    official = pytest.importorskip("adabelief_pytorch")
    rule, options = OFFICIAL[name]
    options = {"eps": 1e-16, "print_change_log": False, **options}
    path = torch_path(lambda p: official.AdaBelief(p, **options))
    compare(rule, path, kind, RECTIFIED if rule.rectify else TOLERANCE)


OPTAX = {
    "adabelief": (AdaBelief(eps=1e-16, eps_root=1e-16), "adabelief", {"learning_rate": 1e-3}),
    "adabelief-eps": (
        AdaBelief(0.1, beta1=0.8, beta2=0.9, eps=1e-8, eps_root=1e-8),
        "adabelief",
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.9, "eps": 1e-8, "eps_root": 1e-8},
    ),
    "adam": (Adam(), "adam", {"learning_rate": 1e-3}),
    "adam-eps-root": (
        Adam(0.1, eps=1e-6, eps_root=1e-6),
        "adam",
        {"learning_rate": 0.1, "eps": 1e-6, "eps_root": 1e-6},
    ),
    "adamw": (
        AdamW(0.01, weight_decay=0.1),
        "adamw",
        {"learning_rate": 0.01, "weight_decay": 0.1},
    ),
    "adamax": (AdaMax(), "adamax", {"learning_rate": 2e-3, "eps": 1e-300}),
    "lamb": (LAMB(0.01), "lamb", {"learning_rate": 0.01}),
    "lamb-segments": (
        LAMB(0.01, weight_decay=0.1, segments=(0, 1, 70, 128)),
        "lamb",
        {"learning_rate": 0.01, "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("kind", ["ordinary", "scales"])
@pytest.mark.parametrize("name", OPTAX)
def test_optax(name, kind):
    optax = pytest.importorskip("optax")
    rule, peer, options = OPTAX[name]
    transformation = getattr(optax, peer)(**options)
    segments = getattr(rule, "segments", None) or (0,)
    compare(rule, optax_path(transformation, segments[1:]), kind)
