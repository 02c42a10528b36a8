"""Before the daemons serve: refused settings, --check-config, --version, a port in use, IPv6."""

import contextlib
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from tests.support.client import ask, connect
from tests.support.contents import write_files
from tests.support.waiting import WATCHDOG_S

USAGE, CANNOT_START = 2, 69


@dataclass(frozen=True)
class Refusal:
    """A command that must be refused, and every word that its text must have."""

    program: str
    words: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    file: str | None = None


REFUSALS = {
    "flag too small": Refusal("webproxy", ("segment_bytes", "'511'", "512 to 4294967296 bytes", "-z"), ("-z", "511")),
    "flag too large": Refusal("simplecached", ("worker_threads", "'257'", "1 to 256", "-t"), ("-t", "257")),
    "delay too long": Refusal(
        "simplecached", ("lookup_delay_us", "'5000001'", "0 to 5000000", "-d"), ("-d", "5000001")
    ),
    "threads too many": Refusal("webproxy", ("worker_threads", "'513'", "1 to 512", "-t"), ("-t", "513")),
    "segments too many": Refusal("webproxy", ("segment_count", "'4097'", "1 to 4096", "-n"), ("-n", "4097")),
    "port": Refusal("webproxy", ("port", "'65536'", "0 to 65535", "-p"), ("-p", "65536")),
    "choice": Refusal("webproxy", ("wire", "'lf'", "crlf or space", "--wire"), ("--wire", "lf")),
    "size": Refusal("webproxy", ("segment_bytes", "'64q'", "-z"), ("-z", "64q")),
    "queue name": Refusal("simplecached", ("queue_name", "'no-slash'", "'/'"), ("-q", "no-slash")),
    "environment": Refusal(
        "webproxy",
        ("segments_per_transfer_max", "'0'", "1 to 64", "environment WEBPROXY_SEGMENTS_PER_TRANSFER_MAX"),
        env={"WEBPROXY_SEGMENTS_PER_TRANSFER_MAX": "0"},
    ),
    "file": Refusal("simplecached", ("worker_threads", "0", "1 to 256", "file {file}"), file="worker_threads = 0\n"),
    "unknown in file": Refusal(
        "webproxy", ("segment_cuont", "did you mean segment_count?", "{file}"), file="segment_cuont = 4\n"
    ),
    "broken file": Refusal("webproxy", ("config", "{file}"), file="segment_count 4\n"),
    "missing file": Refusal("webproxy", ("config", "/nowhere.toml", "TOML"), ("--config", "/nowhere.toml")),
    "no source": Refusal("webproxy", ("use_cache", "-s ORIGIN_URL"), ("--no-cache",)),
    "origin": Refusal("webproxy", ("origin_url", "ftp://host", "http://"), ("-s", "ftp://host")),
    "origin that is the proxy": Refusal(
        "webproxy",
        ("origin_url", "'http://localhost:8000'", "flag -s", "not this proxy itself"),
        ("--no-cache", "-p", "8000", "-s", "http://localhost:8000"),
    ),
    "spool directory": Refusal(
        "webproxy",
        ("spool_directory", "'/bin/sh'", "a directory that can be written to", "environment WEBPROXY_SPOOL_DIRECTORY"),
        env={"WEBPROXY_SPOOL_DIRECTORY": "/bin/sh"},
    ),
    "authorities": Refusal(
        "webproxy",
        ("ca_file", "'/nowhere.pem'", "a file that can be read", "{file}"),
        file='[[origin]]\nurl = "https://host"\nca_file = "/nowhere.pem"\n',
    ),
    "address in brackets": Refusal("webproxy", ("host", "'[::1]'", "without brackets", "--host"), ("--host", "[::1]")),
    "store in no directory": Refusal(
        "simplecached",
        ("store", "'/nonexistent/store'", "/nonexistent is not a directory", "--store"),
        ("--check-config", "--store", "/nonexistent/store"),
    ),
    "credentials in an origin's URL": Refusal(
        "webproxy", ("origin_url", "'http://***@host/'", "without user"), ("-s", "http://user:secret@host/")
    ),
    "content": Refusal(
        "simplecached",
        ("content", "'/nonexistent'", "flag -c", "a directory", "No such file"),
        ("--check-config", "-c", "/nonexistent"),
    ),
}


RENAMED = [
    ("simplecached", "stall_s", "between_bytes_timeout_s"),
    ("simplecached", "shelf_bytes", "hot_table_bytes"),
    ("webproxy", "background_fetch_share", "continue_fetch_after_share"),
    ("webproxy", "client_rate_bytes", "client_min_rate_bytes_per_s"),
    ("webproxy", "deadline_s", "cache_timeout_s"),
    ("webproxy", "drop_parameters", "ignored_query_parameters"),
    ("webproxy", "queue_wait_s", "cache_first_byte_timeout_s"),
    ("webproxy", "stall_s", "between_bytes_timeout_s"),
    ("webproxy", "stripe", "segments_per_transfer_max"),
]


@pytest.mark.parametrize(("program", "old", "new"), RENAMED)
def test_a_former_name_is_refused_with_the_new_one(program, old, new, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(f"{old} = 5\n")
    variable = f"{program.upper()}_{old.upper()}"
    flag = f"--{old.replace('_', '-')}"
    sources = [(("--config", str(path)), {}, f"file {path}"), ((), {variable: "5"}, f"environment {variable}")]
    if old in ("stripe", "shelf_bytes"):
        sources.append(((flag, "5"), {}, f"flag {flag}"))
    for arguments, env, source in sources:
        command = [sys.executable, "-m", program, "--check-config", *arguments]
        refused = subprocess.run(
            command, env={**os.environ, **env}, capture_output=True, text=True, timeout=WATCHDOG_S, check=False
        )
        assert (refused.returncode, refused.stdout) == (USAGE, "")
        assert refused.stderr.startswith(f"{program}: {old}: ")
        for word in (f"from {source} is refused", f"{new}, the new name of this setting", "5"):
            assert word in refused.stderr


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refused_setting_says_name_value_range_and_source(yard, tmp_path, refusal):
    arguments = refusal.arguments
    if refusal.file is not None:
        (tmp_path / "settings.toml").write_text(refusal.file)
        arguments += ("--config", str(tmp_path / "settings.toml"))
    start = {"webproxy": yard.start_proxy, "simplecached": yard.start_cache}[refusal.program]
    daemon = start(*arguments, env=refusal.env, wait=False)
    assert daemon.wait_exit() == USAGE
    text = daemon.log_text()
    assert text.startswith(f"{refusal.program}: ")
    assert text.count("\n") == 1, "one line, no traceback"
    for word in refusal.words:
        assert word.format(file=tmp_path / "settings.toml") in text


class TestSources:
    def test_flag_then_environment_then_file(self, yard, tmp_path):
        settings = tmp_path / "settings.toml"
        settings.write_text('segment_bytes = "1m"\nsegment_count = 3\nsegments_per_transfer_max = 2\n')
        checked = yard.start_proxy(
            "--check-config",
            "--config",
            str(settings),
            "-z",
            "64k",
            env={"WEBPROXY_SEGMENT_BYTES": "4096", "WEBPROXY_SEGMENT_COUNT": "5"},
            wait=False,
        )
        assert checked.wait_exit() == 0
        lines = checked.log_text().splitlines()
        assert "segment_bytes = 65536 (64k)  [flag -z]" in lines
        assert "segment_count = 5  [environment WEBPROXY_SEGMENT_COUNT]" in lines
        assert f"segments_per_transfer_max = 2  [file {settings}]" in lines
        assert "worker_threads = 8  [default]" in lines

    def test_sizes_with_suffixes_are_used(self, yard, tmp_path):
        """One segment of 64 KiB: 100,000 bytes are two chunks; one of 1 MiB: one chunk."""
        bodies = write_files(tmp_path / "files", {"file": 100_000})
        for size, chunks in (("64k", 2), ("1m", 1)):
            cache = yard.start_cache(content=tmp_path / "files")
            proxy = yard.start_proxy("-z", size)
            assert ask(proxy.port, "/file").body == bodies["/file"]
            assert (proxy.stop(), cache.stop()) == (0, 0)
            assert cache.wait_event("stopped")["chunks"] == chunks

    def test_checking_starts_nothing(self, yard):
        checked = yard.start_cache("--check-config", wait=False)
        assert checked.wait_exit() == 0
        assert f"queue_name = {yard.queue}  [flag -q]" in checked.log_text()
        assert not yard.has_cache()


@pytest.mark.parametrize("program", ["simplecached", "webproxy"])
@pytest.mark.parametrize(("flag", "beginning"), [("--version", "{} "), ("--help", "usage: {} ")])
def test_version_and_help(program, flag, beginning):
    command = [sys.executable, "-m", program, flag]
    result = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(beginning.format(program))


class TestListening:
    def test_a_port_in_use_is_said_and_nothing_is_left(self, yard):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            refused = yard.start_proxy("-p", str(port), wait=False)
            assert refused.wait_exit() == CANNOT_START
        reason = refused.wait_event("cannot start")["reason"]
        assert f"127.0.0.1 port {port}" in reason
        assert "another process listens there" in reason

    def test_the_port_asked_for(self, yard):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
        proxy = yard.start_proxy("-p", str(port))
        assert proxy.port == port
        connect(port).close()

    @pytest.mark.parametrize("host", ["host.invalid", "192.0.2.1"])
    def test_a_host_that_is_not_ours(self, yard, host):
        refused = yard.start_proxy("--host", host, wait=False)
        assert refused.wait_exit() == CANNOT_START
        assert host in refused.wait_event("cannot start")["reason"]

    def test_ipv6(self, yard, tmp_path):
        with contextlib.ExitStack() as undo:
            try:
                undo.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
            except OSError:
                pytest.skip("this machine has no IPv6 loopback")
        bodies = write_files(tmp_path / "files", {"file": 100_000})
        yard.start_cache(content=tmp_path / "files")
        proxy = yard.start_proxy("--host", "::1")
        assert proxy.wait_event("listening")["host"] == "::1"
        assert ask(proxy.port, "/file", "::1").body == bodies["/file"]
