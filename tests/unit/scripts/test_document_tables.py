"""document_tables: does it put tables where they belong, and nowhere else?"""

import pytest

from scripts.document_tables import PartMissing, replace_part, with_tables

_PARTS = (
    *("settings: simplecached", "settings: webproxy", "settings: webproxy origin", "exit codes"),
    *("metrics: webproxy", "metrics: simplecached", "metrics: processes"),
)
_EMPTY = "".join(f"before\n<!-- {name} -->\nold\n<!-- /{name} -->\nafter\n" for name in _PARTS)


def test_only_the_part_changes() -> None:
    """The text around the markers stays, and content is taken as it is."""
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert replace_part(text, "x", "\\1 new\n") == "a\n<!-- x -->\n\\1 new\n<!-- /x -->\nb\n"


@pytest.mark.parametrize("text", ["", "<!-- x -->\n", "<!-- x -->\n<!-- /x -->\n" * 2])
def test_a_part_has_one_place(text: str) -> None:
    """None or two places are a mistake in the document."""
    with pytest.raises(PartMissing, match="'x'"):
        replace_part(text, "x", "new\n")


def test_every_table_is_filled_and_writing_twice_changes_nothing() -> None:
    """The tables are those of the declarations, and stable."""
    text = with_tables(_EMPTY)
    assert "\nold\n" not in text
    assert text.count("before\n") == text.count("after\n") == len(_PARTS)
    assert "| `gfcache_proxy_fetches_total` | counter | `result` |" in text
    for wanted in ("`WEBPROXY_PORT`", "`SIMPLECACHED_STORE_BYTES`", "| `ca_file` |", "| 73 | LOCK_HELD |"):
        assert wanted in text
    assert with_tables(text) == text
