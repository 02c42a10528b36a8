"""Does the documents' table hold a row for each setting, with everything an operator needs?"""

from __future__ import annotations

from dataclasses import dataclass

from shmchannel.daemonkit.settings import option, settings_table
from tests.unit.shmchannel.daemonkit.sample_config import SampleConfig


def test_one_row_for_each_setting() -> None:
    header, rule, *rows = settings_table(SampleConfig, "SAMPLE_D_").splitlines()
    assert header == "| name | flag | environment | default | allowed | meaning |"
    assert rule == "| --- | --- | --- | --- | --- | --- |"
    assert rows[0] == "| `port` | `-p`, `--port` | `SAMPLE_D_PORT` | 8000 | 0 to 65535 | port to listen on |"
    assert rows[1] == (
        "| `block_bytes` | `-z` | `SAMPLE_D_BLOCK_BYTES` | 65536 (64k) | 512 to 4611686018427387904 bytes"
        " | size of a block |"
    )
    assert len(rows) == 8


def test_bars_in_a_meaning_do_not_split_the_row() -> None:
    @dataclass(frozen=True)
    class Barred:
        form: str = option("a", "a|b")

    assert settings_table(Barred, "X_").splitlines()[-1].endswith(r"| a\|b |")
