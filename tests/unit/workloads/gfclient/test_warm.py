"""gfclient warm: each path once, so many at a time, nothing kept; exit code and summary tell what failed."""

import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.rawserver import RawServer, Step
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.gfclient.cancel import Canceller
from workloads.gfclient.cli import main
from workloads.gfclient.connection import Endpoint
from workloads.gfclient.download import TransferSettings, fetch_all, warm_one
from workloads.gfclient.outcome import Failure, Outcome
from workloads.gfclient.workload import WorkList

HELLO: list[Step] = [b"GETFILE OK 5\r\n\r\nhello"]
REFUSED: list[Step] = [b"GETFILE FILE_NOT_FOUND\r\n\r\n"]
SHORT: list[Step] = [b"GETFILE OK 5\r\n\r\nhel"]


def address(server: RawServer) -> list[str]:
    return ["-s", server.host, "-p", str(server.port)]


def asked_of(server: RawServer) -> list[bytes]:
    return [request.split()[2] for request in server.requests]


def crew() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("gfclient-")]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        pytest.param(["/a"], [b"/a"], id="one"),
        pytest.param(["/b", "/a"], [b"/b", b"/a"], id="the list's order"),
        pytest.param(["/a", "/b", "/a", "/a"], [b"/a", b"/b"], id="repeated"),
        pytest.param(["/a", "/a?", "/A"], [b"/a", b"/a?", b"/A"], id="alike is not equal"),
    ],
)
def test_each_path_is_asked_for_once(paths: list[str], expected: list[bytes]) -> None:
    with RawServer(HELLO) as server:
        assert main(["warm", *address(server), "-t", "1", *paths]) == 0
        assert asked_of(server) == expected


def test_every_path_of_the_list_is_asked_for_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list").write_text("# hot\n/a\n/folder/b\n\n/a\n/..\n")
    monkeypatch.chdir(tmp_path)
    with RawServer(HELLO) as server:
        assert main(["warm", *address(server), "-w", "list", "-t", "3", "/c"]) == 0
        assert Counter(asked_of(server)) == Counter([b"/a", b"/folder/b", b"/..", b"/c"])
    assert [path.name for path in tmp_path.rglob("*")] == ["list"]
    shown = capsys.readouterr()
    assert shown.out.startswith("warmed 4 of 4, 20 bytes in ")
    assert "failed" not in shown.out
    assert shown.err == ""


def test_what_failed_is_named_and_the_rest_is_warmed(capsys: pytest.CaptureFixture[str]) -> None:
    with RawServer(HELLO, REFUSED, SHORT, HELLO) as server:
        assert main(["warm", *address(server), "-t", "1", "/a", "/absent", "/short", "/d"]) == 1
        assert asked_of(server) == [b"/a", b"/absent", b"/short", b"/d"]
    shown = capsys.readouterr()
    assert shown.err.splitlines()[0].startswith("/absent: file-not-found: ")
    assert shown.err.splitlines()[1].startswith("/short: short-body: 3 of 5 bytes")
    assert shown.out.startswith("warmed 2 of 4, 13 bytes in ")
    assert shown.out.endswith(", failed: 1 file-not-found, 1 short-body\n")


@pytest.mark.parametrize(("threads", "paths", "expected"), [(2, 5, 2), (8, 3, 3)], ids=["-t", "no more than paths"])
def test_so_many_requests_at_a_time_and_no_more(threads: int, paths: int, expected: int) -> None:
    """A thread has one request at a time; while all are held, the rest is not asked for."""
    release = threading.Event()
    codes: list[int] = []
    with RawServer([release, *HELLO]) as server:
        arguments = ["warm", *address(server), "-t", str(threads), *(f"/{number}" for number in range(paths))]
        run = threading.Thread(target=lambda: codes.append(main(arguments)))
        run.start()
        try:
            wait_until(lambda: len(server.requests) >= expected)
            assert len(crew()) == expected
            assert len(server.requests) == expected
        finally:
            release.set()
            run.join(WATCHDOG_S)
        assert len(server.requests) == paths
    assert codes == [0]


def test_a_cancelled_run_asks_for_nothing_more() -> None:
    outcomes: list[Outcome] = []
    canceller = Canceller()
    with RawServer([threading.Event()]) as server:
        settings = TransferSettings(
            endpoint=Endpoint.resolve(server.host, server.port), thread_count=1, timeout_s=WATCHDOG_S
        )
        work = WorkList([b"/a", b"/b"])
        run = threading.Thread(target=fetch_all, args=(work, settings, warm_one, outcomes.append, canceller))
        run.start()
        assert server.reached.wait(WATCHDOG_S)
        canceller.cancel()
        run.join(WATCHDOG_S)
        assert asked_of(server) == [b"/a"]
    assert [(outcome.path, outcome.failure) for outcome in outcomes] == [(b"/a", Failure.CANCELLED)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "nothing to ask for", id="no list"),
        pytest.param(["-w", "absent.txt"], "absent.txt: cannot read", id="no such list"),
        pytest.param(["no-slash"], "write /no-slash", id="no path"),
    ],
)
def test_a_list_that_cannot_be_used_exits_2(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["warm", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["-r", "2", "/a"], ["-o", ".", "/a"], ["-t", "0", "/a"]], ids=lambda a: a[0])
def test_options_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each path is asked for once and nothing is kept: a count or a directory would say otherwise."""
    with pytest.raises(SystemExit) as exited:
        main(["warm", *arguments])
    assert exited.value.code == 2
    assert arguments[0] in capsys.readouterr().err.splitlines()[-1]
