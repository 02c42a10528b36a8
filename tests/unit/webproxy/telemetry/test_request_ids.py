"""RequestIds: unique, and a client's word only where it is trusted and sane."""

import pytest

from webproxy.telemetry.request_ids import ID_BYTES_MAX, RequestIds


def test_ids_are_unique_over_processes() -> None:
    one, other = RequestIds(), RequestIds()
    ids = [ids.next() for ids in (one, other) for _ in range(100)]
    assert len(set(ids)) == 200
    assert all(len(given) <= ID_BYTES_MAX for given in ids)


@pytest.mark.parametrize(
    ("sent", "trusted"),
    [
        (b"req-1", True),
        (b"x" * 64, True),
        (b"x" * 65, False),
        (b"", False),
        (b"a b", False),
        (b'a"b', False),
        (b"a\nb", False),
        (None, False),
    ],
)
def test_what_a_client_sends(sent: bytes | None, trusted: bool) -> None:
    assert (RequestIds(from_client=True).of_request(sent) == sent) is trusted
    assert RequestIds().of_request(sent) != sent
