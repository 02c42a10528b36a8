"""origins: which origin is chosen, under which key, at which URL; and what is refused as forward proxying."""

from __future__ import annotations

import pytest

from webproxy.http.urls import BadTarget, normalised_path, split_target
from webproxy.origin.routing import HostPattern, OriginRule, OriginTable, Refused, Target, host_pattern


def rule(
    url: str, path: bytes = b"/", host: bytes | None = None, *, strip: bool = False, own: bool = False
) -> OriginRule:
    pattern = None if host is None else host_pattern(host)
    return OriginRule(url=url, path=path, host=pattern, strip_prefix=strip, preserve_host=own)


DEFAULT = rule("http://default")
SIMPLE = rule("http://index/simple", b"/simple/", strip=True)
SIMPLE_OLD = rule("http://index/old/", b"/simple/old/")
NAMED = rule("http://named", host=b"a.example")
NAMED_PART = rule("http://part", b"/part/", b"a.example")
NAMED_PORT = rule("http://port", host=b"a.example:8080", own=True)
BELOW = rule("http://below", host=b"*.example", own=True)
DEEPER = rule("http://deeper", host=b"*.deep.example")
RULES = [DEFAULT, SIMPLE, SIMPLE_OLD, NAMED, NAMED_PART, NAMED_PORT, BELOW, DEEPER]
TABLE = OriginTable(RULES)


def found(table: OriginTable, target: bytes, host: bytes | None = None) -> Target:
    answer = table.find(split_target(target, host))
    assert isinstance(answer, Target)
    return answer


@pytest.mark.parametrize(
    ("host", "path", "chosen", "key", "url"),
    [
        (None, b"/x?y", DEFAULT, b"/x?y", "http://default/x?y"),
        (b"other", b"/x?y", DEFAULT, b"/x?y", "http://default/x?y"),
        (b"other:81", b"/simple/p/", SIMPLE, b"/simple/p/", "http://index/simple/p/"),
        (None, b"/simple/", SIMPLE, b"/simple/", "http://index/simple/"),
        (None, b"/simple", DEFAULT, b"/simple", "http://default/simple"),
        (None, b"/simplex/", DEFAULT, b"/simplex/", "http://default/simplex/"),
        (None, b"/simple/old/p", SIMPLE_OLD, b"/simple/old/p", "http://index/old/simple/old/p"),
        (b"a.example", b"/simple/p", NAMED, b"http://a.example/simple/p", "http://named/simple/p"),
        (b"a.example:99", b"/", NAMED, b"http://a.example/", "http://named/"),
        (b"a.example", b"/part/x", NAMED_PART, b"http://a.example/part/x", "http://part/part/x"),
        (b"a.example:8080", b"/part/x", NAMED_PORT, b"http://a.example:8080/part/x", "http://port/part/x"),
        (b"b.example", b"/x", BELOW, b"http://b.example/x", "http://below/x"),
        (b"c.b.example:9", b"/x", BELOW, b"http://c.b.example/x", "http://below/x"),
        (b"deep.example", b"/x", BELOW, b"http://deep.example/x", "http://below/x"),
        (b"b.deep.example", b"/x", DEEPER, b"http://b.deep.example/x", "http://deeper/x"),
        (b"example", b"/x", DEFAULT, b"/x", "http://default/x"),
        (b"aexample", b"/x", DEFAULT, b"/x", "http://default/x"),
    ],
)
def test_the_closest_rule_is_chosen(host: bytes | None, path: bytes, chosen: OriginRule, key: bytes, url: str) -> None:
    target = TABLE.choose(host, path)
    assert (target.rule, target.key, target.url) == (chosen, key, url)
    assert target.named_by_operator


@pytest.mark.parametrize("order", [RULES, RULES[::-1]], ids=["in order", "reversed"])
def test_the_order_of_the_rules_does_not_matter(order: list[OriginRule]) -> None:
    table = OriginTable(order)
    for host, path in [(b"a.example", b"/part/x"), (b"b.deep.example", b"/"), (None, b"/simple/old/x"), (b"o", b"/")]:
        assert table.choose(host, path) == TABLE.choose(host, path)


def test_a_host_whose_rules_ask_for_another_path_falls_through() -> None:
    table = OriginTable([DEFAULT, NAMED_PART, BELOW])
    assert table.choose(b"a.example", b"/x").rule is BELOW
    assert OriginTable([DEFAULT, NAMED_PART]).choose(b"a.example", b"/x").key == b"/x"


@pytest.mark.parametrize("path", [b"/", b"/a%2Fb?c", b"/simple/x/", b"/%22"])
def test_getfile_and_http_share_a_key_whatever_the_host(path: bytes) -> None:
    by_getfile = TABLE.choose(None, normalised_path(path))
    assert found(TABLE, path, b"proxy:25362") == by_getfile == found(TABLE, path, None)


def test_a_getfile_path_is_escaped_for_the_origin_only() -> None:
    target = TABLE.choose(None, b'/\xe9"')
    assert (target.key, target.url) == (b'/\xe9"', "http://default/%E9%22")


@pytest.mark.parametrize(
    ("host", "sent"),
    [(b"a.example", None), (b"a.example:8080", b"a.example:8080"), (b"b.example:81", b"b.example"), (b"other", None)],
)
def test_the_host_sent_is_the_one_in_the_key(host: bytes, sent: bytes | None) -> None:
    target = TABLE.choose(host, b"/")
    assert target.host == sent
    assert sent is None or target.key == b"http://" + sent + b"/"


def test_without_a_rule_there_is_a_key_and_nobody_to_ask() -> None:
    target = OriginTable([SIMPLE]).choose(b"any", b"/x")
    assert (target.key, target.rule) == (b"/x", None)


def test_dropped_parameters_are_in_no_key_and_only_in_the_whole_url() -> None:
    table = OriginTable(
        [DEFAULT, NAMED], ignored_query_parameters=frozenset({b"utm"}), forward_hosts=[host_pattern(b"f")]
    )
    keys = {b"o": b"/x?b", b"a.example": b"http://a.example/x?b"}
    for host, key in keys.items():
        target = table.choose(host, b"/x?utm=1&b")
        assert target.key == key
        assert target.rule is not None
        assert (target.url, target.whole_url) == (target.rule.url + "/x?b", target.rule.url + "/x?utm=1&b")
    forwarded = found(table, b"http://f/x?utm=1&b")
    assert (forwarded.key, forwarded.whole_url) == (b"http://f/x?b", "http://f/x?utm=1&b")


class TestForwardProxying:
    TABLE = OriginTable(
        [DEFAULT, NAMED],
        forward_hosts=[host_pattern(text) for text in (b"f.test", b"p.test:8080", b"*.below.test", b"[::1]:81")],
        forwarding=OriginRule(url="", tries=2),
        own=[b"LOCALHOST:25362"],
    )

    @pytest.mark.parametrize(
        ("target", "named"),
        [
            (b"http://f.test/x?y", True),
            (b"http://p.test:8080/", True),
            (b"http://b.below.test/x", False),
            (b"http://[::1]:81/x", True),
        ],
    )
    def test_listed_hosts_are_asked(self, target: bytes, named: bool) -> None:
        answer = found(self.TABLE, target, b"ignored")
        assert (answer.key, answer.url, answer.host) == (target, target.decode(), None)
        assert answer.rule == OriginRule(url="", tries=2)
        assert answer.named_by_operator is named

    @pytest.mark.parametrize(
        "target",
        [
            b"http://other.test/",
            b"http://f.test:81/",
            b"http://p.test/",
            b"http://below.test/",
            b"http://xbelow.test/",
            b"http://b.below.test:81/",
            b"http://x.f.test/",
            b"http://localhost/",
            b"http://127.0.0.1/",
            b"https://f.test/",
        ],
    )
    def test_all_others_are_refused(self, target: bytes) -> None:
        answer = self.TABLE.find(split_target(target, b"f.test"))
        assert isinstance(answer, Refused)
        assert answer.status == 403

    def test_it_is_off_by_default(self) -> None:
        answer = TABLE.find(split_target(b"http://default/", None))
        assert answer == Refused(403, "forward proxying to default is not allowed")

    def test_a_host_of_the_table_is_that_origin(self) -> None:
        assert found(self.TABLE, b"http://A.example:80/x") == self.TABLE.choose(b"a.example", b"/x")

    def test_a_whole_url_of_this_proxy_is_a_path(self) -> None:
        assert found(self.TABLE, b"http://localhost:25362/x") == self.TABLE.choose(None, b"/x")

    def test_a_host_of_the_list_is_no_origin_for_a_path(self) -> None:
        assert found(self.TABLE, b"/x", b"f.test").key == b"/x"


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (b"H.example", HostPattern(b"h.example", None, False)),
        (b"h:80", HostPattern(b"h", 80, False)),
        (b"h:8080", HostPattern(b"h", 8080, False)),
        (b"*.Example", HostPattern(b".example", None, True)),
        (b"*.example:81", HostPattern(b".example", 81, True)),
        (b"[::1]", HostPattern(b"[::1]", None, False)),
        (b"[0::1]:80", HostPattern(b"[::1]", 80, False)),
        (b"10.0.0.1", HostPattern(b"10.0.0.1", None, False)),
    ],
)
def test_host_patterns(text: bytes, pattern: HostPattern) -> None:
    assert host_pattern(text) == pattern


@pytest.mark.parametrize(
    "text", [b"", b"*", b"*.", b"*.*.a", b"a.*", b"*.1.2.3.4", b"*.[::1]", b"a b", b"http://a", b"a/", b"a:0", b"::1"]
)
def test_no_host_patterns(text: bytes) -> None:
    with pytest.raises(BadTarget):
        host_pattern(text)
