"""`webproxy reload` and `webproxy upgrade`, against running proxies of one process and of several."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.support.client import ask
from tests.support.contents import write_files
from tests.support.waiting import wait_until

ALONE, SEVERAL = ("--workers", "1"), ("--workers", "2")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A directory to serve, and what is in it."""
    directory = tmp_path_factory.mktemp("steering") / "files"
    return directory, write_files(directory, {"small": 500})


@pytest.fixture
def settings(tmp_path):
    """A settings file that tests rewrite."""
    path = tmp_path / "webproxy.toml"
    path.write_text("keepalive_s = 60\n")
    return path


def command(*words):
    done = subprocess.run([sys.executable, "-m", "webproxy", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def end(proxy, successor):
    """End the process that has taken over, which the yard has not started."""
    assert proxy.wait_exit() == 0
    os.kill(successor, signal.SIGTERM)
    wait_until(lambda: not os.path.exists(f"/proc/{successor}"))


def test_a_reload_is_done_or_refused_and_said_so(yard, files, settings):
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy(*SEVERAL, "--config", str(settings))
    port = str(proxy.port)
    settings.write_text("keepalive_s = 30\n")
    assert command("reload", "-p", port) == (0, "webproxy reload: reloaded\n")
    settings.write_text("keepalive_s = 0\n")
    status, text = command("reload", "-p", port)
    assert status == 1
    assert text.startswith("webproxy reload: refused: keepalive_s: 0 from file ")
    assert ask(proxy.port, "/small").body == files[1]["/small"]
    assert len(proxy.events("reloaded")) == 1
    assert proxy.stop() == 0


def test_a_proxy_of_one_process_reloads_by_a_successor(yard, files, settings):
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy(*ALONE, "--config", str(settings))
    settings.write_text("keepalive_s = 0\n")
    status, text = command("reload", "-p", str(proxy.port))
    assert (status, "keepalive_s: 0 from file" in text) == (1, True)
    settings.write_text("keepalive_s = 30\n")
    status, text = command("reload", "-p", str(proxy.port))
    successor = proxy.wait_event("successor ready")["successor"]
    assert (status, text) == (0, f"webproxy reload: process {proxy.pid} is replaced by process {successor}\n")
    assert ask(proxy.port, "/small").body == files[1]["/small"]
    end(proxy, successor)


def test_an_upgrade_leads_to_another_supervisor(yard, files):
    yard.start_cache(content=files[0])
    proxy = yard.start_proxy(*SEVERAL)
    status, text = command("upgrade", "-p", str(proxy.port))
    successor = proxy.wait_event("successor ready")["successor"]
    assert (status, text) == (0, f"webproxy upgrade: process {proxy.pid} is replaced by process {successor}\n")
    assert ask(proxy.port, "/small").body == files[1]["/small"]
    end(proxy, successor)


@pytest.mark.parametrize("workers", [ALONE, SEVERAL])
def test_an_upgrade_with_settings_that_are_refused_says_why_and_changes_nothing(
    yard, files, settings, tmp_path, workers
):
    yard.start_cache(content=files[0])
    admin = tmp_path / "admin"
    proxy = yard.start_proxy(*workers, "--config", str(settings), "--admin", str(admin))
    before = proxy.workers()
    for wrong, reason in (
        ("keepalive_s = 0\n", "ended with status 2: keepalive_s: 0 from file "),
        ("keepalive_s = \n", "ended with status 2: config: "),
    ):
        settings.write_text(wrong)
        status, text = command("upgrade", "-p", str(proxy.port))
        assert status == 1
        assert text.startswith(f"webproxy upgrade: refused: {reason}")
        assert proxy.events("successor refused")[-1]["reason"].startswith(reason)
    assert proxy.workers() == before
    assert ask(proxy.port, "/small").body == files[1]["/small"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(admin))
    assert proxy.stop() == 0
    assert not admin.exists()


@pytest.mark.parametrize("workers", [ALONE, SEVERAL])
def test_an_upgrade_that_fails_later_leaves_the_admin_server_where_it_is(yard, files, settings, tmp_path, workers):
    yard.start_cache(content=files[0])
    admin = tmp_path / "admin"
    proxy = yard.start_proxy(*workers, "--config", str(settings), "--admin", str(admin))
    settings.write_text(f"segment_count = 1024\nsegment_bytes = {1 << 30}\n")
    status, text = command("upgrade", "-p", str(proxy.port))
    assert status == 1
    assert text.startswith("webproxy upgrade: refused: ended with status 69")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(admin))
    assert proxy.stop() == 0
    assert not admin.exists()


def test_which_proxy_is_meant_must_be_clear(yard, files):
    yard.start_cache(content=files[0])
    first, second = yard.start_proxy(), yard.start_proxy()
    status, text = command("reload")
    assert status == 1
    assert f"127.0.0.1:{first.port}" in text
    assert f"127.0.0.1:{second.port}" in text
    status, text = command("upgrade", "-p", "1")
    assert (status, text) == (
        1,
        "webproxy upgrade: no proxy of this user runs on port 1, or it has not announced itself\n",
    )


@pytest.mark.parametrize("seconds", ["nan", "-1", "inf", "soon"])
def test_a_wait_that_is_no_time_is_refused_before_a_signal_is_sent(seconds):
    status, text = command("reload", f"--wait-s={seconds}")
    assert status == 2
    assert f"argument --wait-s: '{seconds}': give seconds from 0 to 86400\n" in text
