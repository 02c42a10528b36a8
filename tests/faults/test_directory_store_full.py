"""A disk that is really full, and one that is really read-only, in a mount namespace of the test's own process."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.stores import run_script

if TYPE_CHECKING:
    from pathlib import Path

SETUP = """
    import os, subprocess, sys
    from simplecached.directory_store import DirectoryStore
    from simplecached.errors import StartupError, StoreUnavailable

    place = sys.argv[1]
    store_path = os.path.join(place, "store")

    def mount(options):
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)

    def put(store, key, body):
        writer = store.begin(key, len(body), b"")
        try:
            writer.write(memoryview(body))
            writer.commit()
        finally:
            writer.abort()

    def get(store, key):
        with store.open(key) as stored:
            return os.pread(stored.fd, stored.size_bytes, 0)

    def bodies():
        return sorted(
            os.path.getsize(os.path.join(at, name))
            for top in ("tmp", "objects")
            for at, _, names in os.walk(os.path.join(store_path, top))
            for name in names
        )
"""
FULL = """
    mount("size=1m")
    store = DirectoryStore(store_path, 1 << 30)
    put(store, b"a", b"a" * 1000)
    for size in (2 << 20, 512 << 20):
        try:
            store.begin(b"big", size, b"")
        except StoreUnavailable as error:
            print(error.errno, "free some space" in str(error), store_path in str(error))
    refused = 0
    for number in range(2000):
        try:
            put(store, b"%d" % number, b"x" * 1000)
        except StoreUnavailable as error:
            refused += 1
    print("refused", refused > 0, "consistent", len(bodies()) == store.stats().objects_count)
    print(get(store, b"a") == b"a" * 1000, store.stats().writing_count)
    print(store.remove_prefix(b"") > 0, bodies())
    put(store, b"again", b"x")
    store.close()
    store = DirectoryStore(store_path, 1 << 30)
    print([entry.key for entry in store.entries()], bodies())
    store.close()
"""
READ_ONLY = """
    mount("size=4m")
    store = DirectoryStore(store_path, 1 << 30)
    put(store, b"a", b"body")
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    try:
        DirectoryStore(store_path, 1 << 30)
    except StartupError as error:
        print("read-only" in str(error).lower(), store_path in str(error))
    try:
        DirectoryStore(os.path.join(place, "new"), 1 << 30)
    except StartupError as error:
        print("read-only" in str(error).lower(), place in str(error))
"""


@pytest.fixture(scope="module")
def namespace() -> tuple[str, ...]:
    """Return the words that run a command in a mount namespace where it may mount, or skip."""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("unshare and mount are not installed")
    tries = [("unshare", "--mount")] if os.geteuid() == 0 else [("unshare", "--user", "--map-root-user", "--mount")]
    for words in tries:
        script = "import subprocess, sys; sys.exit(subprocess.call(['mount', '-t', 'tmpfs', 'tmpfs', '/mnt']))"
        if run_script(script, prefix=words).returncode == 0:
            return words
    pytest.skip("this user may not mount a file system, not even in a namespace of its own")


def test_a_full_disk_refuses_writes_and_nothing_else(tmp_path: Path, namespace: tuple[str, ...]) -> None:
    ended = run_script(SETUP + FULL, str(tmp_path), prefix=namespace)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "28 True True",
        "28 True True",
        "refused True consistent True",
        "True 0",
        "True []",
        "[b'again'] [1]",
    ]


def test_a_read_only_disk_is_a_clear_error_at_the_start(tmp_path: Path, namespace: tuple[str, ...]) -> None:
    ended = run_script(SETUP + READ_ONLY, str(tmp_path), prefix=namespace)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["True True", "True True"]
