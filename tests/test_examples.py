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
    assert len(EXAMPLES) >= 7
