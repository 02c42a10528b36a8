"""The server's parser against the corpus of requests, cut in every way."""

import pytest

from tests.support.feeding import feed_request, ways_to_cut
from tests.wire.corpus import INCOMPLETE_REQUESTS, INVALID_REQUESTS, VALID_REQUESTS, RequestCase
from webproxy.getfile import RemoteProtocolError, parse_request


@pytest.mark.parametrize("case", VALID_REQUESTS, ids=lambda case: case.name)
def test_valid_requests_give_their_path_however_they_are_cut(case: RequestCase) -> None:
    for parts in ways_to_cut(case.data):
        assert feed_request(parts) == case.path


@pytest.mark.parametrize("case", VALID_REQUESTS, ids=lambda case: case.name)
def test_every_beginning_of_a_valid_request_asks_for_more(case: RequestCase) -> None:
    for size in range(len(case.data)):
        assert parse_request(case.data[:size]) is None


@pytest.mark.parametrize("case", INCOMPLETE_REQUESTS, ids=lambda case: case.name)
def test_beginnings_ask_for_more_however_they_are_cut(case: RequestCase) -> None:
    for parts in ways_to_cut(case.data):
        assert feed_request(parts) is None


@pytest.mark.parametrize("case", INVALID_REQUESTS, ids=lambda case: case.name)
def test_invalid_requests_are_refused_by_name_however_they_are_cut(case: RequestCase) -> None:
    for parts in ways_to_cut(case.data):
        assert feed_request(parts) is case.violation


@pytest.mark.parametrize("case", INVALID_REQUESTS, ids=lambda case: case.name)
def test_invalid_requests_are_refused_at_the_first_byte_that_breaks_the_rule(case: RequestCase) -> None:
    assert feed_request([case.data[: case.decided_at - 1]]) is not case.violation
    with pytest.raises(RemoteProtocolError) as refused:
        parse_request(case.data[: case.decided_at])
    assert refused.value.kind is case.violation
    assert refused.value.seen == case.data[: case.decided_at]
