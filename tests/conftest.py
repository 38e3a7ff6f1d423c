"""Settings of all tests."""

import os
import signal

import pytest
from hypothesis import settings

# The same examples in each run, so that a run can be repeated; HYPOTHESIS_PROFILE=default explores.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A shell's background job ignores Ctrl-C, for which some tests would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--share", help="K/N: of the tests that are selected, the K-th of N shares")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if (share := config.getoption("share")) is not None:
        k, n = map(int, share.split("/"))
        items[:], others = items[k % n :: n], [x for i, x in enumerate(items) if i % n != k % n]
        config.hook.pytest_deselected(items=others)
