"""Either daemon may come first, stop, come back or be killed; the other one notices by itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import ask
from tests.support.contents import write_files
from tests.support.daemons import DaemonEnded
from tests.support.names import names_of
from webproxy.getfile import Status

USAGE, LOCK_HELD = 2, 73


@pytest.fixture
def files(tmp_path):
    """A directory to serve, and what is in it."""
    return tmp_path / "files", write_files(tmp_path / "files", {"file": 40_000})


def test_cache_first(yard, files):
    yard.start_cache(content=files[0])
    assert ask(yard.start_proxy().port, "/file").body == files[1]["/file"]


def test_proxy_first_waits_for_the_cache(yard, files):
    """The request comes while there is no cache, and is served when there is one."""
    proxy = yard.start_proxy(env={"WEBPROXY_CACHE_TIMEOUT_S": "60"})
    with ThreadPoolExecutor(1) as crew:
        early = crew.submit(ask, proxy.port, "/file")
        proxy.wait_event("cache not found")
        assert not early.done()
        yard.start_cache(content=files[0])
        assert early.result().body == files[1]["/file"]
    assert proxy.wait_event("cache found")["queue"] == yard.queue
    assert ask(proxy.port, "/file").body == files[1]["/file"]


def test_no_cache_is_an_error_at_the_deadline(yard):
    proxy = yard.start_proxy(env={"WEBPROXY_CACHE_TIMEOUT_S": "0.3"})
    assert ask(proxy.port, "/file").status is Status.ERROR
    assert ask(proxy.port, "/file").status is Status.ERROR
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["error"] == 2
    assert len(proxy.events("cache not found")) == 1, "logged once, not per request"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_cache_is_found_at_once(yard, files, end):
    first = yard.start_cache(content=files[0])
    proxy = yard.start_proxy(env={"WEBPROXY_CACHE_TIMEOUT_S": "60"})
    for number in range(3):
        assert ask(proxy.port, "/file").body == files[1]["/file"]
        getattr(first, end)()
        first = yard.start_cache(content=files[0])
        assert ask(proxy.port, "/file").body == files[1]["/file"], f"after restart {number}"
    assert proxy.stop() == 0
    assert proxy.wait_event("stopped")["hit"] == 6


def test_a_second_cache_on_the_queue_is_refused(yard, files):
    first = yard.start_cache(content=files[0])
    second = yard.start_cache(content=files[0], wait=False)
    assert second.wait_exit() == LOCK_HELD
    assert f"process {first.pid}" in second.wait_event("cannot start")["reason"]
    assert ask(yard.start_proxy().port, "/file").body == files[1]["/file"], "the first one still serves"


def test_the_queue_of_a_dead_cache_is_taken_over(yard, files):
    dead = yard.start_cache(content=files[0])
    dead.kill()
    assert {row.kind for row in names_of({dead.pid})} == {"queue", "guard", "hot table", "entry", "stats page"}
    heir = yard.start_cache(content=files[0])
    assert names_of({dead.pid}) == []
    assert {row.kind for row in names_of({heir.pid})} - {"entry"} == {"queue", "guard", "hot table", "stats page"}
    assert ask(yard.start_proxy().port, "/file").body == files[1]["/file"]


def test_a_start_sweeps_the_segments_of_a_dead_proxy(yard, files):
    dead = yard.start_proxy("-n", "5")
    assert len([row for row in names_of({dead.pid}) if row.kind == "segment"]) == 5
    dead.kill()  # from now on any start of this user may sweep them
    yard.start_cache(content=files[0])
    assert names_of({dead.pid}) == []


def test_a_failed_start_leaves_nothing(yard):
    """The queue is made before the content is looked at: it must go again."""
    refused = yard.start_cache("-c", "/nowhere/at/all", wait=False)
    assert refused.wait_exit() == USAGE
    assert "/nowhere/at/all" in refused.log_text()
    assert names_of({refused.pid}) == []
    assert not yard.has_cache()


def test_waiting_for_a_daemon_that_ends_says_why(yard):
    with pytest.raises(DaemonEnded, match="'0' from flag -t"):
        yard.start_proxy("-t", "0")
    assert yard.started[-1].wait_exit() == USAGE
