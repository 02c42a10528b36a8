"""Choosing a member: what each rule promises, for any members and keys, and in every process alike."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from shmchannel.registry import (
    RendezvousTable,
    at_random,
    bounded,
    first_available,
    least_loaded,
    rendezvous_order,
    round_robin,
)
from tests.support.waiting import WATCHDOG_S

NAMES = st.sets(st.text(alphabet="abcdefgh-0123", min_size=1, max_size=6), min_size=2, max_size=8)
KEYS = st.binary(max_size=100)
LOADS = st.floats(min_value=0, max_value=1000)


def test_each_in_turn() -> None:
    assert list(itertools.islice(round_robin(["a", "b", "c"]), 7)) == ["a", "b", "c", "a", "b", "c", "a"]
    assert list(round_robin([])) == []


def test_by_chance_all_come_up() -> None:
    random = Random(7)
    drawn = Counter(at_random(["a", "b", "c"], random) for _ in range(3000))
    assert set(drawn) == {"a", "b", "c"}
    assert min(drawn.values()) > 800
    assert at_random([], random) is None


def test_least_loaded_is_the_first_by_name_among_equals() -> None:
    assert least_loaded({"c": 1.0, "b": 1.0, "a": 2.0}) == "b"
    assert least_loaded({}) is None


@given(KEYS, NAMES)
def test_an_order_has_each_name_once_whatever_their_order(key: bytes, names: set[str]) -> None:
    order = rendezvous_order(key, names)
    assert sorted(order) == sorted(names)
    assert rendezvous_order(key, sorted(names)) == rendezvous_order(key, sorted(names, reverse=True)) == order


@given(KEYS, NAMES)
def test_who_goes_moves_only_its_own_keys_and_gets_them_back(key: bytes, names: set[str]) -> None:
    """The others keep their order without it; so whoever comes takes only keys for which it is the first."""
    order = rendezvous_order(key, names)
    for gone in names:
        assert rendezvous_order(key, names - {gone}) == [name for name in order if name != gone]


@given(KEYS, NAMES)
def test_a_table_moves_as_little(key: bytes, names: set[str]) -> None:
    order = RendezvousTable(names).order(key)
    assert sorted(order) == sorted(names)
    for gone in names:
        assert RendezvousTable(names - {gone}).order(key) == tuple(name for name in order if name != gone)


def test_keys_are_spread_evenly() -> None:
    names = [f"cache-{number}" for number in range(5)]
    table = RendezvousTable(names)
    for first in (lambda key: rendezvous_order(key, names)[0], lambda key: table.order(key)[0]):
        counts = Counter(first(b"/object/%d" % number) for number in range(10_000))
        assert set(counts) == set(names)
        assert max(counts.values()) < 1.15 * 2000
        assert min(counts.values()) > 0.85 * 2000


@given(st.lists(KEYS, min_size=1, max_size=200), NAMES, st.floats(min_value=1.0, max_value=3.0))
def test_load_is_bounded(keys: list[bytes], names: set[str], factor: float) -> None:
    """Whoever gets a key had at most `factor` times the mean, so nobody ends with more than that and one key."""
    loads = dict.fromkeys(names, 0.0)
    for key in keys:
        chosen = bounded(rendezvous_order(key, names), loads, factor)
        assert chosen is not None
        assert loads[chosen] <= factor * sum(loads.values()) / len(loads) + 1e-9
        loads[chosen] += 1
    assert max(loads.values()) <= factor * len(keys) / len(names) + 1


@given(KEYS, st.dictionaries(st.text(alphabet="abc", min_size=1, max_size=3), LOADS, min_size=1, max_size=6))
def test_an_overloaded_member_passes_the_key_to_the_next(key: bytes, loads: dict[str, float]) -> None:
    order = rendezvous_order(key, loads)
    most = 1.25 * sum(loads.values()) / len(loads)
    passed_over = order[: order.index(bounded(order, loads) or "")]
    assert all(loads[name] > most for name in passed_over)


def test_who_is_away_is_passed_over() -> None:
    assert bounded(["a", "b"], {"b": 100.0}) == "b"
    assert bounded(["a"], {"b": 1.0}) is None
    assert bounded(["a"], {}) is None
    order = ["a", "b", "c"]
    assert first_available(order, {"b", "c"}.__contains__) == "b"
    assert first_available(order, set(order).__contains__) == "a"
    assert first_available(order, lambda _: False) is None


def test_every_process_chooses_alike() -> None:
    """Python's own hash differs between these processes, and the choice does not."""
    source = (
        "from shmchannel.registry import RendezvousTable, rendezvous_order\n"
        "names = {'a', 'b', 'c', 'd'}\n"
        "keys = [b'/%d' % number for number in range(50)]\n"
        "print(''.join(rendezvous_order(k, names)[0] + RendezvousTable(names).order(k)[0] for k in keys), hash('a'))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", source], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, check=True, text=True, timeout=WATCHDOG_S,
        ).stdout.split()
        for seed in ("1", "2")
    ]  # fmt: skip
    assert said[0][0] == said[1][0]
    assert said[0][1] != said[1][1]
