"""One request against servers that do what no server should."""

import threading

import pytest

from tests.support.rawserver import RESET, RawServer, Step, byte_by_byte
from webproxy.getfile import Status, Violation
from workloads.gfclient.cancel import Canceller
from workloads.gfclient.connection import BUFFER_BYTES, CountOnly, Endpoint, Fetcher
from workloads.gfclient.outcome import Failure, FailureKind, Outcome, RequestError

LONG_S = 60.0
NEVER_S = 0.05  # a time-out that is meant to pass


class Collector:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.length: int | None = None
        self.data = bytearray()

    def begin(self, length: int) -> None:
        self.length = length

    def write(self, piece: memoryview) -> None:
        self.data += piece


def fetch(server: RawServer, sink: Collector | CountOnly | None = None, timeout_s: float = LONG_S) -> Outcome:
    fetcher = Fetcher(Endpoint.resolve(server.host, server.port), timeout_s, Canceller())
    return fetcher.fetch(b"/file", sink or CountOnly())


@pytest.mark.parametrize("header", [b"GETFILE OK 5\r\n\r\n", b"GETFILE OK 5 "])
@pytest.mark.parametrize("in_pieces", [False, True])
def test_content_arrives_in_either_form_whole_or_dripping(header: bytes, in_pieces: bool) -> None:
    reply = header + b"hello"
    sink = Collector()
    with RawServer(byte_by_byte(reply) if in_pieces else [reply]) as server:
        outcome = fetch(server, sink)
        assert outcome == Outcome(b"/file", Status.OK, 5)
        assert outcome.served
        assert (sink.length, bytes(sink.data)) == (5, b"hello")
        assert server.requests == [b"GETFILE GET /file\r\n\r\n"]


@pytest.mark.parametrize("size", [0, 1, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 5 * BUFFER_BYTES + 3])
def test_content_of_every_size_is_exact(size: int) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    sink = Collector()
    with RawServer([b"GETFILE OK %d\r\n\r\n" % size, content]) as server:
        assert fetch(server, sink).served
    assert bytes(sink.data) == content


def test_the_client_does_not_wait_for_the_server_to_close() -> None:
    never = threading.Event()
    with RawServer([b"GETFILE OK 5\r\n\r\nhello", never]) as server:
        assert fetch(server).served


def test_ipv6() -> None:
    with RawServer([b"GETFILE OK 1\r\n\r\nx"], host="::1") as server:
        assert fetch(server).served


@pytest.mark.parametrize(
    ("script", "kind", "status"),
    [
        ([], Violation.EMPTY_REPLY, None),
        ([b"GETFILE OK 1"], Violation.INCOMPLETE_HEADER, None),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], Violation.BAD_SCHEME, None),
        ([b"GETFILE FINE 5\r\n\r\nhello"], Violation.UNKNOWN_STATUS, None),
        ([b"GETFILE OK\r\n\r\nhello"], Violation.MISSING_LENGTH, None),
        ([b"GETFILE OK -5\r\n\r\nhello"], Violation.NEGATIVE_LENGTH, None),
        ([b"GETFILE OK five\r\n\r\nhello"], Violation.ALPHABETIC_LENGTH, None),
        ([b"GETFILE OK 18446744073709551616\r\n\r\n"], Violation.LENGTH_TOO_LARGE, None),
        ([b"GETFILE ERROR 7\r\n\r\n"], Violation.UNEXPECTED_LENGTH, None),
        ([b"GETFILE OK 5\r\n\r\nhello!"], Violation.EXCESS_BYTES, Status.OK),
        ([b"GETFILE OK 0\r\n\r\n!"], Violation.EXCESS_BYTES, Status.OK),
        ([b"GETFILE ERROR\r\n\r\n!"], Violation.EXCESS_BYTES, Status.ERROR),
        ([b"GETFILE OK 5\r\n\r\nhell"], Failure.SHORT_BODY, Status.OK),
        ([b"GETFILE OK 4294967297\r\n\r\nhello"], Failure.SHORT_BODY, Status.OK),
        ([b"GETFILE OK 18446744073709551615\r\n\r\n"], Failure.SHORT_BODY, Status.OK),
        ([b"GETFILE FILE_NOT_FOUND\r\n\r\n"], Failure.FILE_NOT_FOUND, Status.FILE_NOT_FOUND),
        ([b"GETFILE ERROR 0\n"], Failure.SERVER_ERROR, Status.ERROR),
        ([b"GETFILE INVALID\r\n\r\n"], Failure.REFUSED_AS_INVALID, Status.INVALID),
        ([RESET], Failure.CONNECTION_LOST, None),
    ],
)
def test_each_failure_has_its_kind(script: list[Step], kind: FailureKind, status: Status | None) -> None:
    with RawServer(script) as server:
        outcome = fetch(server)
    assert (outcome.failure, outcome.status) == (kind, status)
    assert outcome.detail
    assert not outcome.served


def test_a_short_body_counts_what_came() -> None:
    with RawServer([b"GETFILE OK 9\r\n\r\nhell"]) as server:
        outcome = fetch(server)
    assert (outcome.received_bytes, outcome.detail) == (4, "4 of 9 bytes")


@pytest.mark.parametrize("sent", [b"", b"GETFILE O", b"GETFILE OK 5\r\n\r\nhe"], ids=["silence", "header", "content"])
def test_a_stall_ends_by_the_timeout(sent: bytes) -> None:
    never = threading.Event()
    with RawServer([sent, never] if sent else [never]) as server:
        assert fetch(server, timeout_s=NEVER_S).failure is Failure.TIMEOUT


def test_a_header_that_drips_for_ever_ends_by_the_timeout() -> None:
    """Each byte comes in time; together they do not."""
    never = threading.Event()
    with RawServer([*byte_by_byte(b"GETFILE OK 1234567890"), never]) as server:
        assert fetch(server, timeout_s=NEVER_S).failure is Failure.TIMEOUT


def test_nobody_listens() -> None:
    with RawServer() as server:
        port = server.port
    outcome = Fetcher(Endpoint.resolve("127.0.0.1", port), LONG_S, Canceller()).fetch(b"/file", CountOnly())
    assert (outcome.failure, outcome.status) == (Failure.CONNECT, None)
    assert f"127.0.0.1:{port}" in outcome.detail


def test_the_second_address_is_tried_when_the_first_refuses() -> None:
    with RawServer() as gone:
        refusing = Endpoint.resolve(gone.host, gone.port)
    with RawServer([b"GETFILE OK 1\r\n\r\nx"]) as server:
        accepting = Endpoint.resolve(server.host, server.port)
        both = Endpoint("both", refusing.addresses + accepting.addresses)
        assert Fetcher(both, LONG_S, Canceller()).fetch(b"/file", CountOnly()).served


def test_an_address_that_no_socket_can_be_made_for_is_left_out() -> None:
    no_family = 999  # as IPv6 is to a kernel without it
    with RawServer([b"GETFILE OK 1\r\n\r\nx"]) as server:
        accepting = Endpoint.resolve(server.host, server.port).addresses
        strange = ((no_family, accepting[0][1]),)
        assert Fetcher(Endpoint("both", strange + accepting), LONG_S, Canceller()).fetch(b"/file", CountOnly()).served
        outcome = Fetcher(Endpoint("none", strange), LONG_S, Canceller()).fetch(b"/file", CountOnly())
        assert outcome.failure is Failure.CONNECT
        assert "not supported" in outcome.detail


@pytest.mark.parametrize("name", ["256.256.256.256", "a..b"])
def test_a_name_without_address_is_a_connect_failure(name: str) -> None:
    with pytest.raises(RequestError, match=name) as failed:
        Endpoint.resolve(name, 1)
    assert failed.value.kind is Failure.CONNECT


def test_a_path_that_cannot_be_sent_is_not_sent() -> None:
    with RawServer() as server:
        fetcher = Fetcher(Endpoint.resolve(server.host, server.port), LONG_S, Canceller())
        assert fetcher.fetch(b"/a b", CountOnly()).failure is Failure.UNUSABLE_NAME
    assert server.requests == []


def test_a_failing_sink_ends_the_request_with_its_kind() -> None:
    class Full(CountOnly):
        def write(self, piece: memoryview) -> None:
            raise RequestError(Failure.UNWRITABLE, "full")

    with RawServer([b"GETFILE OK 5\r\n\r\nhello"]) as server:
        outcome = fetch(server, Full())
    assert (outcome.failure, outcome.status) == (Failure.UNWRITABLE, Status.OK)


def test_cancel_ends_a_waiting_request() -> None:
    canceller = Canceller()
    outcomes: list[Outcome] = []
    with RawServer([b"GETFILE OK 5\r\n\r\nhe", threading.Event()]) as server:
        fetcher = Fetcher(Endpoint.resolve(server.host, server.port), LONG_S, canceller)
        thread = threading.Thread(target=lambda: outcomes.append(fetcher.fetch(b"/file", CountOnly())))
        thread.start()
        assert server.reached.wait(LONG_S)
        canceller.cancel()
        thread.join()
        outcomes.append(fetcher.fetch(b"/file", CountOnly()))
    assert [outcome.failure for outcome in outcomes] == [Failure.CANCELLED, Failure.CANCELLED]
