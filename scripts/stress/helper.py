"""Processes beside the driver that load, measure or serve: one JSON line asks, one answers.

They are processes of their own so that the interpreter lock of a thousand parties does not show in the latency of hits.
A helper ends at the end of its input, and so with a driver that was killed.
"""

import asyncio
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeAlias

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_ANSWER_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 5.0

Answer: TypeAlias = dict[str, Any]


class HelperFailed(Exception):
    """A helper ended or did not answer in time."""


class Helper:
    """One helper process; a context manager that ends it. Not for several threads at once."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the driver, which ends its helpers in order
            env={**os.environ, "PYTHONPATH": _ROOT},
        )

    def ask(self, **command: object) -> Answer:
        """Send one command and block until its answer.

        Raises:
            HelperFailed: there was none in time.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise HelperFailed(f"{self._name} has ended") from error
        return self._answer(_ANSWER_TIMEOUT_S)

    def _answer(self, timeout_s: float) -> Answer:
        assert self._process.stdout is not None
        give_up = time.monotonic() + timeout_s
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, give_up - time.monotonic())):
                    raise HelperFailed(f"{self._name} did not answer within {timeout_s:g} s")
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise HelperFailed(f"{self._name} has ended")
                line += piece
        answer: Answer = json.loads(line)
        return answer

    def end(self) -> None:
        """End it, by its pid if need be; may be called twice."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()


async def answer_lines(handle: Callable[[Answer], Awaitable[Answer]]) -> None:
    """In a helper: answer each command of the input, one after the other, until it ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await handle(json.loads(line))), flush=True)
