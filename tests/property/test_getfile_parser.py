"""Any bytes, cut anywhere: both parsers parse or refuse, nothing else, and the cuts change nothing."""

from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.feeding import feed_reply, feed_request, pieces
from webproxy.getfile import (
    LENGTH_MAX,
    PATH_BYTES_MAX,
    REQUEST_BYTES_MAX,
    Reply,
    Status,
    Violation,
    Wire,
    ok_header,
    parse_request,
    refusal,
    request_bytes,
)

_TOKENS = [b"GETFILE", b"GET", b"OK", b"ERROR", b"FILE_NOT_FOUND", b"INVALID", b" ", b"  ", b"/", b"\r", b"\n", b"\r\n"]
_TOKENS += [b"\r\n\r\n", b"0", b"-1", b"12", b"9" * 20, b"/a", b"\0", b"\x7f", b"\xff", b"x" * PATH_BYTES_MAX]

paths = st.binary(max_size=60).map(lambda raw: b"/" + bytes(byte for byte in raw if byte > 0x20 and byte != 0x7F))
cuts = st.lists(st.integers(0, REQUEST_BYTES_MAX + 100), max_size=6)
nearly_messages = st.lists(st.sampled_from(_TOKENS), max_size=10).map(b"".join)


def _with_one_byte_changed(message: bytes, place: int, byte: int) -> bytes:
    place %= len(message)
    return message[:place] + bytes([byte]) + message[place + 1 :]


requests = paths.map(request_bytes)
statuses = st.sampled_from([Status.FILE_NOT_FOUND, Status.ERROR, Status.INVALID])
headers = st.builds(ok_header, st.integers(0, LENGTH_MAX), st.sampled_from(Wire)) | st.builds(
    refusal, statuses, st.sampled_from(Wire)
)
changed = st.builds(_with_one_byte_changed, requests | headers, st.integers(0, 10_000), st.integers(0, 255))
any_message = st.binary(max_size=80) | nearly_messages | changed | requests | headers


@given(any_message, cuts)
@example(b"GETFILE GET /a\r\n\r\nX", [18])
def test_cutting_a_request_anywhere_changes_nothing(data: bytes, where: list[int]) -> None:
    assert feed_request(pieces(data, where)) == feed_request([data])


@given(any_message, cuts)
@example(b"GETFILE OK 99999999999999999999999", [30])
def test_cutting_a_reply_anywhere_changes_nothing(data: bytes, where: list[int]) -> None:
    assert feed_reply(pieces(data, where)) == feed_reply([data])


@given(any_message, st.binary(min_size=1, max_size=20))
def test_a_refused_request_stays_refused_for_the_same_reason(data: bytes, more: bytes) -> None:
    result = feed_request([data])
    if isinstance(result, Violation):
        assert feed_request([data + more]) is result
    elif isinstance(result, bytes):
        assert feed_request([data + more]) is Violation.EXCESS_BYTES


@given(any_message)
def test_what_is_accepted_is_exactly_what_a_client_sends(data: bytes) -> None:
    result = feed_request([data])
    if isinstance(result, bytes):
        assert request_bytes(result) == data


@given(paths)
def test_requests_come_back_as_their_path(path: bytes) -> None:
    assert parse_request(request_bytes(path)) == path


@given(st.integers(0, LENGTH_MAX), st.sampled_from(Wire), st.binary(max_size=20))
def test_ok_headers_come_back_whole(length: int, wire: Wire, content: bytes) -> None:
    assert feed_reply([ok_header(length, wire) + content]) == (Reply(Status.OK, length, wire), content)


@given(statuses, st.sampled_from(Wire))
def test_refusals_come_back_whole(status: Status, wire: Wire) -> None:
    assert feed_reply([refusal(status, wire)]) == (Reply(status, 0, wire), b"")
