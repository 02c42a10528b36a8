"""The HTTP load: wrk with a Lua script that requests a list of paths in turn and reports in JSON.

Also for new connections: a `Connection: close` field makes wrk reconnect after each response. ab could do that too, but
it has one thread and speaks HTTP/1.0: it would need more of the machine than what it measures.
"""

import json
import os
import subprocess
from collections.abc import Sequence

from scripts.benchmark.load import Figures, LoadFailed

_THREADS = 2
_SPARE_S = 60.0  # beyond the planned time, before it is considered hung
_SCRIPT = """
local requests, turn = {}, 0
function init(args)
    for number, path in ipairs(args) do requests[number] = wrk.format("GET", path) end
end
function request()
    turn = turn % #requests + 1
    return requests[turn]
end
function done(summary, latency)
    local errors = summary.errors
    print(string.format(
        '{"requests": %d, "duration_us": %d, "bytes": %d, "p50_us": %d, "p99_us": %d, ' ..
        '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
        summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
        errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
"""


class Wrk:
    """The program, with its script in a directory of the caller's."""

    def __init__(self, program: str, directory: str) -> None:
        self._program = program
        self._script = os.path.join(directory, "load.lua")
        with open(self._script, "w", encoding="utf-8") as file:
            file.write(_SCRIPT)

    def run(
        self, port: int, paths: Sequence[str], seconds: float, *, connections: int, new_connections: bool = False
    ) -> Figures:
        """Request the paths in turn for that many seconds. Blocks. Raises LoadFailed, even for one wrong reply."""
        # It accepts whole seconds only.
        command = [self._program, "-t", str(_THREADS), "-c", str(connections), "-d", f"{max(1, round(seconds))}s"]
        command += ["-s", self._script]
        if new_connections:
            command += ["-H", "Connection: close"]
        command += [f"http://127.0.0.1:{port}", "--", *paths]
        try:
            result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + _SPARE_S)
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"wrk did not end within {error.timeout:.0f} s") from error
        if result.returncode != 0:
            raise LoadFailed(f"wrk ended with status {result.returncode}: {(result.stderr or result.stdout).strip()}")
        return figures_in(result.stdout)


def figures_in(output: str) -> Figures:
    """PURE: the figures in the script's line of wrk's output. Raises LoadFailed: no line, errors, or no request."""
    line = next((line for line in output.splitlines() if line.startswith('{"requests"')), None)
    if line is None:
        raise LoadFailed(f"wrk reported nothing: {output.strip()}")
    report = json.loads(line)
    errors = {name: count for name, count in report["errors"].items() if count}
    if errors or not report["requests"]:
        raise LoadFailed(f"wrk counted {report['requests']} replies and {errors or 'no error'}")
    seconds = report["duration_us"] / 1e6
    return Figures(
        requests=report["requests"],
        requests_per_s=report["requests"] / seconds,
        megabytes_per_s=report["bytes"] / seconds / 1e6,
        p50_ms=report["p50_us"] / 1e3,
        p99_ms=report["p99_us"] / 1e3,
    )
