"""wget through the pair to a real nginx: whole, resumed, and only when newer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.site import Site, run_client
from tests.support.programs import require_program

MEGABYTE = 1 << 20


def wget(home: Path, *words: str, exit_code: int = 0) -> str:
    """Run it in `home`, without the user's settings; returns what it printed of the answers."""
    command = [require_program("wget"), "--no-config", "--no-hsts", "--no-verbose", "--tries=1", "--server-response"]
    return run_client([*command, *words], home, exit_codes=(exit_code,)).stderr.decode()


def test_the_second_of_two_is_a_hit(site: Site, tmp_path: Path) -> None:
    body = site.add_random("/wget-whole.bin", 2 * MEGABYTE)
    said = []
    for number in range(2):
        said.append(wget(tmp_path, "-O", f"copy-{number}", f"{site.url}/wget-whole.bin"))
        site.wait_stored("/wget-whole.bin")
    assert [(tmp_path / f"copy-{number}").read_bytes() == body for number in range(2)] == [True, True]
    assert ["Cache-Status: gfcache; hit" in text for text in said] == [False, True]
    assert site.nginx.count("/wget-whole.bin") == {200: 1}


@pytest.mark.parametrize("stored", [True, False], ids=["hit", "miss"])
def test_a_download_that_goes_on(site: Site, tmp_path: Path, stored: bool) -> None:
    name = f"wget-resume-{stored}.bin"
    body = site.add_random(f"/{name}", 3 * MEGABYTE)
    if stored:
        wget(tmp_path, "-O", "whole", f"{site.url}/{name}")
    (tmp_path / name).write_bytes(body[: MEGABYTE + 1])
    said = wget(tmp_path, "-c", f"{site.url}/{name}")
    assert "HTTP/1.1 206" in said
    assert (tmp_path / name).read_bytes() == body
    assert "HTTP/1.1 416" in wget(tmp_path, "-c", f"{site.url}/{name}"), "there is nothing left to fetch"
    assert (tmp_path / name).read_bytes() == body


def test_only_when_it_is_newer(site: Site, tmp_path: Path) -> None:
    body = site.add_random("/wget-newer.bin", 5000)
    assert "HTTP/1.1 200" in wget(tmp_path, "-N", f"{site.url}/wget-newer.bin")
    assert "HTTP/1.1 304" in wget(tmp_path, "-N", f"{site.url}/wget-newer.bin")
    assert (tmp_path / "wget-newer.bin").read_bytes() == body
    assert site.nginx.count("/wget-newer.bin") == {200: 1}


def test_a_tree_over_one_connection(site: Site, tmp_path: Path) -> None:
    """-r reads the page and fetches what it links to."""
    bodies = {f"leaf-{number}.bin": site.add_random(f"/tree/leaf-{number}.bin", 4000) for number in range(8)}
    links = "".join(f'<a href="{name}">{name}</a>\n' for name in bodies)
    site.add("/tree/index.html", f"<html><body>{links}</body></html>".encode())
    for _ in range(2):
        wget(tmp_path, "-r", "-np", "-nH", "-e", "robots=off", f"{site.url}/tree/index.html")
        assert {name: (tmp_path / "tree" / name).read_bytes() for name in bodies} == bodies
    assert {name: site.nginx.count(f"/tree/{name}") for name in bodies} == {name: {200: 1} for name in bodies}
