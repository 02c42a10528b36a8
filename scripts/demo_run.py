"""`scripts/demo`: runs the pair on real files: downloads all, compares digests, measures, checks for leaks, stops.

Everything is downloaded over getfile, and a part of it again over HTTP through the same port. Files are generated if no
SOURCE is given. A SOURCE is a directory, which the cache serves, or the URL of an HTTP origin, from which the proxy
fetches while the cache fills; then -w names a file with the paths to request, one per line.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scripts.daemons import (
    ENDING_SIGNALS,
    DaemonFailed,
    Pair,
    PairOptions,
    executable,
    interrupt_on_ending_signals,
    running_pair,
)
from scripts.file_digests import digest, wanted_digests
from scripts.http_files import HttpFailed, fetch_over_http, plain_paths
from shmchannel.tools.leaks import leaks_of

_CACHE_THREADS, _SEGMENT_COUNT, _SEGMENT_BYTES = 4, 8, 8192
_CLIENT_THREADS = 8
_MEASURED_REQUESTS = 2000
_HTTP_FILES_MAX = 200
_COMMAND_TIMEOUT_S = 900.0
_DAEMONS_LOOK_S = 1.0
_PORT_MAX = 65_535
_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130
_UNUSABLE = re.compile(r"[\x00-\x20\x7f]")  # a getfile path has no blank and no control byte


class DemoFailed(Exception):
    """A step of the demo failed; the text says which and why."""


class SourceRefused(Exception):
    """An argument cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The paths to download, and the directory or origin they come from."""

    paths: tuple[str, ...]
    directory: str | None = None
    origin_url: str | None = None

    @property
    def pair_options(self) -> PairOptions:
        """The pair that serves it."""
        return PairOptions(
            source=self.directory,
            origin_url=self.origin_url,
            cache_threads=_CACHE_THREADS,
            segment_count=_SEGMENT_COUNT,
            segment_bytes=_SEGMENT_BYTES,
        )


def choose_source(given: str | None, workload: str | None, work: str) -> Source:
    """Turn the arguments into a source, generating files below `work` if none are given.

    Raises:
        SourceRefused: no such directory, nothing in it, or an origin without a list of paths.
    """
    if given is None:
        made = os.path.join(work, "generated")
        _run([sys.executable, "-m", "workloads.generate", "mixed", made], "generating files")
        given = os.path.join(made, "files")
    if given.startswith(("http://", "https://")):
        if workload is None:
            raise SourceRefused("an origin cannot be listed: name a file with its paths, one a line, with -w FILE")
        with open(workload, encoding="utf-8") as lines:
            paths = [line.strip() for line in lines if line.startswith("/")]
        if not paths:
            raise SourceRefused(f"{workload} has no line that starts with '/'")
        return Source(paths=tuple(paths), origin_url=given.rstrip("/"))
    if not os.path.isdir(given):
        raise SourceRefused(f"{given} is neither a directory nor an http:// or https:// URL")
    paths = _paths_below(given)
    if not paths:
        raise SourceRefused(f"{given} holds no regular file")
    return Source(paths=tuple(paths), directory=os.path.abspath(given))


def _paths_below(directory: str) -> list[str]:
    """Every regular file that a getfile path can name, in a stable order; symbolic links are not served."""
    found, skipped = [], 0
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            place = os.path.join(folder, name)
            if os.path.islink(place) or not os.path.isfile(place):
                continue
            path = "/" + os.path.relpath(place, directory)
            if _UNUSABLE.search(path):
                skipped += 1
                continue
            found.append(path)
    if skipped:
        print(f"demo: left out {skipped} files whose names have blanks or control characters", file=sys.stderr)
    return found


def _run(command: Sequence[str], what: str) -> str:
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
    if result.returncode != 0:
        raise DemoFailed(f"{what} ended with status {result.returncode}:\n{result.stderr.strip() or result.stdout}")
    return result.stdout


def _download(pair: Pair, workload: str, copies: str) -> None:
    numbers = ["-p", str(pair.port), "-t", str(_CLIENT_THREADS)]
    _run([executable("gfclient"), "download", *numbers, "-w", workload, "-o", copies], "gfclient download")


def _measure(pair: Pair, workload: str, path_count: int) -> dict[str, Any]:
    requests = max(_MEASURED_REQUESTS, path_count)
    numbers = ["-p", str(pair.port), "-t", str(_CLIENT_THREADS), "-r", str(requests)]
    output = _run([executable("gfclient"), "measure", *numbers, "-w", workload, "--json"], "gfclient measure")
    report: dict[str, Any] = json.loads(output)
    return report


def _compare(source: Source, copies: str) -> int:
    """Compare every copy with its source; returns the bytes of all. Raises DemoFailed at the first that differs."""
    total_bytes = 0
    for path, wanted in wanted_digests(source.paths, source.directory, source.origin_url):
        copy = copies + path
        if not os.path.isfile(copy) or digest(copy) != wanted:
            raise DemoFailed(f"{path}: the copy is missing or its digest is not that of the source")
        total_bytes += os.path.getsize(copy)
    return total_bytes


def _compare_over_http(pair: Pair, paths: Sequence[str], copies: str) -> str:
    """Download some files over HTTP and compare them with the verified copies; returns a summary."""
    hits = count = 0
    for file in fetch_over_http(pair.port, plain_paths(paths)[:_HTTP_FILES_MAX]):
        if file.digest != digest(copies + file.path):
            raise DemoFailed(f"{file.path}: the HTTP response differs from the getfile download")
        count += 1
        hits += file.is_hit
    return f"{count} files equal, hits {hits}"


def _check_leaks(pair: Pair) -> None:
    statuses = pair.stop()
    left = leaks_of(pair.pids, pair.queue_name)
    print(f"leaks: {len(left)}")
    if left:
        raise DemoFailed("left behind: " + ", ".join(found.path for found in left))
    for name, status in statuses.items():
        if status != 0:
            raise DemoFailed(f"{name} ended with status {status}")


def show(source: Source, work: str) -> None:
    """Run the whole demo once and print what it found. Raises DemoFailed, HttpFailed, DaemonFailed."""
    workload = _write_workload(source, work)
    copies = os.path.join(work, "copies")
    with running_pair(source.pair_options, work, "gfdemo") as pair:
        print(f"simplecached -t {_CACHE_THREADS}, webproxy -n {_SEGMENT_COUNT} -z {_SEGMENT_BYTES}, port {pair.port}")
        _download(pair, workload, copies)
        total_bytes = _compare(source, copies)
        over_http = _compare_over_http(pair, source.paths, copies)
        print(f"files: {len(source.paths)}")
        print(f"bytes: {total_bytes}")
        print(f"http: {over_http}")
        print("digests: equal")
        report = _measure(pair, workload, len(source.paths))
        print(f"requests/s: {report['requests_per_s']:.0f}")
        print(f"MB/s: {report['megabytes_per_s']:.1f}")
        print(f"p50/p99: {report['latency_ms']['p50']:.2f} ms / {report['latency_ms']['p99']:.2f} ms")
        _check_leaks(pair)


def keep_serving(source: Source, work: str, port: int) -> None:
    """Run the pair until SIGINT or SIGTERM, after printing what to type. Raises DaemonFailed, DemoFailed."""
    workload = _write_workload(source, work)
    with running_pair(replace(source.pair_options, port=port), work, "gfdemo") as pair:
        client = os.path.relpath(executable("gfclient"))
        print(f"serving {len(source.paths)} files on port {pair.port}; in another terminal type:")
        for path in plain_paths(source.paths)[:1]:
            url = shlex.quote(f"http://127.0.0.1:{pair.port}{path}")
            print(f"  curl -sS -D- -o copy {url}")
            print(f"  curl -sSI {url}")
        print(f"  {client} download -p {pair.port} -o copies {source.paths[0]}")
        print(f"  {client} download -p {pair.port} -w {workload} -o copies")
        print(f"  {client} measure -p {pair.port} -w {workload} -r 2000")
        print("Ctrl-C stops both daemons", flush=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)  # only now: the daemons would inherit the mask
        while signal.sigtimedwait(ENDING_SIGNALS, _DAEMONS_LOOK_S) is None:
            for daemon in (pair.proxy, pair.cache):
                if not daemon.running:
                    raise DaemonFailed(f"{daemon.name} ended by itself:\n{daemon.log_text()}")
        _check_leaks(pair)


def _write_workload(source: Source, work: str) -> str:
    workload = os.path.join(work, "workload.txt")
    with open(workload, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{path}\n" for path in source.paths)
    return workload


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give 0 to {_PORT_MAX}, where 0 is a free one")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo. Exit status: 0 success, 1 failure, 2 usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="a directory or the URL of an HTTP origin")
    parser.add_argument("-w", "--workload", metavar="FILE", help="with a URL: the paths to ask for, one a line")
    parser.add_argument("--serve", action="store_true", help="keep the pair running and print what to type")
    parser.add_argument("-p", "--port", type=_port, default=0, help="with --serve: the port (default: a free one)")
    arguments = parser.parse_args(argv)
    interrupt_on_ending_signals()
    work = tempfile.mkdtemp(prefix="gfdemo-")
    try:
        source = choose_source(arguments.source, arguments.workload, work)
        if arguments.serve:
            keep_serving(source, work, arguments.port)
        else:
            show(source, work)
    except (SourceRefused, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return _EXIT_USAGE
    except (DemoFailed, HttpFailed, DaemonFailed) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; its daemons are stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
