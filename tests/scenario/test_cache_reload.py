"""SIGHUP to a running cache: what it takes over, and what it says of the rest."""

import signal

import pytest

from tests.support.client import ask
from tests.support.contents import write_files
from tests.support.daemons import NO_HOT_TABLE
from webproxy.getfile import Status


@pytest.fixture
def settings(tmp_path):
    """A settings file that tests rewrite."""
    return tmp_path / "simplecached.toml"


@pytest.mark.parametrize("env", [{}, NO_HOT_TABLE], ids=["hot table", "no hot table"])
def test_another_directory_is_served(yard, tmp_path, settings, env):
    old, new = tmp_path / "old", tmp_path / "new"
    bodies = write_files(old, {"both": 500, "gone": 300}), write_files(new, {"both": 700, "came": 200})
    settings.write_text(f'content = "{old}"\n')
    cache = yard.start_cache("--config", str(settings), env=env)
    port = yard.start_proxy().port
    for _ in range(3):  # also from the hot table
        assert ask(port, "/both").body == bodies[0]["/both"]
    settings.write_text(f'content = "{new}"\nworker_threads = 3\nstore_bytes = 1000\n')
    cache.signal(signal.SIGHUP)
    assert cache.wait_event("reloaded")["needs_restart"] == ["worker_threads"]
    assert ask(port, "/both").body == bodies[1]["/both"]
    assert ask(port, "/came").body == bodies[1]["/came"]
    assert ask(port, "/gone").status is Status.FILE_NOT_FOUND
    assert cache.stop() == 0


def test_refused_settings_change_nothing(yard, tmp_path, settings):
    bodies = write_files(tmp_path / "files", {"small": 500})
    settings.write_text(f'content = "{tmp_path / "files"}"\n')
    cache = yard.start_cache("--config", str(settings))
    port = yard.start_proxy().port
    settings.write_text('content = "/nowhere/at/all"\n')
    cache.signal(signal.SIGHUP)
    assert "/nowhere/at/all" in cache.wait_event("reload refused")["reason"]
    assert ask(port, "/small").body == bodies["/small"]
    assert cache.stop() == 0


def test_the_level_of_the_log_changes(yard, settings):
    settings.write_text('log_level = "info"\n')
    cache = yard.start_cache("--config", str(settings))
    settings.write_text('log_level = "debug"\n')
    cache.signal(signal.SIGHUP)
    cache.wait_event("reloaded")
    cache.signal(signal.SIGUSR2)
    assert cache.wait_event("wish not known")["wish"] == "upgrade"
    assert cache.stop() == 0
