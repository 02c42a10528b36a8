"""PURE: numbers as people read them: sizes, times, shares, rates and counts; `-` for what is not known."""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN = "-"
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LEFT_EIGHTHS = " ▏▎▍▌▋▊▉█"


def size(count: float | None) -> str:
    """Bytes in powers of a thousand: `1.5 MB`."""
    if count is None:
        return UNKNOWN
    for unit in _SIZES[:-1]:
        if count < 999.5:
            return f"{_short(count)} {unit}"
        count /= 1000
    return f"{_short(count)} {_SIZES[-1]}"


def duration(seconds: float | None) -> str:
    """A time in the unit that suits it: `12 µs`, `3.1 ms`, `45 s`, `2 h 05 min`, `3 d 4 h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.0009995:
        return f"{_short(seconds * 1e6)} µs"
    if seconds < 0.9995:
        return f"{_short(seconds * 1e3)} ms"
    if seconds < 99.5:
        return f"{_short(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def share(part: float | None) -> str:
    """A share in percent: `97.3 %`; 100 % is nothing less than all."""
    if part is None:
        return UNKNOWN
    return f"{min(part * 100, 99.9) if part < 1 else part * 100:.1f} %"


def rate(per_s: float | None) -> str:
    """How often in a second: `1,234/s`."""
    return UNKNOWN if per_s is None else f"{_short(per_s)}/s"


def count(number: float | None) -> str:
    """A whole number: `12,345`."""
    return UNKNOWN if number is None else f"{round(number):,}"


def _short(number: float) -> str:
    """Three digits, or all of a large number."""
    if number >= 99.5 or number == 0:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 9.95 else f"{number:.2f}".removesuffix("0").removesuffix(".0")


def bar(part: float, width: int) -> str:
    """A bar of a share of `width` characters, in eighths of a character; never nothing for more than nothing."""
    eighths = round(max(0.0, min(1.0, part)) * width * 8)
    eighths = max(eighths, 1) if part > 0 else eighths
    full, rest = divmod(eighths, 8)
    return "█" * full + (_LEFT_EIGHTHS[rest] if rest else "")


def level(part: float) -> str:
    """One character whose height is a share; never empty for more than nothing."""
    eighths = round(max(0.0, min(1.0, part)) * 8)
    return _EIGHTHS[max(eighths, 1) if part > 0 else 0]


def spark(values: Sequence[float | None], width: int) -> str:
    """The last `width` values as heights beside each other, the largest of them full."""
    shown = [value or 0.0 for value in values[-width:]] if width > 0 else []
    most = max(shown, default=0.0)
    return "".join(level(value / most) if most > 0 else " " for value in shown)
