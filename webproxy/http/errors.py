"""HttpError: a client's message violates HTTP; with the status to answer, and the reason."""

from __future__ import annotations


class HttpError(Exception):
    """The request is refused with `status` and the connection closed: where the next request starts is unknown."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text
