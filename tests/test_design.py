"""The shape of the library: packages and what they import, registry, README."""

import ast
import graphlib
import importlib
import pathlib
import re
import subprocess
import sys
import types

import pytest

import numbelief
from numbelief import Rule

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = pathlib.Path(numbelief.__file__).parent
# What each package, or module that belongs to none, may import when it is imported; what a call
# imports does not count: the doors of a result to its plots, and what needs a GPU.
EDGES = {
    "_version": (),
    "_interop": (),
    "checks": (),
    "rules": (),
    "_compile": (),
    "schedules": ("_compile",),
    "sets": ("_compile", "checks"),
    "_checkpoint": ("rules", "schedules"),
    "_step": ("_compile", "checks", "rules"),
    "optimizer": ("_checkpoint", "_compile", "_interop", "_step", "checks", "rules", "schedules",
                  "sets"),
    "_objective": ("_compile", "checks", "sets"),
    "_solve": ("_checkpoint", "_compile", "_interop", "_objective", "_step", "checks", "optimizer",
               "rules", "sets"),
    "_gpu": ("_checkpoint", "_compile", "_interop", "_objective", "_solve", "_step", "checks",
             "optimizer", "rules", "sets"),
    "online": ("_checkpoint", "_compile", "_objective", "_solve", "_step", "checks", "optimizer",
               "rules", "schedules", "sets"),
    "plotting": ("checks", "schedules"),
    "__init__": ("_solve", "_version", "optimizer", "rules", "schedules", "sets"),
}  # fmt: skip
BUILT_IN = {n: r for n, r in Rule.registry.items() if r.is_built_in()}


def imported(path):
    """Names of the packages and modules at the top that importing a file imports."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "numbelief":
            names = [f"numbelief.{alias.name}" for alias in node.names]
        else:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.split(".")[1] for name in names if name.startswith("numbelief."))


def package(path):
    """The package or module at the top that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_imports_are_those_of_the_plan(path):
    allowed = {package(path), *EDGES[package(path)]}
    for name in imported(path):
        assert name in allowed, f"{path.name} imports {name}"


def test_the_plan_has_no_cycle():
    assert {*graphlib.TopologicalSorter(EDGES).static_order()} == EDGES.keys()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_files_are_short_and_numbas_internals_stand_in_one(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 600
    internals = re.findall(r"^ *(?:from|import) (numba\.(?:core|np)|llvmlite)", text, re.MULTILINE)
    assert not internals or path.name == "internals.py"
    assert not re.findall(r"^[A-Za-z_]+: Any$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "rules").glob("*.py")), ids=lambda path: path.stem
)
def test_the_rules_import_the_standard_library_only(path):
    modules = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    roots = {name.split(".")[0] for name in modules if not name.startswith("numbelief.rules")}
    assert roots <= {
        "math",
        "dataclasses",
        "typing",
        "collections",
        "functools",
        "itertools",
        "warnings",
    }


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_of_a_public_package_has_the_name_of_a_function(path):
    names = path.relative_to(PACKAGE.parent).with_suffix("").parts
    if path.stem == "__init__" or any(name.startswith("_") for name in names[:-1]):
        return
    public = getattr(importlib.import_module(".".join(names[:-1])), names[-1], None)
    assert public is None or isinstance(public, types.ModuleType)


def test_importing_needs_no_extra():
    blocked = ("tqdm", "matplotlib", "sklearn", "torch", "jax", "optax", "dask", "cupy")
    script = f"""
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import numbelief
numbelief.minimize(lambda x: float(x @ x), [1.0], jac=lambda x: 2 * x)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=ROOT)


def test_every_rule_is_exported_and_documented():
    for name, rule in BUILT_IN.items():
        assert getattr(numbelief, rule.__name__) is rule
        assert rule.__name__ in numbelief.__all__
        assert name == rule.__name__.lower()
        for section in ("Parameters", "Examples", "References", ".. math::"):
            assert section in rule.__doc__, (name, section)


def test_the_readme_table_of_rules_is_the_registry():
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", text, flags=re.MULTILINE)
    assert [name for name, _ in rows] == [rule.__name__ for rule in BUILT_IN.values()]
    for name, rate in rows:
        assert float(rate) == getattr(numbelief, name).default_rate


def test_readme_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
