"""Deadline: a point in time that only comes closer."""

from time import monotonic_ns

from shmchannel.deadline import PEER_CHECK_SECONDS, Deadline


def test_future_and_past() -> None:
    before = monotonic_ns()
    future, past = Deadline.after(1000.0), Deadline(before)
    assert before + 1000 * 10**9 <= future.expires_ns <= monotonic_ns() + 1000 * 10**9
    assert not future.expired
    assert 0 < future.remaining() <= 1000.0
    assert past.expired
    assert past.remaining() == 0.0


def test_slices_are_cut_at_the_end() -> None:
    future, past = Deadline.after(1000.0), Deadline(1)
    assert future.slice() == PEER_CHECK_SECONDS
    assert future.slice(0.5) == 0.5
    assert past.slice() == 0.0


def test_sooner() -> None:
    near, far = Deadline.after(100.0), Deadline.after(1000.0)
    assert near.sooner(1000.0) is near
    assert far.expires_ns > far.sooner(100.0).expires_ns >= near.expires_ns
    assert Deadline(0).sooner(100.0).expires_ns == 0


def test_repr_says_what_is_left() -> None:
    assert repr(Deadline(0)) == "Deadline(0.000 s left)"
