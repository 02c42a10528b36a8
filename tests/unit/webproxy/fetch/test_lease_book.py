"""LeaseBook: what others are told of a lease, at each moment between the question and the end of the fetch."""

from __future__ import annotations

import pytest

from webproxy.fetch.lease_book import UNSHARED_MAX, LeaseBook, Standing

KEY, FETCH, OTHER = b"http /x\0", "a fetch", "another fetch"


@pytest.fixture
def book() -> LeaseBook[str]:
    return LeaseBook("gf-1-0000000a")


def test_a_lease_is_awaited_while_a_request_asks(book: LeaseBook[str]) -> None:
    woken: list[str] = []
    assert book.find(7, KEY) is Standing.GONE
    assert not book.ends(KEY).subscribe(lambda: woken.append("too late"))
    first, second = book.asking(KEY), book.asking(KEY)
    assert (book.find(7, KEY), book.find(7, b"http /y\0")) == (Standing.AWAITED, Standing.GONE)
    assert book.ends(KEY).subscribe(lambda: woken.append("ended"))
    first.end()
    first.end()
    assert (book.find(7, KEY), woken) == (Standing.AWAITED, [])
    second.end()
    assert (book.find(7, KEY), woken) == (Standing.GONE, ["ended"])


def test_who_waits_is_told_of_the_fetch(book: LeaseBook[str]) -> None:
    woken: list[str] = []
    asking = book.asking(KEY)
    assert book.ends(KEY).subscribe(lambda: woken.append("held"))
    tell = book.hold(7, KEY, FETCH)
    assert not woken, "the caller has a lock"
    tell()
    assert (book.find(7, KEY), woken) == (FETCH, ["held"])
    asking.end()
    assert (book.find(7, KEY), woken) == (FETCH, ["held"])


def test_another_protocols_fetch_is_not_followed(book: LeaseBook[str]) -> None:
    book.hold(7, KEY, FETCH)
    assert book.find(7, b"/x") is Standing.UNSHARED


@pytest.mark.parametrize(("unshared", "standing"), [(False, Standing.GONE), (True, Standing.UNSHARED)])
def test_a_fetch_that_is_over(book: LeaseBook[str], unshared: bool, standing: Standing) -> None:
    for number in (7, 8):
        book.hold(number, KEY, FETCH)
        book.hold(number, KEY, FETCH)
    book.drop(FETCH, unshared=unshared)
    book.drop(FETCH)
    assert [book.find(number, KEY) for number in (7, 8)] == [standing] * 2


def test_the_same_lease_for_the_next_fetch(book: LeaseBook[str]) -> None:
    """Also while the one before is not over yet."""
    book.hold(7, KEY, FETCH)
    book.hold(7, KEY, OTHER)
    book.drop(FETCH, unshared=True)
    assert book.find(7, KEY) == OTHER
    book.drop(OTHER, unshared=True)
    assert book.find(7, KEY) is Standing.UNSHARED
    book.hold(7, KEY, FETCH)
    assert book.find(7, KEY) == FETCH


def test_what_was_not_shared_is_remembered_within_a_bound(book: LeaseBook[str]) -> None:
    for number in range(1, UNSHARED_MAX + 2):
        book.hold(number, KEY, FETCH)
        book.drop(FETCH, unshared=True)
    assert book.find(1, KEY) is Standing.GONE
    assert book.find(2, KEY) is book.find(UNSHARED_MAX + 1, KEY) is Standing.UNSHARED
