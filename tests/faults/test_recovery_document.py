"""docs/recovery.md has one row for each kill point, in the order of the list."""

from __future__ import annotations

import re
from pathlib import Path

from shmchannel.faults import KILL_POINTS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "recovery.md"
CELLS = 4


def test_one_row_for_each_kill_point() -> None:
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` (\|.*\|)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(point for point, _ in rows) == KILL_POINTS
    for point, cells in rows:
        texts = [cell.strip() for cell in cells.strip("|").split("|")]
        assert len(texts) == CELLS - 1, point
        assert all(texts), f"{point} has an empty cell"
