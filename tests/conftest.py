"""Settings of all tests."""

import os

from hypothesis import settings

# The same examples in each run, so that a run can be repeated; HYPOTHESIS_PROFILE=default explores.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
