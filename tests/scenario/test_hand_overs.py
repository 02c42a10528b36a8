"""Chunks and leases seen from outside: every hand-over is counted, leases grow when idle and shrink for others."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from shmchannel.streams.layout import HEADER_BYTES
from tests.support.client import ask, connect, receive_to_end
from tests.support.contents import write_files
from tests.support.waiting import wait_until
from webproxy.getfile import Wire, ok_header, request_bytes

TEN_MEGABYTES = 10_000_000


def test_every_hand_over_of_ten_megabytes(yard, tmp_path):
    """Through one segment at a time: nothing is handed over twice, nothing is left out, no chunk is half full."""
    bodies = write_files(tmp_path / "files", {"ten": TEN_MEGABYTES})
    cache = yard.start_cache(content=tmp_path / "files")
    proxy = yard.start_proxy("-n", "8", "-z", "8192", "--segments-per-transfer-max", "1")
    assert ask(proxy.port, "/ten").body == bodies["/ten"]
    assert (proxy.stop(), cache.stop()) == (0, 0)
    chunks = -(-TEN_MEGABYTES // (8192 - HEADER_BYTES))
    assert cache.wait_event("stopped")["chunks"] == chunks
    stopped = proxy.wait_event("stopped")
    assert stopped["leases"] >= 1, "what is long may give the segment up, and take it anew"
    assert (stopped["widest_lease"], stopped["shrunk"]) == (1, 0)


def test_ten_megabytes_through_a_growing_lease(yard, tmp_path):
    """The first request learns how large the object is; nobody else is there, so that it has the full width soon."""
    bodies = write_files(tmp_path / "files", {"ten": TEN_MEGABYTES})
    cache = yard.start_cache(content=tmp_path / "files")
    proxy = yard.start_proxy("-n", "8", "-z", "8192", "--segments-per-transfer-max", "4")
    for _ in range(2):
        assert ask(proxy.port, "/ten").body == bodies["/ten"]
    assert (proxy.stop(), cache.stop()) == (0, 0)
    assert cache.wait_event("stopped")["chunks"] >= 2 * -(-TEN_MEGABYTES // (8192 - HEADER_BYTES))
    stopped = proxy.wait_event("stopped")
    assert (stopped["widest_lease"], stopped["retired"], stopped["hit"]) == (4, 0, 2)


@pytest.mark.parametrize(
    ("segments", "segment_bytes", "widest"),
    [
        (1, 4096, 1),
        (3, 4096, 3),
        (4, 4096, 4),
        (11, 4096, 6),
        (1, 65536, 1),
        (3, 65536, 1),
        (4, 65536, 2),
        (11, 65536, 5),
    ],
)
def test_an_idle_pool_gives_the_stripe_of_small_segments_and_up_to_half_of_large_ones(
    yard, tmp_path, segments, segment_bytes, widest
):
    bodies = write_files(tmp_path / "files", {"file": 4_000_000})
    yard.start_cache(content=tmp_path / "files")
    proxy = yard.start_proxy("-n", str(segments), "-z", str(segment_bytes), "--segments-per-transfer-max", "6")
    for _ in range(2):  # from the second time on the size is known
        assert ask(proxy.port, "/file").body == bodies["/file"]
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["widest_lease"] == widest


def test_streams_shrink_while_others_wait(yard, tmp_path):
    """One stream holds all of the pool; the others come while it runs, and it gives segments back in mid-stream.

    Without a hot table, from which the others would be served without a segment.
    """
    bodies = write_files(tmp_path / "files", {"big": 64 << 20, "small": 3_000})
    yard.start_cache("-t", "16", "--hot-table-bytes", "0", content=tmp_path / "files")
    proxy = yard.start_proxy("-t", "16", "-n", "4", "-z", "4096", "--segments-per-transfer-max", "4")
    with connect(proxy.port) as streaming, ThreadPoolExecutor(9) as crew:
        streaming.sendall(request_bytes(b"/big"))
        beginning = streaming.recv(1)  # the stream runs, and its client takes what comes
        rest = crew.submit(receive_to_end, streaming)
        small = [crew.submit(ask, proxy.port, "/small") for _ in range(200)]
        assert all(future.result().body == bodies["/small"] for future in small)
        assert beginning + rest.result() == ok_header(64 << 20, Wire.CRLF) + bodies["/big"]
    assert proxy.stop() == 0
    stopped = wait_until(lambda: proxy.events("stopped"))[0]
    assert stopped["widest_lease"] == 4
    assert stopped["shrunk"] > 0
    assert stopped["retired"] == 0
