"""curl as a client: its words in, the answer's status, fields and body out."""

from __future__ import annotations

import email.message
import email.parser
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from tests.clients.site import run_client
from tests.support.waiting import wait_until

_NOT_STORED = 504  # the answer to only-if-cached then


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer that curl got; fields are found whatever their case."""

    status: int
    fields: email.message.Message
    body: bytes

    @property
    def cache_status(self) -> str:
        """The proxy's member of Cache-Status."""
        return self.fields.get("Cache-Status", "")

    @property
    def is_hit(self) -> bool:
        """Whether it came from the cache, without a word to the origin."""
        return "; hit" in self.cache_status and "Age" in self.fields


class Curl:
    """Runs curl in a folder; `-q` keeps it from reading the user's settings."""

    def __init__(self, program: str, home: Path) -> None:
        self._program = program
        self.home = home

    def __call__(self, *words: str, given: bytes = b"", exit_codes: Container[int] = (0,)) -> Answer:
        """One transfer, its body to a file; `given` is its standard input.

        It returns when the cache has what the proxy says it stores: the client has the last byte a moment before, and
        who asks within that moment gets the same answer, not as a hit.
        """
        answer = self._ask(*words, given=given, exit_codes=exit_codes)
        if exit_codes == (0,) and "; stored" in answer.cache_status and "fwd-status=304" not in answer.cache_status:
            asked = ("-H", "Cache-Control: only-if-cached, max-stale", *words)
            wait_until(lambda: self._ask(*asked).status != _NOT_STORED, what=f"{words[-1]} in the cache")
        return answer

    def _ask(self, *words: str, given: bytes = b"", exit_codes: Container[int] = (0,)) -> Answer:
        head, body = self.home / "answer.head", self.home / "answer.body"
        head.write_bytes(b"")
        body.write_bytes(b"")
        self.run("-D", str(head), "-o", str(body), *words, given=given, exit_codes=exit_codes)
        *_, last = (block for block in head.read_bytes().decode("latin-1").split("\r\n\r\n") if block)
        first, _, fields = last.partition("\r\n")
        return Answer(int(first.split()[1]), email.parser.HeaderParser().parsestr(fields), body.read_bytes())

    def run(self, *words: str, given: bytes = b"", exit_codes: Container[int] = (0,)) -> str:
        """Run it with these words only; returns what it printed."""
        command = [self._program, "-q", "-sS", *words]
        return run_client(command, self.home, given=given, exit_codes=exit_codes).stdout.decode()
