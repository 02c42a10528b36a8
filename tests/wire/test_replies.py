"""The client's parser against the corpus of replies, cut in every way."""

import pytest

from tests.support.feeding import feed_reply, ways_to_cut
from tests.wire.corpus import INVALID_REPLIES, UNFINISHED_REPLIES, VALID_REPLIES, ReplyCase
from webproxy.getfile import RemoteProtocolError, ReplyParser


@pytest.mark.parametrize("case", VALID_REPLIES, ids=lambda case: case.name)
def test_valid_replies_give_their_header_and_content_however_they_are_cut(case: ReplyCase) -> None:
    for parts in ways_to_cut(case.data):
        assert feed_reply(parts) == (case.reply, case.rest)


@pytest.mark.parametrize("case", UNFINISHED_REPLIES, ids=lambda case: case.name)
def test_the_end_of_the_stream_within_the_header_is_named(case: ReplyCase) -> None:
    for parts in ways_to_cut(case.data):
        assert feed_reply(parts) is None
    parser = ReplyParser()
    parser.receive_data(case.data)
    with pytest.raises(RemoteProtocolError) as refused:
        parser.receive_end()
    assert refused.value.kind is case.violation


@pytest.mark.parametrize("case", INVALID_REPLIES, ids=lambda case: case.name)
def test_invalid_replies_are_refused_by_name_however_they_are_cut(case: ReplyCase) -> None:
    for parts in ways_to_cut(case.data):
        assert feed_reply(parts) is case.violation


@pytest.mark.parametrize("case", INVALID_REPLIES, ids=lambda case: case.name)
def test_invalid_replies_are_refused_at_the_first_byte_that_breaks_the_rule(case: ReplyCase) -> None:
    assert feed_reply([case.data[: case.decided_at - 1]]) is None
    assert feed_reply([case.data[: case.decided_at]]) is case.violation
