"""How many examples a property gets: what it asks for, scaled by the profile (`scripts/test --fast` runs a tenth)."""

from typing import Any

from hypothesis import settings

_USUAL = 100


def examples(count: int, **others: Any) -> settings:
    """Settings with so many examples where the profile has the usual hundred."""
    return settings(max_examples=max(1, count * settings().max_examples // _USUAL), **others)
