"""What `webproxy install-units` writes, read by the programs that it is for; and the signs of life its units want."""

import os
import signal
import subprocess
import tomllib

import pytest

from scripts.daemons import executable
from shmchannel.daemonkit.readiness import READY, STOPPING, WATCHDOG, NotifySocket, main_pid
from tests.architecture.tree import ROOT
from tests.support.installed import groff, optional_program, terminal
from tests.support.programs import require_program
from tests.support.waiting import WATCHDOG_S, wait_until


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A directory into which everything is installed, by the installed command."""
    directory = tmp_path_factory.mktemp("usr")
    done = subprocess.run(
        [executable("webproxy"), "install-units", directory], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return directory


def commands():
    """The names of the installed commands."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


def run(*words, **environ):
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, **environ}, timeout=WATCHDOG_S, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", commands())
def test_man_shows_the_page_without_a_warning(installed, command):
    page = installed / "share" / "man" / "man1" / f"{command}.1"
    assert f"{command} - " in groff(page.read_text())
    code, shown, warned = run(optional_program("man"), "--warnings", "-l", str(page), LC_ALL="C.UTF-8", MANPAGER="cat")
    assert (code, warned) == (0, "")
    assert "SYNOPSIS" in shown


@pytest.mark.parametrize("command", commands())
def test_shells_read_the_completion_without_a_mistake(installed, command):
    assert run(require_program("bash"), "-n", installed / "share/bash-completion/completions" / command)[0] == 0


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize("command", commands())
def test_other_shells_do_too(installed, shell, command):
    path = {"zsh": f"zsh/site-functions/_{command}", "fish": f"fish/vendor_completions.d/{command}.fish"}[shell]
    assert run(optional_program(shell), "-n", installed / "share" / path) == (0, "", "")


TYPED = [
    ("webproxy rel\t", "webproxy reload"),
    ("webproxy --wire s\t", "webproxy --wire space"),
    ("webproxy --wire=s\t", "webproxy --wire=space"),
    ("webproxy purge --so\t", "webproxy purge --soft"),
    ("webproxy --log-level e\t", "webproxy --log-level error"),
    ("gfclient mea\t", "gfclient measure"),
    ("gfmon --on\t", "gfmon --once"),
    ("gfcache-clean --d\t", "gfcache-clean --dry-run"),
    ("simplecached --store me\t", "simplecached --store memory"),
]


def test_bash_completes_at_a_terminal(installed, tmp_path):
    with terminal([require_program("bash"), "--norc", "--noprofile", "-i"], str(tmp_path)) as shell:
        for command in commands():
            shell.type(f"source {installed}/share/bash-completion/completions/{command}\n")
            shell.type(f'{command}() {{ echo "ran:{command} $*:"; }}\n')
        shell.type("echo all''read\n").expect("allread")
        for typed, expected in TYPED:
            shell.type(f"{typed}\n").expect(rf"ran:{expected} ?:")


def test_zsh_completes_at_a_terminal(installed, tmp_path):
    with terminal([optional_program("zsh"), "-f", "-i"], str(tmp_path)) as shell:
        shell.type(f"fpath=({installed}/share/zsh/site-functions $fpath)\nautoload -Uz compinit\ncompinit -u -D\n")
        for command in commands():
            shell.type(f'{command}() {{ echo "ran:{command} $*:" }}\n')
        shell.type("echo all''read\n").expect("allread")
        for typed, expected in TYPED:
            shell.type(f"{typed}\n").expect(rf"ran:{expected} ?:")


def test_systemd_has_no_objection(installed):
    """The commands are there, the man pages too, and every setting is known."""
    units = sorted(str(path) for path in (installed / "lib/systemd/system").iterdir())
    assert len(units) == 3
    verify = (optional_program("systemd-analyze"), "verify", *units)
    assert run(*verify, MANPATH=f"{installed}/share/man") == (0, "", "")


def test_systemd_would_object(installed, tmp_path):
    text = (installed / "lib/systemd/system/webproxy.service").read_text()
    for wrong, objection in (("KillMoed=mixed", "KillMoed"), ("KillMode=sometimes", "kill mode")):
        (tmp_path / "webproxy.service").write_text(text.replace("KillMode=mixed", wrong))
        _, _, said = run(optional_program("systemd-analyze"), "verify", str(tmp_path / "webproxy.service"))
        assert objection in said


class Manager:
    """Stands for systemd: hears what daemons say."""

    def __init__(self):
        self.socket = NotifySocket()
        self.env = {"NOTIFY_SOCKET": self.socket.address}
        self._heard = []

    def heard(self):
        self._heard += [(notice.pid, message) for notice in self.socket.take() for message in notice.messages]
        return self._heard

    def wait_for(self, pid, message, count=1):
        wait_until(lambda: self.heard().count((pid, message)) >= count, what=f"{message} of {pid}, {count} times")

    def forget(self):
        self._heard.clear()


@pytest.fixture
def manager():
    found = Manager()
    yield found
    found.socket.close()


def test_a_cache_gives_signs_of_life_also_through_a_reload(yard, manager):
    cache = yard.start_cache(env=manager.env)
    manager.wait_for(cache.pid, READY)
    manager.wait_for(cache.pid, WATCHDOG, 2)
    cache.signal(signal.SIGHUP)
    cache.wait_event("reloaded")
    manager.forget()
    manager.wait_for(cache.pid, WATCHDOG, 2)
    assert cache.stop() == 0
    manager.wait_for(cache.pid, STOPPING)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_proxy_gives_signs_of_life_through_reload_and_upgrade(yard, manager, workers, tmp_path):
    """By the process that is the service's main one at that time: of others systemd hears nothing."""
    proxy = yard.start_proxy("--no-cache", "-s", "http://127.0.0.1:9", "--workers", workers, env=manager.env)
    manager.wait_for(proxy.pid, READY)
    manager.wait_for(proxy.pid, WATCHDOG, 2)
    if workers != "1":
        proxy.signal(signal.SIGHUP)
        proxy.wait_event("reloaded")
        manager.forget()
        manager.wait_for(proxy.pid, WATCHDOG, 2)
    proxy.signal(signal.SIGUSR2)
    main = wait_until(lambda: [message for pid, message in manager.heard() if "MAINPID" in message])[0]
    successor = int(main.partition("=")[2])
    try:
        assert main == main_pid(successor)
        manager.forget()
        manager.wait_for(successor, WATCHDOG, 2)
        assert proxy.wait_exit() == 0
        assert (proxy.pid, STOPPING) not in manager.heard(), "systemd would take it for the end of the service"
    finally:
        os.kill(successor, signal.SIGTERM)
    manager.wait_for(successor, STOPPING)
    wait_until(lambda: not os.path.exists(f"/proc/{successor}/fd/0"))
