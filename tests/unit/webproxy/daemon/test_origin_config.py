"""origin_settings: is a table of the file a sound rule, or refused with its key and what is allowed?"""

from __future__ import annotations

import pytest

from shmchannel.daemonkit.settings import SettingError
from webproxy.daemon.origin_config import OriginConfig
from webproxy.origin.health import HealthSettings
from webproxy.origin.request import OriginLimits
from webproxy.origin.routing import OriginRule, host_pattern

LIMITS = OriginLimits(connect_s=1.5, stall_s=2.5, redirects=7, object_bytes_max=99)
DEFAULTS = OriginRule(url="", tries=3, limits=LIMITS)


def test_a_url_is_enough() -> None:
    assert OriginConfig(url="http://h/base").rule(DEFAULTS) == OriginRule(url="http://h/base", tries=3, limits=LIMITS)


def test_everything_is_taken_over() -> None:
    table = OriginConfig(
        url="https://h",
        host="*.A.example:8443",
        path="/a%2Fb/",
        strip_prefix=True,
        preserve_host=True,
        connect_s=0.5,
        stall_s=7.0,
        tries=1,
        failures_to_open=2,
        silence_s=3.0,
        pause_s=4.0,
        pause_max_s=5.0,
        headers=("Authorization: Bearer a b", "X-Empty:\tx"),
        ca_file=__file__,
    )
    assert table.rule(DEFAULTS) == OriginRule(
        url="https://h",
        host=host_pattern(b"*.a.example:8443"),
        path=b"/a%2Fb/",
        strip_prefix=True,
        preserve_host=True,
        tries=1,
        limits=OriginLimits(
            connect_s=0.5,
            stall_s=7.0,
            redirects=7,
            object_bytes_max=99,
            health=HealthSettings(failures_to_open=2, silence_s=3.0, pause_s=4.0, pause_max_s=5.0),
            add_fields=((b"Authorization", b"Bearer a b"), (b"X-Empty", b"x")),
            ca_file=__file__,
        ),
    )


def test_who_waits_longer_for_an_origin_takes_its_silence_for_a_failure_later() -> None:
    assert OriginConfig(url="http://h", stall_s=90.0).rule(DEFAULTS).limits.health.silence_s == 90.0
    both = OriginConfig(url="http://h", stall_s=90.0, silence_s=5.0)
    assert both.rule(DEFAULTS).limits.health.silence_s == 5.0
    assert OriginConfig(url="http://h").rule(DEFAULTS).limits.health == LIMITS.health


def test_certificates_may_go_unchecked() -> None:
    assert not OriginConfig(url="https://h", tls_verify=False).rule(DEFAULTS).limits.tls_verify


REFUSED: list[tuple[str, object]] = [
    *[("url", url) for url in ("", "h", "ftp://h", "http://", "http://u@h", "http://h?q", "http://h:0", "http://h h")],
    *[("host", host) for host in ("a b", "*", "a.*", "http://a", "h:0", "é")],
    *[("path", path) for path in ("a/", "/a", "/a/../b/", "/a b/", "/a?b/", "/é/", "/%2f/", "/#/")],
    *[("headers", (line,)) for line in ("A", "A b: c", ": b", "A:", "A: b\r\nB: c", "A: \0", "A: é", "Host: a")],
    *[("headers", (line,)) for line in ("content-length: 1", "Transfer-Encoding: chunked", "CONNECTION: close")],
    ("connect_s", 0.0),
    ("stall_s", 3601.0),
    ("tries", 21),
    *[("ca_file", name) for name in ("", "/nowhere.pem", "/")],
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_makes_no_sense_is_refused(key: str, value: object) -> None:
    keys: dict[str, object] = {"url": "http://h", key: value}
    with pytest.raises(SettingError) as refused:
        OriginConfig(**keys)  # type: ignore[arg-type]
    assert refused.value.name == key
    assert refused.value.allowed


@pytest.mark.parametrize(
    "keys",
    [{"preserve_host": True}, {"ca_file": __file__, "tls_verify": False}],
    ids=["preserve_host without host", "ca_file without tls_verify"],
)
def test_what_does_not_go_together_is_refused(keys: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=next(iter(keys))):
        OriginConfig(url="http://h", **keys)  # type: ignore[arg-type]
