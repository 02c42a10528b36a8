"""fields: lines and blocks are two forms of one value."""

from __future__ import annotations

import pytest

from webproxy.http.fields import Fields

LINES = ((b"Date", b"today"), (b"Vary", b"a"), (b"X-Empty", b""), (b"vary", b"b: c"))
BLOCK = b"Date: today\r\nVary: a\r\nX-Empty: \r\nvary: b: c\r\n"


def test_a_block_is_taken_apart_into_its_lines() -> None:
    parsed = Fields.parse_block(BLOCK)
    assert parsed.lines == LINES
    assert len(parsed) == 4
    assert list(parsed) == list(LINES)


def test_the_block_of_a_parsed_block_is_the_very_same() -> None:
    assert Fields.parse_block(BLOCK).block is BLOCK


def test_lines_make_a_block() -> None:
    assert Fields(LINES).block == BLOCK


def test_both_forms_are_equal() -> None:
    assert Fields.parse_block(BLOCK) == Fields(LINES)
    assert hash(Fields.parse_block(BLOCK)) == hash(Fields(LINES))
    assert Fields.parse_block(BLOCK) != Fields(LINES[:3])
    assert repr(Fields.parse_block(b"A: b\r\n")) == "Fields(((b'A', b'b'),))"


def test_an_empty_block_has_no_lines() -> None:
    assert Fields.parse_block(b"").lines == ()
    assert Fields().block == b""


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"Date: today", id="no-line-end"),
        pytest.param(b"Date: today\n", id="bare-LF"),
        pytest.param(b"Date: to\rday\r\n", id="bare-CR"),
        pytest.param(b"Date: to\0day\r\n", id="NUL"),
        pytest.param(b"Date today\r\n", id="no-colon"),
        pytest.param(b"Date:today\r\n", id="no-blank"),
        pytest.param(b"Date : today\r\n", id="blank-before-the-colon"),
        pytest.param(b": today\r\n", id="no-name"),
        pytest.param(b"Da(te: today\r\n", id="name-is-no-token"),
        pytest.param(b"Date: today\r\n folded: x\r\n", id="folded"),
        pytest.param(b"Date: today\r\n\r\n", id="the-empty-line-too"),
        pytest.param(b"\r\n", id="nothing-but-the-empty-line"),
    ],
)
def test_what_is_no_block_is_refused(block: bytes) -> None:
    with pytest.raises(ValueError, match="not a block"):
        Fields.parse_block(block)


@pytest.mark.parametrize("made", [Fields(LINES), Fields.parse_block(BLOCK)], ids=["lines", "block"])
class TestLookUp:
    """The same for both forms."""

    def test_names_are_compared_without_case(self, made: Fields) -> None:
        assert made.get(b"date") == b"today"
        assert b"date" in made
        assert b"expires" not in made
        assert list(made.names()) == [b"date", b"vary", b"x-empty"]

    def test_lines_of_one_name_are_joined(self, made: Fields) -> None:
        assert made.get(b"vary") == b"a, b: c"
        assert made.get_all(b"vary") == [b"a", b"b: c"]
        assert made.get_all(b"date") == [b"today"]

    def test_empty_and_missing_differ(self, made: Fields) -> None:
        assert made.get(b"x-empty") == b""
        assert made.get(b"expires") is None
        assert made.get_all(b"expires") == []

    def test_changes_make_new_values(self, made: Fields) -> None:
        assert made.without([b"vary"]).lines == (LINES[0], LINES[2])
        assert made.with_line(b"Age", b"3").lines == (*LINES, (b"Age", b"3"))
        assert made.replaced(b"Vary", b"*").block == b"Date: today\r\nX-Empty: \r\nVary: *\r\n"
        assert made.lines == LINES
