"""RingArena: no two live records overlap, what is used stays longest, and memory is taken only as it is needed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shmchannel.objects.hot_table_arena import SKIPS_MAX, RingArena, Span
from tests.support.examples import examples

BEGIN = 4096
STEP = 4096


class Record(Span):
    """A record that knows its number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Arena:
    """An arena with what gave way in it, and how much it may take."""

    def __init__(self, bound: int, limit: int | None = None) -> None:
        self.limit = bound if limit is None else limit
        self.there: dict[int, Record] = {}
        self.evicted: list[int] = []
        self.ring: RingArena[Record] = RingArena(BEGIN, bound, take=self.take, evict=self.evict)
        self.numbers = 0

    def take(self, end: int) -> int:
        """At most up to the limit."""
        return max(end, min(end + STEP, self.limit))

    def evict(self, record: Record) -> None:
        self.evicted.append(record.number)
        del self.there[record.number]

    def place(self, size_bytes: int) -> Record:
        record = Record(self.numbers)
        self.numbers += 1
        start = self.ring.place(record, size_bytes)
        assert start == record.start
        assert start % 64 == 0
        assert record.end - start >= size_bytes
        assert BEGIN <= start < record.end <= BEGIN + self.ring.taken_bytes
        self.there[record.number] = record
        return record

    def drop(self, number: int) -> None:
        self.ring.drop(self.there.pop(number))


def in_order(arena: Arena) -> list[Record]:
    return sorted(arena.there.values(), key=lambda record: record.start)


STEPS = st.lists(st.tuples(st.sampled_from(["place", "place", "drop", "use"]), st.integers(0, 4096)), max_size=200)


@examples(100)
@given(STEPS, st.integers(2, 10), st.integers(1, 10))
def test_live_records_never_overlap(steps: list[tuple[str, int]], pages: int, limit: int) -> None:
    arena = Arena(BEGIN + pages * STEP, BEGIN + min(limit, pages) * STEP)
    for verb, number in steps:
        if verb == "place":
            arena.place(number)
        elif arena.there:
            chosen = list(arena.there)[number % len(arena.there)]
            if verb == "drop":
                arena.drop(chosen)
            else:
                arena.there[chosen].used = True
        records = in_order(arena)
        assert all(one.end <= other.start for one, other in pairwise(records))
        assert all(record.live for record in records)
    assert len(arena.there) + len(arena.evicted) <= arena.numbers


def test_nothing_gives_way_while_there_could_be_more() -> None:
    arena = Arena(BEGIN + 100 * STEP)
    for number in range(1000):
        arena.place(256)
        if number % 3 == 0:
            arena.drop(number)
    assert arena.evicted == []
    assert arena.ring.taken_bytes < 2 * 256 * len(arena.there)


def test_what_is_dropped_is_used_again() -> None:
    """No more memory is taken for ever new versions of a few objects."""
    arena = Arena(BEGIN + 100 * STEP)
    for number in range(1000):
        arena.place(1024)
        if number >= 2:
            arena.drop(number - 2)
    assert arena.evicted == []
    assert arena.ring.taken_bytes <= 2 * STEP


def full(size_bytes: int = 1024) -> Arena:
    arena = Arena(BEGIN + 4 * STEP)
    for _ in range(4 * STEP // size_bytes):
        arena.place(size_bytes)
    assert arena.evicted == []
    return arena


def test_the_oldest_gives_way() -> None:
    arena = full()
    arena.place(1024)
    arena.place(2048)
    assert arena.evicted == [0, 1, 2]


def test_what_is_used_has_a_second_chance() -> None:
    """One: if it was not used again, it gives way the next time."""
    arena = full()
    for number in (0, 1, 3):
        arena.there[number].used = True
    for _ in range(12):
        arena.place(1024)
    assert arena.evicted == [2, *range(4, 15)]
    for _ in range(3):
        arena.place(1024)
    assert arena.evicted[12:] == [15, 0, 1]


def test_no_more_than_so_many_are_skipped() -> None:
    arena = full(64)
    for record in arena.there.values():
        record.used = True
    arena.place(64)
    assert arena.evicted == [SKIPS_MAX]


def test_what_lies_behind_the_turn_stays() -> None:
    """A large record does not fit up to the end: what lies there is not in its way."""
    arena = Arena(BEGIN + 2 * STEP)
    for size_bytes in (3072, 3072, 1024):
        arena.place(size_bytes)
    arena.place(2048)
    assert arena.evicted == [0]
    arena.place(1024)
    assert arena.evicted == [0]
    arena.place(1024)
    assert arena.evicted == [0, 1]


def test_system_that_has_no_more() -> None:
    """What is there is used, and more is asked for again at each turn."""
    arena = Arena(BEGIN + 4 * STEP, limit=BEGIN + STEP)
    for _ in range(40):
        arena.place(1024)
    assert len(arena.there) == 4
    assert arena.ring.taken_bytes == STEP
    arena.limit = BEGIN + 4 * STEP
    for _ in range(40):
        arena.place(1024)
    assert len(arena.there) == 16
