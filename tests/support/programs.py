"""Programs of the system that some tests need: absent on a user's machine they skip, in CI they fail."""

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest

_SERVER_PATH = "/usr/sbin:/usr/local/sbin"  # where servers are, which a user's PATH may leave out


def require_program(name: str) -> str:
    """Return where the program is; without it skip the test, or fail it when the variable CI is set."""
    return shutil.which(name) or shutil.which(name, path=_SERVER_PATH) or _missing(f"the program {name}")


def require_module(name: str) -> str:
    """Return the name of a module that `python -m` can run; without it as require_program()."""
    return name if importlib.util.find_spec(name) is not None else _missing(f"the Python module {name}")


def skip_for_want_of(what: str) -> NoReturn:
    """Skip the test and say what it lacks; fail it when the variable CI is set."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(what)
    pytest.skip(what)


def _missing(what: str) -> NoReturn:
    skip_for_want_of(f"{what} is not installed: .ci/run installs it")
