"""Content that changes while the cache serves it: a file map, a directory, and unusable maps."""

import os
from pathlib import Path

import pytest

from tests.support.client import ask, connect, parse_answer, receive_to_end
from tests.support.contents import body_of, write_files
from tests.support.daemons import NO_HOT_TABLE
from tests.support.waiting import wait_until
from webproxy.getfile import Status, request_bytes

USAGE = 2


def replace(path: Path, content: bytes) -> None:
    """Put a new file in the place of the old one in one step, as editors and package tools do."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    os.replace(beside, path)


class TestFileMap:
    def test_serves_its_lines_and_nothing_beside(self, yard, tmp_path):
        bodies = write_files(tmp_path, {"one": 10, "two words": 5_000, "three": 0, "hidden": 5})
        (tmp_path / "map").write_text(f"/a one\n\n/b/c   two words\n/d {tmp_path}/three")
        yard.start_cache(content=tmp_path / "map")
        port = yard.start_proxy().port
        assert ask(port, "/a").body == bodies["/one"]
        assert ask(port, "/b/c").body == bodies["/two words"]
        assert ask(port, "/d") == (Status.OK, b"", 0), "a last line without newline is a line"
        for absent in ("/one", "/hidden", "/map", "/b", "/a/"):
            assert ask(port, absent).status is Status.FILE_NOT_FOUND

    def test_is_read_again_when_it_changes(self, yard, tmp_path):
        bodies = write_files(tmp_path, {"one": 10, "two": 2_000})
        replace(tmp_path / "map", b"/a one\n")
        yard.start_cache(content=tmp_path / "map")
        port = yard.start_proxy().port
        assert ask(port, "/a").body == bodies["/one"]
        replace(tmp_path / "map", b"/a two\n/b one\n")
        assert ask(port, "/b").body == bodies["/one"], "a miss looks at the map at once"
        wait_until(lambda: ask(port, "/a").body == bodies["/two"])
        replace(tmp_path / "map", b"/b one\n")
        wait_until(lambda: ask(port, "/a").status is Status.FILE_NOT_FOUND)

    def test_a_broken_change_keeps_the_map_before(self, yard, tmp_path):
        bodies = write_files(tmp_path, {"one": 10})
        replace(tmp_path / "map", b"/a one\n")
        cache = yard.start_cache(content=tmp_path / "map")
        port = yard.start_proxy().port
        replace(tmp_path / "map", b"/a one\n/b missing-file\n")
        assert ask(port, "/b").status is Status.FILE_NOT_FOUND
        refused = cache.wait_event("map file refused, previous one stays in use")
        assert f"{tmp_path / 'map'}, line 2: missing file" in refused["reason"]
        assert ask(port, "/a").body == bodies["/one"]
        assert len(cache.events("map file refused, previous one stays in use")) == 1

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"/a one\n/b missing\n", "line 2: missing file: {0}/missing"),
            (b"/a one\n/b\n", "line 2: malformed line: /b"),
            (b"a one", "line 1: the key does not begin with /"),
            (b"/a one\n\n/a one\n", "line 3: the key is on line 1 already"),
            (b"/a .\n", "line 1: not a regular file"),
        ],
    )
    def test_one_that_cannot_be_used_ends_the_start(self, yard, tmp_path, content, complaint):
        (tmp_path / "one").write_bytes(b"1")
        (tmp_path / "map").write_bytes(content)
        cache = yard.start_cache(content=tmp_path / "map", wait=False)
        assert cache.wait_exit() == USAGE
        assert f"{tmp_path / 'map'}, {complaint.format(tmp_path)}" in cache.log_text()


class TestDirectory:
    def test_is_read_anew_when_files_change(self, yard, tmp_path):
        root = tmp_path / "files"
        bodies = write_files(root, {"file": 3_000})
        yard.start_cache(content=root, env=NO_HOT_TABLE)  # the hot table may serve the file of a moment before
        port = yard.start_proxy().port
        assert ask(port, "/file").body == bodies["/file"]
        for size in (3_000, 0, 700_000):  # the same size is a change too
            replace(root / "file", body_of("changed", size))
            assert ask(port, "/file").body == body_of("changed", size)
        (root / "file").unlink()
        assert ask(port, "/file").status is Status.FILE_NOT_FOUND
        (root / "folder").mkdir()
        (root / "folder" / "new").write_bytes(b"new")
        assert ask(port, "/folder/new").body == b"new"

    def test_never_leads_outside(self, yard, tmp_path):
        root = tmp_path / "files"
        write_files(root, {"inside": 100})
        (tmp_path / "secret").write_bytes(b"secret")
        (root / "link").symlink_to("../secret")
        (root / "absolute").symlink_to(tmp_path / "secret")
        (root / "up").symlink_to("..")
        os.mkfifo(root / "pipe")
        yard.start_cache(content=root)
        port = yard.start_proxy().port
        for path in ("/link", "/absolute", "/up/secret", "/../secret", "/..%2fsecret", "/%2e%2e/secret", "/pipe", "/"):
            assert ask(port, path).status is Status.FILE_NOT_FOUND, path
        assert ask(port, "/inside").body == body_of("inside", 100)

    def test_a_file_that_shrinks_while_it_is_sent_closes_short(self, yard, tmp_path):
        root = tmp_path / "files"
        size = 48 << 20
        bodies = write_files(root, {"file": size})
        yard.start_cache(content=root)
        proxy = yard.start_proxy("--segments-per-transfer-max", "1")  # one transfer from the first byte to the last
        with connect(proxy.port, receive_buffer_bytes=4096) as client:
            client.sendall(request_bytes(b"/file"))
            beginning = client.recv(4096)
            os.truncate(root / "file", 40 << 20)
            answer = parse_answer(beginning + receive_to_end(client))
        assert answer.length == size
        assert len(answer.body) == 40 << 20
        assert answer.body == bodies["/file"][: 40 << 20]
        assert ask(proxy.port, "/file").body == answer.body, "the next one is the file as it is now"
