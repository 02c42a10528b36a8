"""Reload and upgrade of whole proxies: what takes effect, what is refused, and that no request is lost on the way."""

import contextlib
import os
import random
import signal
import socket
import sys

import pytest

from shmchannel.daemonkit.readiness import NotifySocket
from shmchannel.registry import Registry
from tests.http.client import HttpClient, fetch
from tests.support.client import PacedDownload, ask, connect, receive_to_end, refuses_connections
from tests.support.contents import write_files
from tests.support.daemons import is_alive
from tests.support.names import names_of
from tests.support.waiting import wait_until
from webproxy.getfile import RemoteProtocolError, Status

OK = 0
BIG_BYTES = 48 << 20
LONG_DRAIN = "3600"
NUMBERS = ("1", "2")
"""Of workers: one process, or a supervisor with two."""
ONE_TRANSFER = ("--segments-per-transfer-max", "1")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory to serve, and what is in it."""
    directory = tmp_path_factory.mktemp("reload") / "files"
    return directory, write_files(directory, {"big": BIG_BYTES, "small": 500})


class Settings:
    """A settings file that tests rewrite; what is not said stays as it was."""

    def __init__(self, path):
        self.path = path
        self.values = {"drain_s": LONG_DRAIN, "cache_status_name": '"first"'}
        self.write()

    def write(self, **values):
        self.values |= values
        self.path.write_text("".join(f"{name} = {value}\n" for name, value in self.values.items()))


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "webproxy.toml")


@pytest.fixture
def start(yard, files, settings):
    """Start a pair whose proxy has so many workers."""

    def start_pair(workers, *flags, **options):
        yard.start_cache(content=files[0], env={"SIMPLECACHED_DRAIN_S": LONG_DRAIN})
        settings.write(workers=workers)
        flags = ("--config", str(settings.path), *ONE_TRANSFER, *flags)
        return yard.start_proxy(*flags, **options)

    return start_pair


def name_of(port):
    """The setting that an answer shows."""
    return fetch(port, "/small").get("cache-status").partition(";")[0]


def reload_done(proxy, workers, count=1):
    """Reload, and wait until the old processes know that it is done; returns the pid of the one that serves then."""
    old = {proxy.pid, *proxy.workers()}
    proxy.signal(signal.SIGHUP)
    if workers == "1":
        serving = proxy.wait_event("successor ready", count=count)["successor"]
    else:
        proxy.wait_event("reloaded", count=count)
        serving = proxy.pid
    wait_until(lambda: not old & {member.identity.pid for member in Registry().find("proxy")})
    return serving


def end(proxy, serving):
    """End who serves, and see that everything has ended and nothing is left."""
    if serving == proxy.pid:
        assert proxy.stop() == OK
    else:
        os.kill(serving, signal.SIGTERM)
        assert proxy.wait_exit() == OK
    proxy.wait_all_ended()
    assert names_of(proxy.all_pids()) == []


@pytest.mark.parametrize("workers", NUMBERS)
def test_new_settings_take_effect_and_refused_ones_change_nothing(start, settings, workers):
    proxy = start(workers)
    assert name_of(proxy.port) == "first"
    before = proxy.workers()
    settings.write(cache_status_name='"second"', keepalive_s="0")
    proxy.signal(signal.SIGHUP)
    assert "keepalive_s" in proxy.wait_event("reload refused")["reason"]
    assert name_of(proxy.port) == "first"
    assert proxy.workers() == before
    settings.write(keepalive_s="60")
    serving = reload_done(proxy, workers)
    wait_until(lambda: name_of(proxy.port) == "second")
    end(proxy, serving)


def test_settings_with_which_no_worker_starts_change_nothing(start, settings):
    proxy = start("2")
    before = proxy.ready_workers()
    settings.write(segment_count="1024", segment_bytes=str(1 << 30))
    proxy.signal(signal.SIGHUP)
    assert "ended with status 69" in proxy.wait_event("reload refused")["reason"]
    assert name_of(proxy.port) == "first"
    wait_until(lambda: proxy.workers() == before)
    end(proxy, proxy.pid)


def test_the_number_of_workers_changes(start, settings):
    proxy = start("2")
    for count, workers in enumerate((3, 1), start=1):
        settings.write(workers=str(workers))
        reload_done(proxy, "2", count)
        wait_until(lambda workers=workers: len(proxy.workers()) == workers)
        assert name_of(proxy.port) == "first"
    end(proxy, proxy.pid)


@pytest.mark.parametrize("workers", NUMBERS)
def test_another_port_takes_effect_and_a_download_from_the_old_one_is_finished(start, settings, files, workers):
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        new_port = chosen.getsockname()[1]
    settings.write(port="0")
    proxy = start(workers, has_port=False)
    old_port = proxy.port
    with PacedDownload(old_port, b"/big") as download:
        settings.write(port=str(new_port))
        serving = reload_done(proxy, workers)
        assert name_of(new_port) == "first"
        wait_until(lambda: refuses_connections(old_port))
        assert download.finish().body == files[1]["/big"]
    end(proxy, serving)


@pytest.mark.parametrize("workers", NUMBERS)
def test_idle_connections_get_one_more_answer(start, workers):
    proxy = start(workers)
    clients = [HttpClient(proxy.port) for _ in range(8)]
    for client in clients:
        assert client.ask("/small").status == 200
    silent = HttpClient(proxy.port)  # it may be with the old process, or still with the kernel, and so the new one's
    serving = reload_done(proxy, workers)
    for client in clients:
        reply = client.ask("/small")
        assert (reply.status, reply.get("connection")) == (200, "close")
        client.close()
    assert silent.ask("/small").status == 200
    silent.close()
    if workers == "2":
        proxy.wait_event("worker retired", count=2)
    end(proxy, serving)


@pytest.mark.parametrize("workers", NUMBERS)
def test_pipelined_requests_that_have_arrived_are_all_answered(start, workers):
    proxy = start(workers)
    request = b"GET /small HTTP/1.1\r\nHost: h\r\n\r\n"
    with connect(proxy.port) as client:
        client.sendall(request)
        received = b""
        while not received.endswith(b"\r\n\r\n") and b"\r\n\r\n" not in received:
            received += client.recv(1 << 16)
        serving = reload_done(proxy, workers)
        client.sendall(3 * request)
        answers = received + receive_to_end(client)
    assert answers.count(b"HTTP/1.1 200 ") == 4
    assert answers.count(b"onnection: close\r\n") == 1
    end(proxy, serving)


@pytest.mark.parametrize("workers", NUMBERS)
def test_idle_connections_do_not_outlast_the_drain(start, settings, workers):
    settings.write(drain_s="2")
    proxy = start(workers)
    with HttpClient(proxy.port) as client:
        client.ask("/small")
        serving = reload_done(proxy, workers)
        wait_until(lambda: client.ended())
    if workers == "2":
        proxy.wait_event("worker retired", count=2)
        assert [event["status"] for event in proxy.events("worker retired")] == ["0", "0"]
    end(proxy, serving)


@pytest.mark.parametrize("workers", NUMBERS)
def test_a_stop_after_a_reload_cuts_no_download_of_the_old_workers(start, files, workers):
    proxy = start(workers)
    with HttpClient(proxy.port) as idle, PacedDownload(proxy.port, b"/big") as download:
        idle.ask("/small")
        serving = reload_done(proxy, workers)
        for pid in {serving, proxy.pid}:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: idle.ended(), what="the end of the idle connection")
        assert download.finish().body == files[1]["/big"]
    assert proxy.wait_exit() == OK
    end(proxy, serving)


def test_old_workers_have_their_own_time_to_end(start, settings, files):
    proxy = start("2")
    with PacedDownload(proxy.port, b"/big") as download:
        settings.write(drain_s="0")
        reload_done(proxy, "2")
        assert download.finish().body == files[1]["/big"]
    assert proxy.events("worker killed") == []
    end(proxy, proxy.pid)


def test_a_worker_that_dies_while_it_retires_is_not_replaced(start):
    proxy = start("2")
    old = proxy.ready_workers()
    with PacedDownload(proxy.port, b"/big"):
        reload_done(proxy, "2")
        wait_until(lambda: len([pid for pid in old if is_alive(pid)]) == 1)
        (victim,) = [pid for pid in old if is_alive(pid)]
        os.kill(victim, signal.SIGKILL)
        proxy.wait_event("worker retired", count=2)
    [retired] = [event for event in proxy.events("worker retired") if event["worker"] == victim]
    assert (retired["status"], retired["level"]) == ("SIGKILL", "warning")
    wait_until(lambda: names_of({victim}) == [])
    assert proxy.events("worker ended") == []
    end(proxy, proxy.pid)


def test_a_reload_while_a_worker_crashes(start, settings):
    proxy = start("2")
    settings.write(cache_status_name='"second"')
    os.kill(proxy.ready_workers()[0], signal.SIGKILL)
    proxy.signal(signal.SIGHUP)
    os.kill(proxy.ready_workers()[0], signal.SIGKILL)
    proxy.wait_event("reloaded")
    wait_until(lambda: name_of(proxy.port) == "second")  # an old worker may take one more connection
    end(proxy, proxy.pid)


def test_many_reloads_leave_no_descriptor(start):
    proxy = start("2")
    reload_done(proxy, "2")
    proxy.wait_event("worker retired", count=2)
    before = proxy.settled_descriptor_count()
    for count in range(2, 5):
        reload_done(proxy, "2", count)
        proxy.wait_event("worker retired", count=2 * count)
    wait_until(lambda: proxy.settled_descriptor_count() == before)
    end(proxy, proxy.pid)


@pytest.mark.parametrize("workers", NUMBERS)
def test_a_reload_during_a_reload_follows_it(start, settings, workers):
    proxy = start(workers)
    proxy.signal(signal.SIGHUP)
    proxy.wait_event("successor started" if workers == "1" else "reloading")
    settings.write(cache_status_name='"second"')
    for _ in range(5):
        proxy.signal(signal.SIGHUP)
    wait_until(lambda: name_of(proxy.port) == "second")
    event = "successor ready" if workers == "1" else "reloaded"
    wait_until(lambda: len(proxy.events(event)) == 2)  # the first process may have ended by then
    end(proxy, proxy.events(event)[1]["successor"] if workers == "1" else proxy.pid)


# -- upgrade -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", NUMBERS)
def test_an_upgrade_takes_over_and_finishes_what_runs(start, settings, files, workers):
    proxy = start(workers)
    with PacedDownload(proxy.port, b"/big") as download:
        settings.write(cache_status_name='"second"')
        proxy.signal(signal.SIGUSR2)
        successor = proxy.wait_event("successor ready")["successor"]
        assert is_alive(proxy.pid), "both are there"
        wait_until(lambda: name_of(proxy.port) == "second")
        assert download.finish().body == files[1]["/big"]
    assert proxy.wait_exit() == OK
    assert name_of(proxy.port) == "second"
    end(proxy, successor)


@pytest.mark.parametrize("workers", NUMBERS)
def test_a_successor_that_fails_changes_nothing(start, settings, workers):
    proxy = start(workers, env={"WEBPROXY_WORKER_START_TIMEOUT_S": "20"})
    before = proxy.workers()
    settings.write(segment_count="1024", segment_bytes=str(1 << 30))
    proxy.signal(signal.SIGUSR2)
    assert proxy.wait_event("successor refused")["reason"].startswith("ended with status 69")
    assert name_of(proxy.port) == "first"
    assert proxy.workers() == before
    end(proxy, proxy.pid)


@pytest.mark.parametrize("workers", NUMBERS)
def test_a_successor_that_hangs_is_given_up(start, workers):
    proxy = start(workers, env={"WEBPROXY_WORKER_START_TIMEOUT_S": "15"})
    proxy.signal(signal.SIGUSR2)
    successor = proxy.wait_event("successor started")["successor"]
    os.kill(successor, signal.SIGSTOP)
    assert proxy.wait_event("successor refused")["reason"] == "not ready after 15 s"
    os.kill(successor, signal.SIGCONT)
    wait_until(lambda: not is_alive(successor))
    assert name_of(proxy.port) == "first"
    end(proxy, proxy.pid)


@pytest.mark.parametrize("workers", NUMBERS)
@pytest.mark.parametrize(
    ("signum", "event"),
    [
        (signal.SIGHUP, "reloading"),
        (signal.SIGHUP, "worker started"),
        (signal.SIGUSR2, "successor started"),
        (signal.SIGUSR2, "listening"),
    ],
)
def test_a_stop_at_each_moment_of_a_change(start, workers, signum, event):
    proxy = start(workers)
    if workers == "1":
        event = {"reloading": "successor started", "worker started": "listening"}.get(event, event)
    before = len(proxy.events(event))
    proxy.signal(signum)
    proxy.wait_event(event, count=before + 1)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == OK
    for pid in proxy.all_pids():  # one that had taken over by then serves on
        if is_alive(pid) and proxy.events("successor ready"):
            os.kill(pid, signal.SIGTERM)
    proxy.wait_all_ended()
    assert names_of(proxy.all_pids()) == []


def hold(proxy):
    """Stop the process itself, which then starts no other; returns the pids of it and all that belong to it."""
    proxy.signal(signal.SIGSTOP)
    wait_until(proxy.is_stopped)
    return proxy.all_pids()


def all_end(pids):
    """Wait until none of them is there, and see that nothing is left."""
    wait_until(lambda: not any(map(is_alive, pids)), what="the end of all processes")
    assert names_of(pids) == []


@pytest.mark.parametrize(
    ("event", "count"), [("reloading", 1), ("worker started", 3), ("worker ready", 3), ("reloaded", 1)]
)
def test_a_supervisor_that_is_killed_at_each_moment_of_a_reload(start, files, event, count):
    """The workers of both generations end, and what they had begun is finished."""
    proxy = start("2")
    with PacedDownload(proxy.port, b"/big") as download:
        proxy.signal(signal.SIGHUP)
        proxy.wait_event(event, count=count)
        pids = hold(proxy)
        proxy.kill()
        assert download.finish().body == files[1]["/big"]
    all_end(pids)


@pytest.mark.parametrize("event", ["successor started", "worker started", "listening", "successor ready"])
def test_a_supervisor_that_is_killed_at_each_moment_of_an_upgrade(start, files, event):
    """Its successor serves, whether it has been waited for or not."""
    proxy = start("2")
    port = proxy.port
    with PacedDownload(port, b"/big") as download:
        before = len(proxy.events(event))
        proxy.signal(signal.SIGUSR2)
        successor = proxy.wait_event("successor started")["successor"]
        proxy.wait_event(event, count=before + 1)
        proxy.kill()
        assert download.finish().body == files[1]["/big"]
    wait_until(lambda: len(proxy.ready_workers(successor)) == 2, what="the successor's workers")
    assert name_of(port) == "first"
    pids = proxy.all_pids()
    os.kill(successor, signal.SIGTERM)
    all_end(pids)


@pytest.mark.parametrize("workers", NUMBERS)
def test_a_successor_that_is_killed_leaves_nothing(start, workers):
    """Nor do the workers that it has started by then."""
    proxy = start(workers)
    proxy.signal(signal.SIGUSR2)
    successor = proxy.wait_event("successor started")["successor"]
    if workers == "2":
        wait_until(lambda: proxy.workers(successor), what="a worker of the successor")
    os.kill(successor, signal.SIGSTOP)
    others = proxy.workers(successor)
    os.kill(successor, signal.SIGKILL)
    assert proxy.wait_event("successor refused")["reason"] == "ended with status SIGKILL"
    all_end({successor, *others})
    assert name_of(proxy.port) == "first"
    end(proxy, proxy.pid)


@pytest.mark.parametrize("workers", NUMBERS)
@pytest.mark.parametrize("wish", ["reload", "upgrade"])
def test_a_wish_during_an_upgrade_is_for_the_successor(start, settings, workers, wish):
    proxy = start(workers)
    port = proxy.port
    proxy.signal(signal.SIGUSR2)
    successor = proxy.wait_event("successor started")["successor"]
    os.kill(successor, signal.SIGSTOP)
    for _ in range(5):
        proxy.signal(signal.SIGHUP if wish == "reload" else signal.SIGUSR2)
    assert proxy.wait_event("wish deferred")["wish"] == wish
    os.kill(successor, signal.SIGCONT)
    assert proxy.wait_exit() == OK
    serving = successor
    if wish == "reload" and workers == "2":
        wait_until(lambda: proxy.events("reloaded"))
        assert proxy.events("reloaded")[0]["pid"] == successor
    else:
        wait_until(lambda: len(proxy.events("successor ready")) == 2)
        serving = proxy.events("successor ready")[1]["successor"]
        wait_until(lambda: not is_alive(successor))
    assert name_of(port) == "first"
    end(proxy, serving)


def test_logs_are_reopened_by_both_generations_during_a_reload(start, tmp_path):
    """Workers that are just starting do it as soon as they can."""
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    proxy = start("2", "--access-log", str(log))
    proxy.signal(signal.SIGHUP)
    proxy.wait_event("reloading")
    log.rename(moved)
    proxy.signal(signal.SIGUSR1)
    proxy.wait_event("access log reopened", count=4)
    proxy.wait_event("reloaded")
    assert name_of(proxy.port) == "first"
    wait_until(lambda: log.read_text().count("/small") == 1, what="the line in the new file")
    assert moved.read_text() == ""
    end(proxy, proxy.pid)


@pytest.mark.parametrize("workers", NUMBERS)
def test_a_successor_reopens_the_log_too(start, tmp_path, workers):
    """It has opened the file before that was renamed, and only its predecessor was told."""
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    proxy = start(workers, "--access-log", str(log))
    port = proxy.port
    proxy.signal(signal.SIGUSR2)
    successor = proxy.wait_event("successor started")["successor"]
    hold(proxy)
    wait_until(lambda: len(proxy.events("listening")) == 2, what="a successor that serves")
    log.rename(moved)
    proxy.signal(signal.SIGUSR1)
    proxy.signal(signal.SIGCONT)
    serving = {successor} if workers == "1" else set(proxy.ready_workers(successor))
    wait_until(lambda: serving <= {event["pid"] for event in proxy.events("access log reopened")})
    assert proxy.wait_exit() == OK
    assert name_of(port) == "first"
    wait_until(lambda: log.read_text().count("/small") == 1, what="the line in the new file")
    assert moved.read_text() == ""
    end(proxy, successor)


@pytest.mark.parametrize(("workers", "signum"), [("2", signal.SIGHUP), ("1", signal.SIGTERM), ("2", signal.SIGTERM)])
def test_a_log_is_reopened_by_those_that_only_finish_their_requests(start, tmp_path, files, workers, signum):
    """After a reload and in a stop: the lines of what still runs are in the new file."""
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    proxy = start(workers, "--access-log", str(log))
    port = proxy.port
    with PacedDownload(port, b"/big") as download:
        if signum == signal.SIGHUP:
            reload_done(proxy, workers)
        else:
            proxy.signal(signum)
            wait_until(lambda: refuses_connections(port))
        log.rename(moved)
        proxy.signal(signal.SIGUSR1)
        wait_until(log.exists)

        def all_have_reopened():  # but for those that have ended
            reopened = {event["pid"] for event in proxy.events("access log reopened")}
            return reopened and reopened.issuperset(proxy.workers())

        wait_until(all_have_reopened)
        assert download.finish().body == files[1]["/big"]
    wait_until(lambda: "/big" in log.read_text(), what="the line in the new file")
    assert "/big" not in moved.read_text()
    if proxy.running and signum == signal.SIGHUP:
        proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == OK
    end(proxy, proxy.pid)


@pytest.mark.parametrize("workers", NUMBERS)
def test_other_signals_while_it_stops_change_nothing(start, files, workers):
    proxy = start(workers)
    port = proxy.port
    told = [proxy.pid, *proxy.ready_workers()]
    with PacedDownload(port, b"/big") as download:
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(port))
        for pid in 5 * told:
            for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                if is_alive(pid):
                    os.kill(pid, signum)
        assert download.finish().body == files[1]["/big"]
    assert proxy.wait_exit() == OK
    assert proxy.events("successor started") == proxy.events("reloading") == []
    all_end(proxy.all_pids())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_storms_of_signals(start, files, seed):
    """Signals to all processes in any order: the proxy serves after them, ends when it is told, and leaves nothing."""
    choice = random.Random(seed)
    proxy = start("2", env={"WEBPROXY_WORKER_TIMEOUT_S": "10"})
    for _ in range(60):
        signum = choice.choice((signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL, signal.SIGUSR2, 0))
        if signum == 0:
            assert ask(proxy.port, "/small").status is Status.OK
        elif signum in (signal.SIGKILL, signal.SIGUSR2):
            workers = proxy.ready_workers()
            if workers:
                os.kill(choice.choice(workers), signum)
        else:
            proxy.signal(signum)
    assert proxy.running
    assert ask(proxy.port, "/small").body == files[1]["/small"]
    end(proxy, proxy.pid)


def ask_if_there(port):
    with contextlib.suppress(OSError, RemoteProtocolError):
        ask(port, "/small")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_storm_that_has_the_end_in_it(start, seed):
    choice = random.Random(seed)
    proxy = start(choice.choice(NUMBERS))
    port = proxy.port
    signums = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2] * 10
    choice.shuffle(signums)
    for number, signum in enumerate(signums):
        if number == 15:
            proxy.signal(signal.SIGTERM)
        if choice.random() < 0.2 and proxy.running:
            ask_if_there(port)
        if proxy.running:
            proxy.signal(signum)
    proxy.wait_exit()
    for pid in proxy.all_pids():
        if is_alive(pid):
            os.kill(pid, signal.SIGTERM)
    proxy.wait_all_ended()
    assert names_of(proxy.all_pids()) == []


# -- the service manager -----------------------------------------------------------------------------------------------
class Manager:
    """A service manager: everything that it has heard, with who said it."""

    def __init__(self):
        self.socket = NotifySocket()
        self.heard = []

    def has_heard(self, message, pid=None):
        self.heard += [(notice.pid, said) for notice in self.socket.take() for said in notice.messages]
        return any(said == message and pid in (None, who) for who, said in self.heard)


@pytest.fixture
def manager():
    living = Manager()
    yield living
    living.socket.close()


@pytest.mark.parametrize("workers", NUMBERS)
def test_the_service_manager_is_told(start, manager, workers):
    proxy = start(workers, wait=False, env={"NOTIFY_SOCKET": manager.socket.address})
    wait_until(lambda: manager.has_heard("READY=1"))
    assert {who for who, _ in manager.heard} == {proxy.pid}, "workers speak to their supervisor"
    assert len(proxy.events("worker ready")) == (0 if workers == "1" else 2)
    wait_until(lambda: manager.has_heard("WATCHDOG=1", proxy.pid))
    proxy.signal(signal.SIGUSR2)
    successor = proxy.wait_event("successor started")["successor"]
    wait_until(lambda: manager.has_heard("READY=1", successor))  # it reads all the time, as systemd does
    wait_until(lambda: manager.has_heard(f"MAINPID={successor}", proxy.pid))
    assert proxy.wait_exit() == OK
    assert not manager.has_heard("STOPPING=1")
    os.kill(successor, signal.SIGTERM)
    wait_until(lambda: manager.has_heard("STOPPING=1", successor))
    end(proxy, successor)


ACTIVATING = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("workers", NUMBERS)
def test_a_socket_of_the_service_manager_is_used_and_kept(start, workers):
    proxy = start(workers, "-p", "1", wrap=(sys.executable, "-c", ACTIVATING))
    port = proxy.port
    assert port != 1
    assert name_of(port) == "first"
    serving = reload_done(proxy, workers)
    assert name_of(port) == "first"
    end(proxy, serving)
