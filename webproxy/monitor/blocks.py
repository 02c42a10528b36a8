"""PURE: what a page consists of, tables and lines of text with tones, and how it is printed without colours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain
from typing import NamedTuple


class Tone(Enum):
    """What a text means to its reader; the screen gives each a colour."""

    PLAIN = auto()
    DIM = auto()
    GOOD = auto()
    WARNING = auto()
    BAD = auto()
    STRONG = auto()


class Cell(NamedTuple):
    """A piece of text."""

    text: str
    tone: Tone = Tone.PLAIN


class Column(NamedTuple):
    """A column of a table; numbers stand at its right."""

    title: str
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title; `empty` is said if there is none."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    empty: str = "none"


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text under a title."""

    title: str
    lines: tuple[tuple[Cell, ...], ...]


Block = Table | Lines


def as_text(blocks: Iterable[Block]) -> str:
    """The blocks without colours, an empty line between them; each line ends with a line end."""
    return "\n".join("".join(f"{line.rstrip()}\n" for line in _printed(block)) for block in blocks)


def _printed(block: Block) -> list[str]:
    head = [block.title] if block.title else []
    if isinstance(block, Lines):
        return head + ["".join(cell.text for cell in line) for line in block.lines]
    if not block.rows:
        return [*head, f"  {block.empty}"]
    texts = [[column.title for column in block.columns], *([cell.text for cell in row] for row in block.rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    sides = [str.rjust if column.is_number else str.ljust for column in block.columns]
    return head + [
        "  " + "  ".join(side(text, width) for side, text, width in zip(sides, row, widths, strict=True))
        for row in texts
    ]


def shown_text(text: str) -> str:
    """A text of another process without what would move the cursor or colour the screen."""
    return "".join(character if character.isprintable() else "?" for character in text)


def plain_cells(*texts: str) -> tuple[Cell, ...]:
    """A row without tones."""
    return tuple(map(Cell, texts))


def joined(*rows: Iterable[Cell]) -> tuple[Cell, ...]:
    """Cells of several rows as one."""
    return tuple(chain.from_iterable(rows))
