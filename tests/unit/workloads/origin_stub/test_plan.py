"""Ranges, conditions and misbehaviour as plans, without a socket."""

import json
from collections.abc import Mapping
from threading import Event

import pytest

from workloads.origin_stub.plan import Finish, Hold, Pause, Reset, SendBody, SendHead, Step, echo_body, plan_response
from workloads.origin_stub.request import BadRequestError, Request, parse_head, requested_range
from workloads.origin_stub.route import Framing, Route


def plan(
    route: Route, headers: Mapping[str, str] | None = None, *, method: str = "GET", earlier: int = 0
) -> list[Step]:
    request = Request(method, "/a", "HTTP/1.1", headers or {})
    return plan_response(route, request, earlier, size=len(route.body), error_size=3)


def head_of(steps: list[Step]) -> tuple[str, dict[str, str]]:
    head = next(step.head for step in steps if isinstance(step, SendHead))
    status, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines)


def happenings(steps: list[Step]) -> list[Step]:
    return [step for step in steps if not isinstance(step, SendHead)]


TEN = b"0123456789"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("bytes=0-", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=10-", (10, 10)),
        ("bytes=-0", (10, 10)),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_ranges(field: str, expected: tuple[int, int] | None) -> None:
    assert requested_range(field, 10) == expected


def test_an_honest_answer() -> None:
    steps = plan(Route(body=TEN, headers={"ETag": '"1"'}))
    status, headers = head_of(steps)
    assert status == "HTTP/1.1 200 OK"
    assert (headers["Content-Length"], headers["ETag"], headers["Accept-Ranges"]) == ("10", '"1"', "bytes")
    assert happenings(steps) == [SendBody(0, 10), Finish(keeps_alive=True)]


def test_head_has_the_length_and_no_body() -> None:
    steps = plan(Route(body=TEN), method="HEAD")
    assert head_of(steps)[1]["Content-Length"] == "10"
    assert happenings(steps) == [Finish(keeps_alive=True)]


def test_a_range_is_cut_out() -> None:
    steps = plan(Route(body=TEN), {"range": "bytes=3-5"})
    status, headers = head_of(steps)
    assert status.startswith("HTTP/1.1 206")
    assert (headers["Content-Range"], headers["Content-Length"]) == ("bytes 3-5/10", "3")
    assert happenings(steps)[0] == SendBody(3, 6)


def test_a_range_beyond_the_end_is_refused() -> None:
    status, headers = head_of(plan(Route(body=TEN), {"range": "bytes=10-"}))
    assert status.startswith("HTTP/1.1 416")
    assert headers["Content-Range"] == "bytes */10"


@pytest.mark.parametrize(
    ("route", "headers"),
    [
        (Route(body=TEN, ranges=False), {"range": "bytes=3-5"}),
        (Route(body=TEN, headers={"ETag": '"2"'}), {"range": "bytes=3-5", "if-range": '"1"'}),
    ],
    ids=["ignored", "condition-fails"],
)
def test_a_range_may_be_answered_with_everything(route: Route, headers: dict[str, str]) -> None:
    steps = plan(route, headers)
    assert head_of(steps)[0].startswith("HTTP/1.1 200")
    assert happenings(steps)[0] == SendBody(0, 10)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"if-none-match": '"1"'}, "304"),
        ({"if-none-match": 'W/"1", "9"'}, "304"),
        ({"if-none-match": "*"}, "304"),
        ({"if-none-match": '"2"'}, "200"),
        ({"if-modified-since": "yesterday"}, "304"),
        ({"if-modified-since": "tomorrow"}, "200"),
        ({"if-none-match": '"2"', "if-modified-since": "yesterday"}, "200"),
    ],
)
def test_conditions(condition: dict[str, str], status: str) -> None:
    route = Route(body=TEN, headers={"ETag": '"1"', "Last-Modified": "yesterday"})
    assert head_of(plan(route, condition))[0].split()[1] == status


def test_the_first_requests_fail_and_the_next_does_not() -> None:
    route = Route(body=TEN, fail_first=2, fail_status=502)
    statuses = [head_of(plan(route, earlier=earlier))[0].split()[1] for earlier in range(3)]
    assert statuses == ["502", "502", "200"]
    assert happenings(plan(route))[0] == SendBody(0, 3)


def test_reason_version_and_fields_are_as_scripted() -> None:
    headers = (("Set-Cookie", "a"), ("Set-Cookie", "b"), ("content-type", "text/x"))
    steps = plan(Route(body=TEN, reason="Fine", version="HTTP/1.0", headers=headers, ranges=False))
    assert steps[0] == SendHead(
        b"HTTP/1.0 200 Fine\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ncontent-type: text/x\r\n"
        b"Content-Length: 10\r\nConnection: close\r\n\r\n"
    )
    assert steps[-1] == Finish(keeps_alive=False)


def test_a_bare_answer_has_nothing_but_its_framing() -> None:
    assert plan(Route(body=TEN, bare=True))[0] == SendHead(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")


def test_scripted_framing_is_not_doubled() -> None:
    headers = head_of(plan(Route(body=TEN, headers={"Content-Length": "4", "Connection": "x"}, reads_body=False)))[1]
    assert (headers["Content-Length"], headers["Connection"]) == ("4", "x")
    assert "Transfer-Encoding" not in headers


def test_interim_answers_come_before_everything() -> None:
    steps = plan(Route(body=TEN, interim=[(103, {"Link": "</a>"}), (102, ())], delay_s=1))
    assert steps[:3] == [
        SendHead(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        SendHead(b"HTTP/1.1 102 Processing\r\n\r\n"),
        Pause(1),
    ]


@pytest.mark.parametrize(
    ("method", "framing", "last_chunk"),
    [
        ("GET", Framing.CHUNKED, b"0\r\nDigest: z\r\nX: y\r\n\r\n"),
        ("GET", Framing.LENGTH, b""),
        ("HEAD", Framing.CHUNKED, b""),
    ],
)
def test_trailers_come_behind_the_last_chunk(method: str, framing: Framing, last_chunk: bytes) -> None:
    route = Route(body=TEN, framing=framing, trailers=(("Digest", "z"), ("X", "y")))
    assert plan(route, method=method)[-1] == Finish(keeps_alive=True, last_chunk=last_chunk)


def test_conditions_may_be_ignored() -> None:
    route = Route(body=TEN, headers={"ETag": '"1"'}, conditions=False)
    assert head_of(plan(route, {"if-none-match": '"1"'}))[0].split()[1] == "200"


def test_conditions_and_ranges_are_for_reading() -> None:
    route = Route(body=TEN, headers={"ETag": '"1"'})
    status, headers = head_of(plan(route, {"if-none-match": '"1"', "range": "bytes=0-1"}, method="POST"))
    assert (status.split()[1], headers["Content-Length"]) == ("200", "10")


def test_who_does_not_read_the_body_does_not_keep_the_connection() -> None:
    assert plan(Route(reads_body=False))[-1] == Finish(keeps_alive=False)


def test_an_echo_is_the_request() -> None:
    request = Request("PUT", "/a?b", "HTTP/1.1", {"x": "1, 2"}, (("X", "1"), ("x", "2")), b"\xe9")
    assert json.loads(echo_body(request)) == {
        "method": "PUT",
        "path": "/a?b",
        "version": "HTTP/1.1",
        "fields": [["X", "1"], ["x", "2"]],
        "body": "\xe9",
    }


def test_a_redirect() -> None:
    status, headers = head_of(plan(Route(redirect_to="/a")))
    assert (status.split()[1], headers["Location"]) == ("302", "/a")
    status, headers = head_of(plan(Route(redirect_to="/a", status=308, headers={"Cache-Control": "max-age=9"})))
    assert (status.split()[1], headers["Cache-Control"]) == ("308", "max-age=9")


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (Route(body=TEN, truncate_at=4), [SendBody(0, 4)]),
        (Route(body=TEN, truncate_at=0), []),
        (Route(body=TEN, truncate_at=99), [SendBody(0, 10), Finish(keeps_alive=False)]),
        (Route(body=TEN, reset_at=4), [SendBody(0, 4), Reset()]),
        (Route(body=TEN, stall_at=3, stall_s=9), [SendBody(0, 3), Pause(9), SendBody(3, 10), Finish(keeps_alive=True)]),
        (Route(body=TEN, hold=Event()), [SendBody(0, 5), Hold(), SendBody(5, 10), Finish(keeps_alive=True)]),
        (Route(body=TEN, hold=Event(), hold_at=0), [Hold(), SendBody(0, 10), Finish(keeps_alive=True)]),
        (Route(body=TEN, hold=Event(), hold_at=7, reset_at=8), [SendBody(0, 7), Hold(), SendBody(7, 8), Reset()]),
        (Route(body=TEN, framing=Framing.CLOSE), [SendBody(0, 10), Finish(keeps_alive=False)]),
        (Route(body=TEN, declared_length=7), [SendBody(0, 10), Finish(keeps_alive=False)]),
    ],
)
def test_misbehaviour_is_cut_at_its_offset(route: Route, expected: list[Step]) -> None:
    assert happenings(plan(route)) == expected


def test_waits_before_the_head_come_before_the_head() -> None:
    steps = plan(Route(body=TEN, delay_s=2, hold=Event(), hold_head=True))
    assert steps[:2] == [Pause(2), Hold()]
    assert isinstance(steps[2], SendHead)
    assert Hold() not in steps[3:]


@pytest.mark.parametrize(
    ("route", "present", "absent"),
    [
        (Route(body=TEN, framing=Framing.CHUNKED), {"Transfer-Encoding": "chunked"}, "Content-Length"),
        (Route(body=TEN, framing=Framing.CLOSE), {"Connection": "close"}, "Content-Length"),
        (Route(body=TEN, declared_length=99), {"Content-Length": "99"}, "Transfer-Encoding"),
    ],
)
def test_framing(route: Route, present: dict[str, str], absent: str) -> None:
    headers = head_of(plan(route))[1]
    assert present.items() <= headers.items()
    assert absent not in headers


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("HTTP/1.1", None, True),
        ("HTTP/1.1", "close", False),
        ("HTTP/1.0", None, False),
        ("HTTP/1.0", "Keep-Alive", True),
    ],
)
def test_keeping_connections(version: str, connection: str | None, keeps: bool) -> None:
    headers = {} if connection is None else {"connection": connection}
    assert Request("GET", "/", version, headers).keeps_alive is keeps


def test_a_head_is_parsed() -> None:
    request = parse_head([b"GET /a HTTP/1.1", b"Host: x", b"X-A:  1 ", b"x-a: 2"])
    assert (request.method, request.path) == ("GET", "/a")
    assert request.headers == {"host": "x", "x-a": "1, 2"}
    assert request.fields == (("Host", "x"), ("X-A", "1"), ("x-a", "2"))


@pytest.mark.parametrize("lines", [[], [b"GET"], [b"GET /a HTTP/2"], [b"GET /a HTTP/1.1", b"no colon"]])
def test_what_is_no_head_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(BadRequestError):
        parse_head(lines)
