"""Load without a C compiler: several `gfclient measure` processes at once. Slower than what it measures."""

import filecmp
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from statistics import median
from typing import Any

from scripts.benchmark.load import Figures, Group, LoadFailed
from scripts.daemons import executable

_TRIAL_REQUESTS = 4  # per client, to find out how many fill the required time
_PROCESS_TIMEOUT_S = 180.0
_PROCESSES_MAX = max(2, os.cpu_count() or 2)


class ClientLoad:
    """Each group is divided among a few processes; rates are added, and the worst p99 counts."""

    description = (
        "gfclient processes (no C compiler: the load itself is the bottleneck, so ratios come out too near to 1)"
    )
    mixes = False

    def run(self, port: int, groups: Sequence[Group], seconds: float) -> dict[str, Figures]:
        """As Load.run, after a short trial of each group that finds out how many requests fill the time."""
        if any(group.background for group in groups):
            raise LoadFailed("gfclient processes cannot say when they have begun: a background load needs gfblast")
        counts = {group.name: self._requests_for(port, group, seconds) for group in groups}
        started = {group.name: _start(port, group, counts[group.name]) for group in groups}
        return {name: _added_up([_finish(process) for process in processes]) for name, processes in started.items()}

    def verify(self, port: int, paths: Sequence[str], map_path: str) -> None:
        """As Load.verify, by downloading to a temporary directory."""
        with open(map_path, encoding="utf-8") as lines:
            sources = dict(line.split(maxsplit=1) for line in lines.read().splitlines())
        with tempfile.TemporaryDirectory(prefix="gfbench-verify-") as copies:
            command = [executable("gfclient"), "download", "-p", str(port), "-o", copies, *paths]
            result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_PROCESS_TIMEOUT_S)
            if result.returncode != 0:
                raise LoadFailed(f"a download failed before measuring: {result.stderr.strip()}")
            for path in paths:
                if not filecmp.cmp(sources[path], os.path.join(copies, path.removeprefix("/")), shallow=False):
                    raise LoadFailed(f"{path}: the downloaded bytes are not those of {sources[path]}")

    def _requests_for(self, port: int, group: Group, seconds: float) -> int:
        trial = _TRIAL_REQUESTS * group.clients
        figures = _added_up([_finish(process) for process in _start(port, group, trial)])
        return max(trial, round(figures.requests_per_s * seconds))


def _start(port: int, group: Group, requests: int) -> list["subprocess.Popen[str]"]:
    processes = min(_PROCESSES_MAX, group.clients)
    started = []
    for number in range(processes):
        clients = len(range(number, group.clients, processes))
        share = max(1, requests * clients // group.clients)
        command = [executable("gfclient"), "measure", "--json", "-p", str(port), "-t", str(clients), "-r", str(share)]
        started.append(
            subprocess.Popen([*command, *group.paths], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    return started


def _finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    try:
        output, complaint = process.communicate(timeout=_PROCESS_TIMEOUT_S)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode != 0:
        raise LoadFailed(f"gfclient measure ended with status {process.returncode}: {complaint.strip() or output}")
    report: dict[str, Any] = json.loads(output)
    return report


def _added_up(reports: Sequence[dict[str, Any]]) -> Figures:
    return Figures(
        requests=sum(report["requests"] for report in reports),
        requests_per_s=sum(report["requests_per_s"] for report in reports),
        megabytes_per_s=sum(report["megabytes_per_s"] for report in reports),
        p50_ms=median(report["latency_ms"]["p50"] for report in reports),
        p99_ms=max(report["latency_ms"]["p99"] for report in reports),
    )
