"""`--version` of the commands in this package."""

from __future__ import annotations

import argparse
import sys
from typing import Any


class VersionAction(argparse.Action):
    """Prints the version, which is looked up only then, and exits."""

    def __init__(self, **declared: Any) -> None:
        super().__init__(**{**declared, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Called by argparse."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("gfcache")
        except PackageNotFoundError:
            found = "(not installed)"
        sys.stdout.write(f"{parser.prog} {found}\n")
        parser.exit()
