"""The machine code of the kernels: packed arithmetic, and no float64 in float32 kernels."""

import os
import platform
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import re, sys
import numpy as np
from numbelief import *
from numbelief._step.call import StoredStep
from numbelief._step.compiled import compile_threaded_step

n = 1000
rules = [
    AdaBelief(), AdaBelief(amsgrad=True, rectify=True), AdaMax(), RMSProp(momentum=0.5), SGD(),
]
if sys.argv[1] == "parallel":
    rules = rules[:1]
for rule in rules:
    # Compilation is what this test spends its time on: one rule goes through all of it.
    for dtype, kind in ((np.float32, "ps"), (np.float64, "pd"))[: 1 + (rule is rules[0])]:
        for bounds in (None, [(-1, 1)] * n)[: 1 + isinstance(rule, AdaBelief)]:
            x = np.ones(n, dtype)
            opt = Optimizer(rule, x, bounds=bounds, target=sys.argv[1])
            step = StoredStep(opt.kind, opt.step_state, opt.step_options, x.dtype)
            if sys.argv[1] == "parallel":
                code = compile_threaded_step(
                    opt.kind, step.threaded[1].layout, x.dtype
                ).block._library.get_asm_str()
            else:
                code = step.serial[0]._library.get_asm_str()
            # The mnemonics of x86 carry a v where the machine has AVX.
            count = lambda mnemonic: len(re.findall(rf"\\bv?{mnemonic}\\b", code))
            name = f"{type(rule).__name__} {dtype.__name__} {bounds is None}"
            assert code, name
            assert count("mul" + kind), name
            if rule.state_names and type(rule).__name__ not in ("Momentum", "Nesterov"):
                assert count("div" + kind), name
                if type(rule).__name__ != "AdaMax":
                    assert count("sqrt" + kind), name
            if dtype is np.float32:
                assert not count("cvtss2sd") and not count("cvtps2pd"), name
                assert not count("sqrtpd") and not count("divpd"), name
print("ok")
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 mnemonics")
@pytest.mark.parametrize("target", ["serial", pytest.param("parallel", marks=pytest.mark.thorough)])
def test_kernels_are_packed_and_keep_their_precision(target, tmp_path):
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT), target],
        # Numba cannot show the code of a kernel that it took from its cache.
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "ok"
