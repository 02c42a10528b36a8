"""httpblast, our native HTTP load: objects of a set, drawn at random or each once, on kept connections."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from scripts.benchmark.load import LoadFailed
from scripts.benchmark.native import build

_SOURCES = ("httpblast.c", "draw.c", "latencies.c", "reply.c")
_SPARE_S = 120.0  # beyond the planned time, before it is considered hung


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What is asked for: objects /set_name/object_bytes/NUMBER."""

    set_name: str
    object_bytes: int
    objects: int
    alpha: float = 0.0
    """Of Zipf's law; 0: each object is as likely."""
    first: int | None = None
    """Each object is asked for once, from this number on; the run ends with the last."""
    compares_all: bool = False
    """Whether every byte of every body is compared; otherwise its length and beginning."""

    def arguments(self) -> list[str]:
        """As the program's options."""
        found = ["-s", self.set_name, "-b", str(self.object_bytes), "-k", str(self.objects)]
        found += ["-z", f"{self.alpha:g}"] if self.alpha else []
        found += ["-e", str(self.first)] if self.first is not None else []
        return [*found, "-C"] if self.compares_all else found


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFigures:
    """What one run of the load saw. All replies were right."""

    requests: int
    """Answered within the time."""
    answered: int
    """With those that were under way at its end."""
    requests_per_s: float
    p50_us: float
    p99_us: float
    max_us: float
    client_cpu_us: float
    """CPU time of the load itself, for each request."""


class HttpLoad:
    """The program, compiled into a directory of the caller's."""

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def built_in(cls, directory: str) -> Self | None:
        """Compile it; None if there is no compiler. Raises BuildFailed."""
        program = build(directory, "httpblast", _SOURCES, libraries=("-lm",))
        return None if program is None else cls(program)

    def run(
        self, port: int, draws: Draws, seconds: float, *, connections: int, under: Sequence[str] = ()
    ) -> HttpFigures:
        """Ask for that many seconds, as a child of the command `under`. Blocks. Raises LoadFailed for a wrong reply."""
        command = [*under, self._program, "-p", str(port), "-c", str(connections), "-t", str(min(connections, 2))]
        command += ["-d", f"{seconds:g}", *draws.arguments()]
        try:
            result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + _SPARE_S)
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"httpblast did not end within {error.timeout:.0f} s") from error
        if not result.stdout:
            raise LoadFailed(f"httpblast ended with status {result.returncode}: {result.stderr.strip()}")
        return http_figures_in(result.stdout)


def http_figures_in(output: str) -> HttpFigures:
    """PURE: the figures in the program's output. Raises LoadFailed: a reply was wrong, or there was none."""
    report = json.loads(output)
    if report["failures"]:
        raise LoadFailed(f"wrong replies: {report['failures']}, first: {report['first_failure']}")
    if not report["requests"]:
        raise LoadFailed("no reply within the time")
    return HttpFigures(
        requests=report["requests"],
        answered=report["answered"],
        requests_per_s=report["requests"] / report["seconds"],
        p50_us=report["p50_us"],
        p99_us=report["p99_us"],
        max_us=report["max_us"],
        client_cpu_us=report["client_cpu_s"] / report["answered"] * 1e6,
    )
