"""The units: what the daemons need from systemd, and what it must not do to them."""

from __future__ import annotations

import shlex

import pytest

from shmchannel.daemonkit.daemon import HOUSEKEEPING_SECONDS, DaemonConfig
from shmchannel.daemonkit.exits import ExitCode
from webproxy.daemon.systemd_units import WATCHDOG_S, Place, exec_word, units

PLACE = Place(command_directory="/opt/gfcache/bin", user="gfcache", listen="127.0.0.1:25362", drain_s=10)
SERVICES = ("simplecached", "webproxy")


def settings(text: str) -> dict[str, str]:
    """The settings of a unit; in these each is there once."""
    lines = [line for line in text.splitlines() if line and line[0] not in "#["]
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines)
    return found


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> dict[str, str]:
    return settings(units(PLACE)[f"{request.param}.service"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_the_installed_command_with_its_file(name: str) -> None:
    found = settings(units(PLACE)[f"{name}.service"])
    assert shlex.split(found["ExecStart"]) == [f"/opt/gfcache/bin/{name}", "--config", f"/etc/gfcache/{name}.toml"]
    assert (found["User"], found["Type"]) == ("gfcache", "notify")


def test_names_in_shared_memory_stay(service: dict[str, str]) -> None:
    """The other daemon has them mapped, and finds them by name."""
    assert service["RemoveIPC"] == "no"
    assert not {"PrivateIPC", "DynamicUser", "ProcSubset", "PrivateUsers", "InaccessiblePaths"} & set(service)


def test_only_the_main_process_is_told_to_end(service: dict[str, str]) -> None:
    """A supervisor tells its workers; a second signal would cut off what they have."""
    assert service["KillMode"] == "mixed"


def test_a_drain_fits_into_the_time_to_stop(service: dict[str, str]) -> None:
    assert float(service["TimeoutStopSec"]) > DaemonConfig().drain_s


def test_signs_of_life_come_many_times_before_the_watchdog_barks(service: dict[str, str]) -> None:
    assert float(service["WatchdogSec"]) == WATCHDOG_S >= 10 * HOUSEKEEPING_SECONDS


def test_what_no_further_try_helps_is_not_tried_again(service: dict[str, str]) -> None:
    assert service["RestartPreventExitStatus"].split() == [str(ExitCode.USAGE.value), str(ExitCode.LOCK_HELD.value)]
    assert service["SuccessExitStatus"] == str(ExitCode.INTERRUPTED.value)


def test_the_socket_listens_where_the_proxy_would() -> None:
    assert settings(units(PLACE)["webproxy.socket"])["ListenStream"] == PLACE.listen


@pytest.mark.parametrize(
    ("directory", "protected"),
    [("/opt/gfcache/bin", "yes"), ("/usr/bin", "yes"), ("/".join(("", "home", "x", "bin")), "read-only")],
)
def test_commands_in_a_home_can_be_started(directory: str, protected: str) -> None:
    place = Place(command_directory=directory, user="x", listen="1", drain_s=1)
    assert settings(units(place)["webproxy.service"])["ProtectHome"] == protected


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/opt/bin/webproxy", "/opt/bin/webproxy"),
        ("/with space/webproxy", '"/with space/webproxy"'),
        ('/a"b/webproxy', '"/a\\"b/webproxy"'),
        ("/100%/$x/webproxy", "/100%%/$$x/webproxy"),
    ],
)
def test_a_path_is_one_word(path: str, word: str) -> None:
    assert exec_word(path) == word
