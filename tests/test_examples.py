"""Every file in examples/ runs by itself, warns of nothing, and shows what it says it shows."""

import ast
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import numbelief

EXAMPLES = sorted(pathlib.Path(__file__).parents[1].joinpath("examples").glob("*.py"))
PNG = b"\x89PNG\r\n\x1a\n"
# Any warning is an error, except deprecations that third parties tell each other about.
WARNINGS = ("error", "ignore::DeprecationWarning", "error::DeprecationWarning:__main__")


def needs(path):
    """The modules that an example imports, itself or through an option."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
    if '"progress"' in source:
        yield "tqdm"


def rows(text, *names):
    """The words after each name that begins a line, the longest names first."""
    found = {}
    for line in text.splitlines():
        for name in sorted(names, key=len, reverse=True):
            if line.strip().startswith(name):
                found.setdefault(name, line.strip()[len(name) :].split())
                break
    assert set(found) == set(names), text
    return found


def check_quickstart(out, err):
    _, _, table = out.partition("minimum")
    names = ("AdaBelief", "Adam", "Momentum SGD", "L-BFGS-B")
    found = rows(table, *names)
    loss = {name: float(found[name][name != "L-BFGS-B"]) for name in names}
    for name in names:
        assert abs(loss[name] - loss["L-BFGS-B"]) < 1e-3
        accuracy, iterations, gradients = found[name][-5:-2]
        assert float(accuracy) > 0.95
        assert 0 < int(iterations) < int(gradients) < 2000
    assert err.count(" 0/2000 ") == 3  # three progress bars


def check_scipy_method(out, err):
    found = rows(
        out, "minimize", "bounds", "tol, args", "callback", "basinhopping", "dual_annealing"
    )
    assert found["bounds"][1:3] == ["(0.800000,", "0.640000)"]
    assert found["tol, args"][1:3] == ["(1.000000,", "1.000000)"]
    assert found["callback"][5] == "99"
    assert float(found["callback"][0]) < 1e-3
    for name in ("minimize", "basinhopping", "dual_annealing"):
        assert float(found[name][0]) < 1e-8


def check_own_rule(out, err):
    kernels = re.findall(r"^(float32|float64) +(serial|parallel) .* (yes|no)$", out, re.MULTILINE)
    assert len(kernels) == 4
    assert all(same == "yes" for *_, same in kernels)
    assert "x = [1. 1.]" in out
    assert "x = [0.8  0.64]" in out


def check_own_loop(out, err):
    assert "died at step 637" in out
    assert "is of step 600" in out
    found = rows(out, "undisturbed", "killed, resumed")
    assert found["undisturbed"] == found["killed, resumed"]
    assert found["undisturbed"][0] == "1000"
    assert "bit-identical: yes" in out


def check_two_dimensional_paths(out, err):
    nearest = re.search(r"AdaBelief is nearest in (\d+) of 18 rows", out)
    assert int(nearest[1]) >= 12
    _, _, cases = out.partition("step in units")
    steps = re.findall(r"([\d.]+) \[([LS])\]", cases)
    assert len(steps) == 9
    for step, letter in steps[2::3]:  # AdaBelief, which does as the paper says
        assert (float(step) >= 1) == (letter == "L")
    assert np.isclose(float(steps[1][0]), float(steps[7][0]))  # Adam, which does not


def check_many_fits(out, err):
    assert float(re.search(r"([\d.]+)% of the fits converged", out)[1]) > 99.9
    assert abs(float(re.search(r"degree of freedom ([\d.]+)", out)[1]) - 1) < 0.015
    errors = re.findall(r"^(?:amplitude|lifetime|offset).* ([\d.]+) +[\d.]+%$", out, re.MULTILINE)
    assert len(errors) == 3
    assert all(abs(float(error) - 1) < 0.06 for error in errors)


def check_multi_start(out, err):
    converged, starts = re.search(r"(\d+) of (\d+) problems terminated success", out).groups()
    assert int(converged) >= 0.999 * int(starts)
    assert "with the value -3.306868647475" in out  # as published, from 10 digits on
    assert int(re.search(r"(\d+) of the 693 minima", out)[1]) >= 640


def check_online_regret(out, err):
    names = ("AdaBelief", "AdaBelief, maximum", "Adam", "AMSGrad", "Adagrad", "OGD")
    compared, _, audited = out.partition("regret   at best")
    curves, audited = rows(compared, *names), rows(audited, *names)
    for name in names:
        rounds, low, high = curves[name][:3]
        assert int(rounds) == 20 * 569
        assert float(high) - float(low) < 1e-3
        regret, at_best, certificate, trivial, _, value = audited[name][:6]
        assert abs(float(regret) - float(high)) < 0.1
        assert float(regret) <= float(at_best) <= 3 * float(regret)  # what the picture shows
        assert float(at_best) <= min(float(certificate), float(trivial), float(value))
    holds = [name for name in names if audited[name][6:] == ["hold"]]
    assert holds == ["AdaBelief, maximum", "AMSGrad", "Adagrad", "OGD"]


def check_adam_fails(out, err):
    known, agree = map(int, re.search(r"(\d+) of (\d+) agree", out).groups())
    assert known == agree >= 19
    assert "Plain AdaBelief fails where Adam does" in out
    for game in ("online", "stochastic", "theorem 1"):
        last = dict(re.findall(rf"^{game} +(\S.*?) +\d+ +(-?[\d.]+) +[\d.]+$", out, re.MULTILINE))
        assert len(last) == 5
        for name, x in last.items():
            assert (float(x) > 0.99) == (name in ("Adam", "AdaBelief"))
            assert (float(x) < -0.8) == (name not in ("Adam", "AdaBelief"))


def check_theorem_audit(out, err):
    constant, decaying = out.split("====")[1:]
    bounds = {}
    for run, names in (
        (constant, ("theorem 2.1", "certificate", "certificate at the best x")),
        (decaying, ("theorem 2.1", "corollary 2.1.1")),
    ):
        regret = float(re.search(r"to ([\d.]+)\n", run)[1])
        for name in names:
            for variant in ("",) if "certificate" in name else (", printed", ", corrected"):
                line = rows(run.partition("/ trivial")[2].partition("\ntrivial")[0], name + variant)
                *terms, total, over = map(float, line[name + variant])
                assert np.isclose(sum(terms), total, rtol=1e-3)
                assert total > regret
                bounds[run is decaying, name + variant] = over
    assert bounds[False, "theorem 2.1, printed"] > 1e4  # times the trivial bound
    assert bounds[False, "theorem 2.1, corrected"] < 10
    assert bounds[False, "certificate at the best x"] < 0.01
    assert out.count("assumptions violated") == 1
    assert "corollary 2.1.1, printed: assumptions violated" in out


def check_portfolio(out, err):
    assert "10 stocks, 1257 days" in out
    found = rows(out, "best rebalanced  ", "exponentiated gradient", "OGD", "AMSGrad")
    best = float(found.pop("best rebalanced  ")[0])
    for wealth, low, high in found.values():
        assert 0 < float(low) <= float(high) < float(low) + 1e-6
        assert np.isclose(float(low), np.log(best / float(wealth)), atol=1e-3)
    assert float(re.search(r"duality gap (\S+):", out)[1]) < 1e-6


def example(name):
    """An example as a module."""
    path = next(path for path in EXAMPLES if path.stem == name)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_gradient(loss, x, *data):
    """A gradient agrees with a central difference along a random direction."""
    direction = np.random.default_rng(1).standard_normal(x.size)
    direction /= np.linalg.norm(direction)
    grad, unused = np.empty_like(x), np.empty_like(x)
    loss(x, grad, *data)
    ends = [loss(x + step * direction, unused, *data) for step in (1e-6, -1e-6)]
    assert np.isclose((ends[0] - ends[1]) / 2e-6, grad @ direction, rtol=1e-5, atol=1e-7)


def verdicts(out):
    """The findings of a table, and whether they show."""
    _, _, table = out.partition("published")
    return dict(re.findall(r"^(.*\S) +(yes|no)$", table, re.MULTILINE))


def check_logistic_regression(out, err):
    names = ("Adam", "AdaBelief", "AdaMax", "RMSProp", "Nesterov SGD", "Adagrad")
    names += ("Adagrad, 1/sqrt(t)",)
    digits, _, texts = out.partition("published")[0].partition("bag of words")
    for table, below in ((digits, 0.45), (texts, 0.4)):
        losses = {name: [*map(float, line[1:])] for name, line in rows(table, *names).items()}
        assert len(losses) == 7
        assert all(loss[0] > loss[1] > loss[2] for loss in losses.values())
        assert all(loss[2] < below for loss in losses.values())
        last = {name: loss[2] for name, loss in losses.items()}
        for name in ("Adam", "AdaBelief", "Adagrad"):
            assert last[name] < 0.95 * min(last["Nesterov SGD"], last["Adagrad, 1/sqrt(t)"])
    assert last["Adagrad"] < 0.5 * last["Nesterov SGD"]  # of the texts
    assert last["Adam"] < 0.6 * last["Nesterov SGD"]
    assert len(re.findall(r" (?:yes|no)$", out, re.MULTILINE)) == 7

    module, random = example("logistic_regression"), np.random.default_rng(0)
    images = random.random((10, 785))
    weights = random.standard_normal(7850) / 10
    assert_gradient(module.softmax_loss.py_func, weights, images, np.arange(10))
    counts, classes = module.synthetic_texts(20)
    weights = random.standard_normal(10_000) / 10
    assert_gradient(module.logistic_loss, weights, counts.astype(float), classes.astype(float))


def repeating(model):
    """The loss of a model, with the same random numbers in each call."""

    def loss(*args):
        model.random = np.random.default_rng(5)
        return model.loss(*args)

    return loss


def check_multilayer_network(out, err):
    names = ("Adam", "AdaBelief", "Adagrad", "RMSProp", "Nesterov SGD")
    table, _, rest = out.partition("training step")
    losses = {name: [*map(float, line[1:])] for name, line in rows(table, *names).items()}
    assert all(2.5 > loss[0] > loss[1] > loss[2] for loss in losses.values())
    for name in ("Adam", "AdaBelief"):
        assert losses[name][2] < 1.4
        assert losses[name][2] < 0.98 * min(losses["Adagrad"][2], losses["RMSProp"][2])
        share, left = re.search(
            rf"^{name} .* ms +([\d.]+)% +([\d.]+)%$", rest, re.MULTILINE
        ).groups()
        assert 0 < float(share) < 100
        assert abs(float(share) + float(left) - 100) < 0.11
    assert list(verdicts(rest).values())[:2] == ["yes", "yes"]

    network, random = (
        example("multilayer_network").Network(784, 20, 20, 10),
        np.random.default_rng(0),
    )
    x = network.start() + 0.01 * random.standard_normal(network.start().size)
    assert_gradient(repeating(network), x, random.random((10, 784)), np.arange(10))


def check_bias_correction(out, err):
    table, _, rest = out.partition("unstable settings")
    number = r"([\d.]+)"
    found = re.findall(
        rf"^{number} +{number} +(\d+) +{number} +{number} +(\d) of 4$", table, re.MULTILINE
    )
    assert len(found) == 8
    for _, _, epochs, corrected, without, _ in found:
        assert 180 < float(corrected) < (330 if epochs == "1" else 230)
        assert abs(float(corrected) / float(without) - 1) < 0.15
    unstable = {line[:3]: int(line[5]) for line in found}
    for beta1 in ("0", "0.9"):
        for epochs in ("1", "4"):
            assert unstable[beta1, "0.9999", epochs] > unstable[beta1, "0.99", epochs]
    assert next(iter(verdicts(rest).values())) == "yes"
    assert len(verdicts(rest)) == 3

    model, random = example("bias_correction").Autoencoder(784, 20, 4), np.random.default_rng(0)
    assert_gradient(repeating(model), 10.0 * model.start(), random.random((10, 784)))


def check_lookahead_and_restarts(out, err):
    ahead = (
        "k = 5, alpha = 0.5",
        "k = 5, alpha = 0.8",
        "k = 10, alpha = 0.5",
        "k = 10, alpha = 0.8",
    )
    inner = ("SGD", "Adam")
    names = [f"{name}, {each}" for name in inner for each in ahead]
    found = rows(out, *inner, *names, "SGDR", "step decay", "constant")
    losses = {name: list(map(float, found[name][:15:3])) for name in (*inner, *names)}
    for name, high in (("SGD", 3), ("Adam", 4)):
        assert losses[f"{name}, {ahead[0]}"][high] < 0.6 * losses[name][high]
        assert losses[f"{name}, {ahead[0]}"][0] > losses[name][0]  # half the way, at a low rate
        assert min(losses[name]) < 0.1
    answers = re.findall(r"shows it: (yes|no)$", out, re.MULTILINE)
    assert len(answers) == 7
    for answer, name in ((answers[0], "SGD"), (answers[3], "Adam")):
        worst = max(min(losses[f"{name}, {each}"]) for each in ahead)
        assert (answer == "yes") == (worst < min(losses[name]))
    for name in ("SGDR", "step decay", "constant"):
        assert float(found[name][0]) < 4


def check_convolutional_network(out, err):
    assert "no copy between PyTorch and numbelief" in out
    rule = "Adam|AdaBelief|Adagrad|Nesterov SGD"
    table = re.findall(rf"^({rule}) +(no|yes) +\S+ +([\d. ]+) %$", out, re.MULTILINE)
    losses = {(name, dropout): list(map(float, row.split())) for name, dropout, row in table}
    assert len(losses) == 8
    for (_, dropout), (first, *_, last, error) in losses.items():
        assert last < (0.6 if dropout == "yes" else 0.4) * first
        assert error < 30
    answers = re.findall(r"^  shows it: (yes|no)$", out, re.MULTILINE)
    for answer, dropout in zip(answers, ("no", "yes"), strict=True):
        adam, sgd, adagrad = (losses[name, dropout] for name in ("Adam", "Nesterov SGD", "Adagrad"))
        shows = adagrad[0] < sgd[0] and adagrad[-2] > max(adam[-2], sgd[-2])
        assert (answer == "yes") == shows


def check_jax_gradients(out, err):
    found = rows(out, "JAX", "by hand")
    assert abs(float(found["JAX"][0]) - float(found["by hand"][0])) < 1e-12
    assert float(re.search(r"difference of a weight: (\S+)", out)[1]) < 1e-8
    assert "the same minimum: yes" in out


def check_recurrent_network(out, err):
    found = rows(out, "Adam", "AdaBelief", "SGD")
    last = {}
    for name, row in found.items():
        first, second, last[name] = map(float, row[1::3])
        assert 5 < last[name] < second < first < 30  # of 86 characters, after the first epoch
    lead, spread = map(float, re.search(r"higher by (\S+), the spread is (\S+)", out).groups())
    assert np.isclose(min(last["Adam"], last["SGD"]) - last["AdaBelief"], lead, atol=2e-3)
    assert f"shows it: {'yes' if lead > spread else 'no'}" in out


def check_adversarial_network(out, err):
    found = rows(out, "SGD", "Adam", "RMSProp", "AdaBelief")
    mean, spread = ({name: float(row[i]) for name, row in found.items()} for i in (0, 1))
    assert max(mean.values()) < 1.1  # the first points are 1.15 away
    assert mean["AdaBelief"] < 0.6
    adaptive = ("Adam", "RMSProp", "AdaBelief")
    best, stable = min(adaptive, key=mean.get), min(adaptive, key=spread.get)
    assert f"{best} has the lowest mean, {stable} the smallest standard deviation" in out
    assert f"shows it: {'yes' if best == stable == 'AdaBelief' else 'no'}" in out


def check_gpu_step(out, err):
    assert re.search(r"^used: the (CPU|GPU), with \w+$", out, re.MULTILINE)
    found = rows(out, "0 ", "40 ")
    assert float(found["40 "][0]) < float(found["0 "][0]) / 4
    assert float(found["40 "][1]) < 0.3  # the noise


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    for module in needs(path):
        pytest.importorskip(module)
    root = pathlib.Path(numbelief.__file__).parents[1]
    search = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    flags = [part for warning in WARNINGS for part in ("-W", warning)]
    run = subprocess.run(
        [sys.executable, *flags, path, "--output", tmp_path / "figures"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": search, "MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    figures = list(tmp_path.rglob("*.png"))
    if "savefig" in path.read_text(encoding="utf-8"):
        assert [figure.parent.name for figure in figures] == ["figures"]
        assert figures[0].read_bytes().startswith(PNG)
        assert figures[0].stat().st_size > 20_000
    else:
        assert not figures
        assert len(run.stdout.splitlines()) > 4
    globals()[f"check_{path.stem}"](run.stdout, run.stderr)


def test_examples_are_found():
    assert len(EXAMPLES) >= 11
