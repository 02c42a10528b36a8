"""Entry: what one object takes of a budget."""

from simplecached.stores.entry import Entry


def test_cost_counts_body_and_metadata() -> None:
    """Metadata takes room as the body does; the key does not."""
    assert Entry(key=b"/" + b"k" * 100, size_bytes=10, version=1, metadata=b"abc").cost_bytes == 13
    assert Entry(key=b"/", size_bytes=0, version=1, invalidated=True).cost_bytes == 0
