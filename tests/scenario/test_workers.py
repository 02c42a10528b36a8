"""Several worker processes: they answer, are replaced, drain, and end with their supervisor, whoever is killed."""

import os
import signal

import pytest

from tests.support.client import Answer, PacedDownload, ask, refuses_connections
from tests.support.contents import write_files
from tests.support.daemons import is_alive
from tests.support.names import names_of
from tests.support.waiting import wait_until
from webproxy.getfile import Status

OK, CANNOT_START, INTERRUPTED = 0, 69, 130
BIG_BYTES = 48 << 20  # far more than what socket buffers and segments hold: its transfer runs while its client reads
TWO = ("--workers", "2")
ONE_TRANSFER = ("--segments-per-transfer-max", "1")
LONG_DRAIN = {"WEBPROXY_DRAIN_S": "3600"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory to serve, and what is in it."""
    directory = tmp_path_factory.mktemp("workers") / "files"
    return directory, write_files(directory, {"big": BIG_BYTES, "small": 500})


@pytest.fixture
def pair(yard, files):
    """A cache, and a proxy with two workers that drain as long as it takes."""
    yard.start_cache(content=files[0], env={"SIMPLECACHED_DRAIN_S": "3600"})
    return yard.start_proxy(*TWO, *ONE_TRANSFER, env=LONG_DRAIN)


def stop_at_once(pid):
    """Hold a process."""
    os.kill(pid, signal.SIGSTOP)

    def is_held():
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "T"

    wait_until(is_held)


def serves(port, files):
    return ask(port, "/small").body == files[1]["/small"]


def test_each_worker_answers(pair, files):
    """While the other is held; what that has accepted before is answered once it runs again."""
    workers = pair.ready_workers()
    assert len(workers) == 2
    for held in workers:
        stop_at_once(held)
        assert serves(pair.port, files)
        os.kill(held, signal.SIGCONT)
    assert pair.stop() == OK
    assert [event["status"] for event in pair.events("worker retired")] == ["0", "0"]
    assert names_of(pair.all_pids()) == []


def test_a_worker_that_is_killed_is_replaced_and_its_names_are_swept(pair, files):
    victim, other = pair.ready_workers()
    assert names_of({victim})
    os.kill(victim, signal.SIGKILL)
    ended = pair.wait_event("worker ended")
    assert (ended["worker"], ended["status"], ended["slot"], ended["replaced_in_s"]) == (victim, "SIGKILL", 0, 0.5)
    wait_until(lambda: names_of({victim}) == [])
    wait_until(lambda: len(pair.ready_workers()) == 2)
    assert other in pair.ready_workers()
    assert serves(pair.port, files)
    assert pair.stop() == OK


def test_all_workers_are_killed_at_once(pair, files):
    for victim in pair.ready_workers():
        os.kill(victim, signal.SIGKILL)
    assert serves(pair.port, files), "the connection waits for the next worker"
    pair.wait_event("worker ready", count=4)
    assert pair.stop() == OK


def test_a_silent_worker_is_killed_and_replaced(yard, files):
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy(*TWO, env={"WEBPROXY_WORKER_TIMEOUT_S": "3"})
    silent = proxy.ready_workers()[0]
    stop_at_once(silent)
    killed = proxy.wait_event("worker killed")
    assert (killed["worker"], killed["reason"]) == (silent, "silent while ready")
    proxy.wait_event("worker ready", count=3)
    wait_until(lambda: names_of({silent}) == [])
    assert serves(proxy.port, files)
    assert len(proxy.events("worker killed")) == 1
    assert proxy.stop() == OK


def test_workers_that_cannot_start_are_not_tried_again(yard):
    """Each wants more shared memory than there is."""
    proxy = yard.start_proxy(*TWO, "-n", "1024", "-z", str(1 << 30), wait=False)
    assert proxy.wait_exit() == CANNOT_START
    assert len(proxy.events("worker cannot start")) == 2
    assert proxy.events("listening") == []
    assert names_of(proxy.all_pids()) == []


SLOT_1_CANNOT_START = """
import json, os
if json.loads(os.environ.get("GFCACHE_WORKER", "{}")).get("slot") == 1:
    os._exit(69)
"""


def test_a_worker_that_cannot_start_is_not_replaced_and_the_other_serves(yard, files, tmp_path):
    """Not even after the other has been replaced, which takes longer than a new try would."""
    (tmp_path / "sitecustomize.py").write_text(SLOT_1_CANNOT_START)
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy(*TWO, env={"PYTHONPATH": str(tmp_path)})
    assert proxy.wait_event("listening")["workers"] == 1
    failed = proxy.wait_event("worker cannot start")
    assert (failed["slot"], failed["status"]) == (1, str(CANNOT_START))
    (other,) = proxy.ready_workers()
    os.kill(other, signal.SIGKILL)
    proxy.wait_event("worker ready", count=2)
    assert serves(proxy.port, files)
    assert len(proxy.events("worker cannot start")) == len(proxy.events("worker ended")) == len(proxy.workers()) == 1
    assert proxy.stop() == OK
    assert names_of(proxy.all_pids()) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_running_download_is_finished(pair, files, signum):
    with PacedDownload(pair.port, b"/big") as download:
        port = pair.port
        pair.signal(signum)
        wait_until(lambda: refuses_connections(port))
        assert download.finish() == Answer(Status.OK, files[1]["/big"], BIG_BYTES)
    assert pair.wait_exit() == OK
    assert pair.wait_event("stopped")["unfinished"] == 0
    assert names_of(pair.all_pids()) == []


def test_a_signal_to_all_processes_at_once_is_one_wish(pair, files):
    """As a service manager sends it: to the supervisor, which passes it on, and to the workers."""
    port = pair.port
    workers = pair.ready_workers()
    with PacedDownload(port, b"/big") as download:
        for pid in (pair.pid, *workers, *workers):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: refuses_connections(port))
        assert download.finish() == Answer(Status.OK, files[1]["/big"], BIG_BYTES)
    assert pair.wait_exit() == OK


def test_a_second_signal_cuts_it(pair):
    """The worker that has it ends by itself, at once; it need not be killed."""
    with PacedDownload(pair.port, b"/big"):
        port = pair.port
        pair.signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(port))
        assert pair.running
        pair.signal(signal.SIGTERM)
        assert pair.wait_exit() == INTERRUPTED
    assert sorted(event["status"] for event in pair.events("worker retired")) == ["0", str(INTERRUPTED)]
    pair.wait_all_ended()
    assert names_of(pair.all_pids()) == []


def test_ctrl_c_is_for_the_supervisor_and_cuts_nothing(yard, files):
    """The terminal sends SIGINT to each process of the foreground group."""
    yard.start_cache(content=files[0], env={"SIMPLECACHED_DRAIN_S": "3600"})
    proxy = yard.start_proxy(*TWO, *ONE_TRANSFER, env=LONG_DRAIN, wrap=("setsid",))
    port = proxy.port
    with PacedDownload(port, b"/big") as download:
        os.killpg(proxy.pid, signal.SIGINT)
        wait_until(lambda: refuses_connections(port))
        assert download.finish().body == files[1]["/big"]
    assert proxy.wait_exit() == OK


def test_without_their_supervisor_workers_finish_and_end_and_leave_nothing(pair, files):
    workers, port = pair.ready_workers(), pair.port
    with PacedDownload(port, b"/big") as download:
        pair.kill()
        wait_until(lambda: refuses_connections(port))
        assert download.finish().body == files[1]["/big"]
    pair.wait_all_ended()
    assert not any(map(is_alive, workers))
    assert [event["unfinished"] for event in pair.events("stopped")] == [0, 0]
    assert names_of(pair.all_pids()) == []


def test_a_supervisor_that_is_killed_while_it_starts_workers_leaves_none(yard):
    proxy = yard.start_proxy(*TWO, wait=False)
    wait_until(lambda: len(proxy.workers()) == 2)
    workers = proxy.workers()
    proxy.kill()
    wait_until(lambda: not any(map(is_alive, workers)))
    wait_until(lambda: names_of({proxy.pid, *workers}) == [])


# -- signals at each moment of a start ---------------------------------------------------------------------------------
MOMENTS = [("worker started", 1), ("worker ready", 1), ("worker ready", 2), ("listening", 1)]


@pytest.mark.parametrize(("event", "count"), MOMENTS)
def test_a_stop_at_each_moment_of_a_start(yard, event, count):
    proxy = yard.start_proxy(*TWO, wait=False)
    proxy.wait_event(event, count=count)
    assert proxy.stop() in (OK, INTERRUPTED)
    proxy.wait_all_ended()
    assert names_of(proxy.all_pids()) == []


def test_a_stop_before_any_worker_is_ready(yard):
    proxy = yard.start_proxy(*TWO, wait=False)
    wait_until(lambda: proxy.workers())
    assert proxy.stop() == OK
    proxy.wait_all_ended()
    assert names_of(proxy.all_pids()) == []


@pytest.mark.parametrize(("event", "count"), MOMENTS)
@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGHUP])
def test_other_signals_at_each_moment_of_a_start(yard, files, event, count, signum):
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy(*TWO, wait=False)
    proxy.wait_event(event, count=count)
    proxy.signal(signum)
    if signum == signal.SIGHUP:
        proxy.wait_event("reloaded")
    proxy.wait_ready()
    assert serves(proxy.port, files)
    assert len(proxy.ready_workers()) >= 2
    assert proxy.events("worker ended") == []
    assert proxy.stop() == OK


@pytest.mark.parametrize(("event", "count"), MOMENTS)
def test_an_upgrade_at_each_moment_of_a_start(yard, files, event, count):
    """It follows the start, whose workers then retire."""
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy(*TWO, wait=False)
    proxy.wait_event(event, count=count)
    proxy.signal(signal.SIGUSR2)
    successor = proxy.wait_event("successor ready")["successor"]
    assert proxy.wait_exit() == OK
    assert serves(proxy.port, files)
    assert proxy.events("worker ended") == []
    os.kill(successor, signal.SIGTERM)
    proxy.wait_all_ended()
    assert names_of(proxy.all_pids()) == []
