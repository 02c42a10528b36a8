"""The files of a real origin, with the proxy before it, and how clients are run there."""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Container, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.support.contents import body_of
from tests.support.daemons import DaemonProcess
from tests.support.nginx import Nginx
from tests.support.waiting import WATCHDOG_S, wait_until

_CLIENT_WATCHDOG_S = 2 * WATCHDOG_S


@dataclass(frozen=True, slots=True)
class Site:
    """`files` is what nginx serves, `proxy` is before it."""

    files: Path
    nginx: Nginx
    proxy: DaemonProcess

    @property
    def url(self) -> str:
        """The root as a client of the proxy names it."""
        return f"http://127.0.0.1:{self.proxy.port}"

    def add(self, path: str, body: bytes) -> bytes:
        """Make the file that `path` names; returns its body."""
        place = self.files / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
        return body

    def add_random(self, path: str, size: int) -> bytes:
        """Make a file that nothing compresses; returns its body."""
        return self.add(path, body_of(path, size))

    def wait_stored(self, target: str) -> None:
        """As wait_stored()."""
        wait_stored(self.proxy.port, target)


def wait_stored(port: int, target: str) -> None:
    """Wait until the cache has a path, or a forward proxy's URL: a client has the last byte a moment before that."""

    def is_stored() -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WATCHDOG_S)) as connection:
            connection.request("GET", target, headers={"Cache-Control": "only-if-cached, max-stale"})
            return connection.getresponse().status != 504

    wait_until(is_stored, what=f"{target} in the cache")


def run_client(
    command: Sequence[str], home: Path, *, given: bytes = b"", exit_codes: Container[int] = (0,)
) -> subprocess.CompletedProcess[bytes]:
    """Run a client program in `home`, without the user's settings and proxies; fails on any other exit code."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    result = subprocess.run(
        command,
        cwd=home,
        input=given,
        capture_output=True,
        timeout=_CLIENT_WATCHDOG_S,
        env={**kept, "HOME": str(home), "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert result.returncode in exit_codes, (command, result.returncode, result.stdout[-2000:], result.stderr[-2000:])
    return result
