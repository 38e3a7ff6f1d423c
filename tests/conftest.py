"""Settings of all tests."""

import os
import signal

from hypothesis import settings

# The same examples in each run, so that a run can be repeated; HYPOTHESIS_PROFILE=default explores.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A shell's background job ignores Ctrl-C, for which some tests would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
