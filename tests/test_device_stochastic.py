"""minimize_stochastic on a GPU, or in Numba's simulator of one: against the same on the CPU."""

import gc
import weakref

import cases
import numba
import numpy as np
import pytest
from card import (
    CAPABILITIES,
    INSTALLED,
    count,
    forms,
    gpu,
    host,
    needs_compiler,
    needs_gpu,
    on_card,
    quiet,
    rules,
)
from scipy.optimize import OptimizeWarning

from numbelief import SGD, minimize_stochastic, schedules
from numbelief._interop import is_device_array
from numbelief._solve import session
from numbelief._solve.data import Batches, Order
from numbelief.sets import Ball

if not INSTALLED:
    pytest.skip("no numba-cuda[cu13]", allow_module_level=True)

from numbelief._gpu import data as card_data
from numbelief._gpu import launch, points, stochastic
from numbelief._gpu.card import Card
from numbelief._gpu.compile import for_card, kind_of
from numbelief._gpu.vectors import CardVectors, duplicate

RANDOM = np.random.default_rng(7)
A = RANDOM.standard_normal((13, 3))
B = A @ [1.0, -2.0, 3.0] + 0.1 * RANDOM.standard_normal(13)


def value(x, A, b):
    residual = A @ x - b
    return float(residual @ residual / (2 * len(b)))


def slope(x, A, b):
    return (A.T @ (A @ x - b) / len(b)).astype(x.dtype)


FORMS, RULES = forms(value, slope), rules((0, 1))


def train(form="callable", data=(A, B), dtype=np.float64, **given):
    """A run on the card."""
    fun, jac = FORMS[form] if isinstance(form, str) else form
    x0, parts = gpu.to_device(np.ones(3, dtype)), tuple(map(gpu.to_device, data))
    if isinstance(given.get("validation"), tuple):
        given["validation"] = tuple(map(gpu.to_device, given["validation"]))
    given = {"batch_size": 5, "epochs": 2, "method": SGD(0.1), "seed": 5, **given}
    result = minimize_stochastic(fun, x0, parts, jac=jac, **given)
    np.testing.assert_array_equal(host(x0), np.ones(3))
    for part, before in zip(parts, data, strict=True):
        np.testing.assert_array_equal(host(part), before)
    assert is_device_array(result.x) and is_device_array(result.jac)
    return result


def compare(form="callable", dtype=np.float64, **given):
    """Train on both; return the result of the card."""
    data = A.astype(dtype), B.astype(dtype)
    ours = train(form, data, dtype, **given)
    given = {"batch_size": 5, "epochs": 2, "method": SGD(0.1), "seed": 5, **given}
    if callable(given.get("validation")):
        given["validation"] = lambda x: value(x, A, B)
    theirs = minimize_stochastic(value, np.ones(3, dtype), data, jac=slope, **given)
    allowed = 64 * np.finfo(dtype).eps
    near = {"rtol": allowed, "atol": allowed}
    for name in ("x", "jac"):
        assert ours[name].dtype == dtype
        np.testing.assert_allclose(host(ours[name]), theirs[name], **near)
    np.testing.assert_allclose(ours.fun, theirs.fun, **near)
    for name, figures in theirs.history.items():
        np.testing.assert_allclose(ours.history[name], figures, **near)
    for name in ("nit", "nfev", "njev", "epochs", "success", "status", "message"):
        assert ours[name] == theirs[name]
    return ours


# ---- runs


@quiet
@needs_gpu
@pytest.mark.parametrize("number", range(8))
def test_like_the_cpu(number):
    """Each rule with two forms of gradient, with either dtype, and with bounds or without."""
    name, form = list(RULES)[number % 4], list(FORMS)[(number + number // 4) % 4]
    dtype = np.float64 if name in ("AdaBelief", "LAMB") else np.float32
    bounds = [(-1.5, 1.1), (-3, 1), (0, 1.2)] if name in ("SGD", "LAMB") else None
    result = compare(form, dtype, method=RULES[name], bounds=bounds)
    assert result.nit == 6


@quiet
@needs_gpu
@pytest.mark.parametrize(
    "given",
    [
        {"drop_last": True},
        {"shuffle": False},
        {"replacement": True},
        {"weights": np.arange(13.0), "replacement": True},
        {"batch_size": None},
        {"batch_size": 13, "replacement": True},
        {"options": {"max_norm": 1.0, "max_value": 0.5}},
    ],
    ids=lambda given: ",".join(map(str, given)),
)
def test_batches(given):
    compare(**given)


@quiet
@needs_gpu
@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"method": RULES["Lookahead"]}, {"iterate": "last"}),
        ({"batch_size": None}, {"iterate": "last"}),
        ({"validation": (A[:4], B[:4])}, {"iterate": "ema", "ema_decay": 0.5}),
        ({}, {"iterate": "average", "average_from": 0.2}),
        ({"validation": True, "method": RULES["Lookahead"]}, {}),
        ({"validation": (A[:4], B[:4])}, {"maxtime": 1e6}),
    ],
    ids=["last", "whole", "ema", "average", "function", "data"],
)
def test_points_to_return(given, options):
    if given.get("validation") is True:
        given = given | {
            "validation": lambda x: FORMS["numbers on the card"][0](x, *map(gpu.to_device, (A, B)))
        }
    compare("together", options=options, **given)


@quiet
@needs_gpu
@pytest.mark.parametrize("options", [{"patience": 2}, {"target": 2.0}], ids=["patience", "target"])
def test_the_end_of_a_run(options):
    rule = SGD(schedules.per_epoch(lambda epoch: 0.3 if epoch < 2 else 2.5, 3))
    result = compare(epochs=6, method=rule, options=options)
    assert result.epochs < 6


@quiet
@needs_gpu
def test_a_batch_holds_the_rows_of_the_order():
    """Of any type and shape, also where the words of a row must be shorter than its neighbours."""
    kinds = [("f2", ()), ("i1", (5,)), ("?", (2, 3)), ("c16", (2,)), ("u2", (6,)), ("f4", (0,))]
    data = [RANDOM.integers(0, 2, (13, *shape)).astype(kind) for kind, shape in kinds]
    data.append(RANDOM.standard_normal((13, 11)))  # longer than a block of the simulator
    seen = []

    def fun(x, *batch):
        seen.append([host(part) for part in batch])
        return 1.0, gpu.to_device(np.ones(3))

    train((fun, True), data)
    order = Order(13, 5, True, False, None)
    rows = [order.of(epoch)[lo : lo + 5] for epoch in range(2) for lo in (0, 5, 10)]
    assert len(seen) == len(rows)
    for batch, chosen in zip(seen, rows, strict=True):
        for part, whole in zip(batch, data, strict=True):
            assert part.dtype == whole.dtype
            np.testing.assert_array_equal(part, whole[chosen])


@quiet
@needs_gpu
def test_losses_cross_over_once_an_interval(monkeypatch):
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    monkeypatch.setattr(points, "LOOK_EVERY", 4)
    crossed = []
    monkeypatch.setattr(Card, "host", lambda self, a: crossed.append(a.shape) or host(a))
    result = train("numbers on the card", batch_size=1, epochs=1)
    assert result.nit == 13
    # Is x0 finite; the first step alone, then four at a time; is the point after the epoch finite,
    # where it is compared, and where the run is judged.
    assert len(crossed) == 1 + 1 + 3 + 2
    assert all(np.prod(shape) <= 2 * 4 for shape in crossed)


@quiet
@needs_gpu
def test_callbacks():
    steps, seen, passed = [], [], []

    def after_step(intermediate_result):
        assert host(intermediate_result.jac).shape == (3,)
        steps.append((intermediate_result.nit, intermediate_result.fun))

    def after_epoch(intermediate_result):
        seen.append(intermediate_result)
        if len(seen) == 2:
            raise StopIteration

    result = train(epochs=4, callback=after_epoch, options={"step_callback": after_step})
    assert (result.status, result.epochs, result.nit) == (99, 2, 6)
    assert [nit for nit, _ in steps] == [1, 2, 3, 4, 5, 6]
    losses = np.array([loss for _, loss in steps]).reshape(2, 3)
    np.testing.assert_allclose(losses @ [5, 5, 3] / 13, result.history.loss)
    assert [each.fun for each in seen] == list(result.history.loss)
    train(callback=passed.append)
    for each, point in zip(seen, passed, strict=True):
        np.testing.assert_array_equal(host(each.x), host(point))


@quiet
@needs_gpu
def test_data_are_freed_without_the_garbage_collector():
    parts = tuple(map(gpu.to_device, (A, B)))
    kept = weakref.ref(parts[0])
    fun, jac = FORMS["together"]
    gc.collect()
    gc.disable()
    try:
        minimize_stochastic(fun, gpu.to_device(np.ones(3)), parts, jac=jac, batch_size=5, epochs=1)
        del parts
        assert kept() is None
    finally:
        gc.enable()


# ---- what is not finite


@quiet
@needs_gpu
@pytest.mark.parametrize("size", [5, None])
@pytest.mark.parametrize("part", [0, 1])
def test_rows_that_are_not_finite_are_named(part, size, monkeypatch):
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    data = [A.astype(np.float32), B.astype(np.complex64).astype(np.float16), np.arange(13)]
    row = 7
    data[part][row] = np.inf if part else np.nan

    def fun(x, A, b, rows):
        return value(x, A, b)

    def jac(x, A, b, rows):
        return slope(x, A, b)

    result = train((on_card(fun), on_card(jac)), data, batch_size=size, shuffle=False)
    batch = row // (size or 13)
    assert (result.status, result.success, result.nit, result.epochs) == (3, False, batch, 0)
    assert f"In batch {batch} of epoch 0, the loss is" in result.message
    assert result.message.endswith(f": row {row} of data[{part}] is not finite.")
    np.testing.assert_array_equal(host(result.x), np.ones(3))


@quiet
@needs_gpu
@pytest.mark.parametrize("iterate", ["last", "ema"])
def test_a_gradient_that_is_not_finite(iterate, monkeypatch):
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    calls = []

    def turn(*args):
        calls.append(args)
        return slope(*args) * (np.nan if len(calls) == 5 else 1)

    result = train((on_card(value), on_card(turn)), options={"iterate": iterate})
    assert (result.status, result.nit, result.epochs) == (3, 4, 1)
    assert result.message.endswith(
        "In batch 1 of epoch 1, the gradient is not finite; its data are finite."
    )
    calls.clear()
    first = train((on_card(value), on_card(turn)), epochs=1, options={"iterate": iterate})
    np.testing.assert_array_equal(host(result.x), host(first.x))
    assert result.fun == first.fun


@quiet
@needs_gpu
def test_an_exception_carries_the_best_point(monkeypatch):
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    calls = []

    def fail(*args):
        calls.append(args)
        if len(calls) == 6:
            raise ZeroDivisionError
        return value(*args) * (np.nan if len(calls) == 5 else 1)

    with pytest.raises(ZeroDivisionError) as caught:
        train((on_card(fail), on_card(slope)))
    so_far = caught.value.intermediate_result
    np.testing.assert_array_equal(host(so_far.x), host(train(epochs=1).x))
    assert (so_far.success, so_far.epochs) == (False, 1)


@quiet
@needs_gpu
def test_nothing_to_do():
    for given in ({"epochs": 0}, {"options": {"maxtime": 0}}):
        result = train(**given)
        np.testing.assert_array_equal(host(result.x), np.ones(3))
        assert (result.nit, result.status) == (0, 0 if "epochs" in given else 1)


@quiet
@needs_gpu
def test_x0_outside_the_bounds_is_moved():
    message = "Initial guess is not within the specified bounds"
    with pytest.warns(OptimizeWarning, match=message) as caught:
        result = train(epochs=0, bounds=[(-1, 0.5)] * 3)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(host(result.x), np.full(3, 0.5))


# ---- checkpoints

RUNS = {
    "average": {"options": {"iterate": "average", "average_from": 0.3}},
    "ema": {"options": {"iterate": "ema"}, "validation": (A[:4], B[:4]), "bounds": [(-2, 1.1)] * 3},
    "Lookahead": {"method": RULES["Lookahead"], "validation": True, "options": {"max_norm": 1.0}},
    "whole": {"batch_size": None, "epochs": 5, "method": SGD(lambda t: 0.3 if t < 3 else 3.0)},
}


class Interrupted(Exception):
    pass


def go(given, on_gpu=True, stop=None, **options):
    """Train on the card or on the CPU; the step after so many is interrupted."""

    def interrupt(intermediate_result):
        if intermediate_result.nit == stop:
            raise Interrupted

    data, x0 = (A, B), np.ones(3)
    examine = given.get("validation")
    if examine is True:
        examine = on_card(lambda x: value(x, A, B)) if on_gpu else lambda x: value(x, A, B)
    if on_gpu:
        x0, data = gpu.to_device(x0), card(*data)
        examine = card(*examine) if isinstance(examine, tuple) else examine
    fun, jac = FORMS["together"] if on_gpu else (value, slope)
    options = {"checkpoint_every": 2, **given.get("options", {}), **options}
    if stop:
        options["step_callback"] = interrupt
    given = {"batch_size": 5, "epochs": 2, "method": RULES["AdaBelief"], "seed": 5, **given}
    given |= {"validation": examine, "options": options}
    return minimize_stochastic(fun, x0, data, jac=jac, **given)


def assert_same(ours, theirs, rtol=0):
    """To the bit, or to rounding."""
    for name in ("x", "jac", "fun", "nit", "nfev", "njev", "epochs", "status", "message"):
        mine, other = (
            host(run[name]) if is_device_array(run[name]) else run[name] for run in (ours, theirs)
        )
        if rtol and name in ("x", "jac", "fun"):
            np.testing.assert_allclose(mine, other, rtol, rtol)
        else:
            np.testing.assert_array_equal(mine, other)
    for name, figures in theirs.history.items():
        np.testing.assert_allclose(ours.history[name], figures, rtol)


@quiet
@needs_gpu
@pytest.mark.parametrize("name", RUNS)
def test_resumed_runs(name, tmp_path):
    """To the bit where they began, to rounding on the other of card and CPU."""
    given, path = RUNS[name], tmp_path / "run"
    whole = go(given)
    for stop in (3, 5):  # after an epoch, and within one
        with pytest.raises(Interrupted):
            go(given, stop=stop, checkpoint=path)
        assert_same(go(given, resume=path), whole)
    assert_same(go(given, on_gpu=False, resume=path), whole, 1e-9)
    with pytest.raises(Interrupted):
        go(given, on_gpu=False, stop=5, checkpoint=path)
    ended = go(given, resume=path, checkpoint=path)
    assert_same(ended, whole, 1e-9)
    assert_same(go(given, resume=path), ended)


@quiet
@needs_gpu
@pytest.mark.parametrize("checkpoint_every", [2, 0])
def test_a_batch_that_ends_the_run_leaves_the_file_as_it_was(
    checkpoint_every, tmp_path, monkeypatch
):
    monkeypatch.setattr(session, "LOOK_EVERY_S", 1e9)
    path, calls = tmp_path / "run", []

    def turn(*args):
        calls.append(args)
        return value(*args) * (np.nan if wrong and len(calls) == 5 else 1)

    options = {"checkpoint": path, "checkpoint_every": checkpoint_every, "resume": True}
    functions = on_card(turn), on_card(slope)
    wrong = True
    result = train(functions, options=options)
    assert (result.status, result.nit) == (3, 4)
    wrong = False
    whole = train()
    np.testing.assert_array_equal(host(train(functions, options=options).x), host(whole.x))


@quiet
@needs_gpu
def test_resume_refuses_another_run(tmp_path):
    path = tmp_path / "run"
    train(epochs=1, validation=(A, B), options={"checkpoint": path})
    for message, other in {
        "data = ": {"data": (A + 1, B)},
        "validation = ": {"validation": (A[:4], B[:4])},
        "rows = 13 in the file, 12 given": {"data": (A[:12], B[:12])},
        "iterate = ": {"options": {"iterate": "ema"}},
        "learning_rate = 0.1 in the file, 0.2 given": {"method": SGD(0.2)},
        "other bounds or set": {"bounds": [(-2, 2)] * 3},
        r"\(None, None\) in the file, \(1.0, None\) given": {"options": {"max_norm": 1.0}},
    }.items():
        other = {"validation": (A, B), **other}
        with pytest.raises(ValueError, match=message):
            train(**other | {"options": {"resume": path, **other.get("options", {})}})


@needs_gpu
def test_data_have_the_fingerprint_that_they_have_on_the_cpu():
    kinds = [("f4", (2,)), ("?", ()), ("c16", (2, 3)), ("i1", (0,))]
    parts = tuple(RANDOM.integers(0, 9, (99, *shape)).astype(kind) for kind, shape in kinds)
    there = card_data.CardBatches(card(*parts), CardVectors(gpu.to_device(np.ones(2))))
    assert there.fingerprint == Batches(parts).fingerprint


# ---- refusals


@quiet
@needs_gpu
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("losses", lambda array: array[:1]),
        ("best", lambda array: array[:1]),
        ("g", lambda array: array.astype(np.float32)),
        ("g", None),
    ],
)
def test_a_damaged_file_is_refused(name, change, tmp_path):
    path = tmp_path / "run.npz"
    train(options={"checkpoint": path})
    cases.damage(path, name, change)
    with pytest.raises(ValueError, match="is not a readable numbelief checkpoint"):
        train(epochs=3, options={"resume": path})


def card(*arrays):
    return tuple(map(gpu.to_device, arrays))


@needs_gpu
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"jac": None}, ValueError, "jac must be a callable, True or 'inplace' where x0"),
        ({"fun": numba.njit(value)}, TypeError, "fun must be a Python function of device arrays"),
        ({"options": {"compiled": True}}, TypeError, "a loop in compiled code is not possible"),
        ({"feasible_set": Ball()}, ValueError, "feasible_set must be a Box on a GPU"),
        ({"data": ()}, ValueError, "data must hold at least one array"),
        ({"data": lambda: (*card(A), B)}, TypeError, r"data\[1\] must be an array on the GPU, "
         r"as x0 is, got ndarray: pass one such as cupy\.asarray\(data\[1\]\)"),
        ({"data": lambda: list(card(A, B))}, TypeError, "got list: pass .*, several as a tuple"),
        ({"data": lambda: card(A, B[1:])}, ValueError, r"one leading length, got \[13, 12\]"),
        ({"data": lambda: card(A[:0], B[:0])}, ValueError, "data must not be empty"),
        ({"data": lambda: (card(A)[0][:, :2], *card(B))}, ValueError, r"data\[0\] must be C-cont"),
        ({"data": lambda: card(A, np.array(1.0))}, ValueError, r"data\[1\] must have rows"),
        ({"validation": (A, B)}, TypeError, r"validation\[0\] must be an array on the GPU"),
        ({"validation": lambda x: "low"}, TypeError, "validation must return a real number"),
        ({"validation": lambda x: x}, ValueError, r"validation must return a scalar, got shape"),
        ({"jac": slope}, TypeError, "grad must be on the GPU, as x is, got"),
        ({"fun": lambda x, *batch: x}, ValueError, r"fun must return a scalar, got shape \(3,\)"),
    ],
)  # fmt: skip
def test_bad_arguments(given, error, message):
    given = {"fun": on_card(value), "jac": on_card(slope), "batch_size": 5, "epochs": 1} | given
    if given["jac"] is slope:
        given["jac"] = lambda *args: slope(*map(host, args))
    data = given.pop("data", lambda: card(A, B))
    data = data() if callable(data) else data
    with pytest.raises(error, match=message):
        minimize_stochastic(x0=gpu.to_device(np.zeros(3)), data=data, **given)


def test_data_that_cannot_be_written_to():
    kind = type("Array", (), {"__module__": "jaxlib._jax"})
    with pytest.raises(TypeError, match=r"data\[1\] on a GPU must be .* got one of jaxlib: pass "):
        duplicate(kind(), "data[1]")


@needs_gpu
@pytest.mark.parametrize(("first", "length", "size"), [(0, 16, 8), (4, 8, 4), (0, 6, 2), (3, 8, 1)])
def test_words_are_as_long_as_alignment_allows(first, length, size):
    values = np.arange(49, dtype=np.int8)
    part = gpu.to_device(values)[first : first + 40]
    (words,) = Card(gpu.to_device(np.ones(2))).words(length, part)
    assert words.dtype == f"u{size}"
    np.testing.assert_array_equal(host(words).view(np.int8), values[first : first + 40])


# ---- PTX

F, I, T = np.ones(2, np.float32), np.ones(2, np.int64), np.ones(2)  # noqa: E741
WORDS = [np.ones(2, f"u{size}") for size in (1, 2, 4, 8)]
MARKS = np.ones(2, np.uint8)


@needs_compiler
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_ptx(capability, monkeypatch):
    from numba import cuda

    found = type("Device", (), {"compute_capability": capability})
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: found)

    def compiled(kernel, *arguments):
        text, _ = cuda.compile(
            for_card(kernel), numba.void(*map(kind_of, arguments)),
            abi="numba", device=False, output="ptx", cc=capability,
        )  # fmt: skip
        text = text[text.index(".entry") :]
        assert ".local" not in text
        assert not count(r"\bcall", text)
        return text

    position = (I, 0, 1, 1, 0)
    for words in WORDS[capability[0] % 2 :: 2]:  # in turns
        gather, mark = (
            launch.kernel_at(card_data.each_word_template, at)
            for at in (card_data._gather_at, card_data._mark_at)
        )
        text = compiled(gather, *position, (words,) * 2)
        compiled(mark, *position, (words, words[0], MARKS))
        # Rows, words and where they lie are counted in 64 bits, and nothing is divided.
        assert count(r"setp\.\w+\.s64", text)
        assert not count(r"setp\.[lg][et]\.[su]32", text)
        assert not count(r"\b(div|rem)\.", text)
        assert f".u{8 * words.itemsize}" in text or f".b{8 * words.itemsize}" in text
    follow = launch.kernel_at(launch.each_template, stochastic._follow_at)
    assert ".f64" not in compiled(follow, (F, F, np.float32(1)))
    for value in (None, F):
        compiled(stochastic._note, 1.0, value, T, T, 0)
