"""Every file in examples/ runs by itself, warns of nothing, and shows what it says it shows."""

import ast
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
# Any warning is an error, but for deprecations that third parties tell each other about.
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
