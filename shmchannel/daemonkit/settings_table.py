"""Writes the table of settings that stands in `docs/operations.md`, from the declarations. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmchannel.daemonkit.declaration import settings_of
from shmchannel.daemonkit.parsing import allowed_text, format_value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from shmchannel.daemonkit.declaration import Setting

_COLUMNS = ("name", "flag", "environment", "default", "allowed", "meaning")


def settings_table(config_type: type[DataclassInstance], env_prefix: str) -> str:
    """Return a Markdown table with one row for each setting; `env_prefix` is `environment_prefix(prog)`."""
    rows = [_row(setting, env_prefix) for setting in settings_of(config_type)]
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(setting: Setting, env_prefix: str) -> tuple[str, ...]:
    flags = ", ".join(f"`{flag}`" for flag in setting.flags)
    return (
        f"`{setting.name}`",
        flags,
        f"`{setting.environment_name(env_prefix)}`",
        format_value(setting, setting.default),
        allowed_text(setting),
        setting.meaning.replace("|", "\\|"),
    )
