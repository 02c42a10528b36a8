"""shares: bounds, lines and turns with plain values; any history is in tests/stateful/test_origin_shares.py."""

from __future__ import annotations

from webproxy.origin.shares import Bound, Granted, LineFull, Queued, Shares, ShareSettings, SharesStats

SETTINGS = ShareSettings(connections_max=4, origin_connections_max=2, line_max=3, line_s=10.0)


def shares(settings: ShareSettings = SETTINGS) -> Shares[str]:
    return Shares(settings)


def filled() -> Shares[str]:
    """All connections are in use, two each for the origins A and B."""
    full = shares()
    for origin in "AABB":
        assert full.request(origin, f"{origin} in flight", 0.0) == Granted()
    return full


def wait(full: Shares[str], *entries: str) -> None:
    """Queue entries; the first letter of each is its origin."""
    for entry in entries:
        assert isinstance(full.request(entry[0], entry, 0.0), Queued)


def test_an_origin_has_its_own_bound() -> None:
    one = shares()
    assert [one.request("A", str(number), 5.0) for number in range(6)] == [
        Granted(),
        Granted(),
        Queued(15.0),
        Queued(15.0),
        Queued(15.0),
        LineFull(Bound.ORIGIN),
    ]
    assert one.request("B", "not affected", 5.0) == Granted()
    assert one.stats() == SharesStats(in_flight=3, waiting=3, origins=2)


def test_all_origins_have_a_bound_together() -> None:
    full = filled()
    wait(full, "C1", "C2", "C3")
    assert full.request("C", "C4", 0.0) == LineFull(Bound.TOTAL)
    assert full.stats() == SharesStats(in_flight=4, waiting=3, origins=3)


def test_without_a_line_nobody_waits_and_nothing_is_kept() -> None:
    none = shares(ShareSettings(connections_max=1, line_max=0))
    none.request("A", "1", 0.0)
    assert none.request("B", "2", 0.0) == LineFull(Bound.TOTAL)
    assert none.stats() == SharesStats(in_flight=1, waiting=0, origins=1)


def test_a_line_is_first_in_first_out() -> None:
    full = filled()
    wait(full, "A1", "A2", "A3")
    assert [full.release("A") for _ in range(5)] == ["A1", "A2", "A3", None, None]


def test_a_free_connection_goes_to_each_origin_in_turn() -> None:
    full = filled()
    wait(full, "C1", "C2", "C3", "D1", "D2", "E1")
    assert [full.release(origin) for origin in "AABB"] == ["C1", "D1", "E1", "C2"]
    assert full.release("C") == "D2", "D came before C's next turn"


def test_an_origin_at_its_own_bound_has_no_turn() -> None:
    full = filled()
    wait(full, "A1", "C1", "C2")
    assert full.release("B") == "C1"
    assert full.release("B") == "C2"
    assert full.release("C") is None, "A uses as many as it may"
    assert full.release("A") == "A1"


def test_a_release_below_the_total_bound_helps_the_same_origin() -> None:
    one = shares()
    for number in range(3):
        one.request("A", f"A{number}", 0.0)
    assert one.release("A") == "A2"
    assert [one.release("A"), one.release("A")] == [None, None]
    assert one.stats() == SharesStats(0, 0, 0)


def test_who_leaves_loses_no_place_of_others() -> None:
    full = filled()
    wait(full, "C1", "C2", "D1")
    assert full.leave("C1")
    assert not full.leave("C1"), "it is gone"
    assert not full.leave("A in flight"), "it is to be released instead"
    assert [full.release("A"), full.release("A")] == ["C2", "D1"]


def test_the_last_who_leaves_takes_the_turn_of_its_origin_along() -> None:
    full = filled()
    wait(full, "C1", "D1")
    full.leave("C1")
    assert full.release("A") == "D1"
    assert full.release("A") is None


def test_who_leaves_makes_room_in_the_line() -> None:
    full = filled()
    wait(full, "C1", "C2", "C3")
    full.leave("C2")
    wait(full, "C4")
    assert full.dismiss("C") == ["C1", "C3", "C4"]


def test_a_wait_ends_after_its_time() -> None:
    full = filled()
    assert full.next_expiry() is None
    full.request("C", "C1", 1.0)
    full.request("D", "D1", 2.0)
    full.request("C", "C2", 3.0)
    assert full.next_expiry() == 11.0
    assert full.expire(10.9) == []
    assert full.expire(12.0) == ["C1", "D1"]
    assert full.next_expiry() == 13.0
    assert full.release("A") == "C2", "who is not known to have waited too long is served"
    assert full.expire(99.0) == []


def test_the_line_of_a_failing_origin_is_dismissed() -> None:
    full = filled()
    wait(full, "C1", "D1", "C2")
    assert full.dismiss("C") == ["C1", "C2"]
    assert full.dismiss("C") == []
    assert full.release("A") == "D1"
    assert full.next_expiry() is None


def test_thousands_wait_and_leave() -> None:
    """Each call takes the same time however many wait: this is over in a moment, or it hangs."""
    many: Shares[int] = Shares(ShareSettings(line_max=100_000, line_s=10.0))
    for entry in range(60_000):
        many.request(f"origin {entry % 7}", entry, float(entry))
    for entry in range(59_999, 30_000, -1):
        assert many.leave(entry)
    waiting = many.stats().waiting
    assert len([many.release(f"origin {number % 7}") for number in range(256)]) == 256
    assert len(many.expire(1e9)) == waiting - 256
