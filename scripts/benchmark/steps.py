"""PURE: parses the step times that webproxy logs when it stops, as JSON: sums in nanoseconds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

ENVIRON = (("WEBPROXY_STEP_TIMES", "1"), ("WEBPROXY_LOG_FORMAT", "json"))
"""What the proxy needs to log them in this form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """The step times of a request: microseconds per request, and the share of each step."""

    requests: int
    microseconds: Mapping[str, float]
    shares: Mapping[str, float]


def step_times_in(log_text: str) -> StepTimes | None:
    """The last step times in a log; None when there are none, or the proxy served nobody."""
    line = next((line for line in reversed(log_text.splitlines()) if '"step_times"' in line), "{}")
    sums: dict[str, int] = json.loads(line).get("step_times", {})
    requests = sums.pop("requests", 0)
    total_ns = sum(sums.values())
    if not requests or not total_ns:
        return None
    microseconds = {name: part_ns / requests / 1000 for name, part_ns in sums.items()}
    shares = {name: part_ns / total_ns for name, part_ns in sums.items()}
    return StepTimes(requests=requests, microseconds=microseconds, shares=shares)
