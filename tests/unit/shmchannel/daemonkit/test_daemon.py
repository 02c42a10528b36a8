"""Does a daemon live from its settings to its exit code as the module says, whatever its service does?"""

from __future__ import annotations

import json
import signal
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from shmchannel.daemonkit import daemon
from shmchannel.daemonkit.daemon import Daemon, DaemonConfig, Drain, Settings, run_daemon
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.logs import LogForm
from shmchannel.daemonkit.readiness import NotifySocket
from shmchannel.daemonkit.settings import option
from shmchannel.daemonkit.signals import NO_END, Wish, Wishes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack
    from pathlib import Path


@pytest.fixture(autouse=True)
def handlers_of_before() -> Iterator[None]:
    """What a daemon leaves is for a process that ends, which the tests' does not."""
    before = {signum: signal.getsignal(signum) for signum in NO_END}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(DaemonConfig):
    """The settings every daemon has, two of them with another default."""

    log_format: LogForm = option(LogForm.JSON, "how an event is written")
    drain_s: float = option(60.0, "time after SIGTERM", low=0, high=600, flags=("--drain",))


class Refused(Exception):
    """An error of the daemon's own."""


class RefusedPort(Refused):
    """A more special one."""


@dataclass
class RecordingService:
    """Ends itself by SIGTERM once started, and remembers what was done with it."""

    calls: list[str] = field(default_factory=list)
    fails: Exception | None = None
    unfinished: int = 0
    busy: Callable[[], bool] = lambda: False
    replaced: Callable[[], bool] = lambda: False
    supervised: bool = False
    on_start: Callable[[], None] = lambda: signal.raise_signal(signal.SIGTERM)

    def build(self, _config: Config, resources: ExitStack) -> RecordingService:
        """Stand in for the constructor."""
        resources.callback(self.calls.append, "undone")
        if self.fails is not None:
            raise self.fails
        return self

    def shortages(self, _config: Config) -> list[str]:
        """The limits suffice, or do not."""
        if self.fails is not None:
            raise self.fails
        return ["little is left"]

    def start(self) -> None:
        """Ask for the end."""
        self.calls.append("start")
        self.on_start()

    def housekeep(self) -> None:
        """Ask for the end where start() did not."""
        self.calls.append("housekeep")
        signal.raise_signal(signal.SIGTERM)

    def hear(self, wish: Wish, settings: Settings[Config]) -> None:
        """Note it, and read the settings again."""
        self.calls.append(f"{wish.value}, drain_s {settings.again().drain_s:g}")
        settings.log_as(settings.config)

    def is_replaced(self, settings: Settings[Config]) -> bool:
        """Say what the test says."""
        assert isinstance(settings.config, Config)
        return self.replaced()

    def is_supervised(self) -> bool:
        """Say what the test says."""
        return self.supervised

    def hurry(self) -> None:
        """Note it."""
        self.calls.append("hurry")

    def stop_accepting(self) -> None:
        """Note it."""
        self.calls.append("stop_accepting")

    def is_busy(self) -> bool:
        """Say what the test says."""
        return self.busy()

    def finish(self, drain: Drain) -> int:
        """Note how the drain ended."""
        self.calls.append("interrupted" if drain.interrupted() else "finish")
        return self.unfinished


def run(
    service: RecordingService,
    *argv: str,
    supervise: Callable[[Settings[Config], Wishes, ExitStack], ExitCode | None] = lambda *_: None,
    on_refusal: Callable[[str], object] = lambda _: None,
) -> int:
    declared = Daemon(
        prog="sample-d",
        description="A sample.",
        version=lambda: "1.2",
        config_type=Config,
        build=service.build,
        exit_codes={Refused: ExitCode.CANNOT_START, RefusedPort: ExitCode.LOCK_HELD, LookupError: ExitCode.USAGE},
        shortages=service.shortages,
        supervise=supervise,
        on_refusal=on_refusal,
    )
    return run_daemon(declared, argv)


def last_event(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(capsys.readouterr().err.splitlines()[-1])
    return event


def test_a_life_that_ends_well() -> None:
    service = RecordingService()
    assert run(service) == ExitCode.OK
    assert service.calls == ["start", "stop_accepting", "finish", "undone"]


def test_signals_that_ask_for_no_end_are_ignored_once_it_has_ended() -> None:
    assert run(RecordingService()) == ExitCode.OK
    for signum in NO_END:
        signal.raise_signal(signum)


def test_housekeeping_until_the_signal() -> None:
    service = RecordingService(on_start=lambda: None)
    assert run(service) == ExitCode.OK
    assert service.calls == ["start", "housekeep", "stop_accepting", "finish", "undone"]


@pytest.mark.parametrize(
    ("signum", "wish"),
    [(signal.SIGHUP, "reload"), (signal.SIGUSR1, "reopen logs"), (signal.SIGUSR2, "upgrade")],
)
def test_other_wishes_are_for_the_service(signum: int, wish: str) -> None:
    service = RecordingService(on_start=lambda: signal.raise_signal(signum))
    assert run(service, "--drain", "5") == ExitCode.OK
    assert service.calls == ["start", f"{wish}, drain_s 5", "housekeep", "stop_accepting", "finish", "undone"]


def test_a_service_that_is_replaced_drains() -> None:
    service = RecordingService(on_start=lambda: None, replaced=lambda: True)
    assert run(service) == ExitCode.OK
    assert service.calls == ["start", "stop_accepting", "finish", "undone"]


@pytest.mark.parametrize(
    ("signals", "end"), [(1, ["hurry", "finish"]), (2, ["hurry", "interrupted"]), (3, ["hurry", "interrupted"])]
)
@pytest.mark.parametrize("at_once", [True, False])
def test_one_that_is_replaced_hurries_at_the_first_signal_and_ends_at_the_second(
    signals: int, end: list[str], at_once: bool
) -> None:
    looks = 0

    def busy() -> bool:
        nonlocal looks
        looks += 1
        for _ in range(signals if at_once and looks == 1 else 0 if at_once else looks <= signals):
            signal.raise_signal(signal.SIGTERM)
        return looks < 4

    service = RecordingService(on_start=lambda: None, replaced=lambda: True, busy=busy)
    assert run(service) == ExitCode.OK
    assert service.calls == ["start", "stop_accepting", *end, "undone"]


@pytest.mark.parametrize(
    ("signums", "end"),
    [
        ([signal.SIGTERM] * 3, "finish"),
        ([signal.SIGINT], "interrupted"),
        ([signal.SIGTERM, signal.SIGINT], "interrupted"),
    ],
)
def test_under_a_supervisor_only_one_signal_cuts_the_drain(signums: list[int], end: str) -> None:
    looks = 0

    def busy() -> bool:
        nonlocal looks
        looks += 1
        if looks <= len(signums):
            signal.raise_signal(signums[looks - 1])
        return looks < 5

    service = RecordingService(supervised=True, busy=busy)
    assert run(service) == ExitCode.OK
    assert service.calls == ["start", "stop_accepting", end, "undone"]


@pytest.mark.parametrize(("replaced", "expected"), [(False, ["READY=1", "STOPPING=1"]), (True, ["READY=1"])])
def test_the_service_manager_hears_of_the_end_of_the_service_and_not_of_one_that_is_replaced(
    monkeypatch: pytest.MonkeyPatch, replaced: bool, expected: list[str]
) -> None:
    manager = NotifySocket()
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    assert run(RecordingService(replaced=lambda: replaced)) == ExitCode.OK
    assert [message for notice in manager.take() for message in notice.messages] == expected
    manager.close()


def test_housekeeping_comes_in_between_however_many_signals_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each signal is followed by another before the second is over."""
    monkeypatch.setattr(daemon, "HOUSEKEEPING_SECONDS", 0.05)
    manager = NotifySocket()
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)

    def again() -> bool:
        signal.raise_signal(signal.SIGUSR1)
        return False

    service = RecordingService(on_start=lambda: None, replaced=again)
    assert run(service) == ExitCode.OK
    assert "housekeep" in service.calls
    assert service.calls.count("reopen logs, drain_s 60") > 1
    assert [message for notice in manager.take() for message in notice.messages].count("WATCHDOG=1") == 1
    manager.close()


def test_a_daemon_of_several_processes_builds_no_service_in_the_first() -> None:
    service = RecordingService()

    def supervise(settings: Settings[Config], _wishes: Wishes, resources: ExitStack) -> ExitCode:
        resources.callback(service.calls.append, "ended")
        service.calls.append(f"supervise, drain_s {settings.config.drain_s:g}")
        return ExitCode.INTERRUPTED

    assert run(service, supervise=supervise) == ExitCode.INTERRUPTED
    assert service.calls == ["supervise, drain_s 60", "ended"]


def test_the_drain_lasts_as_long_as_work_does() -> None:
    answers = [True, True, False]
    service = RecordingService(busy=lambda: answers.pop(0))
    assert run(service) == ExitCode.OK
    assert answers == []


def test_the_drain_has_a_limit() -> None:
    service = RecordingService(busy=lambda: True, unfinished=3)
    assert run(service, "--drain", "0") == ExitCode.INTERRUPTED
    assert service.calls == ["start", "stop_accepting", "finish", "undone"]


def test_a_second_signal_ends_the_drain() -> None:
    def busy() -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    service = RecordingService(busy=busy, unfinished=1)
    assert run(service) == ExitCode.INTERRUPTED
    assert service.calls == ["start", "stop_accepting", "interrupted", "undone"]


@pytest.mark.parametrize(
    ("error", "code", "event", "reason"),
    [
        pytest.param(Refused("no"), ExitCode.CANNOT_START, "cannot start", "no", id="an error of the daemon's"),
        pytest.param(RefusedPort("port"), ExitCode.LOCK_HELD, "cannot start", "port", id="the nearest class counts"),
        pytest.param(
            OSError("full"), ExitCode.CANNOT_START, "cannot start", "full (see ulimit -a)", id="of the system"
        ),
        pytest.param(
            RuntimeError("can't start new thread"),
            ExitCode.CANNOT_START,
            "cannot start",
            "the system refused another thread (raise ulimit -u or -v, or use fewer threads: -t)",
            id="no thread",
        ),
        pytest.param(
            MemoryError(),
            ExitCode.CANNOT_START,
            "cannot start",
            "no memory left for this process (see ulimit -v, and free)",
            id="no memory",
        ),
        pytest.param(RuntimeError("bug"), ExitCode.SOFTWARE, "failed", None, id="of the program, of the same class"),
        pytest.param(ValueError("bug"), ExitCode.SOFTWARE, "failed", None, id="of the program"),
    ],
)
def test_errors_become_exit_codes(
    error: Exception, code: int, event: str, reason: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    service, refusals = RecordingService(fails=error), list[str]()
    assert run(service, on_refusal=refusals.append) == code
    assert service.calls == ["undone"]
    assert refusals == ([] if reason is None else [reason])
    logged = last_event(capsys)
    assert (logged["event"], logged.get("reason")) == (event, reason)
    assert ("exception" in logged) is (code == ExitCode.SOFTWARE)


def test_what_the_operator_asked_for_is_refused_as_a_setting_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(RecordingService(fails=LookupError("line 3 of the map")))
    assert ended.value.code == ExitCode.USAGE
    assert capsys.readouterr().err == "sample-d: line 3 of the map\n"


def test_whoever_wants_to_know_is_told_of_settings_that_are_refused() -> None:
    refusals: list[str] = []
    with pytest.raises(SystemExit):
        run(RecordingService(), "--drain", "-1", on_refusal=refusals.append)
    (reason,) = refusals
    assert reason.startswith("drain_s: ")


def test_settings_that_are_only_checked_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    service = RecordingService()
    assert run(service, "--check-config", "--drain", "5") == ExitCode.OK
    assert service.calls == []
    said = capsys.readouterr()
    assert "drain_s = 5  [flag --drain]" in said.out
    assert said.err == "sample-d: little is left\n"


def test_settings_that_are_only_printed_can_be_fed_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    service = RecordingService()
    assert run(service, "--print-config", "--drain", "5") == ExitCode.OK
    assert service.calls == []
    printed = capsys.readouterr().out
    assert "drain_s = 5.0  # flag --drain\n" in printed
    file = tmp_path / "sample.toml"
    file.write_text(printed)
    assert run(service, "--print-config=secrets", "--config", str(file)) == ExitCode.OK
    again = capsys.readouterr().out
    assert f"drain_s = 5.0  # file {file}\n" in again
    assert tomllib.loads(again) == tomllib.loads(printed)


def test_limits_that_allow_no_start_are_told_by_a_check_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(RecordingService(fails=Refused("nothing is left")), "--check-config") == ExitCode.CANNOT_START
    assert capsys.readouterr().err == "sample-d: cannot start: nothing is left\n"


def test_an_ignored_variable_is_logged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SAMPLE_D_DRIAN_S", "5")
    assert run(RecordingService()) == ExitCode.OK
    event = last_event(capsys)
    assert event["event"] == "setting ignored"
    assert "SAMPLE_D_DRAIN_S" in event["reason"]
