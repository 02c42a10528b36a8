"""Record: one object as a store knows it."""

from simplecached.stores.record import Record, State


def test_cost_counts_body_and_metadata() -> None:
    """Metadata takes room as the body does; the key does not."""
    assert Record(b"/" + b"k" * 100, 10, b"abc").cost_bytes == 13
    assert Record(b"/", 0, b"", invalidated=True).cost_bytes == 0


def test_a_record_begins_as_a_write_and_equals_itself_only() -> None:
    first, second = Record(b"/key", 0, b""), Record(b"/key", 0, b"")
    assert first.state is State.WRITING
    assert (first.version, first.removed, first.invalidated) == (0, False, False)
    assert len({first, second, first}) == 2
