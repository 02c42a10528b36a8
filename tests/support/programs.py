"""Programs of the system that some tests need: absent on a user's machine they skip, in CI they fail."""

import os
import shutil

import pytest

_SERVER_PATH = "/usr/sbin:/usr/local/sbin"  # where servers are, which a user's PATH may leave out


def require_program(name: str) -> str:
    """Return where the program is; without it skip the test, or fail it when the variable CI is set."""
    found = shutil.which(name) or shutil.which(name, path=_SERVER_PATH)
    if found is not None:
        return found
    text = f"the program {name} is not installed"
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{text}: .ci/run must install it")
    pytest.skip(text)
