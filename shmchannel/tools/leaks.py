"""Lists our names, their owners, and what to do: `gfcache-leaks`. Changes nothing."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psutil

from shmchannel.daemonkit.output import put_out
from shmchannel.process.naming import DEFAULT_QUEUE_NAME, SHM_DIRECTORY, hot_table_name, queue_guard_path
from shmchannel.process.reaper import FoundName, survey
from shmchannel.tools.version import VersionAction

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

CLEAN = "gfcache-clean"
"""The command that removes what dead owners left."""
_QUEUE_REMEDY = "start a cache on it (simplecached -q NAME), which takes it over, then stop it"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueListing:
    """The message-queue namespace: `names` (with slash), or None and the reason if it cannot be listed."""

    names: tuple[str, ...] | None
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The findings; `unowned_queues` have our default name but no guard."""

    names: tuple[FoundName, ...]
    queues: QueueListing
    unowned_queues: tuple[str, ...]
    other_queues: tuple[str, ...]
    system_v: tuple[str, ...] | None

    @property
    def leak_count(self) -> int:
        """The number of names left by dead owners."""
        return sum(not found.alive for found in self.names) + len(self.unowned_queues)


def list_queues() -> QueueListing:
    """List the message-queue namespace through its file system, mounted privately for a moment if root has to.

    Blocks for up to ten seconds for `unshare`; no other process sees the mount.
    """
    place = mounted_at()
    if place is not None:
        return QueueListing(names=_names_in(os.listdir(place)), how=f"listed in {place}")
    if os.geteuid() != 0:
        why = "not listed: /dev/mqueue is not mounted and this is not root; queues are known by their guard files"
        return QueueListing(names=None, how=why)
    with tempfile.TemporaryDirectory(prefix="mqueue-") as place:
        command = ["unshare", "-m", "sh", "-c", 'mount -t mqueue none "$1" && ls -A "$1"', "sh", place]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            why = f"not listed: no private mount is allowed here ({error}); queues are known by their guard files"
            return QueueListing(names=None, how=why)
    return QueueListing(names=_names_in(result.stdout.split()), how="listed through a private mount")


def mounted_at() -> str | None:
    """Where the file system of message queues is mounted, if it is."""
    mounts = psutil.disk_partitions(all=True)
    return next((str(mount.mountpoint) for mount in mounts if mount.fstype == "mqueue"), None)


def _names_in(file_names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(f"/{name}" for name in file_names))


def system_v_objects() -> tuple[str, ...] | None:
    """This user's System V objects, one line of `ipcs` each; None without that program. Ours uses none."""
    try:
        result = subprocess.run(["ipcs", "-q", "-m", "-s"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return tuple(line for line in result.stdout.splitlines() if len(line.split()) > 3 and line.split()[2] == user)


def examine() -> Findings:
    """Collect shared memory, message queues and System V objects visible to this user."""
    names = tuple(survey())
    queues = list_queues()
    known = {found.name for found in names if found.kind == "queue"}
    unknown = [name for name in queues.names or () if name not in known]
    return Findings(
        names=names,
        queues=queues,
        unowned_queues=tuple(name for name in unknown if name == DEFAULT_QUEUE_NAME),
        other_queues=tuple(name for name in unknown if name != DEFAULT_QUEUE_NAME),
        system_v=system_v_objects(),
    )


def leaks_of(pids: Collection[int], queue_name: str) -> list[FoundName]:
    """The names that the ended processes `pids` left, and those that belong to the command queue `queue_name`."""
    hot_table_path = f"{SHM_DIRECTORY}{hot_table_name(queue_name)}"
    of_queue = {f"/dev/mqueue{queue_name}", queue_guard_path(queue_name), hot_table_path}
    return [found for found in survey() if found.owner_pid in pids or found.path in of_queue]


def _owner_text(found: FoundName) -> str:
    """The owner's pid, with the name of its program while it lives, because the pid of a dead owner may be reused."""
    if found.owner_pid is None:
        return "unknown"
    try:
        program = f" {psutil.Process(found.owner_pid).name()}" if found.alive else ""
    except psutil.Error:  # it has just ended, or is hidden from this user
        program = ""
    return f"pid {found.owner_pid}{program}"


def as_json(findings: Findings) -> str:
    """The findings as one JSON object; `leaks` is the count that the exit status stands for."""
    return json.dumps({"leaks": findings.leak_count, **asdict(findings)}, indent=2)


def as_text(findings: Findings, *, remedy: str = CLEAN) -> str:
    """The findings as text: a table, the namespaces, a verdict with the remedy, the command that sweeps."""
    rows = [("NAME", "KIND", "OWNER", "STATE", "WHAT TO DO")]
    for found in findings.names:
        state, advice = ("alive", "nothing: it is in use") if found.alive else ("dead", remedy)
        rows.append((found.path, found.kind, _owner_text(found), state, advice))
    rows += [(f"/dev/mqueue{name}", "queue", "unknown", "no guard", _QUEUE_REMEDY) for name in findings.unowned_queues]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(f"{row[n]:<{widths[n]}}" for n in range(4)), row[4]]) for row in rows] if rows[1:] else []
    if not lines:
        lines = ["there are no shared-memory or queue names of gfcache"]
    lines.append(f"message queues: {findings.queues.how}")
    lines += [f"  {name} is not ours, or lost its guard" for name in findings.other_queues]
    if findings.system_v is None:
        lines.append("System V: not listed, ipcs is not installed (ours uses none)")
    else:
        lines.append(f"System V: ours uses none; objects of this user: {len(findings.system_v)}")
        lines += [f"  {line}" for line in findings.system_v]
    living = sum(found.alive for found in findings.names)
    lines.append(f"names of living owners: {living}, leaks: {findings.leak_count}")
    if any(not found.alive for found in findings.names):
        lines.append(f"remedy: {remedy} removes what dead owners left")
    return "\n".join(lines)


def command_lines(prog: str = "gfcache-leaks") -> tuple[argparse.ArgumentParser]:
    """The command line, for the command itself and for what is generated from it."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="List the shared-memory and queue names of gfcache with their owners, and what to do. Nothing is"
        " changed. Exit status 0: dead owners left nothing; 1: they did; 2: the names cannot"
        " be listed, or the output cannot be written.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--version", action=VersionAction, help="print the version and exit")
    return (parser,)


def main(argv: Sequence[str] | None = None, *, prog: str = "gfcache-leaks", remedy: str = CLEAN) -> int:
    """Print the findings. Exit status 0: dead owners left nothing; 1: they did; 2: that cannot be found out or said."""
    arguments = command_lines(prog)[0].parse_args(argv)
    try:
        findings = examine()
    except PermissionError as error:
        sys.stderr.write(f"{prog}: {error.filename}: {error.strerror}; run it as a user who may read it\n")
        return 2
    if not put_out(prog, (as_json(findings) if arguments.json else as_text(findings, remedy=remedy)) + "\n"):
        return 2
    return 1 if findings.leak_count else 0
