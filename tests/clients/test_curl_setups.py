"""curl with the pair set up otherwise: before files of the cache's own, over restarts, without a cache."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients.curl import Curl
from tests.clients.site import wait_stored
from tests.support.client import ask
from tests.support.contents import body_of, write_files
from tests.support.daemons import DaemonYard
from tests.support.nginx import Nginx
from tests.support.programs import require_program
from tests.support.waiting import wait_until
from webproxy.getfile import Status

MEGABYTE = 1 << 20


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a large, a small and an empty file."""
    write_files(tmp_path / "files", {"large.bin": 3 * MEGABYTE, "small.bin": 1000, "empty": 0, "page.txt": 10})
    return tmp_path / "files"


def test_files_that_the_cache_serves_itself(yard: DaemonYard, files: Path, curl: Curl) -> None:
    yard.start_cache("-t", "4", content=files)
    url = f"http://127.0.0.1:{yard.start_proxy('-t', '4').port}"
    large = body_of("large.bin", 3 * MEGABYTE)
    for _ in range(2):
        answer = curl(f"{url}/large.bin")
        assert (answer.status, answer.body == large, answer.is_hit) == (200, True, True)
        assert answer.fields["Content-Type"] == "application/octet-stream"
        assert curl(f"{url}/page.txt").fields["Content-Type"] == "text/plain"
        assert curl(f"{url}/empty").fields["Content-Length"] == "0"
    part = curl("-r", "2000000-2099999", f"{url}/large.bin")
    assert (part.status, part.body) == (206, large[2_000_000:2_100_000])
    (curl.home / "half").write_bytes(large[:MEGABYTE])
    curl.run("-C", "-", "-o", "half", f"{url}/large.bin")
    assert (curl.home / "half").read_bytes() == large
    assert (curl("-I", f"{url}/large.bin").status, curl(f"{url}/missing").status) == (200, 404)
    assert curl("-d", "x=1", f"{url}/small.bin").status == 405


def test_a_file_of_the_caches_own_that_changes(yard: DaemonYard, files: Path, curl: Curl) -> None:
    yard.start_cache("-t", "4", content=files)
    url = f"http://127.0.0.1:{yard.start_proxy('-t', '4').port}"
    curl("--etag-save", "tag", f"{url}/small.bin")
    assert curl("--etag-compare", "tag", f"{url}/small.bin").status == 304
    (files / "new").write_bytes(b"something else")
    (files / "new").rename(files / "small.bin")
    wait_until(lambda: curl(f"{url}/small.bin").body == b"something else")
    answer = curl("--etag-compare", "tag", f"{url}/small.bin")
    assert (answer.status, answer.body) == (200, b"something else")


def test_what_is_stored_outlives_both_daemons(yard: DaemonYard, files: Path, tmp_path: Path, curl: Curl) -> None:
    fields = {}
    with Nginx(require_program("nginx"), files, tmp_path / "nginx") as nginx:
        for number in range(2):
            cache = yard.start_cache("--store", str(tmp_path / "store"))
            proxy = yard.start_proxy("-s", nginx.url)
            for path in ("/large.bin", "/small.bin"):
                answer = curl(f"http://127.0.0.1:{proxy.port}{path}")
                assert (answer.body == (files / path[1:]).read_bytes(), answer.is_hit) == (True, number > 0)
                kept = {name: answer.fields[name] for name in ("ETag", "Date", "Last-Modified", "Content-Type")}
                assert fields.setdefault(path, kept) == kept
            assert (proxy.stop(), cache.stop()) == (0, 0)
        assert {line.target for line in nginx.log()} == {"/large.bin", "/small.bin"}
        assert len(nginx.log()) == 2


def test_an_origin_that_has_gone(yard: DaemonYard, files: Path, tmp_path: Path, curl: Curl) -> None:
    with Nginx(require_program("nginx"), files, tmp_path / "nginx") as nginx:
        yard.start_cache()
        url = f"http://127.0.0.1:{yard.start_proxy('-s', nginx.url, env={'WEBPROXY_ORIGIN_TRIES': '1'}).port}"
        assert curl(f"{url}/large.bin").status == 200
    answer = curl(f"{url}/large.bin")
    assert (answer.is_hit, answer.body == body_of("large.bin", 3 * MEGABYTE)) == (True, True)
    assert curl(f"{url}/small.bin").status == 502
    only_stored = curl("-H", "Cache-Control: only-if-cached", f"{url}/small.bin")
    assert only_stored.status == 504


def test_without_a_cache(yard: DaemonYard, files: Path, tmp_path: Path, curl: Curl) -> None:
    with Nginx(require_program("nginx"), files, tmp_path / "nginx") as nginx:
        url = f"http://127.0.0.1:{yard.start_proxy('-s', nginx.url, '--no-cache').port}"
        for _ in range(2):
            answer = curl(f"{url}/large.bin")
            assert (answer.status, answer.body == body_of("large.bin", 3 * MEGABYTE)) == (200, True)
            assert answer.cache_status == 'gfcache; fwd=uri-miss; fwd-status=200; detail="no cache connected"'
        part = curl("-r", "1000-1999", f"{url}/large.bin")
        assert (part.status, part.body) == (206, body_of("large.bin", 3 * MEGABYTE)[1000:2000])
        assert nginx.count("/large.bin")[200] >= 2


def test_getfile_and_http_share_what_either_filled(yard: DaemonYard, files: Path, tmp_path: Path, curl: Curl) -> None:
    with Nginx(require_program("nginx"), files, tmp_path / "nginx") as nginx:
        yard.start_cache()
        port = yard.start_proxy("-s", nginx.url).port
        assert ask(port, "/large.bin").status is Status.OK
        wait_stored(port, "/large.bin")
        assert curl(f"http://127.0.0.1:{port}/large.bin").is_hit
        assert not curl(f"http://127.0.0.1:{port}/small.bin?v=2").is_hit
        answer = ask(port, "/small.bin?v=2")
        assert (answer.status, answer.body) == (Status.OK, body_of("small.bin", 1000))
        assert len(nginx.log()) == 2


def test_small_segments_and_clients_that_read_slowly(yard: DaemonYard, files: Path, tmp_path: Path, curl: Curl) -> None:
    with Nginx(require_program("nginx"), files, tmp_path / "nginx") as nginx:
        yard.start_cache("-t", "2")
        url = f"http://127.0.0.1:{yard.start_proxy('-s', nginx.url, '-t', '2', '-n', '2', '-z', '8192').port}"
        curl(f"{url}/large.bin")
        words = [word for number in range(6) for word in ("-o", f"slow-{number}", f"{url}/large.bin")]
        curl.run("-Z", "--parallel-immediate", "--limit-rate", "3m", *words)
        for number in range(6):
            assert (curl.home / f"slow-{number}").read_bytes() == body_of("large.bin", 3 * MEGABYTE)
        assert nginx.count("/large.bin") == {200: 1}


def test_a_soft_purge_keeps_the_body(yard: DaemonYard, files: Path, tmp_path: Path, curl: Curl) -> None:
    with Nginx(require_program("nginx"), files, tmp_path / "nginx") as nginx:
        yard.start_cache()
        url = f"http://127.0.0.1:{yard.start_proxy('-s', nginx.url).port}"
        for soft in (("-H", "X-Purge: soft"), ()):
            curl(f"{url}/small.bin")
            assert curl(f"{url}/small.bin").is_hit
            assert re.match(rb"1 objects", curl("-X", "PURGE", *soft, f"{url}/small.bin").body)
            assert not curl(f"{url}/small.bin").is_hit
        assert nginx.count("/small.bin") == {200: 2, 304: 1}
