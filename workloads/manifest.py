"""Manifest files: the path, size and SHA-256 of every file of a folder, to compare a download with its source.

`python -m workloads.manifest make DIR > MANIFEST` and `python -m workloads.manifest check MANIFEST DIR`.
One line for each file: digest, size in bytes, path with its leading slash, with a space between them.
"""

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) (?P<size>[0-9]+) (?P<path>/.+)")


class ManifestError(Exception):
    """A manifest that cannot be read; the text names the line."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file; `path` begins with a slash and is relative to the folder of the manifest."""

    path: str
    size_bytes: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.sha256} {self.size_bytes} {self.path}"


def describe_file(file_name: str, path: str) -> ManifestEntry:
    """Read one file whole and return its entry; raises OSError."""
    with open(file_name, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ManifestEntry(path, os.fstat(file.fileno()).st_size, digest)


def describe_folder(folder: str) -> Iterator[ManifestEntry]:
    """Yield an entry for each regular file below `folder`, in the order of their paths; raises OSError."""
    for path in sorted(_paths_below(folder)):
        yield describe_file(folder + path, path)


def write_manifest(file_name: str, entries: Iterable[ManifestEntry]) -> None:
    """Write a manifest file; raises OSError."""
    with open(file_name, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{entry}\n" for entry in entries)


def read_manifest(file_name: str) -> list[ManifestEntry]:
    """Read a manifest file; ManifestError names the first invalid line, OSError is passed through."""
    with open(file_name, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().split("\n")
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise ManifestError(f"{file_name}:{number}: expected 'SHA256 SIZE /PATH', found {line[:80]!r}")
        entries.append(ManifestEntry(found["path"], int(found["size"]), found["digest"]))
    return entries


def compare(entries: Iterable[ManifestEntry], folder: str, *, exact: bool = False) -> list[str]:
    """Return a line for each file missing or different in `folder`; with `exact` also for those without an entry."""
    differences = []
    expected = set()
    for entry in entries:
        expected.add(entry.path)
        try:
            found = describe_file(folder + entry.path, entry.path)
        except OSError as error:
            differences.append(f"{entry.path}: {error.strerror or error}")
            continue
        if found.size_bytes != entry.size_bytes:
            differences.append(f"{entry.path}: {found.size_bytes} bytes instead of {entry.size_bytes}")
        elif found.sha256 != entry.sha256:
            differences.append(f"{entry.path}: the content differs")
    if exact:
        differences += [f"{path}: is not in the manifest" for path in sorted(_paths_below(folder) - expected)]
    return differences


def _paths_below(folder: str) -> set[str]:
    """Return the path of every regular file below `folder`, each with a leading slash."""

    def fail(error: OSError) -> None:
        raise error

    return {
        "/" + os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder, onerror=fail)
        for name in names
        if os.path.isfile(os.path.join(parent, name))
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Make or check a manifest; returns 0, 1 when the check finds a difference, 2 when something cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m workloads.manifest", description="Compare files with a manifest.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="print the manifest of a folder")
    make.add_argument("folder", metavar="DIR")
    check = commands.add_parser("check", help="compare a folder with a manifest")
    check.add_argument("manifest", metavar="MANIFEST")
    check.add_argument("folder", metavar="DIR")
    check.add_argument("--exact", action="store_true", help="files that the manifest does not name are differences too")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "make":
            for entry in describe_folder(arguments.folder):
                print(entry)
            return 0
        return _check(arguments.manifest, arguments.folder, exact=arguments.exact)
    except (ManifestError, OSError) as error:
        print(f"manifest: {error}", file=sys.stderr)
        return 2


def _check(manifest: str, folder: str, *, exact: bool) -> int:
    entries = read_manifest(manifest)
    differences = compare(entries, folder, exact=exact)
    for difference in differences:
        print(difference)
    total_bytes = sum(entry.size_bytes for entry in entries)
    equal = "all equal" if not differences else f"{len(differences)} differences"
    print(f"{len(entries)} files, {total_bytes} bytes, {equal}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
