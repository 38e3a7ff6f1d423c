"""What Python packs for compiled code, which finds it at an address."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from numbelief._compile.jit import jit
from numbelief._compile.pointers import Stored, loaded
from numbelief._compile.template import bind


class Pair(NamedTuple):
    first: Any
    second: Any


RECORD = np.dtype([("t", "i4"), ("rate", "f8")])
NUMBERS = np.arange(12.0).reshape(3, 4)
READ_ONLY = np.arange(5, dtype=np.float32)
READ_ONLY.flags.writeable = False
VALUES = {
    "nothing": (),
    "numbers": (1, 2.5, True, None),
    "NumPy's numbers": tuple(
        np.dtype(code).type(3) for code in ("i1", "u2", "f4", "i8", "u8", "?", "f8", "u4", "i2")
    ),
    "complex": (np.int8(1), 1 + 2j, np.complex64(3j), 4),
    "a gap at the end": ((np.int8(1), 2.0, np.int8(3)), np.int8(4)),
    "nested": (Pair(1.0, Pair(None, (np.int16(2), NUMBERS))), Pair(NUMBERS[0], False)),
    "arrays": (NUMBERS, NUMBERS.T, NUMBERS[::-1, 1::2], NUMBERS[:, 0], READ_ONLY),
    "empty arrays": (np.empty(0), np.empty((0, 3)), np.empty((2, 0), np.float32)),
    "records": (np.array([(1, 2.0)], RECORD), np.zeros(0, RECORD)),
    "large integers": (2**62, -(2**62)),
}


def _load_template(LAYOUT):
    def load(address):
        return loaded(address, LAYOUT)

    return load


def like(values):
    """Values as compiled code returns them."""
    if isinstance(values, tuple):
        return tuple(map(like, values))
    return values.tolist() if isinstance(values, (np.ndarray, np.generic)) else values


@pytest.mark.parametrize("name", VALUES)
def test_compiled_code_finds_what_was_stored(name):
    values = VALUES[name]
    stored = Stored(*values)
    load = jit(bind(_load_template, LAYOUT=stored.layout.pointer), cache=False)
    assert like(load(stored.address)) == like(values)


def test_layouts_are_those_of_the_types():
    first, second = Stored(NUMBERS[0], 1.0), Stored(NUMBERS[0, :1], 2.0)
    assert first.layout is second.layout
    assert Stored(NUMBERS[0], 1).layout is not first.layout
    assert Stored(READ_ONLY, 1.0).layout is not Stored(READ_ONLY.copy(), 1.0).layout
