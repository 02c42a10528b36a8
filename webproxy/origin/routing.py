"""PURE: selects the origin of a request by its Host and path, and builds the key of the object.

Two disjoint families of keys: an origin selected by path alone has one space of paths for all clients. The key is the
path, so getfile and HTTP share its objects whatever Host a client sends. An origin selected by Host, and a target of
forward proxying, has a key space for each host: the key begins with `http://` and the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from webproxy.http.urls import (
    BadTarget,
    TargetParts,
    name_and_port,
    normalised_authority,
    origin_url,
    without_parameters,
)
from webproxy.origin.request import OriginLimits

_LIMITS: Final = OriginLimits()


class HostPattern(NamedTuple):
    """`host`, `host:port`, `*.suffix` or `*.suffix:port`; without a port, `port` is None."""

    name: bytes
    """The full name, or the required suffix including its first dot."""
    port: int | None
    wildcard: bool

    def fits(self, name: bytes, port: int) -> bool:
        """Whether it matches this host; `*.suffix` matches every name below the suffix, but not the suffix itself."""
        if self.port is not None and self.port != port:
            return False
        return name.endswith(self.name) if self.wildcard else name == self.name


def host_pattern(text: bytes) -> HostPattern:
    """Parse a pattern; raises BadTarget if it is invalid."""
    wildcard = text.startswith(b"*.")
    authority = normalised_authority(text[2:] if wildcard else text)
    name, port = name_and_port(authority)
    if wildcard and (name.startswith(b"[") or name.replace(b".", b"").isdigit()):
        raise BadTarget("an address has no names below it")
    has_port = not text.endswith(b"]") and b":" in text.rpartition(b"]")[2]
    return HostPattern(b"." + name if wildcard else name, port if has_port else None, wildcard)


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRule:
    """One origin: the requests it answers, its URL and how it is asked.

    `path` begins and ends with a slash and is in normal form. `preserve_host` is meaningful only with `host`.
    """

    url: str
    host: HostPattern | None = None
    path: bytes = b"/"
    strip_prefix: bool = False
    preserve_host: bool = False
    tries: int = 4
    limits: OriginLimits = _LIMITS


class Target(NamedTuple):
    """The target of a request: the key in the cache, and the location at the origin.

    Without a rule there is no origin, but the cache may have the object (a static file).
    """

    key: bytes
    rule: OriginRule | None
    base: str
    """The start of the URL, replacing the prefix that the rule strips."""
    path: bytes
    """Of the key: without the ignored parameters."""
    whole_path: bytes
    """With them."""
    host: bytes | None = None
    """The Host to send to the origin; None for the host of its URL."""
    named_by_operator: bool = True
    """The settings name this very host, so its addresses need not be public."""

    @property
    def url(self) -> str:
        """The URL to fetch for the cache, which the key identifies exactly."""
        return self._url(self.path)

    @property
    def whole_url(self) -> str:
        """The URL for a request that is passed through: the same with every parameter."""
        return self._url(self.whole_path)

    def _url(self, path: bytes) -> str:
        assert self.rule is not None
        return origin_url(self.base, path[len(self.rule.path) - 1 :] if self.rule.strip_prefix else path)


class Refused(NamedTuple):
    """There is no origin to ask: the status for the client, and the reason."""

    status: int
    reason: str


class OriginTable:
    """Selects the origin: the most specific host first, then the longest path. Immutable, for all threads."""

    def __init__(
        self,
        rules: Iterable[OriginRule] = (),
        *,
        forward_hosts: Iterable[HostPattern] = (),
        forwarding: OriginRule | None = None,
        own: Iterable[bytes] = (),
        ignored_query_parameters: frozenset[bytes] = frozenset(),
    ) -> None:
        """`forwarding` has the limits for targets of forward proxying; its URL is each target's own.

        `own` are the authorities under which clients know this proxy itself.
        """
        ordered = sorted(rules, key=_closeness, reverse=True)
        self._by_path = [rule for rule in ordered if rule.host is None]
        self._by_suffix: list[tuple[HostPattern, OriginRule]] = []
        self._by_name: dict[bytes, list[tuple[HostPattern, OriginRule]]] = {}
        for rule in ordered:
            if rule.host is not None:
                found = self._by_suffix if rule.host.wildcard else self._by_name.setdefault(rule.host.name, [])
                found.append((rule.host, rule))
        self._by_host = bool(self._by_name or self._by_suffix)
        self._forward_hosts = tuple(forward_hosts)
        self._forwarding = forwarding or OriginRule(url="")
        self._own = frozenset(normalised_authority(authority) for authority in own)
        self._drop = ignored_query_parameters

    @property
    def by_path_only(self) -> bool:
        """Whether no origin is selected by Host: a path is then the same object under every name."""
        return not self._by_host

    @property
    def bases_by_path(self) -> tuple[str, ...]:
        """The URLs of the origins that are selected by path alone, as for getfile."""
        return tuple(dict.fromkeys(rule.url for rule in self._by_path))

    def find(self, parts: TargetParts) -> Target | Refused:
        """The target of an HTTP request.

        An absolute URL means this proxy itself, a host of the table, or forward proxying to a listed host. Falling back
        to the default origin would serve another site's content under its name.
        """
        scheme, authority, path, absolute = parts
        if not absolute or authority is None:
            return self.choose(authority, path)
        if scheme != b"http":
            return Refused(403, f"forward proxying of {scheme.decode()} is not supported")
        target = self._of_host(authority, path) or self._forward(authority, path)
        if target is not None:
            return target
        if authority in self._own:
            return self.choose(None, path)
        return Refused(403, f"forward proxying to {authority.decode()} is not allowed")

    def choose(self, host: bytes | None, path: bytes) -> Target:
        """The target of a normalised path, requested under `host` (a normalised authority; None for getfile)."""
        if host is not None and self._by_host and (target := self._of_host(host, path)) is not None:
            return target
        kept = self._kept(path)
        for rule in self._by_path:
            if path.startswith(rule.path):
                return Target(kept, rule, rule.url, kept, path)
        return Target(kept, None, "", kept, path)

    def _of_host(self, authority: bytes, path: bytes) -> Target | None:
        name, port = name_and_port(authority)
        for candidates in (self._by_name.get(name, ()), self._by_suffix):
            for pattern, rule in candidates:
                if path.startswith(rule.path) and pattern.fits(name, port):
                    # A port that does not take part in the selection is not part of the key: it only says how the
                    # client connected.
                    shown = authority if pattern.port is not None else name
                    kept = self._kept(path)
                    sent = shown if rule.preserve_host else None
                    return Target(b"http://" + shown + kept, rule, rule.url, kept, path, sent)
        return None

    def _forward(self, authority: bytes, path: bytes) -> Target | None:
        if not self._forward_hosts:
            return None
        name, port = name_and_port(authority)
        fitting = [
            pattern for pattern in self._forward_hosts if pattern.fits(name, port) and (pattern.port or 80) == port
        ]
        if not fitting:
            return None
        base, kept = b"http://" + authority, self._kept(path)
        named = not all(pattern.wildcard for pattern in fitting)
        return Target(base + kept, self._forwarding, base.decode(), kept, path, None, named)

    def _kept(self, path: bytes) -> bytes:
        return without_parameters(path, self._drop) if self._drop and b"?" in path else path


def _closeness(rule: OriginRule) -> tuple[bool, bool, int, bool, int]:
    """Sort key of rules: a host before none, a full name before a suffix, longer suffix, port, longer path."""
    host = rule.host
    if host is None:
        return False, False, 0, False, len(rule.path)
    return True, not host.wildcard, len(host.name), host.port is not None, len(rule.path)
