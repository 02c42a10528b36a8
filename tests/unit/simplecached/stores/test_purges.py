"""PurgeList: which purges hold for a row."""

from simplecached.stores.purges import Purge, PurgeList


def test_a_purge_holds_for_what_was_written_before_it() -> None:
    purges = PurgeList(3, ()).with_one(Purge(4, b"/a", invalidates=False))
    assert purges.epoch == 4
    assert purges.state_of(b"/ab", 3) == (True, False)
    assert purges.state_of(b"/ab", 4) == (False, False)
    assert purges.state_of(b"/b", 0) == (False, False)


def test_several_hold_at_once_and_removal_is_the_stronger() -> None:
    soft, hard = Purge(1, b"/", invalidates=True), Purge(2, b"/a", invalidates=False)
    purges = PurgeList(0, ()).with_one(soft).with_one(hard)
    assert purges.state_of(b"/b", 0) == (False, True)
    assert purges.state_of(b"/a", 0) == (True, False)
    assert purges.state_of(b"/b", 1) == (False, False)
    left = purges.without(soft)
    assert (left.epoch, left.active) == (2, (hard,))
