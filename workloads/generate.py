"""Generates files and the lists that go with them: `python -m workloads.generate KIND DIR [--seed N]`.

    DIR/files/KIND/...   the files; DIR/files is the root for an origin server or a cache
    DIR/workload.txt     paths in the order of the requests, for gfclient -w
    DIR/locals.txt       `<key> <path>` lines, for simplecached -c
    DIR/manifest.txt     sizes and digests, for workloads.manifest

The same kind and seed give the same bytes everywhere. The table of sizes is manifests/kinds.toml.
"""

import argparse
import math
import os
import random
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from workloads.manifest import ManifestEntry, describe_file, write_manifest

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Group:
    """Files of one sort; sizes lie between the two limits, uniformly on a logarithmic scale."""

    name: str
    count: int
    low_bytes: int
    high_bytes: int


@dataclass(frozen=True, slots=True)
class WorkloadKind:
    """One sample workload; `requests` is None if each file is requested once."""

    name: str
    description: str
    groups: tuple[Group, ...]
    requests: int | None = None
    skew: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that belongs to a workload, before it exists; `path` has a leading slash."""

    path: str
    size_bytes: int


def load_kinds() -> dict[str, WorkloadKind]:
    """Read the table of sample workloads that comes with the package."""
    table = tomllib.loads(files("workloads.manifests").joinpath("kinds.toml").read_text(encoding="utf-8"))
    return {name: _kind(name, fields) for name, fields in table.items()}


def _kind(name: str, fields: Mapping[str, Any]) -> WorkloadKind:
    groups = tuple(Group(**group) for group in fields["groups"])
    return WorkloadKind(name, fields["description"], groups, fields.get("requests"), fields.get("skew", 0.0))


def plan_files(kind: WorkloadKind, seed: int) -> list[PlannedFile]:
    """Return the files of a workload; the same for the same seed."""
    chance = random.Random(f"{seed} {kind.name} sizes")
    return [
        PlannedFile(f"/{kind.name}/{group.name}-{number:04d}.bin", _draw_size(chance, group))
        for group in kind.groups
        for number in range(group.count)
    ]


def plan_requests(kind: WorkloadKind, planned: Sequence[PlannedFile], seed: int) -> list[str]:
    """Return the paths of a workload in the order of its requests; the same for the same seed."""
    paths = [file.path for file in planned]
    if kind.requests is None:
        return paths
    chance = random.Random(f"{seed} {kind.name} requests")
    weights = [rank**-kind.skew for rank in range(1, len(paths) + 1)]
    return chance.choices(paths, weights, k=kind.requests)


def content(path: str, size_bytes: int, seed: int) -> Iterator[bytes]:
    """Yield the bytes of a file, block by block; they depend on the seed and the path only."""
    chance = random.Random(f"{seed} {path}")
    for start in range(0, size_bytes, _BLOCK_BYTES):
        yield chance.randbytes(min(_BLOCK_BYTES, size_bytes - start))


def generate(kind: WorkloadKind, folder: str, seed: int) -> list[ManifestEntry]:
    """Create the files and lists of a workload below `folder` and return the manifest; raises OSError."""
    root = os.path.join(os.path.realpath(folder), "files")
    planned = plan_files(kind, seed)
    entries = []
    for file in planned:
        name = root + file.path
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "wb") as output:
            output.writelines(content(file.path, file.size_bytes, seed))
        entries.append(describe_file(name, file.path))
    _write_lines(folder, "workload.txt", plan_requests(kind, planned, seed))
    _write_lines(folder, "locals.txt", [f"{file.path} {root}{file.path}" for file in planned])
    write_manifest(os.path.join(folder, "manifest.txt"), entries)
    return entries


def _draw_size(chance: random.Random, group: Group) -> int:
    if group.low_bytes == group.high_bytes:
        return group.low_bytes
    return round(math.exp(chance.uniform(math.log(group.low_bytes), math.log(group.high_bytes))))


def _write_lines(folder: str, name: str, lines: Sequence[str]) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Create one workload; returns 0, or 2 if its folder cannot be written."""
    kinds = load_kinds()
    about = "; ".join(f"{kind.name}: {kind.description}" for kind in kinds.values())
    parser = argparse.ArgumentParser(
        prog="python -m workloads.generate", description=f"Create a sample workload. {about}."
    )
    parser.add_argument("kind", choices=sorted(kinds), metavar="KIND", help=", ".join(sorted(kinds)))
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other sizes and bytes (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        entries = generate(kinds[arguments.kind], arguments.folder, arguments.seed)
    except OSError as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    total_bytes = sum(entry.size_bytes for entry in entries)
    print(f"{len(entries)} files, {total_bytes} bytes in {arguments.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
