"""What becomes of an operator's wishes, told to other processes by the announcement of this one.

A signal has no answer. So the announcement says how many wishes have been answered and how the last one was: who wants
to know looks before and after (`steering_command.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from shmchannel.registry import Presence

SUPERVISOR = "supervisor"
"""The role of a supervisor."""
# Names of facts.
SLOT, CACHES, ANSWERED, RESULT = "slot", "caches", "wishes answered", "result"

_REFUSED = "refused: "
_RESULT_CHARACTERS_MAX = 400


def is_refusal(result: str) -> bool:
    """Return whether the result of a wish is that it was refused."""
    return result.startswith(_REFUSED)


class Steering:
    """The answers of one process; belongs to its main thread."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self.address = ""
        """Where this process listens; a change is announced with the next result."""
        self._facts: dict[str, str] = {}
        self._answered = 0

    def announce(self, address: str, facts: Mapping[str, str]) -> None:
        """Announce this process, which is ready."""
        self.address, self._facts = address, {**self._facts, **facts}
        self._presence.announce(address=address, facts=self._facts)

    def fulfilled(self, result: str, **facts: str) -> None:
        """A wish was fulfilled; `facts` have changed by that."""
        self._answer(result, facts)

    def refused(self, reason: str) -> None:
        """A wish was refused, and nothing has changed."""
        self._answer(_REFUSED + reason, {})

    def _answer(self, result: str, facts: Mapping[str, str]) -> None:
        self._answered += 1
        self._facts |= {ANSWERED: str(self._answered), RESULT: result[:_RESULT_CHARACTERS_MAX], **facts}
        self._presence.close()
        self._presence.announce(address=self.address, facts=self._facts)
