"""OriginConfig: the declaration of an `[[origin]]` table of the settings file, and its conversion to a rule."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from shmchannel.daemonkit.settings import SettingError, check_bounds, option
from webproxy.http.syntax import FRAMING_FIELDS, TOKEN
from webproxy.http.urls import BadTarget, http_path
from webproxy.origin.routing import HostPattern, OriginRule, host_pattern

_URL_ALLOWED = "http://HOST[:PORT][/PATH] or https://..., without user, query or fragment"
_HOST_ALLOWED = "HOST, HOST:PORT, *.SUFFIX or *.SUFFIX:PORT"
_match_field = re.compile(rb"(%s):[ \t]*([!-~](?:[ \t!-~]*[!-~])?)" % TOKEN).fullmatch
# Framing and hop-by-hop fields are decided for each request (RFC 9110 section 7.6.1).
_FIELDS_OF_OURS = frozenset(
    (b"host", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"expect", *FRAMING_FIELDS)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginConfig:
    """An origin in addition to the default one, and the requests that go to it."""

    url: str = option("", "base URL; the requested path is appended to it", low=0)
    host: str | None = option(
        None, "Host that selects this origin, also `name:port` or `*.suffix`; without it, the path alone decides"
    )
    path: str = option("/", "path prefix that selects this origin; begins and ends with a slash")
    strip_prefix: bool = option(False, "remove that prefix from the path")
    preserve_host: bool = option(False, "send the client's Host instead of the URL's; needs `host`")
    connect_s: float | None = option(None, "time limit for connecting; default: `origin_connect_s`", low=0.05, high=600)
    stall_s: float | None = option(None, "longest time without a byte; default: `origin_stall_s`", low=0.05, high=3600)
    tries: int | None = option(None, "attempts per fetch; default: `origin_tries`", low=1, high=20)
    failures_to_open: int | None = option(
        None, "failures in a row after which it is not asked; default: `origin_failures_to_open`", low=0, high=1000
    )
    silence_s: float | None = option(
        None,
        "time without an answer that counts as a failure; default: this table's `stall_s`, if it has"
        " one, otherwise `origin_silence_s`",
        low=0.05,
        high=3600,
    )
    pause_s: float | None = option(
        None, "how long it is not asked when it fails; default: `origin_pause_s`", low=0.05, high=3600
    )
    pause_max_s: float | None = option(None, "longest such time; default: `origin_pause_max_s`", low=0.05, high=3600)
    headers: tuple[str, ...] = option((), "fields added to each request, each as `Name: value`", secret=True)
    tls_verify: bool = option(True, "verify the certificate of an https origin")
    ca_file: str | None = option(None, "file of the certificate authorities to verify it with; default: the system's")

    def __post_init__(self) -> None:
        """Check each value against its bounds, and the values against each other."""
        check_bounds(self)
        check_origin_url("url", self.url)
        self._pattern()
        _path(self.path)
        if self.preserve_host and self.host is None:
            # Keys would not contain the Host: a response for one host would be served for another.
            raise SettingError("preserve_host", True, "true only with host")
        if self.ca_file is not None and not self.tls_verify:
            raise SettingError("ca_file", self.ca_file, "a file only with tls_verify")
        if self.ca_file is not None and not (os.path.isfile(self.ca_file) and os.access(self.ca_file, os.R_OK)):
            raise SettingError("ca_file", self.ca_file, "a file that can be read")
        for header in self.headers:
            _field(header)

    def rule(self, defaults: OriginRule) -> OriginRule:
        """Return the rule, with the limits of `defaults` where the table has none."""
        limits = defaults.limits
        patience = {} if self.stall_s is None else {"silence_s": self.stall_s}
        own_health = patience | self._given("failures_to_open", "silence_s", "pause_s", "pause_max_s")
        return OriginRule(
            url=self.url,
            host=self._pattern(),
            path=_path(self.path),
            strip_prefix=self.strip_prefix,
            preserve_host=self.preserve_host,
            tries=defaults.tries if self.tries is None else self.tries,
            limits=replace(
                limits,
                **self._given("connect_s", "stall_s"),
                health=replace(limits.health, **own_health),
                add_fields=tuple(_field(header) for header in self.headers),
                tls_verify=self.tls_verify,
                ca_file=self.ca_file,
            ),
        )

    def _given(self, *names: str) -> dict[str, Any]:
        """The values of these settings, without those that are left to the default."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _pattern(self) -> HostPattern | None:
        return None if self.host is None else checked_pattern("host", self.host)


def check_origin_url(name: str, url: str) -> None:
    """Raise SettingError for the setting `name` if the URL is not that of an origin."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if (
        not good
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise SettingError(name, url, _URL_ALLOWED)


def checked_pattern(name: str, host: str) -> HostPattern:
    """Return the pattern; raise SettingError for the setting `name` if it is invalid."""
    try:
        return host_pattern(host.encode())
    except BadTarget:
        raise SettingError(name, host, _HOST_ALLOWED) from None


def _path(path: str) -> bytes:
    raw = path.encode()
    try:
        good = raw.startswith(b"/") and raw.endswith(b"/") and b"?" not in raw and http_path(raw) == raw
    except BadTarget:
        good = False
    if not good:
        raise SettingError("path", path, "a path that begins and ends with a slash, escaped as in a URL, no query")
    return raw


def _field(header: str) -> tuple[bytes, bytes]:
    found = _match_field(header.encode(errors="surrogatepass"))
    if found is None or found[1].lower() in _FIELDS_OF_OURS:
        name = header.partition(":")[0] if found else "***"  # the value may be a credential
        raise SettingError("headers", name, "Name: value, in ASCII, and not a field that the proxy sets itself")
    return found[1], found[2]
