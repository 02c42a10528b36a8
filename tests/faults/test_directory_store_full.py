"""A disk that is really full, and one that is really read-only, in a mount namespace of the test's own process."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.client import ask
from tests.support.daemons import NO_HOT_TABLE
from tests.support.programs import require_program
from tests.support.stores import run_script
from tests.support.waiting import wait_until
from workloads.origin_stub import OriginStub, Route

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemons import DaemonYard

SETUP = """
    import os, subprocess, sys
    from simplecached.stores.directory_store import DirectoryStore
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
    print([entry.key for entry in store.records()], bodies())
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
BECOMES_READ_ONLY = """
    mount("size=4m")
    store = DirectoryStore(store_path, 1 << 30)
    put(store, b"a", b"body")
    subprocess.run(["mount", "--bind", store_path, store_path], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", store_path], check=True)
    try:
        put(store, b"b", b"another")
    except StoreUnavailable as error:
        print("read-only" in str(error), store_path in str(error))
    print(get(store, b"a"), store.stats().objects_count, store.stats().writing_count)
    subprocess.run(["mount", "-o", "remount,bind,rw", store_path], check=True)
    put(store, b"b", b"another")
    print(get(store, b"b"))
    store.close()
"""
OWN_DISK = """mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@" """
READ_ONLY_DISK = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
FULL_DISK = 'dd if=/dev/zero of="$0/filler" bs=64k; dd if=/dev/zero of="$0/filler2" bs=1; true'


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


def test_a_disk_that_becomes_read_only_refuses_writes_and_nothing_else(
    tmp_path: Path, namespace: tuple[str, ...]
) -> None:
    ended = run_script(SETUP + BECOMES_READ_ONLY, str(tmp_path), prefix=namespace)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["True True", "b'body' 1 0", "b'another'"]


@pytest.mark.parametrize(
    ("spoil", "reason"), [(READ_ONLY_DISK, "EROFS"), (FULL_DISK, "ENOSPC")], ids=["read-only", "full"]
)
def test_a_cache_whose_disk_is_refused_while_it_runs(
    yard: DaemonYard, tmp_path: Path, namespace: tuple[str, ...], spoil: str, reason: str
) -> None:
    """What is stored serves on; what is not comes from the origin each time, and the log says why."""
    place = tmp_path / "disk"
    place.mkdir()
    bodies = {"/first": b"1" * 100_000, "/second": b"2" * 100_000}
    with OriginStub({path: Route(body=body) for path, body in bodies.items()}) as origin:
        wrap = (*namespace, "sh", "-c", OWN_DISK, str(place))
        cache = yard.start_cache("--store", str(place), env=NO_HOT_TABLE, wrap=wrap)
        proxy = yard.start_proxy("-s", origin.url)

        def is_hit(path: str) -> bool:
            asked = len(origin.requests)
            assert ask(proxy.port, path).body == bodies[path]
            return len(origin.requests) == asked

        wait_until(lambda: is_hit("/first"), what="the first object is stored")
        require_program("nsenter")
        enter = ["nsenter", f"--mount=/proc/{cache.pid}/ns/mnt", f"--user=/proc/{cache.pid}/ns/user"]
        enter = enter if "--user" in namespace else enter[:2]
        subprocess.run([*enter, "sh", "-c", spoil, str(place)], check=True, capture_output=True)
        assert not is_hit("/second")
        cache.wait_event("object not stored")
        wait_until(lambda: not is_hit("/second"), what="the fetch that could not be stored is over")
        assert is_hit("/first")
        assert reason in cache.wait_event("object not stored", count=2)["reason"]
        assert cache.running
