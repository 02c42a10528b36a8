"""The plan of descriptors: the parts stay below the limit, and a limit that is too low is told with the remedy."""

from __future__ import annotations

import resource

import pytest

from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.descriptors import DescriptorPlan, plan_descriptors
from webproxy.errors import StartupError
from webproxy.origin.driver import FOLLOWED_MAX

CONFIG = ProxyConfig(worker_threads=8, segment_count=8)
AT_THE_START = 36  # at most, as measured with these settings


def in_use_at_most(plan: DescriptorPlan) -> int:
    """With eight workers that have a connection each, and everything else at its bound."""
    origins = 2 * plan.origin_connections_max + 2 * plan.followed_max
    return AT_THE_START + 8 + plan.connections_max + origins + plan.body_files + plan.lingering_max


@pytest.mark.parametrize("limit", [*range(80, 1000, 7), 1024, 4096, 20_000, 65_536, 1_048_576])
def test_all_parts_together_stay_below_the_limit(limit: int) -> None:
    assert in_use_at_most(plan_descriptors(limit, CONFIG)) <= limit


@pytest.mark.parametrize(
    ("limit", "connections_max"), [(80, 5), (256, 60), (1024, 300), (4096, 2256), (16_384, 10_000)]
)
def test_connections_get_what_the_others_leave(limit: int, connections_max: int) -> None:
    assert plan_descriptors(limit, CONFIG).connections_max == connections_max


def test_from_some_limit_on_the_settings_hold() -> None:
    wanted = plan_descriptors(1024, CONFIG).wanted
    for limit in (wanted, 1 << 20, resource.RLIM_INFINITY):
        plan = plan_descriptors(limit, CONFIG)
        assert plan.applied(CONFIG) == CONFIG
        assert plan.shortage(CONFIG) is None
    assert plan_descriptors(resource.RLIM_INFINITY, CONFIG).lingering_max == 128


def test_a_low_limit_is_told_with_numbers_and_the_remedy() -> None:
    plan = plan_descriptors(1024, CONFIG)
    lowered = plan.applied(CONFIG)
    assert (lowered.connections_max, lowered.origin_connections_max) == (300, 120)
    assert plan.shortage(CONFIG) == (
        "the limit of 1024 descriptors is too low for the settings: connections_max is 300 instead of 10000,"
        f" origin_connections_max is 120 instead of 256; raise it to {plan.wanted} (LimitNOFILE, ulimit -n),"
        " or lower these"
    )
    assert plan.shortage(lowered) is None


def test_connections_to_processes_that_are_followed_are_planned_where_fetches_are_shared() -> None:
    alone = ProxyConfig(worker_threads=8, segment_count=8, share_fetches=False)
    assert plan_descriptors(-1, CONFIG).followed_max == FOLLOWED_MAX
    assert plan_descriptors(-1, CONFIG).wanted == plan_descriptors(-1, alone).wanted + 2 * FOLLOWED_MAX
    assert plan_descriptors(-1, alone).followed_max == 0
    assert 0 < plan_descriptors(1024, CONFIG).followed_max < FOLLOWED_MAX
    without_cache = ProxyConfig(use_cache=False, origin_url="http://origin.example")
    assert plan_descriptors(-1, without_cache).followed_max == 0


def test_what_is_lowered_fits() -> None:
    modest = ProxyConfig(worker_threads=8, segment_count=8, connections_max=100, origin_connections_max=20)
    assert plan_descriptors(1024, modest).applied(modest) == modest


def test_a_limit_below_the_least_is_refused() -> None:
    with pytest.raises(StartupError, match=r"of 79 descriptors is too low for 8 threads and 8 segments.* need 80 at"):
        plan_descriptors(79, CONFIG)
    without_cache = ProxyConfig(use_cache=False, origin_url="http://origin.example", worker_threads=8)
    assert plan_descriptors(79, without_cache).connections_max >= 6


@pytest.mark.parametrize("limit", [-1, 100, 200, 1000, 30_000])
def test_spools_have_files_within_the_plan(limit: int) -> None:
    plan = plan_descriptors(limit, ProxyConfig())
    assert 1 <= plan.spool_files_max <= max(1, plan.body_files)


def test_each_further_cache_has_its_descriptors() -> None:
    """Its guard, queue and hot table, and the files that hits are sent from."""

    def wanted(*caches: str, use_cache: bool = True) -> int:
        origin = None if use_cache else "http://origin"
        return plan_descriptors(
            1024,
            ProxyConfig(worker_threads=8, segment_count=8, caches=caches, use_cache=use_cache, origin_url=origin),
        ).wanted

    assert wanted() == wanted("/a")
    further = wanted("/a", "/b") - wanted("/a")
    assert further == 8 + 1024
    assert wanted("/a", "/b", "/c") == wanted("/a") + 2 * further
    assert wanted("auto") == wanted("/a") + 7 * further
    assert wanted(use_cache=False) < wanted()
