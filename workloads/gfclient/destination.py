"""Maps request paths to files below one directory: nothing escapes it, and no short file ever has its final name.

Content is written to a hidden file in the same folder, which is renamed when complete, and otherwise removed.
"""

import os
import secrets
from contextlib import suppress
from types import TracebackType
from typing import Self

from workloads.gfclient.outcome import Failure, RequestError

_NAME_BYTES_MAX = 255
PARTIAL_PREFIX = ".gfclient-"


def relative_name(path: bytes) -> bytes:
    """Return the name, relative to the output directory, of the file for a request path.

    The path is used literally, without percent-decoding, so two paths never share a file. RequestError (UNUSABLE_NAME)
    for a path that ends in a slash or has an empty, `.`, `..` or over-long component.
    """
    name = path.removeprefix(b"/")
    for component in name.split(b"/"):
        if not component:
            raise _unusable(path, "has an empty component, which names no file")
        if component in (b".", b".."):
            raise _unusable(path, f"has a component {component.decode()!r}, which could leave the output directory")
        if len(component) > _NAME_BYTES_MAX:
            raise _unusable(path, f"has a component of {len(component)} bytes; a file name has at most 255")
    return name


class Destination:
    """The output directory; created by `open`, which raises OSError if that is impossible."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)
        self._root = os.fsencode(os.path.realpath(directory))

    def file_for(self, path: bytes) -> "PartialFile":
        """Return the unopened file for `path`; RequestError if its name cannot be used."""
        name = relative_name(path)
        return PartialFile(self._root, os.path.join(self._root, name))


class PartialFile:
    """A sink that becomes a file only by `commit`; always leave it as a context manager."""

    def __init__(self, root: bytes, final_name: bytes) -> None:
        self._root = root
        self._final_name = final_name
        self._partial_name: bytes | None = None
        self._fd = -1

    def begin(self, length: int) -> None:  # noqa: ARG002 - the declared length is not believed before it arrives
        """Create the hidden file and the folders it needs; RequestError(UNWRITABLE) with the system's reason."""
        folder = os.path.dirname(self._final_name)
        name = os.path.join(folder, f"{PARTIAL_PREFIX}{os.getpid()}-{secrets.token_hex(6)}".encode())
        try:
            self._refuse_outside(folder)  # before anything is created there: realpath() accepts missing components
            os.makedirs(folder, exist_ok=True)
            self._fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._unwritable(error) from error
        self._partial_name = name

    def write(self, piece: memoryview) -> None:
        """Append all of `piece`; RequestError(UNWRITABLE) when the disk refuses."""
        try:
            while piece:
                piece = piece[os.write(self._fd, piece) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def commit(self) -> None:
        """Give the file its final name, replacing an older one; RequestError(UNWRITABLE) leaves nothing behind."""
        assert self._partial_name is not None, "commit without begin"
        try:
            self._close()
            os.replace(self._partial_name, self._final_name)
        except OSError as error:
            raise self._unwritable(error) from error
        self._partial_name = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._close()
        finally:
            if self._partial_name is not None:
                with suppress(FileNotFoundError):
                    os.unlink(self._partial_name)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _refuse_outside(self, folder: bytes) -> None:
        """Refuse a folder that a symbolic link leads out of the output directory."""
        real = os.path.realpath(folder)
        if real != self._root and not real.startswith(self._root.rstrip(b"/") + b"/"):
            shown = os.fsdecode(folder)
            raise RequestError(Failure.UNUSABLE_NAME, f"{shown} leads out of the output directory")

    def _unwritable(self, error: OSError) -> RequestError:
        return RequestError(Failure.UNWRITABLE, f"{os.fsdecode(self._final_name)}: {error.strerror}")


def _unusable(path: bytes, why: str) -> RequestError:
    return RequestError(Failure.UNUSABLE_NAME, f"{os.fsdecode(path)} {why}")
