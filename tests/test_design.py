"""The shape of the library: floors, registry, README, imports."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import numbelief
from numbelief import Rule

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = pathlib.Path(numbelief.__file__).parent
FLOORS = {
    "_compile": -1, "_version": 0, "rules": 0, "schedules": 0, "callbacks": 0,
    "kernels": 1, "checkpoint": 1, "checks": 1,
    "native": 2, "tuning": 2, "options": 2, "batches": 2, "cuda": 2,
    "projections": 3, "loop": 3, "epochs": 3, "sets": 4, "device_rows": 4,
    "optimizer": 5, "problem": 5, "device": 6, "device_batches": 7,
    "minimize": 7, "many": 8, "stochastic": 8, "plotting": 9, "__init__": 10,
    "online.losses": 5, "online.game": 6, "online.environments": 6, "online.comparators": 6,
    "online.regret": 7, "online.play": 8, "online.bounds": 9, "online.ensemble": 9,
    "online.__init__": 10,
}  # fmt: skip
# Packages that stand on one floor, whatever the order of their files.
PACKAGES = ("_compile", "rules")
BUILT_IN = {n: r for n, r in Rule.registry.items() if r.is_built_in()}


def imported(path):
    """Names of the numbelief modules that importing a file imports.

    Not those for a type checker, nor those that a call imports: the doors of a result to its bounds
    and plots.
    """
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("numbelief"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("numbelief"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("numbelief.") in FLOORS else node.module


def floor(path):
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def package(name):
    """The package that a module is looked at as a part of, or the module."""
    return name.partition(".")[0] if name.startswith(PACKAGES) else name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=floor)
def test_imports_point_downward(path):
    for name in imported(path):
        inner, mine = package(name.removeprefix("numbelief.")), package(floor(path))
        if inner != mine:
            assert FLOORS[inner] < FLOORS[mine], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "rules").glob("*.py")), ids=floor)
def test_the_rules_import_the_standard_library_only(path):
    modules = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    roots = {name.split(".")[0] for name in modules if not name.startswith("numbelief.rules")}
    assert roots <= {"math", "dataclasses", "typing", "collections", "itertools", "warnings"}


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
