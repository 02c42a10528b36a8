"""Record: one object as a store knows it."""

from simplecached.stores.entry import Entry
from simplecached.stores.record import Record, State


def test_the_facts_follow_what_changes() -> None:
    record = Record(b"/key", 10, b"abc", version=7)
    assert record.entry == Entry(key=b"/key", size_bytes=10, version=7, metadata=b"abc")
    record.metadata, record.invalidated = b"longer", True
    assert record.entry == Entry(key=b"/key", size_bytes=10, version=7, metadata=b"longer", invalidated=True)
    assert record.cost_bytes == record.entry.cost_bytes == 16


def test_a_record_begins_as_a_write_and_equals_itself_only() -> None:
    first, second = Record(b"/key", 0, b""), Record(b"/key", 0, b"")
    assert first.state is State.WRITING
    assert (first.version, first.removed, first.invalidated) == (0, False, False)
    assert len({first, second, first}) == 2
