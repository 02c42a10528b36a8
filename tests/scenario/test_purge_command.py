"""`webproxy purge` beside a whole cache daemon: what is gone is gone for every proxy, what is invalidated says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from shmchannel.deadline import Deadline
from shmchannel.objects.client import ChannelClient
from shmchannel.streams.pool import SegmentPool
from tests.support.channels import reading
from tests.support.client import ask
from tests.support.daemons import DaemonYard
from tests.support.pairs import body_of_transfer
from tests.support.waiting import WATCHDOG_S
from webproxy.getfile import Status

OBJECTS = {
    b"/a": b"one",
    b"/a\0": b"",
    b"/a\x000123456789abcdef": b"variant",
    b"/ab": b"another",
    b"/old/\xc3\xbc": b"as getfile asks for it",
    b"/old/%C3%BC": b"as HTTP asks for it",
    b"http://host.example/a": b"of a host",
}
STORES = ("memory", "directory")


@pytest.fixture(params=STORES)
def filled(request: pytest.FixtureRequest, yard: DaemonYard, tmp_path) -> Iterator[ChannelClient]:
    """A proxy's end of the cache, which holds all OBJECTS."""
    yard.start_cache("--store", "memory" if request.param == "memory" else str(tmp_path / "store"))
    pool = SegmentPool.create(2, 8192)
    client = ChannelClient(yard.queue, pool, between_bytes_timeout_s=WATCHDOG_S)
    try:
        for key, body in OBJECTS.items():
            deadline = Deadline.after(WATCHDOG_S)
            with client.put(key, len(body), b"metadata", pool.lease(deadline), deadline) as transfer:
                transfer.pump(reading(body), len(body), wait=True)
                assert transfer.commit()
        yield client
    finally:
        client.close()
        pool.close()


def purge(queue: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webproxy", "purge", "-q", queue, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)


def held(client: ChannelClient) -> dict[bytes, bool]:
    """The keys that the cache has, and whether their objects are invalidated."""
    found = {}
    for key, body in OBJECTS.items():
        with client.get(key, Deadline.after(WATCHDOG_S), metadata_wanted=True) as transfer:
            sent = body_of_transfer(transfer)
            if sent is not None:
                assert (sent, transfer.metadata) == (body, b"metadata")
                found[key] = transfer.invalidated
    return found


@pytest.mark.parametrize(
    ("key", "printed", "met"),
    [
        pytest.param("/a", "3 objects", {b"/a", b"/a\0", b"/a\x000123456789abcdef"}, id="with variants"),
        pytest.param("/old/ü", "2 objects", {b"/old/\xc3\xbc", b"/old/%C3%BC"}, id="both forms of a name"),
        pytest.param("/nothing", "0 objects", set(), id="none"),
        pytest.param("/old/*", "2 objects", {b"/old/\xc3\xbc", b"/old/%C3%BC"}, id="prefix"),
        pytest.param("http://HOST.example/*", "1 object", {b"http://host.example/a"}, id="host"),
        pytest.param("*", "7 objects", set(OBJECTS), id="everything"),
    ],
)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_what_is_met_is_gone_or_invalidated(
    yard: DaemonYard, filled: ChannelClient, key: str, printed: str, met: set[bytes], soft: bool
) -> None:
    done = purge(yard.queue, key, *["--soft"] * soft)
    said = "marked stale" if soft else "removed"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{printed} {said}\n", "")
    others = dict.fromkeys(OBJECTS.keys() - met, False)
    assert held(filled) == (others | dict.fromkeys(met, True) if soft else others)


def test_a_proxy_serves_nothing_purged_from_the_hot_hot_table(yard: DaemonYard, filled: ChannelClient) -> None:
    """Asked for twice in a moment, a small object lies where proxies read it without a message."""
    port = yard.start_proxy().port
    for _ in range(20):
        assert ask(port, "/ab").body == OBJECTS[b"/ab"]
    assert purge(yard.queue, "/ab").stdout == "1 object removed\n"
    assert ask(port, "/ab").status is Status.FILE_NOT_FOUND


def test_a_cache_that_has_ended_is_missed(yard: DaemonYard) -> None:
    cache = yard.start_cache()
    assert purge(yard.queue, "*").returncode == 0
    cache.kill()
    done = purge(yard.queue, "*")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith(f"webproxy purge: no process serves queue {yard.queue}")
