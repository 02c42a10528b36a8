"""config: settings of the HTTP front from the file, what they make, and how a refusal leads to its place."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from shmchannel.daemonkit.settings import SettingError
from shmchannel.daemonkit.sources import Loaded, load
from shmchannel.daemonkit.toml_text import read, render
from webproxy.caching.options import DEFAULT_OPTIONS, CachingOptions
from webproxy.daemon.assembly import caching_options
from webproxy.daemon.config import Protocol, ProxyConfig
from webproxy.http.urls import split_target
from webproxy.origin.health import HealthSettings
from webproxy.origin.routing import Refused, Target
from webproxy.origin.shares import ShareSettings

FILE = """
protocols = ["http"]
origin_tries = 2
forward_hosts = ["f.example", "*.f.example"]
ignored_query_parameters = "utm_source, utm_medium"
purge_from = ["127.0.0.0/8", "::1"]

[[origin]]
url = "https://index.example/simple"
path = "/simple/"
strip_prefix = true
headers = ["X-Words: a, b"]

[[origin]]
url = "http://h.example"
host = "h"
tries = 7
"""


def loaded(tmp_path: Path, content: str = "", *argv: str, **environ: str) -> Loaded[ProxyConfig]:
    path = tmp_path / "proxy.toml"
    path.write_text(content)
    return load(
        ProxyConfig,
        prog="webproxy",
        description="",
        version="1",
        argv=["--config", str(path), *argv],
        environ=environ,
    )


def test_defaults() -> None:
    config = ProxyConfig()
    assert config.protocols == (Protocol.GETFILE, Protocol.HTTP)
    assert (config.origin, config.forward_hosts, config.ignored_query_parameters) == ((), (), ())
    assert (config.http_head_bytes, config.keepalive_s, config.continue_fetch_after_share) == (8192, 60.0, 0.5)
    assert config.connections_max >= 5000
    assert not config.targeted_cache_control
    assert [str(network) for network in config.purge_networks()] == ["127.0.0.1/32", "::1/128"]


def test_the_file_makes_a_table_of_origins(tmp_path: Path) -> None:
    table = loaded(tmp_path, FILE, "-s", "http://default").config.origin_table(own=[b"me:1"])
    chosen = [
        table.choose(None, b"/simple/p/?utm_source=1"),
        table.choose(b"h", b"/x"),
        table.choose(b"other", b"/x"),
    ]
    assert [(target.key, target.url) for target in chosen] == [
        (b"/simple/p/", "https://index.example/simple/p/"),
        (b"http://h/x", "http://h.example/x"),
        (b"/x", "http://default/x"),
    ]
    assert [target.rule.tries for target in chosen if target.rule] == [2, 7, 2]
    assert chosen[0].rule is not None
    assert chosen[0].rule.limits.add_fields == ((b"X-Words", b"a, b"),)
    forwarded = table.find(split_target(b"http://a.f.example/x", None))
    assert isinstance(forwarded, Target)
    assert forwarded.rule is not None
    assert (forwarded.key, forwarded.rule.tries) == (b"http://a.f.example/x", 2)
    assert isinstance(table.find(split_target(b"http://g.example/x", None)), Refused)
    assert table.find(split_target(b"http://me:1/x", None)) == table.choose(None, b"/x")


def test_what_the_operator_may_choose_of_caching_comes_from_the_settings(tmp_path: Path) -> None:
    """And says nothing else than CachingOptions when nothing is set."""
    assert caching_options(ProxyConfig()) == DEFAULT_OPTIONS
    lines = (
        "heuristic_fraction = 0.5",
        "heuristic_ceiling_s = 1",
        "heuristic_floor_s = 6",
        "negative_lifetime_s = 2",
        "stale_if_error_default_s = 3",
        "stale_if_disconnected_s = 4",
        "store_set_cookie = true",
        "targeted_cache_control = true",
    )
    assert caching_options(loaded(tmp_path, "\n".join(lines)).config) == CachingOptions(
        heuristic_fraction=0.5,
        heuristic_ceiling_s=1,
        heuristic_floor_s=6,
        negative_lifetime_s=2,
        stale_if_error_default_s=3,
        stale_if_disconnected_s=4,
        store_set_cookie=True,
        targeted_control=True,
    )


def test_the_bounds_of_origins_come_from_the_settings(tmp_path: Path) -> None:
    lines = (
        "origin_connections_max = 9",
        "origin_connections_each_max = 3",
        "origin_line_max = 0",
        "origin_line_s = 0.5",
        "origin_failures_to_open = 0",
        "origin_silence_s = 6",
        "origin_pause_s = 7",
        "origin_pause_max_s = 8",
    )
    config = loaded(tmp_path, "\n".join(lines), "-s", "http://h").config
    assert config.origin_shares() == ShareSettings(connections_max=9, origin_connections_max=3, line_max=0, line_s=0.5)
    rule = config.origin_table().choose(None, b"/").rule
    assert rule is not None
    assert rule.limits.health == HealthSettings(failures_to_open=0, silence_s=6.0, pause_s=7.0, pause_max_s=8.0)
    with pytest.raises(SettingError, match="origin_pause_max_s"):
        ProxyConfig(origin_pause_s=9.0, origin_pause_max_s=8.0)


def test_nothing_else_than_the_defaults_of_the_machines_when_nothing_is_set() -> None:
    assert ProxyConfig().origin_shares() == ShareSettings()
    rule = ProxyConfig(origin_url="http://h").origin_table().choose(None, b"/").rule
    assert rule is not None
    assert rule.limits.health == HealthSettings()
    patient = ProxyConfig(origin_url="http://h", origin_stall_s=90.0).origin_table().choose(None, b"/")
    assert patient.rule is not None
    assert patient.rule.limits.health.silence_s == 90.0


def test_lists_come_from_any_source(tmp_path: Path) -> None:
    config = loaded(tmp_path, FILE, "--protocols", "getfile,http", WEBPROXY_FORWARD_HOSTS="a, b:81").config
    assert config.protocols == (Protocol.GETFILE, Protocol.HTTP)
    assert config.forward_hosts == ("a", "b:81")
    assert config.purge_networks() == (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


@pytest.mark.parametrize(
    ("settings", "argv"),
    [
        ('[[origin]]\nurl = "http://h"', ["--no-cache"]),
        ('forward_hosts = ["h"]', ["--no-cache"]),
        ("", ["--no-cache", "-s", "http://h"]),
    ],
    ids=["origin table", "forward proxy", "origin"],
)
def test_without_a_cache_any_origin_will_do(tmp_path: Path, settings: str, argv: list[str]) -> None:
    assert not loaded(tmp_path, settings, *argv).config.use_cache


def test_without_a_cache_there_must_be_an_origin(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="ORIGIN_URL"):
        loaded(tmp_path, "", "--no-cache")


def test_several_caches_are_named_or_found(tmp_path: Path) -> None:
    assert not ProxyConfig().finds_caches
    named = loaded(tmp_path, "", "--caches", "/a,/b").config
    assert (named.caches, named.finds_caches) == (("/a", "/b"), False)
    assert loaded(tmp_path, "", "--caches", "auto").config.finds_caches


ORIGIN = '[[origin]]\nurl = "http://h"\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f'{ORIGIN}[[origin]]\nurl = "ftp://x"\nhost = "a"', ("url in [[origin]] table 2", "'ftp://x'", "http://HOST")),
        (f'{ORIGIN}hots = "a"', ("hots in [[origin]] table 1", "'***'", "did you mean host?")),
        (f"{ORIGIN}tries = 99", ("tries in [[origin]] table 1", "99", "1 to 20")),
        (f'{ORIGIN}strip_prefix = "maybe"', ("strip_prefix in [[origin]] table 1", "'maybe'", "true or false")),
        (f"{ORIGIN}preserve_host = true", ("preserve_host in [[origin]] table 1", "True", "only with host")),
        (f"{ORIGIN}{ORIGIN}", ("origin", "'/ in [[origin]] table 2'", "once")),
        (f'{ORIGIN}host = "A"\n{ORIGIN}host = "a"', ("origin", "'a / in [[origin]] table 2'", "once")),
        (f'origin_url = "http://o"\n{ORIGIN}', ("origin", "'/ in [[origin]] table 1'", "once")),
        ("origin = 5", ("origin", "5", "[[origin]] tables")),
        ('origin = ["http://h"]', ("origin", "[[origin]] tables")),
        ('forward_hosts = ["a", "b c"]', ("forward_hosts", "'b c'", "*.SUFFIX")),
        ('purge_from = "10.0.0.1/8"', ("purge_from", "'10.0.0.1/8'", "a network")),
        ('ignored_query_parameters = ["a=b"]', ("ignored_query_parameters", "'a=b'", "without")),
        ('health_path = "health"', ("health_path", "'health'", "a slash first")),
        ('health_path = "/a?b"', ("health_path", "'/a?b'", "no query")),
        ('health_path = "/a b"', ("health_path", "'/a b'", "a slash first")),
        ('cache_status_name = "a b"', ("cache_status_name", "'a b'", "a word")),
        ('protocols = ["http", "gopher"]', ("protocols", "some of getfile, http")),
        ("protocols = []", ("protocols", "[]", "some of getfile, http")),
        ("continue_fetch_after_share = 1.5", ("continue_fetch_after_share", "1.5", "0 to 1")),
        ("heuristic_fraction = 2", ("heuristic_fraction", "2", "0 to 1")),
        ("negative_lifetime_s = -1", ("negative_lifetime_s", "-1", "0 to 31536000")),
        ("stale_if_error_default_s = -1", ("stale_if_error_default_s", "-1", "0 to 31536000")),
        ('stale_if_disconnected_s = "x"', ("stale_if_disconnected_s", "'x'", "0 to 31536000")),
        ('caches = ["a"]', ("caches", "'a'", "auto, or queue names")),
        ('caches = ["auto", "/a"]', ("caches", "'auto'", "queue names")),
        ('caches = ["/a", "/a"]', ("caches", "'/a,/a'", "each name once")),
        (f"caches = {[f'/{n}' for n in range(65)]}", ("caches", "at most 64")),
        (
            'caches = "auto"\nuse_cache = false\norigin_url = "http://o"',
            ("caches", "'auto'", "none if use_cache is false"),
        ),
        ('store_set_cookie = "maybe"', ("store_set_cookie", "'maybe'", "true or false")),
    ],
)
def test_a_refusal_names_place_value_and_what_is_allowed(tmp_path: Path, content: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SettingError) as refused:
        loaded(tmp_path, content)
    text = str(refused.value)
    assert text.startswith(f"{words[0]}: ")
    for word in (*words[1:], f"from file {tmp_path / 'proxy.toml'} is refused"):
        assert word in text


def test_tables_come_from_the_file_only(tmp_path: Path) -> None:
    found = loaded(tmp_path, ORIGIN, WEBPROXY_ORIGIN="http://other")
    assert [table.url for table in found.config.origin] == ["http://h"]
    assert any("WEBPROXY_ORIGIN " in warning for warning in found.warnings)
    assert f"origin = {{url=http://h}}  [file {tmp_path / 'proxy.toml'}]" in found.describe().splitlines()


OWN = "a server that is not this proxy itself"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("127.0.0.1", "http://LOCALHOST:8000/path"),
        ("::1", "http://[::1]:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://localhost:8000"),
        ("192.0.2.7", "http://192.0.2.7:8000"),
    ],
)
def test_an_origin_that_is_the_proxy_itself(tmp_path: Path, host: str, url: str) -> None:
    for content in (f'origin_url = "{url}"', f'[[origin]]\nurl = "{url}"\npath = "/a/"'):
        with pytest.raises(SettingError) as refused:
            loaded(tmp_path, content, "--host", host, "-p", "8000")
        assert (refused.value.allowed, refused.value.source) == (OWN, f"file {tmp_path}/proxy.toml")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001"),
        ("127.0.0.1", "http://[::1]:8000"),
        ("192.0.2.7", "http://127.0.0.1:8000"),
        ("127.0.0.1", "https://127.0.0.1:8000"),
        ("127.0.0.1", "http://other.example:8000"),
    ],
)
def test_an_origin_beside_the_proxy(tmp_path: Path, host: str, url: str) -> None:
    assert loaded(tmp_path, "", "--host", host, "-p", "8000", "-s", url).config.origin_url == url


def test_workers_are_a_number_or_auto_and_what_stands_for_auto_is_no_number(tmp_path: Path) -> None:
    assert loaded(tmp_path, "", "--workers", "auto").config.workers == 0
    for content, argv in (("", ("--workers", "0")), ("workers = 0\n", ()), ('workers = "0"\n', ())):
        with pytest.raises(SettingError, match="1 to 64 or auto"):
            loaded(tmp_path, content, *argv)


def test_auto_survives_the_way_through_a_file(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'workers = "auto"\n').config
    assert 'workers = "auto"\n' in render(config)
    assert read(ProxyConfig, render(config)) == config
