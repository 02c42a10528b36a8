"""The pair without an origin: what the cache has is delivered byte for byte, whoever asks at the same time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import Answer, ask, ask_all, raw
from tests.support.contents import body_of, write_files
from tests.support.daemons import NO_HOT_TABLE, DaemonYard
from webproxy.getfile import Status

SIZES = {"small": 700, "middle": 300_000, "large": 48 << 20, "empty": 0}
MANY = {f"file-{number}": 5_000 + 977 * number for number in range(12)}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("content")
    write_files(directory, {**SIZES, **MANY})
    return str(directory)


@pytest.fixture(scope="module")
def shared_yard(tmp_path_factory: pytest.TempPathFactory, content: str) -> Iterator[DaemonYard]:
    """A yard with a cache of four threads."""
    with DaemonYard(tmp_path_factory.mktemp("daemons")) as yard:
        yard.start_cache("-t", "4", content=content, env=NO_HOT_TABLE)
        yield yard


@pytest.fixture(scope="module")
def port(shared_yard: DaemonYard) -> int:
    """A proxy as in the first example of the documents: eight segments of 8 KiB."""
    return shared_yard.start_proxy("-n", "8", "-z", "8192").port


def found(name: str) -> Answer:
    """The only right answer for a file."""
    body = body_of(name, {**SIZES, **MANY}[name])
    return Answer(Status.OK, body, len(body))


@pytest.mark.parametrize("name", SIZES)
def test_exact_bytes(port, name):
    assert ask(port, f"/{name}") == found(name)


@pytest.mark.parametrize(
    "path", ["/absent", "/small/below", "/", "/small/", "/../etc/hostname", "/%2e%2e/etc/hostname"]
)
def test_what_is_not_there_is_not_found(port, path):
    assert raw(port, f"GETFILE GET {path}\r\n\r\n".encode()) == b"GETFILE FILE_NOT_FOUND\r\n\r\n"


def test_a_miss_leaves_nothing_for_the_next_hit(port):
    for _ in range(10):
        assert ask(port, "/absent") == Answer(Status.FILE_NOT_FOUND, b"", 0)
        assert ask(port, "/small") == found("small")


def test_dot_segments_name_the_same_object(port):
    assert ask(port, "/folder/../small") == found("small")


def test_eight_clients_at_once(port):
    names = ["small", "middle", "empty", "file-3"] * 12
    assert ask_all(port, [f"/{name}" for name in names], clients=8) == [found(name) for name in names]


def test_more_clients_than_segments(port):
    names = [*MANY, "middle"] * 4
    assert ask_all(port, [f"/{name}" for name in names], clients=12) == [found(name) for name in names]


def test_thirty_two_clients_on_six_segments(shared_yard):
    proxy = shared_yard.start_proxy("-t", "8", "-n", "6", "-z", "8192")
    names = [name for _ in range(16) for name in (*MANY, "small", "middle", "empty", "absent")]
    expected = [Answer(Status.FILE_NOT_FOUND, b"", 0) if name == "absent" else found(name) for name in names]
    assert ask_all(proxy.port, [f"/{name}" for name in names], clients=32) == expected
    assert proxy.stop() == 0
    stopped = proxy.wait_event("stopped")
    assert (stopped["hit"], stopped["not_found"]) == (15 * 16, 16)
    assert (stopped["retired"], stopped["unfinished"]) == (0, 0)


def test_one_segment_shows_no_stale_header(shared_yard):
    """Ten uses of the same memory, each of another length and status than the one before."""
    proxy = shared_yard.start_proxy("-n", "1", "-z", "8192")
    for name in ["middle", "empty", "absent", "small", "file-1", "absent", "empty", "file-2", "middle", "small"]:
        expected = Answer(Status.FILE_NOT_FOUND, b"", 0) if name == "absent" else found(name)
        assert ask(proxy.port, f"/{name}") == expected
    assert proxy.stop() == 0
    stopped = proxy.wait_event("stopped")
    assert stopped["leases"] >= 10
    assert (stopped["widest_lease"], stopped["retired"]) == (1, 0)


def test_eleven_threads_share_one_segment(shared_yard):
    proxy = shared_yard.start_proxy("-t", "11", "-n", "1", "-z", "4096")
    names = ["file-0", "middle", "empty", "small", "file-11"] * 11
    assert ask_all(proxy.port, [f"/{name}" for name in names], clients=11) == [found(name) for name in names]
    assert proxy.stop() == 0
    stopped = proxy.wait_event("stopped")
    assert (stopped["hit"], stopped["widest_lease"], stopped["retired"]) == (55, 1, 0)
    assert stopped["leases"] >= 55, "what is long may give the segment up, and take it anew"


def test_three_proxies_on_one_cache(shared_yard):
    proxies = [
        shared_yard.start_proxy("-n", "4", "-z", size, "--wire", wire, wait=False)
        for size, wire in (("512", "crlf"), ("8192", "space"), ("1m", "crlf"))
    ]
    ports = [proxy.port for proxy in proxies]
    names = ["file-5", "small", "middle", "empty", "file-9", "small"]
    jobs = [(port, name) for name in names for port in ports]

    with ThreadPoolExecutor(9) as crew:
        answers = list(crew.map(lambda job: ask(job[0], f"/{job[1]}"), jobs))
    assert answers == [found(name) for _, name in jobs]
    assert [proxy.stop() for proxy in proxies] == [0, 0, 0]
    assert [proxy.wait_event("stopped")["hit"] for proxy in proxies] == [len(names)] * 3


def test_the_path_of_a_hit_is_counted_on_both_sides(yard, content):
    cache = yard.start_cache("-t", "4", content=content)
    proxy = yard.start_proxy("-n", "8", "-z", "8192")
    assert ask(proxy.port, "/small") == found("small")
    assert ask(proxy.port, "/absent").status is Status.FILE_NOT_FOUND
    assert raw(proxy.port, b"nonsense", end=True) == b"GETFILE INVALID\r\n\r\n"
    assert (proxy.stop(), cache.stop()) == (0, 0)
    seen_by_proxy, seen_by_cache = proxy.wait_event("stopped"), cache.wait_event("stopped")
    assert {name: seen_by_proxy[name] for name in ("hit", "not_found", "invalid", "leases", "retired")} == {
        "hit": 1,
        "not_found": 1,
        "invalid": 1,
        "leases": 2,
        "retired": 0,
    }
    assert {name: seen_by_cache[name] for name in ("served", "chunks", "malformed", "expired", "broken", "failed")} == {
        "served": 2,
        "chunks": 2,
        "malformed": 0,
        "expired": 0,
        "broken": 0,
        "failed": 0,
    }
