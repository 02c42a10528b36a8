"""QuickHits gives exactly the reply that the exchange would, for the plain case, and stands back from every other."""

from __future__ import annotations

from dataclasses import replace
from time import time

import pytest

from shmchannel.shelf_files import FileName, ShelfFile, ShelfFiles
from shmchannel.shelf_layout import FileRef, ShelfEntry
from webproxy import quick_hits
from webproxy.caching.decision import Action, decide
from webproxy.caching.stored import StoredResponse
from webproxy.caching.stored_codec import encode
from webproxy.http.fields import Fields
from webproxy.http.messages import RequestHead
from webproxy.lookup import stored_of_entry
from webproxy.quick_hits import KNOWN_MAX, TERMS, QuickFile, QuickHits
from webproxy.replies import CLOSES, STAYS, Replies

NOW = 1_800_000_000.0
BODY = b"0123456789"
STORED = StoredResponse(
    status=200,
    fields=Fields(((b"Content-Type", b"text/plain; a=%d"), (b"ETag", b'"1"'))),
    request_time=NOW - 10,
    response_time=NOW - 10,
    initial_age_s=3,
    lifetime_s=60,
    body_bytes=len(BODY),
)
REPLIES = Replies(b"test")


class Shelf:
    """What a cache has laid out, and how often somebody looked."""

    def __init__(self) -> None:
        self.entries: dict[bytes, ShelfEntry] = {b"/x": ShelfEntry(1, encode(STORED), BODY)}
        self.read = 0
        self.file: ShelfFile | None = None

    def hold_file(self, key: bytes, entry: ShelfEntry) -> ShelfFile | None:
        return self.file

    def stored(self, key: bytes, entry: ShelfEntry) -> StoredResponse | None:
        self.read += 1
        return stored_of_entry(key, entry)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [NOW]
    monkeypatch.setattr(quick_hits, "time", lambda: now[0])
    return now


@pytest.fixture
def quick(shelf: Shelf, clock: list[float]) -> QuickHits:
    return QuickHits(shelf.entries.get, shelf.stored, lambda path: path, shelf.hold_file, REPLIES)


def get(target: bytes = b"/x", *fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", target, (1, 1), Fields(((b"Host", b"h"), *fields)))


@pytest.mark.parametrize("connection", [STAYS, CLOSES])
def test_the_reply_is_the_one_of_the_rules(quick: QuickHits, connection) -> None:
    decision = decide(get(), STORED, NOW)
    assert decision.action is Action.HIT
    expected = REPLIES.hit(STORED, decision.age_s, connection) + BODY
    assert quick.reply(get(), connection) == expected
    assert quick.reply(get(), connection) == expected


def test_the_head_follows_the_age_and_the_connection(quick: QuickHits, shelf: Shelf, clock: list[float]) -> None:
    ages = []
    for second in (0, 0, 7):
        clock[0] = NOW + second
        reply = quick.reply(get(), STAYS)
        assert reply is not None
        ages.append(reply.split(b"Age: ")[1].split(b"\r\n")[0])
    assert ages == [b"13", b"13", b"20"]
    assert b"Connection: close" in (quick.reply(get(), CLOSES) or b"")
    assert b"Connection" not in (quick.reply(get(), STAYS) or b"Connection")
    assert shelf.read == 1, "worked out once"


def test_a_stale_one_is_left_to_the_exchange(quick: QuickHits, clock: list[float]) -> None:
    clock[0] = NOW + 47
    assert quick.reply(get(), STAYS) is None
    clock[0] = NOW + 46
    assert quick.reply(get(), STAYS) is not None


def test_changed_metadata_and_a_new_body_show_at_once(quick: QuickHits, shelf: Shelf) -> None:
    quick.reply(get(), STAYS)
    fresh = replace(STORED, fields=Fields(((b"X-New", b"1"),)))
    shelf.entries[b"/x"] = ShelfEntry(1, encode(fresh), BODY)
    assert b"X-New: 1" in (quick.reply(get(), STAYS) or b"")
    shelf.entries[b"/x"] = ShelfEntry(2, encode(replace(fresh, body_bytes=3)), b"abc")
    assert (quick.reply(get(), STAYS) or b"").endswith(b"Content-Length: 3\r\n\r\nabc")


@pytest.mark.parametrize(
    "entry",
    [
        ShelfEntry(1, encode(replace(STORED, status=206)), BODY),
        ShelfEntry(1, encode(replace(STORED, selecting=((b"accept", None),))), BODY),
        ShelfEntry(1, encode(replace(STORED, body_bytes=11)), BODY),
        ShelfEntry(1, b"nothing that we wrote", BODY),
    ],
    ids=["partial", "what varies", "another length", "no metadata of ours"],
)
def test_what_cannot_be_used_is_left_to_the_exchange(quick: QuickHits, shelf: Shelf, entry: ShelfEntry) -> None:
    shelf.entries[b"/x"] = entry
    assert quick.reply(get(), STAYS) is None


@pytest.mark.parametrize("target", [b"/none", b"*", b"http://h/x", b"/%0g%00\x01"])
def test_other_targets(quick: QuickHits, target: bytes) -> None:
    assert quick.reply(get(target), STAYS) is None


def test_targets_of_one_key_share_the_object(quick: QuickHits, shelf: Shelf) -> None:
    assert quick.reply(get(b"/a/../x"), STAYS) == quick.reply(get(), STAYS)
    assert shelf.read == 1


def test_a_file_of_the_caches_own(quick: QuickHits, shelf: Shelf, clock: list[float]) -> None:
    """It came by no response, so its age counts from when it was first seen."""
    clock[0] = time() + 0.5
    shelf.entries[b"/file"] = ShelfEntry(7, b"", BODY)
    reply = quick.reply(get(b"/file"), STAYS) or b""
    assert b"\r\nAge: 0\r\n" in reply
    assert b"\r\nDate: " in reply
    assert reply.endswith(BODY)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_request_with_terms_is_not_plain(name: bytes) -> None:
    assert QuickHits.is_plain(get().fields)
    assert not QuickHits.is_plain(get(b"/x", (name.title(), b"x")).fields)


def test_what_is_known_is_bounded(quick: QuickHits, shelf: Shelf) -> None:
    for number in range(KNOWN_MAX + 10):
        shelf.entries[b"/%d" % number] = shelf.entries[b"/x"]
        assert quick.reply(get(b"/%d" % number), STAYS) is not None
    assert len(quick._keys) <= KNOWN_MAX
    assert len(quick._prepared) <= KNOWN_MAX


def test_a_large_object_comes_with_its_file(quick: QuickHits, shelf: Shelf) -> None:
    """The head is that of any reply; without its file it is left to the exchange."""
    large = replace(STORED, body_bytes=100_000)
    shelf.entries[b"/x"] = ShelfEntry(1, encode(large), b"", FileRef(3, 4, 5, 100_000))
    assert quick.reply(get(b"/x"), STAYS) is None
    shelf.file = ShelfFile(ShelfFiles(), FileName(4, 5, 1), -1, 100_000)
    reply = quick.reply(get(b"/x"), STAYS)
    assert reply == QuickFile(REPLIES.hit(large, 13, STAYS), b"/x", shelf.file)
