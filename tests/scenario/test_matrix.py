"""Threads, segment counts and sizes, stripes and wire forms: every pair of values meets, every size is delivered."""

from collections.abc import Iterator

import pytest

from shmchannel.streams.layout import HEADER_BYTES
from tests.support.client import Answer, ask, ask_all, raw
from tests.support.contents import body_of, write_files
from tests.support.daemons import DaemonProcess, DaemonYard
from tests.support.pairwise import Case, pairwise
from webproxy.getfile import Status, Wire, ok_header, request_bytes

SEGMENT_SIZES = (512, 8_192, 262_144, 1 << 20)
PARAMETERS = {
    "cache_threads": (1, 4, 11),
    "proxy_threads": (1, 8, 11),
    "segments": (1, 2, 6, 8),
    "segment_bytes": SEGMENT_SIZES,
    "width": (1, 4),
    "wire": ("crlf", "space"),
}
CASES = pairwise(PARAMETERS)
LARGE_BYTES = 16 << 20
CLIENTS = 6


def sizes_around(segment_bytes: int) -> list[int]:
    """Nothing, one byte, and one less, as much and one more than a chunk and than a whole segment can hold."""
    capacity = segment_bytes - HEADER_BYTES
    return [0, 1, *(edge + delta for edge in (capacity, segment_bytes) for delta in (-1, 0, 1))]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("matrix")
    sizes = {size for segment_bytes in SEGMENT_SIZES for size in sizes_around(segment_bytes)} | {LARGE_BYTES}
    write_files(directory, {str(size): size for size in sizes})
    return str(directory)


@pytest.fixture(scope="module")
def yards(tmp_path_factory: pytest.TempPathFactory, content: str) -> Iterator[dict[int, DaemonYard]]:
    """A cache for each number of cache threads, by that number."""
    with (
        DaemonYard(tmp_path_factory.mktemp("a")) as first,
        DaemonYard(tmp_path_factory.mktemp("b")) as second,
        DaemonYard(tmp_path_factory.mktemp("c")) as third,
    ):
        by_threads = dict(zip(PARAMETERS["cache_threads"], (first, second, third), strict=True))
        for threads, yard in by_threads.items():
            yard.start_cache("-t", str(threads), content=content, wait=False)
        for yard in by_threads.values():
            yard.started[0].wait_ready()
        yield {int(threads): yard for threads, yard in by_threads.items()}


def start_proxy(yard: DaemonYard, case: Case) -> DaemonProcess:
    flags = {
        "-t": "proxy_threads",
        "-n": "segments",
        "-z": "segment_bytes",
        "--segments-per-transfer-max": "width",
        "--wire": "wire",
    }
    arguments = [text for flag, name in flags.items() for text in (flag, str(case[name]))]
    return yard.start_proxy(*arguments)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_every_size_is_delivered(yards, case):
    proxy = start_proxy(yards[case["cache_threads"]], case)
    sizes = sizes_around(case["segment_bytes"])
    for size in sizes:
        expected = ok_header(size, Wire(case["wire"])) + body_of(str(size), size)
        assert raw(proxy.port, request_bytes(f"/{size}".encode())) == expected
    mixed = sizes * 3
    answers = ask_all(proxy.port, [f"/{size}" for size in mixed], clients=CLIENTS)
    assert answers == [Answer(Status.OK, body_of(str(size), size), size) for size in mixed]
    assert proxy.stop() == 0
    stopped = proxy.wait_event("stopped")
    assert (stopped["hit"], stopped["retired"], stopped["unfinished"]) == (4 * len(sizes), 0, 0)
    assert 1 <= stopped["widest_lease"] <= min(case["width"], max(1, case["segments"] // 2))


@pytest.mark.parametrize("segment_bytes", SEGMENT_SIZES)
def test_sixteen_megabytes(yards, segment_bytes):
    proxy = yards[4].start_proxy("-n", "8", "-z", str(segment_bytes))
    assert ask(proxy.port, f"/{LARGE_BYTES}") == Answer(Status.OK, body_of(str(LARGE_BYTES), LARGE_BYTES), LARGE_BYTES)
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["retired"] == 0


def test_the_matrix_has_every_edge():
    assert {case["segment_bytes"] for case in CASES} == set(SEGMENT_SIZES)
    assert {(case["segments"], case["proxy_threads"]) for case in CASES} >= {(1, 11), (8, 1)}
    assert sizes_around(512) == [0, 1, 127, 128, 129, 511, 512, 513]
