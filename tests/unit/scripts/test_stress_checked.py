"""The clients of `scripts/chaos` know a wrong byte, a cut body and a hang when they see one."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from scripts.stress import chaos
from scripts.stress.chaos import MUST_NOT_BE, ProxyLife
from scripts.stress.checked import CUT, HANG, NO_ANSWER, NO_CONNECTION, WHOLE, WRONG, Checked, any_request, outcome_of
from scripts.stress.clients import Performed, Record
from scripts.stress.origin import content, routes
from workloads.origin_stub import OriginStub, Route

HANG_S = 20.0


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    """The origin itself: what it answers to a client is right, but for several ranges, which it answers with all."""
    with OriginStub(routes()) as stub:
        yield stub


def a_request(kind: str, *, path: str | None = None) -> Checked:
    choice = random.Random(1)
    while True:
        checked = any_request(choice)
        if checked.kind == kind and path in (None, checked.asked.target.partition("?")[0]):
            return checked


KINDS = ("HTTP whole", "range", "several ranges", "HEAD", "conditional", "passed-through POST", "not stored")


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_are_right(origin, kind):
    assert outcome_of(origin.port, a_request(kind), HANG_S) == WHOLE


@pytest.mark.parametrize("kind", [*KINDS, "miss, faulty origin"])
def test_another_body_is_wrong(origin, kind):
    checked = a_request(kind, path="/tardy" if kind == "miss, faulty origin" else None)
    other = content("/small?7")[:-1]
    origin.add(checked.asked.target, Route(body=other, methods=("GET", "HEAD", "POST")))
    assert outcome_of(origin.port, checked, HANG_S) == WRONG


def test_one_byte_is_enough(origin):
    checked = a_request("HTTP whole", path="/middle")
    body = bytearray(content(checked.asked.target))
    body[-1] ^= 1
    origin.add(checked.asked.target, Route(body=bytes(body)))
    assert outcome_of(origin.port, checked, HANG_S) == WRONG
    origin.add(checked.asked.target, Route(body=bytes(body), truncate_at=len(body) - 1))
    assert outcome_of(origin.port, checked, HANG_S) == CUT


def test_what_does_not_come(origin):
    checked = a_request("HTTP whole", path="/small")
    target, body = checked.asked.target, content(checked.asked.target)
    origin.add(target, Route(status=503, body=b"busy"))
    assert outcome_of(origin.port, checked, HANG_S) == "status 503"
    origin.add(target, Route(body=body, delay_s=5.0))
    assert outcome_of(origin.port, checked, 0.1) == HANG
    origin.add(target, Route(body=body, drip_bytes_per_s=1000.0))
    assert outcome_of(origin.port, checked, 0.3) == HANG
    origin.add(target, Route(body=b"", status=404))
    assert outcome_of(origin.port, checked, HANG_S) == WRONG
    origin.close()
    assert outcome_of(origin.port, checked, HANG_S) in (NO_CONNECTION, NO_ANSWER)


def test_parts_are_read_by_their_lengths(origin):
    checked = a_request("several ranges", path="/small")
    whole = content(checked.asked.target)
    ranges = checked.asked.fields[0][1].removeprefix("bytes=").split(",")
    (a, b), (c, d) = ((int(first), int(last)) for first, last in (part.split("-") for part in ranges))

    def multipart(first: bytes, second: bytes) -> Route:
        part = "\r\n--sep\r\nContent-Range: bytes {}-{}/{}\r\n\r\n"
        heads = [part.format(*ends, len(whole)).encode() for ends in ((a, b), (c, d))]
        body = heads[0] + first + heads[1] + second + b"\r\n--sep--\r\n"
        return Route(status=206, body=body, headers={"Content-Type": "multipart/byteranges; boundary=sep"})

    origin.add(checked.asked.target, multipart(whole[a : b + 1], whole[c : d + 1]))
    assert outcome_of(origin.port, checked, HANG_S) == WHOLE
    origin.add(checked.asked.target, multipart(whole[a : b + 1], whole[c:d] + b"?"))
    assert outcome_of(origin.port, checked, HANG_S) == WRONG


def test_the_same_seed_asks_the_same():
    first, second = random.Random(5), random.Random(5)
    assert [any_request(first).asked for _ in range(50)] == [any_request(second).asked for _ in range(50)]


def test_a_request_during_one_life_of_the_proxy_has_no_excuse():
    life = ProxyLife()
    before = life.now
    assert before == (0, True)
    life.deaths += 1
    assert life.now == (1, False)
    life.starts += 1
    assert life.now == (1, True) != before


@pytest.mark.parametrize("bad", [WRONG, HANG, "NO ANSWER, PROXY ALIVE"])
def test_what_must_not_be_fails_the_run(bad):
    record = Record(MUST_NOT_BE)
    for outcome in (WHOLE, CUT, "status 503", NO_CONNECTION):
        record.note(Performed("getfile", "/a", outcome), 0.1)
    ended = chaos.Outcome(record=record, done=Counter(), left=[], tracebacks=0, serves_again=True)
    assert ended.holds
    record.note(Performed("getfile", "/b", bad), 31.0)
    assert not ended.holds
    text = chaos.as_text(ended)
    assert f"{bad} after 31.0 s: /b" in text
    assert text.endswith("FAILED")
