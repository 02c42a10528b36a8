"""Large objects in use: from the second request on they come from the cache's own file, and all rules hold for them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.http.client import HttpClient, Reply
from tests.http.site import Daemons, Site, daemons, origin_of
from tests.support.waiting import wait_until
from workloads.origin_stub import Route

FRESH = {"Cache-Control": "max-age=600"}
BODY = os.urandom(3_000_000)
OTHER = os.urandom(2_000_000)


@pytest.fixture
def site(shared: Daemons) -> Iterator[Site]:
    with origin_of(shared) as living:
        yield living


def open_objects(pid: int) -> set[int]:
    """The inodes of the files of stored objects that a process has open."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(f"/proc/{pid}/fd/{number}")
            if "gfcache-object" in path or re.search(r"/objects?/", path):
                found.add(os.stat(f"/proc/{pid}/fd/{number}").st_ino)
        except FileNotFoundError:
            continue
    return found


def make_hot(site: Site, *routes: Route) -> str:
    """Store it, and ask until the proxy sends from the file; returns the path."""
    path = site.fill(*routes)
    pid = site.daemons.proxy.pid
    before = open_objects(pid)

    def is_file() -> bool:
        assert site.get(path).is_hit
        return not open_objects(pid) <= before  # others may be closed meanwhile

    wait_until(is_file, what="the file in the proxy")
    return path


def test_the_file_gives_the_same_reply(site: Site) -> None:
    path = site.fill(Route(body=BODY, headers={**FRESH, "ETag": '"1"'}))
    first = site.stored(path)
    hot = make_hot(site, Route(body=BODY, headers={**FRESH, "ETag": '"1"'}))
    again = site.get(hot)
    assert first.body == again.body == BODY
    assert {name for name, _ in first.lines} == {name for name, _ in again.lines}
    assert again.is_hit
    assert site.count(hot) == 1


def test_many_on_one_connection_and_old_clients(site: Site) -> None:
    path = make_hot(site, Route(body=BODY, headers=FRESH))
    with HttpClient(site.port) as client:
        for _ in range(5):
            assert client.ask(path).body == BODY
    assert site.get(path, "Connection: close").body == BODY
    assert site.count(path) == 1


@pytest.mark.parametrize(
    ("spec", "part"),
    [("0-0", BODY[:1]), ("1000000-2000000", BODY[1_000_000:2_000_001]), ("-5", BODY[-5:]), ("2999999-", BODY[-1:])],
    ids=["0-0", "1000000-2000000", "-5", "2999999-"],
)
def test_a_range(site: Site, spec: str, part: bytes) -> None:
    path = make_hot(site, Route(body=BODY, headers=FRESH))
    reply = site.get(path, f"Range: bytes={spec}")
    assert (reply.status, reply.body) == (206, part)
    assert reply.is_hit


def test_several_ranges_conditions_and_head(site: Site) -> None:
    path = make_hot(site, Route(body=BODY, headers={**FRESH, "ETag": '"1"'}))
    reply = site.get(path, "Range: bytes=0-9,100000-100009,-3")
    assert reply.status == 206
    for part in (BODY[:10], BODY[100_000:100_010], BODY[-3:]):
        assert part in reply.body
    assert site.get(path, 'If-None-Match: "1"').status == 304
    head = site.get(path, method="HEAD")
    assert (head.status, head.get("content-length"), head.body) == (200, str(len(BODY)), b"")
    assert site.get(path).body == BODY


def test_a_purged_one_is_not_served(site: Site) -> None:
    path = make_hot(site, Route(body=BODY, headers=FRESH), Route(body=OTHER, headers=FRESH))
    assert site.get(path, method="PURGE").status == 200
    assert site.get(path).body == OTHER
    assert site.count(path) == 2


def test_a_soft_purge_is_validated(site: Site) -> None:
    path = make_hot(site, Route(body=BODY, headers={**FRESH, "ETag": '"1"'}))
    assert site.get(path, "X-Purge: soft", method="PURGE").status == 200
    reply = site.get(path)
    assert reply.body == BODY
    assert site.count(path) == 2


def test_a_client_that_reads_slowly_gets_what_it_began(site: Site) -> None:
    """Its response is parked; the object is purged during that, and the open file still serves it."""
    body = os.urandom(20_000_000)
    path = make_hot(site, Route(body=body, headers=FRESH), Route(body=OTHER, headers=FRESH))
    with HttpClient(site.port) as client:
        client.send(path)
        head = client.head()
        assert head.status == 200
        assert site.get(path, method="PURGE").status == 200
        assert site.get(path).body == OTHER
        assert client.rest(len(body)) == body


def test_files_do_not_stay_open(site: Site) -> None:
    """A purged object's memory goes when neither the hot table nor a proxy has used it for a while."""
    path = make_hot(site, Route(body=BODY, headers=FRESH))
    pids = [site.daemons.proxy.pid, site.daemons.holder.pid]
    before = [len(open_objects(pid)) for pid in pids]
    assert site.get(path, method="PURGE").status == 200
    wait_until(
        lambda: all(len(open_objects(pid)) < count for pid, count in zip(pids, before, strict=True)),
        what="the closed files",
    )


@pytest.mark.parametrize("store", ["memory", "directory"])
def test_the_cache_dies_in_mid_body(tmp_path_factory: pytest.TempPathFactory, store: str) -> None:
    """Who is being sent a file gets all of it."""
    body = os.urandom(20_000_000)
    directory = tmp_path_factory.mktemp("store")
    arguments = () if store == "memory" else ("--store", str(directory))
    with daemons(tmp_path_factory.mktemp("daemons"), cache=arguments) as shared, origin_of(shared) as site:
        path = make_hot(site, Route(body=body, headers=FRESH))
        with HttpClient(site.port) as client:
            client.send(path)
            assert client.head().is_hit
            os.kill(shared.holder.pid, signal.SIGKILL)
            assert client.rest(len(body)) == body


def is_whole(reply: Reply) -> bool:
    return reply.whole and reply.status == 200


def test_replaced_all_the_time(site: Site) -> None:
    """Each answer is one version's, from its first byte to its last."""
    bodies = [bytes([number]) * (200_000 + number) for number in range(20)]
    routes = [
        Route(body=body, headers={"Cache-Control": "max-age=0", "ETag": f'"{n}"'}) for n, body in enumerate(bodies)
    ]
    path = site.put(*routes)
    for _ in range(6):
        for reply in site.get_all([(path,)] * 8, clients=8):
            assert is_whole(reply)
            assert reply.body in bodies
