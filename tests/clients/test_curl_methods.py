"""curl through the pair with requests that have bodies, to the scripted origin: each arrives as it was sent."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from tests.clients.curl import Answer, Curl
from tests.support.contents import body_of
from tests.support.daemons import DaemonYard
from workloads.origin_stub import Framing, OriginStub, Request, Route

METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FROBNICATE")
BIG = 3 << 20


def by_method(request: Request) -> Route:
    """A file that can be read, and written with an echo of what came."""
    if request.method in ("GET", "HEAD"):
        return Route(body=b"what is there", headers={"Cache-Control": "max-age=60"})
    return Route(echo=True, status=201, methods=METHODS)


@pytest.fixture
def origin() -> Iterator[OriginStub]:
    with OriginStub({}) as stub:
        yield stub


@pytest.fixture
def url(origin: OriginStub, yard: DaemonYard) -> str:
    """The root of a proxy before the origin."""
    yard.start_cache("-t", "4")
    return f"http://127.0.0.1:{yard.start_proxy('-s', origin.url, '-t', '4').port}"


def echoed(answer: Answer) -> tuple[str, str, dict[str, str]]:
    """Method, body and fields (names in lower case) as the origin got them."""
    assert answer.status == 201
    request = json.loads(answer.body)
    return request["method"], request["body"], {name.lower(): value for name, value in request["fields"]}


def test_a_form(url: str, origin: OriginStub, curl: Curl) -> None:
    origin.add("/form", Route(choose=by_method, methods=("GET", *METHODS)))
    for number in range(2):
        method, body, fields = echoed(curl("-d", f"number={number}", "-d", "more=1", f"{url}/form"))
        assert (method, body) == ("POST", f"number={number}&more=1")
        assert fields["content-type"] == "application/x-www-form-urlencoded"
        assert fields["content-length"] == str(len(body))
        assert fields["user-agent"].startswith("curl/")
        assert "gfcache" in fields["via"]
    assert origin.count("/form") == 2


def test_a_large_body_that_waits_to_be_asked_for(url: str, origin: OriginStub, curl: Curl) -> None:
    origin.add("/large", Route(choose=by_method, methods=METHODS))
    sent = body_of("large", BIG)
    (curl.home / "sent").write_bytes(sent)
    method, body, fields = echoed(
        curl("--data-binary", "@sent", "-H", "Expect: 100-continue", "--expect100-timeout", "30", f"{url}/large")
    )
    assert (method, body.encode("latin-1") == sent, fields["content-length"]) == ("POST", True, str(BIG))


def test_an_upload_of_unknown_length(url: str, origin: OriginStub, curl: Curl) -> None:
    origin.add("/upload", Route(choose=by_method, methods=METHODS))
    sent = body_of("upload", BIG)
    method, body, fields = echoed(curl("-T", "-", f"{url}/upload", given=sent))
    assert (method, body.encode("latin-1") == sent) == ("PUT", True)
    assert fields["transfer-encoding"] == "chunked"
    assert "content-length" not in fields


def test_methods_change_what_is_stored(url: str, origin: OriginStub, curl: Curl) -> None:
    """All but the safe OPTIONS: the next reader gets what the origin has now (RFC 9111 section 4.4)."""
    for method in METHODS:
        path = f"/changed-by-{method}"
        origin.add(path, Route(choose=by_method, methods=("GET", *METHODS)))
        assert [curl(f"{url}{path}").is_hit for _ in range(2)] == [False, True]
        assert echoed(curl("-X", method, f"{url}{path}"))[0] == method
        assert curl(f"{url}{path}").is_hit is (method == "OPTIONS"), method


def test_many_methods_on_one_connection(url: str, origin: OriginStub, curl: Curl) -> None:
    origin.add("/one", Route(choose=by_method, methods=("GET", *METHODS)))
    words: list[str] = []
    for number in range(10):
        words += ["--next"] if words else []
        words += ["-sS", "-w", "%{num_connects} %{http_code}\n", "-o", f"answer-{number}", f"{url}/one"]
        words += ["-d", f"body {number}"] if number % 2 else []
    lines = curl.run(*words).split("\n")[:-1]
    assert lines == ["1 200", "0 201"] + ["0 200", "0 201"] * 4
    for number in range(1, 10, 2):
        assert json.loads((curl.home / f"answer-{number}").read_bytes())["body"] == f"body {number}"


def test_answers_in_every_framing(url: str, origin: OriginStub, curl: Curl) -> None:
    for framing, version in itertools.product(Framing, ("--http1.0", "--http1.1")):
        path = f"/framing-{framing}{version}"
        origin.add(path, Route(body=body_of(path, BIG), framing=framing, headers={"Cache-Control": "max-age=60"}))
        for is_hit in (False, True):
            answer = curl(version, f"{url}{path}")
            assert (answer.status, answer.body == body_of(path, BIG), answer.is_hit) == (200, True, is_hit), path
        assert origin.count(path) == 1


def test_an_age_from_before_counts(url: str, origin: OriginStub, curl: Curl) -> None:
    origin.add("/aged", Route(body=b"aged", headers={"Cache-Control": "max-age=60", "Age": "50"}))
    curl(f"{url}/aged")
    assert int(curl(f"{url}/aged").fields["Age"]) >= 50
    origin.add("/old", Route(body=b"old", headers={"Cache-Control": "max-age=60", "Age": "60", "ETag": '"1"'}))
    for _ in range(2):
        assert curl(f"{url}/old").body == b"old"
    assert origin.count("/old") == 2


def test_a_body_that_breaks_is_an_error_for_curl_and_nothing_is_kept(url: str, origin: OriginStub, curl: Curl) -> None:
    body = body_of("breaks", BIG)
    for framing in (Framing.LENGTH, Framing.CHUNKED):
        path = f"/breaks-{framing}"
        fresh = {"Cache-Control": "max-age=60"}
        origin.add(path, Route(body=body, truncate_at=BIG // 2, framing=framing, headers=fresh))
        answer = curl(f"{url}{path}", exit_codes=(18, 56))
        assert body.startswith(answer.body)
        assert len(answer.body) < BIG
        origin.add(path, Route(body=b"whole", headers=fresh))
        assert curl(f"{url}{path}").body == b"whole"


def test_a_redirect_is_the_clients_to_follow(url: str, origin: OriginStub, curl: Curl) -> None:
    origin.add("/end", Route(body=b"the end", headers={"Cache-Control": "max-age=60"}))
    origin.add("/start", Route(redirect_to="/end", status=301, headers={"Cache-Control": "max-age=60"}))
    for _ in range(2):
        assert curl("-L", f"{url}/start").body == b"the end"
        assert curl(f"{url}/start").status == 301
    assert (origin.count("/start"), origin.count("/end")) == (1, 1)


def test_early_hints_are_passed_on(url: str, origin: OriginStub, curl: Curl) -> None:
    hints = [(103, {"Link": "</style.css>; rel=preload"})]
    origin.add("/hints", Route(body=b"page", interim=hints, headers={"Cache-Control": "no-store"}))
    heads = curl.run("-D-", "-o", "/dev/null", f"{url}/hints").split("\r\n\r\n")
    assert [head.split()[1] for head in heads if head] == ["103", "200"]
