"""HttpError: a client's message breaks a rule of HTTP; the status that the client is told, and why."""

from __future__ import annotations


class HttpError(Exception):
    """The request is refused with `status`, and the connection closed: where its next request begins is not known."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text
