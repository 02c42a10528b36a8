"""Requests of every kind, and whether their answers are honest: exact, cut short, or refused; never a wrong byte."""

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scripts.stress.contents import etag_of
from scripts.stress.exchange import Asked, Exchange
from scripts.stress.origin import content

WRONG = "WRONG BYTES"
HANG = "HANG"
WHOLE = "whole"
CUT = "cut short"
NO_CONNECTION = "no connection"
NO_ANSWER = "closed without an answer"

_STORED = ("/small", "/small", "/middle", "/four", "/twenty")
_FAULTY = ("/short", "/reset", "/busy", "/tardy", "/chunked")
_OBJECTS = 6  # of each stored path: all fit in the store, and come again and again
MANY = 10**9
"""Numbers of objects of which hardly any comes twice."""
_BOUNDARY = re.compile(r"multipart/byteranges; boundary=(\S+)")
_PART_RANGE = re.compile(rb"content-range: bytes (\d+)-(\d+)/(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Checked:
    """One request, and what its complete answer must be."""

    kind: str
    asked: Asked
    is_exact: Callable[[Exchange], bool]
    """Whether a complete answer of a status below 500 is right."""
    wanted: Mapping[int, bytes] = field(default_factory=dict)
    """By its status what an answer that was cut must be a beginning of; other statuses are not checked."""

    @property
    def as_text(self) -> str:
        """The request for a reader."""
        return f"{self.asked.method} {self.asked.target} {dict(self.asked.fields)} ({self.kind})"


def any_request(choice: random.Random) -> Checked:
    """The next request of a client."""
    make = choice.choices((_whole, _range, _ranges, _head, _conditional, _getfile, _post, _faulty, _uncached), _WEIGHTS)
    return make[0](choice)


_WEIGHTS = (20, 10, 6, 6, 6, 15, 8, 20, 5)


def outcome_of(port: int, checked: Checked, hang_s: float) -> str:
    """Perform it, and say what became of it. Blocks for at most `hang_s`."""
    try:
        with Exchange(port, checked.asked, hang_s) as exchange:
            return _received(exchange, checked)
    except TimeoutError:
        return HANG
    except ConnectionRefusedError:
        return NO_CONNECTION
    except (OSError, EOFError):
        return NO_ANSWER


def _received(exchange: Exchange, checked: Checked) -> str:
    try:
        complete = exchange.read()
    except TimeoutError:
        raise
    except (OSError, EOFError):
        complete = False
    if exchange.status >= 500:
        return f"status {exchange.status}"
    if complete:
        return WHOLE if checked.is_exact(exchange) else WRONG
    wanted = checked.wanted.get(exchange.status)
    if wanted is None:
        return CUT
    honest = exchange.length in (None, len(wanted)) and wanted.startswith(bytes(exchange.body))
    return CUT if honest else WRONG


def _whole(choice: random.Random) -> Checked:
    return whole_object("HTTP whole", Asked(target=stored_target(choice)))


def _getfile(choice: random.Random) -> Checked:
    return whole_object("getfile", Asked(target=stored_target(choice), getfile=True))


def _head(choice: random.Random) -> Checked:
    target = stored_target(choice)
    size = str(len(content(target)))

    def is_exact(got: Exchange) -> bool:
        return got.status == 200 and got.fields.get("content-length") == size and not got.body

    return Checked("HEAD", Asked(target=target, method="HEAD"), is_exact)


def _conditional(choice: random.Random) -> Checked:
    target = stored_target(choice)
    etag = etag_of(target, len(content(target)))

    def is_exact(got: Exchange) -> bool:
        return (got.status == 304 and not got.body) or is_whole(got, target)

    asked = Asked(target=target, fields=(("If-None-Match", etag),))
    return Checked("conditional", asked, is_exact, {200: content(target)})


def _range(choice: random.Random) -> Checked:
    target = stored_target(choice)
    whole = content(target)
    first, last = sorted(choice.randrange(len(whole)) for _ in range(2))
    wanted = whole[first : last + 1]

    def is_exact(got: Exchange) -> bool:
        if got.status != 206:
            return is_whole(got, target)
        return got.fields.get("content-range") == f"bytes {first}-{last}/{len(whole)}" and got.body == wanted

    asked = Asked(target=target, fields=(("Range", f"bytes={first}-{last}"),))
    return Checked("range", asked, is_exact, {200: whole, 206: wanted})


def _ranges(choice: random.Random) -> Checked:
    target = stored_target(choice)
    whole = content(target)
    a, b, c, d = sorted(choice.sample(range(len(whole)), 4))

    def is_exact(got: Exchange) -> bool:
        if got.status != 206:
            return is_whole(got, target)
        found = _BOUNDARY.fullmatch(got.fields.get("content-type", ""))
        if found is None:  # both were made one
            return bytes(got.body) in whole
        return _parts_are(bytes(got.body), found[1].strip('"').encode(), whole, [(a, b), (c, d)])

    return Checked("several ranges", Asked(target=target, fields=(("Range", f"bytes={a}-{b},{c}-{d}"),)), is_exact)


def _parts_are(body: bytes, boundary: bytes, whole: bytes, wanted: list[tuple[int, int]]) -> bool:
    """Whether a multipart body has these parts of an object; read by lengths, for the bytes may hold anything."""
    place = 0
    for first, last in wanted:
        head_end = body.find(b"\r\n\r\n", place)
        head = body[place:head_end]
        found = _PART_RANGE.search(head)
        if head_end < 0 or b"--" + boundary not in head or found is None:
            return False
        if (int(found[1]), int(found[2]), int(found[3])) != (first, last, len(whole)):
            return False
        place = head_end + 4 + last + 1 - first
        if body[head_end + 4 : place] != whole[first : last + 1]:
            return False
    return body[place:].strip() == b"--" + boundary + b"--"


def _post(choice: random.Random) -> Checked:
    sent = choice.randbytes(choice.choice((10, 3_000, 100_000)))

    def is_exact(got: Exchange) -> bool:
        try:
            echoed: dict[str, str] = json.loads(bytes(got.body))
        except ValueError:
            return False
        return got.status == 200 and echoed["body"].encode("latin-1") == sent

    return Checked("passed-through POST", Asked(target="/upload", method="POST", body=sent), is_exact)


def _faulty(choice: random.Random) -> Checked:
    target = f"{choice.choice(_FAULTY)}?{choice.randrange(MANY)}"
    return whole_object("miss, faulty origin", Asked(target=target, getfile=choice.random() < 0.3))


def _uncached(choice: random.Random) -> Checked:
    return whole_object("not stored", Asked(target=f"/uncached?{choice.randrange(MANY)}"))


def whole_object(kind: str, asked: Asked) -> Checked:
    """A request whose complete answer is the whole object."""
    return Checked(kind, asked, lambda got: is_whole(got, asked.target), {200: content(asked.target)})


def stored_target(choice: random.Random) -> str:
    """The target of an object that is asked for again and again."""
    path = choice.choice(_STORED)
    return f"{path}?{choice.randrange(1 if path == '/twenty' else _OBJECTS)}"


def is_whole(got: Exchange, target: str) -> bool:
    """Whether an answer is the whole object."""
    return got.status == 200 and got.body == content(target)
