"""PURE: Cache-Control of requests and responses (RFC 9111 section 5.2) and CDN-Cache-Control (RFC 9213), as values.

Malformed and conflicting directives are always read conservatively:
* if an age directive is repeated, the first value counts (section 4.2.1); flags and lists of field names accumulate;
* a response's age directive that is not a number counts as 0 (section 4.2.1), as does a request's max-age; too large a
  number counts as 2^31 (section 1.2.2); a request's other ages are ignored if they are not numbers;
* a list of field names that is empty or contains an invalid name is not a list: the directive covers everything; so it
  does if the list names a field without which the rest of the response cannot be interpreted;
* after an unclosed quotation mark anything may be meant: treated as no-cache and no-store;
* unknown directives are ignored (section 5.2.3).

`immutable` (RFC 8246) needs no code here: a fresh response is validated only if the client asks for it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from webproxy.caching.structured import FieldType, Item, parse_dictionary
from webproxy.http.fields import Fields
from webproxy.http.syntax import has_unclosed_quote, is_token, split_list, unquote

DELTA_MAX_S = 2**31
_DELTA_MAX_DIGITS = 10
_REMEMBERED = 512
_REMEMBERED_BYTES_MAX = 1_024

_AGES = frozenset((b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"))
_LISTS = frozenset((b"no-cache", b"private"))
_FLAGS = frozenset((b"no-store", b"public", b"must-revalidate", b"proxy-revalidate", b"must-understand"))
_REQUEST_FLAGS = frozenset((b"no-cache", b"no-store", b"only-if-cached"))
_REQUEST_AGES = frozenset((b"max-age", b"min-fresh", b"max-stale", b"stale-if-error"))
_INDISPENSABLE = frozenset((b"cache-control", b"content-encoding", b"content-range", b"content-type", b"vary"))

Directive = tuple[bytes, bytes | None]
"""Lower-case name; unquoted argument, None if there is none, empty if it is malformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDirectives:
    """The directives of a request (section 5.2.1); ages in seconds, None if absent."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int | None = None
    max_stale: int | None = None
    """DELTA_MAX_S if the request accepts any staleness."""
    stale_if_error: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseDirectives:
    """The directives of a response for a shared cache (section 5.2.2); ages in seconds, None if absent."""

    no_store: bool = False
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    no_cache: bool = False
    """Without field names."""
    no_cache_fields: frozenset[bytes] = frozenset()
    private: bool = False
    """Without field names."""
    private_fields: frozenset[bytes] = frozenset()
    max_age: int | None = None
    s_maxage: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    targeted: bool = False
    """They come from a targeted field: Cache-Control and Expires of the response are ignored."""


NO_WISHES = RequestDirectives()
_UNREADABLE_REQUEST = RequestDirectives(no_cache=True, no_store=True)
_UNREADABLE_RESPONSE = ResponseDirectives(no_cache=True, no_store=True)
_NO_CACHE = RequestDirectives(no_cache=True)
_NONE = ResponseDirectives()


def delta_seconds(value: bytes | None) -> int | None:
    """A number of seconds, at most DELTA_MAX_S (section 1.2.2); None if it is not a number."""
    if not value or not value.isdigit():
        return None
    significant = value.lstrip(b"0")
    if len(significant) > _DELTA_MAX_DIGITS:  # also because int() of thousands of digits is slow, and finally refused
        return DELTA_MAX_S
    return min(int(significant or b"0"), DELTA_MAX_S)


def request_directives(fields: Fields) -> RequestDirectives:
    """The directives of a request; Pragma counts only without Cache-Control (section 5.4).

    Returns the object NO_WISHES if the request has neither field.
    """
    value = fields.get(b"cache-control")
    if value is not None:
        return _of_request_remembered(value) if len(value) <= _REMEMBERED_BYTES_MAX else _of_request(value)
    pragma = fields.get(b"pragma")
    if pragma is not None and any(name == b"no-cache" for name, _ in _directives(pragma)):
        return _NO_CACHE
    return NO_WISHES


def response_directives(fields: Fields, *, targeted_control: bool = False) -> ResponseDirectives:
    """The directives of a response, from CDN-Cache-Control if enabled and usable, else from Cache-Control."""
    if targeted_control:
        value = fields.get(b"cdn-cache-control")
        directives = None if value is None else _of_targeted_field(value)
        if directives is not None:
            return directives
    value = fields.get(b"cache-control")
    if value is None:
        return _NONE
    return _of_response_remembered(value) if len(value) <= _REMEMBERED_BYTES_MAX else _of_response(value)


def _directives(value: bytes) -> Iterator[Directive]:
    for member in split_list(value):
        name, equals, argument = member.partition(b"=")
        stripped = name.strip().lower()
        if not equals:
            yield stripped, None
        elif stripped != name.lower():
            yield stripped, b""  # white space before "=" is invalid (compare RFC 9110 section 5.6.6)
        else:
            yield stripped, unquote(argument)


def _of_request(value: bytes) -> RequestDirectives:
    if has_unclosed_quote(value):
        return _UNREADABLE_REQUEST
    names: set[bytes] = set()
    ages: dict[bytes, int] = {}
    for name, argument in _directives(value):
        names.add(name)
        age = delta_seconds(argument)
        if age is None and name == b"max-age":
            age = 0
        elif argument is None and name == b"max-stale":
            age = DELTA_MAX_S
        if age is not None:
            ages.setdefault(name, age)
    given: dict[bytes, Any] = dict.fromkeys(_REQUEST_FLAGS & names, True)
    given |= {name: age for name, age in ages.items() if name in _REQUEST_AGES}
    return RequestDirectives(**{_attribute(name): value for name, value in given.items()})


def _of_response(value: bytes) -> ResponseDirectives:
    return _UNREADABLE_RESPONSE if has_unclosed_quote(value) else _collect(_directives(value), targeted=False)


_of_request_remembered = functools.lru_cache(_REMEMBERED)(_of_request)
_of_response_remembered = functools.lru_cache(_REMEMBERED)(_of_response)


def _collect(directives: Iterable[Directive], *, targeted: bool) -> ResponseDirectives:
    flags: set[bytes] = set()
    ages: dict[bytes, int] = {}
    lists: dict[bytes, frozenset[bytes]] = {}
    for name, argument in directives:
        if name in _AGES:
            ages.setdefault(name, delta_seconds(argument) or 0)
        elif name in _FLAGS:
            flags.add(name)
        elif name in _LISTS:
            names = _field_names(argument)
            lists[name] = lists.get(name, frozenset()) | names
            if not names:
                flags.add(name)
    given: dict[bytes, Any] = dict.fromkeys(flags, True) | ages
    return ResponseDirectives(
        **{_attribute(name): value for name, value in given.items()},
        no_cache_fields=lists.get(b"no-cache", frozenset()),
        private_fields=lists.get(b"private", frozenset()),
        targeted=targeted,
    )


def _attribute(name: bytes) -> str:
    """The attribute of RequestDirectives or ResponseDirectives for a directive."""
    return name.replace(b"-", b"_").decode()


def _field_names(argument: bytes | None) -> frozenset[bytes]:
    """The listed names in lower case (sections 5.2.2.4 and 5.2.2.7); empty if the directive covers everything."""
    names = frozenset(name.lower() for name in split_list(argument or b""))
    return names if all(map(is_token, names)) and names.isdisjoint(_INDISPENSABLE) else frozenset()


def _of_targeted_field(value: bytes) -> ResponseDirectives | None:
    """None if the field is empty, malformed, or contains a value of the wrong type: it is ignored then.

    RFC 9213 section 2.1 demands that for the first two. A wrong type is just as much a mistake, and ignoring only the
    directive concerned could leave the cache with fewer restrictions than Cache-Control states.
    """
    members = parse_dictionary(value)
    if not members or not all(_has_right_type(name, item) for name, item in members.items()):
        return None
    return _collect(((name, _argument(item)) for name, item in members.items()), targeted=True)


def _has_right_type(name: bytes, item: Item) -> bool:
    if name in _AGES:
        return item.kind is FieldType.INTEGER
    if name in _LISTS:
        return item.kind in (FieldType.TRUE, FieldType.STRING, FieldType.TOKEN)
    return name not in _FLAGS or item.kind is FieldType.TRUE


def _argument(item: Item) -> bytes | None:
    return None if item.kind is FieldType.TRUE else item.text
