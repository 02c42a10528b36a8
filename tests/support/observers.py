"""An observer of requests for tests."""

from __future__ import annotations

from webproxy.telemetry.requests import RequestRecord


class Recording:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def ended(self, record: RequestRecord) -> None:
        """As RequestObserver.ended()."""
        self.records.append(record)

    @property
    def only(self) -> RequestRecord:
        """The one record there is; it is complete."""
        (record,) = self.records
        assert record.client == b"127.0.0.1"
        assert 0 < record.began_ns <= record.ended_ns
        assert record.total_ns >= record.until_first_byte_ns >= 0
        return record
