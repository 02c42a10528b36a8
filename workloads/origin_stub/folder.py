"""A folder as an origin: paths to routes for the files below it."""

import os
import stat
from dataclasses import replace
from email.utils import formatdate
from urllib.parse import unquote_to_bytes

from workloads.origin_stub.route import Route, pairs_of


class Folder:
    """Answers for the regular files below `root`, each with the behaviour of `template`."""

    def __init__(self, root: str, template: Route) -> None:
        self._root = os.path.realpath(root)
        self._template = template
        if not os.path.isdir(self._root):
            raise NotADirectoryError(f"{root} is not a directory")

    def route_for(self, path: str) -> Route | None:
        """Return the route for a request path, None when it names no regular file below the root."""
        decoded = os.fsdecode(unquote_to_bytes(path.encode("latin-1")))
        if "\0" in decoded:
            return None
        name = os.path.realpath(os.path.join(self._root, decoded.lstrip("/")))
        if not name.startswith(self._root.rstrip("/") + "/"):
            return None
        try:
            found = os.stat(name)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        given = pairs_of(self._template.headers)
        names = {name.lower() for name, _ in given}
        own = [
            ("ETag", f'"{found.st_size:x}-{found.st_mtime_ns:x}"'),
            ("Last-Modified", formatdate(found.st_mtime, usegmt=True)),
        ]
        headers = [pair for pair in own if pair[0].lower() not in names] + given
        return replace(self._template, file_name=name, headers=headers)
