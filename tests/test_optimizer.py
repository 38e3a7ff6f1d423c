"""Optimizer: what it accepts and refuses, bounds, saving, loading, killing."""

import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap
import tracemalloc
import types
import zipfile
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from cases import with_dtypes

from numbelief import (
    LAMB,
    SGD,
    AdaBelief,
    Adam,
    Momentum,
    Optimizer,
    Rule,
    schedules,
    sets,
)
from numbelief._step.kind import rule_key

RNG = np.random.default_rng(7)
BUILT_IN = [kind for kind in Rule.registry.values() if kind.is_built_in()]


def gradients(steps, n=40, dtype=np.float64):
    return RNG.normal(size=(steps, n)).astype(dtype)


def test_x_is_stepped_in_place_and_state_is_a_view():
    x = np.ones(3)
    opt = Optimizer(Adam(0.1), x)
    assert opt.x is x
    assert opt.t == 0
    opt.step(np.ones(3))
    np.testing.assert_allclose(x, 0.9)
    np.testing.assert_allclose(opt.state["m"], 0.1)
    assert list(opt.state) == ["m", "v"]
    assert opt.t == 1


@pytest.mark.parametrize(
    "grad",
    [[1.0, 2.0, 3.0], np.array([1, 2, 3]), np.float32([1, 2, 3]), np.repeat([1.0, 2, 3], 2)[::2],
     np.array([1.0, 2, 3], ">f8"), np.array([1.0, 2, 3]).view(np.memmap)],
    ids=["list", "integers", "float32", "strided", "big-endian", "subclass"],
)  # fmt: skip
def test_other_gradients_are_converted(grad):
    x = np.zeros(3)
    Optimizer(SGD(1.0), x).step(grad)
    np.testing.assert_array_equal(x, [-1, -2, -3])


def test_a_read_only_gradient_works():
    x, g = np.zeros(3), np.ones(3)
    g.flags.writeable = False
    Optimizer(SGD(1.0), x).step(g)
    np.testing.assert_array_equal(x, -1)


def test_a_memory_mapped_array_is_stepped_on_disk(tmp_path):
    x = np.memmap(tmp_path / "x", dtype=np.float32, mode="w+", shape=(100,))
    Optimizer(SGD(1.0), x).step(np.ones(100, np.float32))
    x.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "x", np.float32), -1)


def test_two_optimizers_share_a_rule_and_no_state():
    rule = Adam(0.1)
    x, y, z = np.ones(5), np.ones(5), np.ones(5)
    first, second, alone = (Optimizer(rule, a) for a in (x, y, z))
    for g in gradients(5, 5):
        first.step(g)
        second.step(-g)
        alone.step(g)
    np.testing.assert_array_equal(x, z)
    assert not np.shares_memory(first.state["m"], second.state["m"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_in_every_form_hold(dtype):
    low, high = np.linspace(-1, 0, 40), np.linspace(0.1, 1, 40)
    forms = (
        {"bounds": list(zip(low, high, strict=True))},
        {"feasible_set": sets.Box(low, high)},
    )
    ends = []
    for form in forms:
        x = np.zeros(40, dtype)
        opt = Optimizer(Adam(0.5), x, **form)
        for g in np.random.default_rng(0).normal(size=(20, 40)).astype(dtype):
            opt.step(g)
            assert (low <= x).all()
            assert (x <= high).all()
        ends.append(x)
    np.testing.assert_array_equal(*ends)


def test_a_step_makes_no_temporaries():
    n = 1_000_000
    x, g = np.ones(n, np.float32), np.ones(n, np.float32)
    opt = Optimizer(AdaBelief(), x)
    opt.step(g)
    tracemalloc.start()
    opt.step(g)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


# ---- refusals


def frozen(a):
    a.flags.writeable = False
    return a


ARGUMENTS = {
    "list": ([1.0], {}, TypeError, "x must be a NumPy array, got list"),
    "integers": (np.arange(3), {}, TypeError, "x must be float32 or float64, got int64"),
    "float16": (np.ones(3, "f2"), {}, TypeError, "x must be float32 or float64, got float16"),
    "big-endian": (np.ones(3, ">f8"), {}, TypeError, "x must be float32 or float64, got >f8"),
    "strided": (np.ones(6)[::2], {}, ValueError, "x must be C-contiguous"),
    "read-only": (frozen(np.ones(3)), {}, ValueError, "x must be writable"),
    "2-D": (np.ones((2, 2)), {}, ValueError, r"one dimension .* got shape \(2, 2\)"),
    "empty": (np.ones(0), {}, ValueError, "not be empty"),
    "target": (np.ones(3), {"target": "gpu"}, ValueError, "target must be 'auto', .* got 'gpu'"),
    "bounds": (np.ones(3), {"bounds": [(0, 1)]}, ValueError, "each of 3 coordinates, got 1"),
    "set": (np.ones(3), {"feasible_set": 1}, TypeError, "feasible_set must be"),
    "norm": (np.ones(3), {"max_norm": -1.0}, ValueError, "max_norm must be above 0, got -1.0"),
    "value": (np.ones(3), {"max_value": "a"}, TypeError, "max_value must be a real number"),
    "nan": (np.ones(3), {"max_value": np.nan}, ValueError, "max_value must be a number, got nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments(case):
    x, keywords, error, message = ARGUMENTS[case]
    with pytest.raises(error, match=message):
        Optimizer(Adam(), x, **keywords)


def test_a_rule_must_be_an_instance():
    with pytest.raises(TypeError, match="rule must be a numbelief rule such as"):
        Optimizer(Adam, np.ones(3))
    with pytest.raises(ValueError, match="segments must start below n = 3"):
        Optimizer(LAMB(segments=(0, 3)), np.ones(3))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda opt: opt.x, ValueError, "share memory with x"),
        (lambda opt: opt.state["m"], ValueError, "share memory with the optimizer's state"),
        (lambda opt: opt.x[::-1], ValueError, "share memory with x"),
        (lambda opt: frozen(opt.x.view()), ValueError, "share memory with x"),
        (lambda opt: opt.x[:4], ValueError, r"shape of x, \(5,\), got \(4,\)"),
        (lambda opt: opt.x[None], ValueError, r"got \(1, 5\)"),
        (lambda opt: opt.x + 1j, TypeError, "got dtype complex128"),
        (lambda opt: None, TypeError, "got None"),
        (lambda opt: ["a"] * 5, TypeError, "got dtype <U1"),
        (lambda opt: 1.0, ValueError, r"got \(\)"),
    ],
)
def test_a_bad_gradient_changes_nothing(make, error, message):
    x = np.arange(1.0, 6.0)
    opt = Optimizer(Adam(0.1), x)
    opt.step(np.ones(5))
    before = x.copy(), opt.state["m"].copy(), opt.t
    with pytest.raises(error, match=message):
        opt.step(make(opt))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(opt.state["m"], before[1])
    assert opt.t == before[2]


def test_a_gradient_that_overlaps_x_in_part_is_refused():
    memory = np.ones(10)
    opt = Optimizer(SGD(), memory[:6])
    with pytest.raises(ValueError, match="share memory with x"):
        opt.step(memory[4:])


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf, "a", None])
def test_a_schedule_that_fails_is_named(rate):
    opt = Optimizer(SGD(lambda t: 0.1 if t < 3 else rate), np.ones(2))
    opt.step(np.ones(2))
    opt.step(np.ones(2))
    with pytest.raises(ValueError, match=r"learning_rate\(3\) must be a finite number"):
        opt.step(np.ones(2))
    assert opt.t == 2


# ---- a rule of one's own


def test_mistakes_in_a_rule_of_ones_own_are_named():
    @dataclass(frozen=True)
    class TooFew(Rule):
        slots: ClassVar[tuple[str, ...]] = ("m",)

        @staticmethod
        def update(x, g, c, m):
            return g, c.rate

    @dataclass(frozen=True)
    class Unknown(Rule):
        @staticmethod
        def update(x, g, c):
            return g, c.speed

    class Bare(Rule):
        @staticmethod
        def update(x, g, c):
            return g, c.rate

    @dataclass(frozen=True)
    class Twice(Rule):
        tiny: float = 1.0

        @staticmethod
        def update(x, g, c):
            return g, c.rate

    for rule, error, message in (
        (TooFew(), TypeError, "TooFew.update must return the direction, the rate and 1 slots, got"),
        (Unknown(), AttributeError, "speed"),
        (Bare(), TypeError, "Bare must be decorated with @dataclass"),
        (Twice(), ValueError, "Twice gives c a name twice: tiny"),
    ):
        with pytest.raises(error, match=message):
            Optimizer(rule, np.ones(3))
    with pytest.raises(ValueError, match="a rule named 'adam' exists already"):
        type("Adam", (Rule,), {})


RULE_TEXT = """
import math
from dataclasses import dataclass
from numbelief import Rule

FACTOR = 2.0
POWERS = (1.0, 2.0)

def helper(g, by=3.0):
    return g * by

def make(bound):
    @dataclass(frozen=True)
    class Mine(Rule):
        a: float = 1.0
        b: float = 2.0

        @staticmethod
        def update(x, g, c):
            return bound * helper(g) * c.a, c.rate * FACTOR * POWERS[0] * math.sqrt(c.one)

    return Mine

Mine = make(1.0)
"""


def rule_from(text, old="", new=""):
    assert old in text
    scope = {"__name__": "mine"}
    exec(text.replace(old, new, 1), scope)
    return scope["Mine"]


@pytest.mark.parametrize(
    "edit",
    [("FACTOR = 2.0", "FACTOR = 5.0"), ("(1.0, 2.0)", "(5.0, 2.0)"), ("by=3.0", "by=4.0"),
     ("make(1.0)", "make(5.0)"), ("g * by", "g + by"),
     ("a: float", "z: float = 1.0\n        a: float"),
     ("c.a", "c.b")],
    ids=lambda edit: edit[0],
)  # fmt: skip
def test_an_edited_rule_gets_new_machine_code(edit, monkeypatch):
    assert rule_key(rule_from(RULE_TEXT)) is None  # from a module that is not there
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))
    salt = rule_key(rule_from(RULE_TEXT))
    assert salt == rule_key(rule_from(RULE_TEXT))
    assert salt is not None
    assert rule_key(rule_from(RULE_TEXT, *edit)) != salt


def test_a_rule_that_uses_what_cannot_be_hashed_is_not_cached():
    assert rule_key(rule_from(RULE_TEXT, "FACTOR = 2.0", "FACTOR = object()")) is None


def test_a_closure_is_part_of_a_rule():
    ends = []
    for bound in ("1.0", "5.0"):
        x = np.zeros(2)
        Optimizer(rule_from(RULE_TEXT, "make(1.0)", f"make({bound})")(1.0), x).step(np.ones(2))
        ends.append(x[0])
    assert ends == [-6.0, -30.0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_a_copied_optimizer_steps_its_own_array(copied):
    x = np.ones(3)
    opt = Optimizer(Adam(0.1), x)
    opt.step(np.ones(3))
    other = copied(opt)
    opt.step(np.ones(3))
    assert other.t == 1
    other.step(np.ones(3))
    np.testing.assert_array_equal(other.x, x)
    assert other.x is not x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_norm_where_the_squares_overflow(dtype):
    x, g = np.zeros(3, dtype), np.array([3, 0, -4], dtype) * np.sqrt(np.finfo(dtype).max)
    Optimizer(SGD(1.0), x, max_norm=10.0).step(g)
    np.testing.assert_allclose(x, [-6, 0, 8], rtol=1e-6)


# ---- save and load


@pytest.mark.parametrize(
    ("kind", "dtype"), with_dtypes([(kind,) for kind in BUILT_IN], lambda kind: kind())
)
def test_a_loaded_run_is_bit_identical(kind, dtype, tmp_path):
    rule = kind(learning_rate=schedules.warmup(schedules.sgdr(0.01, T_0=3, T_mult=2), steps=4))
    x = np.linspace(-1, 1, 40).astype(dtype)
    options = {}
    if kind is AdaBelief and dtype is np.float64:  # each set of options compiles a kernel
        options = {"bounds": [(-2, 0.9)] * 40, "max_norm": 3.0, "max_value": 1.0}
    opt = Optimizer(rule, x, **options)
    sequence = gradients(12, dtype=dtype)
    for g in sequence[:6]:
        opt.step(g)
    opt.save(tmp_path / "run")
    y = np.zeros_like(x)
    loaded = Optimizer.load(tmp_path / "run", y)
    assert loaded.rule == rule
    assert loaded.t == 6
    np.testing.assert_array_equal(x, y)
    for g in sequence[6:]:
        opt.step(g)
        loaded.step(g)
    np.testing.assert_array_equal(x, y)
    for name in opt.state:
        np.testing.assert_array_equal(opt.state[name], loaded.state[name])
    assert opt.t == loaded.t == 12


def test_lambs_segments_and_awkward_numbers_survive(tmp_path):
    rule = LAMB(0.1 + 0.2, segments=(0, 3, 17), eps=1e-300, weight_decay=1 / 3)
    Optimizer(rule, np.ones(40)).save(tmp_path / "a")
    assert Optimizer.load(tmp_path / "a", np.ones(40)).rule == rule


def test_numpy_numbers_in_a_schedule_survive(tmp_path):
    rule = Adam(schedules.cosine(np.float32(0.5), steps=np.int64(10)))
    Optimizer(rule, np.ones(3)).save(tmp_path / "a")
    assert Optimizer.load(tmp_path / "a", np.ones(3)).rule == rule


def test_an_interrupt_just_after_the_file_was_replaced(saved, monkeypatch):
    replace = os.replace

    def interrupted(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Optimizer(Adam(0.2), np.ones(40)).save(saved)
    assert Optimizer.load(saved, np.ones(40)).rule == Adam(0.2)
    assert list(saved.parent.iterdir()) == [saved]


def test_a_schedule_of_ones_own_must_be_given_again(tmp_path):
    def mine(t):
        return 0.1 / t

    Optimizer(SGD(mine), np.ones(3)).save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"your own function .*mine.* pass rule="):
        Optimizer.load(tmp_path / "a", np.ones(3))
    assert Optimizer.load(tmp_path / "a", np.ones(3), rule=SGD(mine)).rule.learning_rate is mine


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run.npz"
    opt = Optimizer(Adam(0.1), np.ones(40))
    opt.step(np.ones(40))
    opt.save(path)
    return path


@pytest.mark.parametrize(
    ("x", "rule", "message"),
    [
        (np.zeros(41), None, "n = 40 in the file, 41 given"),
        (np.zeros(40, "f4"), None, "dtype = float64 in the file, float32 given"),
        (np.zeros(40), AdaBelief(0.1), "rule adam in the file, adabelief given"),
        (np.zeros(40), Adam(0.2), "learning_rate = 0.1 in the file, 0.2 given"),
        (np.zeros(40), Adam(0.1, beta1=0.8, eps=1e-7), "beta1 = 0.9 .* eps = 1e-08"),
    ],
)
def test_load_refuses_what_does_not_match(saved, x, rule, message):
    with pytest.raises(ValueError, match=message):
        Optimizer.load(saved, x, rule=rule)
    assert not x.any()


def rewrite(path, change):
    """Write the archive again with a changed header."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["numbelief"]))
    change(header, arrays)
    np.savez(path, **{**arrays, "numbelief": np.array(json.dumps(header))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, a: h.update(format=99), "format version 99, expected 1"),
        (
            lambda h, a: h.update(kind="other"),
            "a checkpoint of other, expected numbelief.Optimizer",
        ),
        (lambda h, a: h["rule"].update(name="nosuch"), "rule 'nosuch' is not defined here"),
        (lambda h, a: a.update(state=a["state"][:1]), "state is float64"),
        (lambda h, a: a.update(x=a["x"][:3]), "x is float64"),
        (lambda h, a: a.pop("clock"), "clock"),
        (lambda h, a: h.pop("dtype"), "dtype"),
        (lambda h, a: h["rule"]["hyperparameters"].update(gamma=1), "gamma"),
    ],
)
def test_load_refuses_a_file_that_was_tampered_with(saved, change, message):
    rewrite(saved, change)
    x = np.zeros(40)
    with pytest.raises(ValueError, match=message):
        Optimizer.load(saved, x)
    assert not x.any()


def test_every_truncation_is_noticed(saved):
    whole = saved.read_bytes()
    for length in range(0, len(whole), 37):
        saved.write_bytes(whole[:length])
        x = np.zeros(40)
        with pytest.raises(ValueError, match="not a readable numbelief checkpoint"):
            Optimizer.load(saved, x)
        assert not x.any()


def test_every_flipped_byte_is_noticed_or_harmless(saved):
    whole = saved.read_bytes()
    expected = np.zeros(40)
    Optimizer.load(saved, expected)
    noticed = 0
    tried = range(0, len(whole), 3)
    for i in tried:
        saved.write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        x = np.zeros(40)
        try:
            opt = Optimizer.load(saved, x)
        except ValueError:
            noticed += 1
            assert not x.any()
        else:  # a time stamp, padding ...
            np.testing.assert_array_equal(x, expected)
            assert opt.rule == Adam(0.1)
    assert noticed > 0.5 * len(tried)


def test_other_files_are_refused(tmp_path):
    for name, write in {
        "text": lambda p: p.write_text("hello"),
        "a.npy": lambda p: np.save(p, np.ones(3)),
        "zip": lambda p: zipfile.ZipFile(p, "w").close(),
        "b.npz": lambda p: np.savez(p, x=np.ones(40)),
        "c.npz": lambda p: np.savez(p, numbelief=np.array([{}], object)),
    }.items():
        write(tmp_path / name)
        with pytest.raises(ValueError, match="not a readable numbelief checkpoint"):
            Optimizer.load(tmp_path / name, np.zeros(40))
    with pytest.raises(FileNotFoundError):
        Optimizer.load(tmp_path / "none", np.zeros(40))


def test_a_failed_save_keeps_the_file_and_leaves_nothing_behind(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        Optimizer(Adam(), np.ones(3)).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_kill_during_save_leaves_a_readable_file(tmp_path):
    path = tmp_path / "run.npz"
    script = textwrap.dedent("""
        import sys
        import numpy as np
        from numbelief import Momentum, Optimizer
        opt = Optimizer(Momentum(1.0, momentum=0.0), np.zeros(200_000))
        g = -np.ones(200_000)
        while True:
            opt.step(g)
            opt.save(sys.argv[1])
            print("saved", flush=True)
    """)
    for lines in (1, 2, 5):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(sys.path), "PATH": "", "HOME": str(tmp_path)},
        )
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        process.communicate()
        x = np.zeros(200_000)
        opt = Optimizer.load(path, x, rule=Momentum(1.0, momentum=0.0))
        assert opt.t >= lines
        np.testing.assert_array_equal(x, opt.t)
