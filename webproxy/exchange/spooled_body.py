"""Sending in steps: data, interim responses, and a body that is still arriving, framed for its client."""

from __future__ import annotations

from time import monotonic_ns

from webproxy.caching.hop_by_hop import end_to_end
from webproxy.errors import BodyCutShort
from webproxy.exchange.body_transfer import PIECE_BYTES, ROOM_MS, SLICE_NS
from webproxy.fetch.spool import Interim, SpoolReader
from webproxy.http.chunked import CHUNK_END, LAST_CHUNK, chunk_head
from webproxy.http.messages import RequestHead, response_head
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Event, Steps


def send_data(stream: ClientStream, data: bytes, *, more: bool = False) -> Steps[None]:
    """Send all of the data; `more`: a body follows at once.

    Raises:
        ClientGone: the connection is closed or broken.
    """
    while True:
        sent = stream.send_some(data, more=more)
        if sent == len(data):
            return
        data = data[sent:]
        yield Event.WRITABLE


def send_interim(stream: ClientStream, request: RequestHead, interim: Interim) -> Steps[None]:
    """Pass an interim response to a client that understands it (RFC 9110 section 15.2); 100 is the proxy's own."""
    if interim.status != 100 and request.version == (1, 1):
        yield from send_data(stream, response_head(interim.status, end_to_end(interim.fields)))


def send_body(stream: ClientStream, reader: SpoolReader, framing: bytes, length: int | None) -> Steps[None]:
    """Send the body of a response as it arrives; `framing` as from body_framing().

    Raises:
        ClientGone, BodyCutShort: the connection is unusable, or the body ended early.
    """
    if framing.startswith(b"Transfer"):
        yield from _send_chunked(stream, reader)
    elif length is not None:
        yield from send_spooled(stream, reader, length)
    else:
        yield from _send_to_the_close(stream, reader)


def send_spooled(stream: ClientStream, reader: SpoolReader, end: int | None) -> Steps[None]:
    """Send a body as it arrives, up to `end` or, if its length is unknown, to its end. Errors as send_body().

    A client may be waited for a moment; one that is as fast as its source gives up its worker from time to time.
    """
    slice_end_ns = monotonic_ns() + SLICE_NS
    while end is None or reader.position < end:
        available = reader.available()
        if available is None:
            yield reader
            stream.measure_anew()
            slice_end_ns = monotonic_ns() + SLICE_NS
        elif available > 0:
            wanted = min(available, PIECE_BYTES)
            if end is not None:
                wanted = min(wanted, end - reader.position)
            sent = reader.send(stream, wanted)
            reader.advance(sent)
            is_slow = sent < wanted and not stream.has_room_within(ROOM_MS)
            if is_slow or monotonic_ns() >= slice_end_ns:
                yield Event.WRITABLE if is_slow else Event.TURN
                slice_end_ns = monotonic_ns() + SLICE_NS
        elif end is None:
            return
        else:
            raise BodyCutShort("the origin's body ended before its length")


def _send_to_the_close(stream: ClientStream, reader: SpoolReader) -> Steps[None]:
    """A body delimited only by the end of the connection: one that breaks off must not look complete."""
    try:
        yield from send_spooled(stream, reader, None)
    except BodyCutShort:
        stream.reset()
        raise


def _send_chunked(stream: ClientStream, reader: SpoolReader) -> Steps[None]:
    while (available := reader.available()) != 0:
        if available is None:
            yield reader
            continue
        end = reader.position + available
        yield from send_data(stream, chunk_head(available), more=True)
        yield from send_spooled(stream, reader, end)
        yield from send_data(stream, CHUNK_END)
    yield from send_data(stream, LAST_CHUNK)
