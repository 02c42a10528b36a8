"""The package's face: what it exports, where that lies, and what an import of it loads."""

from __future__ import annotations

import subprocess
import sys

import shmchannel
from shmchannel import objects

_LOADED = """
import sys
before = set(sys.modules)
import shmchannel
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(tops - sys.stdlib_module_names - {"shmchannel"}))
"""


def test_exports() -> None:
    assert sorted(shmchannel.__all__) == shmchannel.__all__
    for name in shmchannel.__all__:
        assert getattr(shmchannel, name).__module__.startswith("shmchannel.")


def test_protocol_of_the_cache_is_exported_by_its_wing_too() -> None:
    """All of it, and nothing that belongs to the wings below."""
    for name in objects.__all__:
        part = getattr(objects, name)
        assert isinstance(part, int) or part.__module__.startswith("shmchannel.objects.")
    public = {name for name in shmchannel.__all__ if getattr(shmchannel, name).__module__.startswith("shmchannel.obj")}
    assert public <= set(objects.__all__)


def test_import_is_light() -> None:
    """Of other people's packages it loads posix_ipc alone."""
    loaded = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == ["posix_ipc"]
