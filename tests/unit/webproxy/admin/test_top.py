"""What is missed most, heaviest first and no more than can be shown."""

from __future__ import annotations

from shmchannel.stats_pages import OTHER
from webproxy.admin.top import SHOWN_MAX, Client, Missed, top_clients, top_missed


def test_the_most_frequent_come_first_and_others_are_no_path() -> None:
    requests = {("/a",): 1.0, ("/b",): 3.0, ("/c",): 3.0, ("/gone",): 0.0, (OTHER,): 90.0}
    found = top_missed(requests, {("/b",): 50.0})
    assert found[0] == Missed(path="/b", requests=3, sent_bytes=50)
    assert [missed.path for missed in found] == ["/b", "/c", "/a"]


def test_no_more_than_can_be_shown() -> None:
    found = top_missed({(f"/{number}",): float(number) for number in range(100)}, {})
    assert len(found) == SHOWN_MAX
    assert found[0].path == "/99"


def test_the_clients_that_got_most() -> None:
    one, two, other = ("192.0.2.1",), ("192.0.2.2",), (OTHER,)
    found = top_clients({one: 9, two: 1, other: 50}, {one: 10, two: 70, other: 900}, {one: 8}, {two: 60})
    assert found == (
        Client(client=two[0], requests=1, sent_bytes=70, saved_requests=0, saved_bytes=60),
        Client(client=one[0], requests=9, sent_bytes=10, saved_requests=8, saved_bytes=0),
    )
