"""PURE: what a process that follows another one's fetch asks it, and what it is told (docs/protocol.md 11).

Both are HTTP, over a socket that only processes of the same user can connect to. The response to follow is in the body
and in one field of the head, which has it as it is stored; the status is of this exchange alone.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Final, NamedTuple

from shmchannel.objects.commands import FetchLease
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import MetadataError, decode, encode
from webproxy.errors import (
    FetchAborted,
    FetchBroken,
    LeaseVoid,
    NotFollowed,
    NotShared,
    OriginError,
    OriginNotAsked,
    OriginTimeout,
    OriginUnreachable,
    ProxyStops,
    SpoolFailed,
)
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.origin.request import OriginRequest
from webproxy.origin.response_head import OriginResponse

KEY_FIELD: Final = b"GFCache-Key"
RESPONSE_FIELD: Final = b"GFCache-Response"
SHARING_FIELD: Final = b"GFCache-Sharing"
REQUEST_ID_FIELD: Final = b"X-Request-Id"
HEAD_BYTES_MAX: Final = 16_384
"""Of a request: a key has at most 4096 bytes."""
GONE, NOT_SHARED, NO_SUCH_OBJECT, ORIGIN_FAILED, ORIGIN_SILENT = 410, 409, 404, 502, 504
_SHAREABLE, _COMMON = b"shareable", b"common"


class Asked(NamedTuple):
    """The lease, and the key under which the fetch is shared: another protocol's has another one."""

    number: int
    key: bytes


class Followed(NamedTuple):
    """The head of the response that is followed; see spool.Head. It is shareable, or common, or both."""

    stored: StoredResponse
    is_shareable: bool
    is_common: bool


def follow_request(lease: FetchLease, key: bytes, request_id: bytes = b"") -> OriginRequest:
    """The request to the holder of a lease; `request_id` is that of the request it is asked for, for its log."""
    fields = Fields(((KEY_FIELD, b64encode(key)),))
    if request_id:
        fields = fields.with_line(REQUEST_ID_FIELD, request_id)
    # A host for each lease: libcurl bounds the connections to one.
    url = f"http://{lease.number}.{lease.holder}/{lease.number}"
    return OriginRequest(url=url, fields=fields, holder=lease.holder)


def asked_by(request: RequestHead) -> Asked | None:
    """What a request to this process as a holder asks for; None if it is none."""
    number = request.target.removeprefix(b"/")
    try:
        key = b64decode(request.fields.get(KEY_FIELD.lower()) or b"", validate=True)
    except binascii.Error:
        return None
    if request.method != b"GET" or not number.isdigit() or len(number) > len(str(1 << 64)) or not key:
        return None
    return Asked(int(number), key)


def response_lines(response: Followed) -> bytes:
    """The lines that tell a follower of a response.

    Raises:
        MetadataError: it does not fit.
    """
    sharing = [_SHAREABLE] * response.is_shareable + [_COMMON] * response.is_common
    said = b64encode(encode(response.stored)), b" ".join(sharing)
    return b"%s: %s\r\n%s: %s\r\n" % (RESPONSE_FIELD, said[0], SHARING_FIELD, said[1])


def status_of_failure(error: OriginError) -> int:
    """The status that tells a follower of a failed fetch; GONE if it says nothing about the origin."""
    if isinstance(error, FetchAborted | FetchBroken | NotFollowed | OriginNotAsked | ProxyStops | SpoolFailed):
        return GONE
    return ORIGIN_SILENT if isinstance(error, OriginTimeout) else ORIGIN_FAILED


def followed(response: OriginResponse) -> Followed | None:
    """The response that the holder tells of; None: the origin has no such object, in terms of getfile.

    Raises:
        LeaseVoid: it does not fetch the object.
        NotShared: its response is for its own client alone.
        NotFollowed: what it says is of another release.
        OriginError: the origin has failed.
    """
    status = response.status
    if status == NO_SUCH_OBJECT:
        return None
    if status == NOT_SHARED:
        raise NotShared("the response is not shared")
    if status == ORIGIN_SILENT:
        raise OriginTimeout("the origin is silent, as another process has found")
    if status == ORIGIN_FAILED:
        raise OriginUnreachable("the origin has failed, as another process has found")
    if status != 200:
        raise LeaseVoid(f"status {status} from the holder of the lease")
    try:
        stored = decode(b64decode(response.fields.get(RESPONSE_FIELD.lower()) or b"", validate=True))
    except (MetadataError, binascii.Error) as error:
        raise NotFollowed(f"the holder of the lease cannot be understood: {error}") from error
    sharing = (response.fields.get(SHARING_FIELD.lower()) or b"").split()
    return Followed(stored, _SHAREABLE in sharing, _COMMON in sharing)
