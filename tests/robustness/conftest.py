"""Bad input, tried widely: how many examples a test tries, and what counts as one clear error.

HYPOTHESIS_EXAMPLES=5000 tries that many of each; what ever failed is an `@example` or a case of its own.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "wide",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "60")),
    deadline=None,  # the machine's speed is no property of the code
    database=None,
    derandomize="HYPOTHESIS_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("wide")
