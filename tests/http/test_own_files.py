"""Files of the cache's own (`simplecached -c DIR`) over HTTP, by a proxy without an origin."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.support.daemons import DaemonYard

FILES = {
    "plain.txt": b"plain",
    "café 100%.txt": b"escaped",
    "a%41.html": b"a per cent sign of its own",
    "big.bin": b"x" * 300_000,
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The proxy's."""
    directory = tmp_path_factory.mktemp("own")
    files = directory / "files"
    files.mkdir()
    for name, body in FILES.items():
        (files / name).write_bytes(body)
    with DaemonYard(directory) as yard:
        yard.start_cache(content=files)
        yield yard.start_proxy().port


def ask(port: int, target: str, method: str = "GET", **fields: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, target, headers={name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("name", FILES)
def test_every_name_can_be_asked_for(port: int, name: str) -> None:
    response, body = ask(port, "/" + quote(name))
    assert (response.status, body) == (200, FILES[name])
    assert response.headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    ("target", "kind"),
    [("/plain.txt", "text/plain"), ("/a%2541.html", "text/html"), ("/big.bin", "application/octet-stream")],
)
def test_the_type_is_guessed_from_the_name(port: int, target: str, kind: str) -> None:
    assert ask(port, target)[0].headers["Content-Type"] == kind


def test_a_query_means_nothing_to_a_file(port: int) -> None:
    assert ask(port, "/plain.txt?version=2")[1] == FILES["plain.txt"]


@pytest.mark.parametrize("target", ["/none", "/..%2f..%2fetc/passwd", "/%2e%2e/etc/passwd", "/plain.txt%00", "/"])
def test_what_is_no_file(port: int, target: str) -> None:
    assert ask(port, target)[0].status == 404


def test_a_copy_is_validated_by_its_tag(port: int) -> None:
    response, _ = ask(port, "/plain.txt")
    again, body = ask(port, "/plain.txt", If_None_Match=response.headers["ETag"])
    assert (again.status, body) == (304, b"")


def test_a_part(port: int) -> None:
    response, body = ask(port, "/big.bin", Range="bytes=299990-")
    assert (response.status, body, response.headers["Content-Range"]) == (206, b"x" * 10, "bytes 299990-299999/300000")


def test_only_the_head(port: int) -> None:
    response, body = ask(port, "/big.bin", "HEAD")
    assert (response.status, body, response.headers["Content-Length"]) == (200, b"", "300000")


def test_nothing_can_be_changed(port: int) -> None:
    assert ask(port, "/plain.txt", "DELETE")[0].status == 405
