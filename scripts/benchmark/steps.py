"""PURE: parses the step times that webproxy logs when it stops.

With WEBPROXY_STEP_TIMES=1 its last line contains `step_times` and an object of sums in nanoseconds, in JSON or as
Python writes it, whatever else the line contains.
"""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.benchmark.stats import shares

ENVIRONMENT = ("WEBPROXY_STEP_TIMES", "1")
_FIELD = re.compile(r"""step_times["']?\s*[=:]\s*["']?(\{[^{}]*\})""")
_COUNT = "requests"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """The step times of a request: microseconds per request, and the share of each step."""

    requests: int
    microseconds: Mapping[str, float]
    shares: Mapping[str, float]


def step_times_in(log_text: str) -> StepTimes | None:
    """The last step times in a log; None when there are none to read."""
    found = _FIELD.findall(log_text)
    if not found:
        return None
    sums = _as_object(found[-1])
    requests = int(sums.pop(_COUNT, 0))
    if not requests or not sums:
        return None
    microseconds = {name: value / requests / 1000 for name, value in sums.items()}
    return StepTimes(requests=requests, microseconds=microseconds, shares=shares(sums))


def _as_object(text: str) -> dict[str, float]:
    try:
        parsed = json.loads(text.replace('\\"', '"'))
    except ValueError:
        try:
            parsed = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return {}
    return {str(name): value for name, value in parsed.items() if isinstance(value, int | float)}
