"""The demo as a newcomer runs it: on a directory, on an origin, and with arguments that cannot work."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from shmchannel.tools.leaks import leaks_of
from workloads.origin_stub import OriginStub, Route

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WATCHDOG_S = 100


@pytest.fixture
def files(tmp_path):
    """The contents of real directories: nested, empty, one byte, more than a segment, a link, a name with a blank."""
    root = tmp_path / "files"
    (root / "nested" / "deep").mkdir(parents=True)
    (root / "empty").write_bytes(b"")
    (root / "one").write_bytes(b"1")
    (root / "nested" / "large.bin").write_bytes(os.urandom(100_000))
    (root / "nested" / "deep" / "café").write_bytes(b"x" * 9000)
    (root / "with blank").write_bytes(b"?")
    (root / "link").symlink_to("one")
    return root


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "scripts.demo_run", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)


def facts(output: str) -> dict[str, str]:
    """The `name: value` lines."""
    return dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)


def test_a_directory(files):
    result = demo(str(files))
    assert (result.returncode, result.stderr) == (
        0,
        "demo: left out 1 files whose names have blanks or control characters\n",
    )
    found = facts(result.stdout)
    assert found["files"] == "4"
    assert found["bytes"] == str(1 + 100_000 + 9000)
    assert found["digests"] == "equal"
    assert found["http"] == "3 files equal, hits 3", "all but the name that HTTP would have to escape"
    assert found["leaks"] == "0"
    assert float(found["requests/s"]) > 0
    assert float(found["MB/s"]) > 0
    assert re.fullmatch(r"[\d.]+ ms / [\d.]+ ms", found["p50/p99"])


def test_an_origin(files, tmp_path):
    listing = tmp_path / "paths.txt"
    listing.write_text("/one\n/nested/large.bin\n/empty\n")
    with OriginStub(str(files), template=Route(headers={"Cache-Control": "max-age=600"})) as origin:
        result = demo(origin.url, "-w", str(listing))
    assert result.returncode == 0, result.stderr
    found = facts(result.stdout)
    assert (found["files"], found["digests"], found["leaks"]) == ("3", "equal", "0")
    assert found["http"] == "3 files equal, hits 3", "what getfile has filled is a hit for HTTP"


def test_serve_says_what_to_type_and_ends_on_ctrl_c(files, tmp_path):
    command = [sys.executable, "-m", "scripts.demo_run", "--serve", str(files)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            while "Ctrl-C" not in (line := process.stdout.readline()):
                assert line, process.communicate()
                lines.append(line)
            typed = [shlex.split(line) for line in lines if line.startswith("  ")]
            assert [words[0] for words in typed[:2]] == ["curl", "curl"]
            if shutil.which("curl"):
                for words in typed[:2]:
                    asked = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=WATCHDOG_S, check=True)
                    assert b"Cache-Status: gfcache; hit" in asked.stdout
            measure = next(words for words in typed if "measure" in words)
            measured = subprocess.run(measure, cwd=ROOT, capture_output=True, timeout=WATCHDOG_S, check=False)
            assert measured.returncode == 0, measured.stderr
            process.send_signal(signal.SIGINT)
            output, complaint = process.communicate(timeout=WATCHDOG_S)
        finally:
            process.kill()
    assert (process.returncode, complaint) == (
        0,
        "demo: left out 1 files whose names have blanks or control characters\n",
    )
    assert "leaks: 0" in output
    assert leaks_of([], f"/gfdemo-{process.pid}") == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["/nowhere"], "neither a directory nor"),
        (["http://127.0.0.1:1"], "-w FILE"),
        (["--nonsense"], "unrecognized"),
        (["--serve", "-p", "99999"], "'99999' is not a port; give 0 to 65535"),
    ],
)
def test_arguments_that_cannot_work(arguments, complaint):
    result = demo(*arguments)
    assert result.returncode == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_an_empty_directory(tmp_path):
    result = demo(str(tmp_path))
    assert (result.returncode, result.stderr) == (2, f"demo: {tmp_path} holds no regular file\n")
