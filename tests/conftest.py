"""What holds for all tests."""

import os

from hypothesis import settings

# The same examples in every run, so that a failure is always somebody's change; HYPOTHESIS_PROFILE=default searches on.
settings.register_profile("seeded", derandomize=True, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "seeded"))
