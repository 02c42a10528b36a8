"""Generates the tables of settings in `docs/operations.md` from the declarations. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmchannel.daemonkit.declaration import settings_of
from shmchannel.daemonkit.parsing import allowed_text, format_value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from shmchannel.daemonkit.declaration import Setting

_COLUMNS = ("name", "flag", "environment", "default", "allowed", "meaning")
_KEY_COLUMNS = ("key", "default", "allowed", "meaning")


def settings_table(config_type: type[DataclassInstance], env_prefix: str | None) -> str:
    """Return a Markdown table with one row per setting.

    `env_prefix` is `environment_prefix(prog)`, or None for the keys of a table in the file, which have no other
    source.
    """
    columns = _KEY_COLUMNS if env_prefix is None else _COLUMNS
    rows = [_row(setting, env_prefix) for setting in settings_of(config_type)]
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(setting: Setting, env_prefix: str | None) -> tuple[str, ...]:
    sources: tuple[str, ...] = ()
    if env_prefix is not None:
        variable = "" if setting.columns else f"`{setting.environment_name(env_prefix)}`"
        sources = (", ".join(f"`{flag}`" for flag in setting.flags), variable)
    return (
        f"`{setting.name}`",
        *sources,
        format_value(setting, setting.default),
        allowed_text(setting),
        setting.meaning.replace("|", "\\|"),
    )
