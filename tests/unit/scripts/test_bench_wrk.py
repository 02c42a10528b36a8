"""The output of wrk's script becomes figures, or the reason why there are none."""

import json

import pytest

from scripts.benchmark.load import Figures, LoadFailed
from scripts.benchmark.wrk import Wrk, figures_in

NO_ERRORS = dict.fromkeys(("connect", "read", "write", "status", "timeout"), 0)
REPORT = {"requests": 50, "duration_us": 2_000_000, "bytes": 8_000_000, "p50_us": 250, "p99_us": 4_000}


def output(**changes: object) -> str:
    line = json.dumps({**REPORT, "errors": NO_ERRORS, **changes})
    return f"Running 2s test @ http://127.0.0.1:1\n  2 threads and 8 connections\n{line}\n"


def test_figures_are_per_second() -> None:
    assert figures_in(output()) == Figures(
        requests=50, requests_per_s=25.0, megabytes_per_s=4.0, p50_ms=0.25, p99_ms=4.0
    )


@pytest.mark.parametrize("kind", NO_ERRORS)
def test_one_error_is_too_many(kind: str) -> None:
    with pytest.raises(LoadFailed, match=f"50 replies and {{'{kind}': 1}}"):
        figures_in(output(errors={**NO_ERRORS, kind: 1}))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(output(requests=0), "0 replies and no error", id="no reply"),
        pytest.param("unable to connect\n", "wrk reported nothing: unable to connect", id="no report"),
        pytest.param("", "wrk reported nothing", id="silence"),
    ],
)
def test_without_replies_there_are_no_figures(said: str, reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        figures_in(said)


@pytest.mark.parametrize(
    ("new_connections", "seconds", "expected"),
    [
        pytest.param(False, 2.5, ["-t", "2", "-c", "8", "-d", "2s"], id="keep-alive"),
        pytest.param(True, 0.7, ["-t", "2", "-c", "8", "-d", "1s"], id="new connections"),
    ],
)
def test_the_program_is_told_what_to_ask_for(tmp_path, new_connections, seconds, expected) -> None:
    """A stand-in that answers with its arguments: wrk itself need not be installed."""
    program = tmp_path / "wrk"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/arguments\ncat {tmp_path}/output\n")
    program.chmod(0o755)
    (tmp_path / "output").write_text(output())
    load = Wrk(str(program), str(tmp_path))
    figures = load.run(1234, ["/a", "/b"], seconds, connections=8, new_connections=new_connections)
    assert figures == figures_in(output())
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:6] == expected
    assert arguments[-4:] == ["http://127.0.0.1:1234", "--", "/a", "/b"]
    assert ("Connection: close" in arguments) == new_connections


def test_a_program_that_fails_says_why(tmp_path) -> None:
    program = tmp_path / "wrk"
    program.write_text("#!/bin/sh\necho no route >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(LoadFailed, match="status 1: no route"):
        Wrk(str(program), str(tmp_path)).run(1, ["/a"], 1, connections=1)
