"""Workload files, and the list that threads share."""

import threading
from pathlib import Path

import pytest

from workloads.gfclient.workload import WorkList, WorkloadError, read_workload


def write(folder: Path, content: bytes) -> str:
    file = folder / "workload.txt"
    file.write_bytes(content)
    return str(file)


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"/a\n/b\n", [b"/a", b"/b"]),
        (b"/a\n/b", [b"/a", b"/b"]),
        (b"/a\r\n/b\r\n", [b"/a", b"/b"]),
        (b"# comment\n\n  /a  \n\t\n#/b\n/a\n", [b"/a", b"/a"]),
        ("/ü\n".encode(), ["/ü".encode()]),
        (b"\n".join(b"/%d" % n for n in range(5000)), [b"/%d" % n for n in range(5000)]),
    ],
)
def test_paths_are_read_in_order(tmp_path: Path, content: bytes, paths: list[bytes]) -> None:
    assert read_workload(write(tmp_path, content)) == paths


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"/a\nb/c\n", r"workload.txt:2: .*does not begin with '/'; write /b/c"),
        (b"/a b\n", r"workload.txt:1: .*percent-encode it; write /a%20b"),
        (b"/" + b"p" * 4096, r"workload.txt:1: .*longer than 4096; use a shorter path"),
        (b"", "holds no path"),
        (b"# nothing\n\n", "holds no path"),
    ],
)
def test_a_bad_line_is_named_with_its_place_and_remedy(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        read_workload(write(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"absent\.txt: cannot read the workload file: No such file"):
        read_workload(str(tmp_path / "absent.txt"))


def test_requests_go_round_robin() -> None:
    work = WorkList([b"/a", b"/b"], 5)
    taken = [work.take() for _ in range(6)]
    assert taken == [(0, b"/a"), (1, b"/b"), (2, b"/a"), (3, b"/b"), (4, b"/a"), None]


def test_each_path_once_unless_told_otherwise() -> None:
    assert WorkList([b"/a", b"/b"]).request_count == 2
    assert WorkList([b"/a", b"/b"], 1).request_count == 1
    with pytest.raises(ValueError, match="needs a path"):
        WorkList([])


def test_threads_take_each_request_once() -> None:
    work = WorkList([b"/a", b"/b", b"/c"], 1000)
    taken: list[int] = []

    def take_all() -> None:
        while task := work.take():
            taken.append(task[0])

    threads = [threading.Thread(target=take_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1000))
