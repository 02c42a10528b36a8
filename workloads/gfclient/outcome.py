"""PURE: the outcome of one request, and every way in which it can fail.

A failed request is a value, because both commands count failures; `RequestError` only travels from the place that
notices the failure to the one that creates the `Outcome`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from webproxy.getfile import Status, Violation


class Failure(StrEnum):
    """Failures that are not a violation of the protocol; those are named by `webproxy.getfile.Violation`."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection-lost"
    SHORT_BODY = "short-body"
    FILE_NOT_FOUND = "file-not-found"
    SERVER_ERROR = "server-error"
    REFUSED_AS_INVALID = "refused-as-invalid"
    UNUSABLE_NAME = "unusable-name"
    UNWRITABLE = "unwritable"
    CANCELLED = "cancelled"


FailureKind: TypeAlias = Failure | Violation

REFUSALS = {
    Status.FILE_NOT_FOUND: Failure.FILE_NOT_FOUND,
    Status.ERROR: Failure.SERVER_ERROR,
    Status.INVALID: Failure.REFUSED_AS_INVALID,
}

_REMEDIES: dict[FailureKind, str] = {
    Failure.CONNECT: "check that the server runs and that -s and -p name it",
    Failure.TIMEOUT: "raise --timeout, or find out why the server stalls",
    Failure.CONNECTION_LOST: "check the server's log, then try again",
    Failure.SHORT_BODY: "the server could not finish the content; try again",
    Failure.FILE_NOT_FOUND: "correct the path, or add the object to the server",
    Failure.SERVER_ERROR: "the server or its origin failed or is overloaded; check its log, then try again",
    Failure.REFUSED_AS_INVALID: "the server does not accept this request; check the path",
    Failure.UNUSABLE_NAME: "this path cannot name a file below the output directory; use 'measure' for it",
    Failure.UNWRITABLE: "make room in the output directory, or name a writable one with -o",
    Failure.CANCELLED: "run it again",
    Violation.EMPTY_REPLY: "the server closed without a reply; check its log",
    Violation.EXCESS_BYTES: "the server sent more than it declared: do not trust its content",
}
_VIOLATION_REMEDY = "the server there does not speak GETFILE; check -s and -p"


class RequestError(Exception):
    """One request failed; `kind` is counted, `detail` describes it to a person."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one request: `failure` is None exactly if the status is OK and every byte arrived.

    `status` is None if no complete header arrived; `received_bytes` counts content only.
    """

    path: bytes
    status: Status | None
    received_bytes: int
    failure: FailureKind | None = None
    detail: str = ""

    @property
    def served(self) -> bool:
        """True when the content is complete."""
        return self.failure is None


def remedy_for(kind: FailureKind) -> str:
    """Return what a person can do about a failure of this kind."""
    return _REMEDIES.get(kind, _VIOLATION_REMEDY)
