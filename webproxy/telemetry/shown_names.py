"""PURE: the names under which requests are shown to operators: of bounded length, printable, without what is secret."""

from __future__ import annotations

import re
from typing import Final

PATH_CHARACTERS_MAX: Final = 128
_CUT: Final = "…"
_is_printable = re.compile(rb"[!-~]*+").fullmatch


def shown_path(target: bytes) -> str:
    """A request's target without query, fragment and credentials, of a bounded length; an absolute one with its host.

    The query is left out because it can carry tokens. What is not printable ASCII is shown as `?`.
    """
    path = target.partition(b"?")[0].partition(b"#")[0]
    scheme, separator, rest = path.partition(b"://")
    if separator and b"/" not in scheme:
        authority, slash, below = rest.partition(b"/")
        path = scheme + separator + authority.rpartition(b"@")[2] + slash + below
    elif not path.startswith(b"/"):
        path = b"/" + path.rpartition(b"@")[2]
    if len(path) <= PATH_CHARACTERS_MAX and _is_printable(path):  # nearly always
        return path.decode("ascii")
    text = "".join(chr(byte) if 0x21 <= byte < 0x7F else "?" for byte in path[: PATH_CHARACTERS_MAX + 1])
    return text if len(text) <= PATH_CHARACTERS_MAX else text[: PATH_CHARACTERS_MAX - 1] + _CUT
