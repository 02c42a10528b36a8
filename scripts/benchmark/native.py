"""Compiles the native programs: gfblast and httpblast, the loads, an origin, and the C pair, a yardstick."""

import os
import shutil
import subprocess
from collections.abc import Sequence

_SOURCES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "native")
_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-pthread")


class BuildFailed(Exception):
    """The compiler refused a program; the text is its complaint."""


def build(directory: str, program: str, sources: Sequence[str], *, libraries: Sequence[str] = ()) -> str | None:
    """Compile a program into `directory`; its path, or None if there is no compiler. Blocks. Raises BuildFailed."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        return None
    path = os.path.join(directory, program)
    command = [compiler, *_FLAGS, "-o", path, *(os.path.join(_SOURCES, name) for name in sources), *libraries]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildFailed(f"{compiler} could not build {program}:\n{result.stderr}")
    return path
