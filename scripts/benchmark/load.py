"""Load generators: gfblast, our native program; `client_load` replaces it where there is no compiler."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from scripts.benchmark.native import build

_SOURCES = ("gfblast.c", "exchange.c", "plan.c", "reply.c")
_SPARE_S = 120.0  # beyond the planned time, before a load program is considered hung


class LoadFailed(Exception):
    """A reply was wrong, or the load program failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Clients that request the same list of paths. A `background` group runs beside the others and is not judged."""

    name: str
    clients: int
    paths: tuple[str, ...]
    background: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one group."""

    requests: int
    requests_per_s: float
    megabytes_per_s: float
    p50_ms: float
    p99_ms: float


class Load(Protocol):
    """A load generator."""

    description: str
    mixes: bool  # whether it can run a background group

    def run(self, port: int, groups: Sequence[Group], seconds: float) -> dict[str, Figures]:
        """Generate load for about that many seconds; the figures of the groups by name. Blocks. Raises LoadFailed."""

    def verify(self, port: int, paths: Sequence[str], map_path: str) -> None:
        """Request each path and compare every byte with the file in the map. Blocks. Raises LoadFailed."""


class NativeLoad:
    """gfblast, compiled into a directory of the caller's."""

    description = "gfblast (native)"
    mixes = True

    def __init__(self, program: str) -> None:
        self.program = program

    @classmethod
    def built_in(cls, directory: str) -> Self | None:
        """Compile it; None if there is no compiler. Raises BuildFailed."""
        program = build(directory, "gfblast", _SOURCES)
        return None if program is None else cls(program)

    def run(self, port: int, groups: Sequence[Group], seconds: float, extra: Sequence[str] = ()) -> dict[str, Figures]:
        """As Load.run; `extra` options go to the program."""
        command = [self.program, "-p", str(port), *extra]
        for group in groups:
            amount = "while" if group.background else f"{seconds:g}s"
            command += ["-g", ",".join([group.name, str(group.clients), amount, *group.paths])]
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + _SPARE_S)
        if result.returncode == 2 or not result.stdout:
            raise LoadFailed(f"gfblast ended with status {result.returncode}: {result.stderr.strip()}")
        reported = json.loads(result.stdout)["groups"]
        for each in reported:
            if each["failures"]:
                raise LoadFailed(f"{each['name']}: {each['failures']}, first: {each['first_failure']}")
        return {each["name"]: _native_figures(each) for each in reported}

    def verify(self, port: int, paths: Sequence[str], map_path: str) -> None:
        """As Load.verify; the comparison is made in gfblast."""
        command = [self.program, "-p", str(port), "-k", map_path, "-r", str(len(paths)), *paths]
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_SPARE_S)
        if result.returncode != 0:
            raise LoadFailed(f"wrong replies before measuring: {result.stdout or result.stderr}")


def _native_figures(group: dict[str, Any]) -> Figures:
    return Figures(
        requests=group["requests"],
        requests_per_s=group["requests_per_s"],
        megabytes_per_s=group["megabytes_per_s"],
        p50_ms=group["latency_ms"]["p50"],
        p99_ms=group["latency_ms"]["p99"],
    )
