"""The compiled loop for hits (native_hits.c): what it is told, and whether it is used.

It answers plain requests for objects of the hot table that are byte for byte what was answered in Python before: the
target, and the rest of the request, from the space behind the target on. Each is learned by itself, so that a client is
recognised whatever it asks for. Where it was not compiled, or a response says something of its own request, everything
is answered in Python, the same way (docs/decisions/0042-compiled-hits.md).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from shmchannel.objects.hot_table_layout import VALID_UNTIL_AT
from shmchannel.stats_pages.histogram import LATENCY
from webproxy.exchange.response_heads import ResponseHeads, hit_frame
from webproxy.http.parser import RequestParser
from webproxy.telemetry.top_counts import EXACT_MAX, LIGHT_SHARE
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.http1_connection import HttpConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from shmchannel.objects.hot_table_reader import Marks
    from webproxy.exchange.fast_path import CachedReply
    from webproxy.http.messages import RequestHead
    from webproxy.serving.native_hits import HitLoop
    from webproxy.serving.parking import IdleConnections
    from webproxy.telemetry.access_log import AccessLog
    from webproxy.telemetry.log_line import FixedParts
    from webproxy.telemetry.request_counts import RequestCounts
    from webproxy.telemetry.request_ids import RequestIds

log = logging.getLogger(__name__)

_NO_PARTS: Final = (b"",) * 5
_BODY_BYTES_MAX: Final = 1 << 20
"""Larger ones take turns (body_transfer.py)."""
_LOG_PART_BYTES_MAX: Final = 1500
"""Of a target, and of a client's fields: together, and with the values between them, they fit a line."""


class LearnedReply(NamedTuple):
    """A reply to a target as the loop needs it. Numbers that end in `_at` are offsets in the mapping."""

    head: bytes
    """Up to the age."""
    end: bytes
    """What follows the line of the connection."""
    mapping: object
    """A buffer that is not closed while it is looked at."""
    sequence: int
    sequence_at: int
    until_at: int
    body_at: int
    body_bytes: int
    version: int
    path: bytes
    """Of the file that has the body; empty if the table has it. Its device and inode:"""
    device: int
    inode: int
    marks: Marks
    mark_at: int
    """Of a byte that says that the object is used."""
    is_ready: Callable[[], bool]
    initial_age_s: int
    response_time: float
    lifetime_s: int
    counts: list[int]
    """As TimedEvent.counts."""
    log_parts: tuple[bytes, bytes, bytes]


class HitLearner:
    """Tells the loop what the fast path has answered."""

    def __init__(self, loop: HitLoop, counts: RequestCounts) -> None:
        self._loop = loop
        self._counts = counts

    def learn(self, data: bytes, request: RequestHead, reply: CachedReply, log_parts: FixedParts | None) -> None:
        """A plain request that arrived alone in these bytes has this reply."""
        watch, target = reply.watch, request.target
        if reply.closes is request.keep_alive or reply.stored.body_bytes > _BODY_BYTES_MAX:
            return
        file = watch.file
        if file is None:
            path, device, inode = b"", 0, 0
        elif file.name and watch.pid:
            path, device, inode = b"/proc/%d/fd/%d/%s" % (watch.pid, file.number, file.name), file.device, file.inode
        else:  # a descriptor of somebody else's file, which can change at any time
            return
        of_target, version, of_reply, fields, end = log_parts or _NO_PARTS
        if len(of_target) + len(of_reply) + len(end) > _LOG_PART_BYTES_MAX or len(fields) > _LOG_PART_BYTES_MAX:
            return
        head, head_end = hit_frame(reply.stored)
        self._loop.learn_block(data[4 + len(target) :], reply.closes, reply.line, (version, fields))
        learned = LearnedReply(
            head=head,
            end=head_end,
            mapping=watch.block,
            sequence=watch.sequence,
            sequence_at=watch.at,
            until_at=watch.at + VALID_UNTIL_AT,
            body_at=watch.body_at,
            body_bytes=reply.stored.body_bytes,
            version=watch.version,
            path=path,
            device=device,
            inode=inode,
            marks=watch.marks,
            mark_at=watch.mark_at,
            is_ready=watch.is_ready,
            initial_age_s=reply.stored.initial_age_s,
            response_time=reply.stored.response_time,
            lifetime_s=reply.stored.lifetime_s,
            counts=self._counts.hot_event(reply.origin, reply.status_class).counts,
            log_parts=(of_target, of_reply, end),
        )
        try:
            self._loop.learn_reply(target, learned)
        except ValueError:  # the hot table was closed by now
            return

    def forget(self) -> None:
        """Recognise nothing from now on: replies that were learned say that the connection stays open."""
        self._loop.forget()


def open_hit_loop(
    idle: IdleConnections,
    heads: ResponseHeads,
    counts: RequestCounts,
    ids: RequestIds,
    access_log: AccessLog | None,
    *,
    keepalive_s: float,
    staying_max: int,
) -> HitLoop | None:
    """The loop over these idle connections; None where it was not compiled, or each request has lines of its own."""
    if ids.in_heads or log.isEnabledFor(logging.DEBUG) or counts.top is None:
        return None
    try:
        from webproxy.serving.native_hits import HitLoop  # optional
    except ImportError as error:
        log.info("hits are answered in Python", extra={"reason": str(error)})
        return None
    wanted = None
    if access_log is not None:
        wanted = access_log.template, access_log.file.tell, access_log.file.add, ids.token_of_another
    loop = HitLoop(
        connection_type=HttpConnection,
        stream_type=ClientStream,
        parser_type=RequestParser,
        jobs=idle.jobs,
        epoll_fd=idle.fileno(),
        keepalive_s=keepalive_s,
        staying_max=staying_max,
        tail_parts=heads.hit_tail_parts,
        buckets=(LATENCY.shift, LATENCY.size),
        clients=(counts.top.note_hit, counts.top.noted, EXACT_MAX, LIGHT_SHARE),
        access_log=wanted,
    )
    if access_log is not None:
        access_log.file.ask(loop.take_lines)
    return loop
