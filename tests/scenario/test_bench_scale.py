"""bench --scale over a store of few objects: figures may miss their targets, answers may not be wrong."""

import json
import os
import subprocess
import sys

from scripts.benchmark.scale_rows import LEFT, TARGETS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WATCHDOG_S = 110


def test_it_measures_every_row_and_nothing_purged_is_served(tmp_path):
    command = [sys.executable, "-m", "scripts.benchmark", "--scale", "2000", "--json"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=WATCHDOG_S, check=False
    )
    rows = {row["title"]: row for row in json.loads(ended.stdout)["rows"]}
    assert list(rows) == list(TARGETS)
    assert rows[LEFT]["value"] == 0
    assert ended.returncode == (0 if all(row["verdict"] in ("ok", None) for row in rows.values()) else 1)
    assert list(tmp_path.iterdir()) == []
