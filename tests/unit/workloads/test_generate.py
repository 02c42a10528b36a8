"""The sample workloads: the table makes sense, the bytes are the same every time, the lists fit the files."""

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from workloads.generate import Group, WorkloadKind, content, generate, load_kinds, main, plan_files, plan_requests
from workloads.gfclient.workload import read_workload
from workloads.manifest import compare, read_manifest

TINY = WorkloadKind(
    "tiny", "for this test", (Group("none", 1, 0, 0), Group("some", 5, 10, 5000)), requests=20, skew=1.0
)


def test_the_kinds_are_those_promised() -> None:
    assert sorted(load_kinds()) == ["hot-set", "large", "mixed", "small"]


@pytest.mark.parametrize("name", ["hot-set", "large", "mixed", "small"])
def test_plans_keep_to_the_table_and_the_seed(name: str) -> None:
    kind = load_kinds()[name]
    planned = plan_files(kind, seed=7)
    assert len(planned) == len({file.path for file in planned}) == sum(group.count for group in kind.groups)
    low = min(group.low_bytes for group in kind.groups)
    high = max(group.high_bytes for group in kind.groups)
    assert all(low <= file.size_bytes <= high for file in planned)
    assert plan_files(kind, seed=7) == planned
    requests = plan_requests(kind, planned, seed=7)
    assert plan_requests(kind, planned, seed=7) == requests
    assert set(requests) <= {file.path for file in planned}


@pytest.mark.parametrize("name", ["hot-set", "large", "mixed", "small"])
def test_the_sample_workload_files_are_what_the_generator_makes(name: str) -> None:
    kind = load_kinds()[name]
    sample = files("workloads.manifests").joinpath(f"{name}.txt").read_text()
    assert sample.splitlines() == plan_requests(kind, plan_files(kind, seed=0), seed=0)


def test_the_hot_set_has_hot_files() -> None:
    kind = load_kinds()["hot-set"]
    counts = Counter(plan_requests(kind, plan_files(kind, seed=0), seed=0))
    hottest = sum(count for _, count in counts.most_common(len(plan_files(kind, seed=0)) // 10))
    assert hottest > counts.total() / 2


def test_content_depends_on_path_and_seed_only() -> None:
    def whole(path: str, seed: int) -> bytes:
        return b"".join(content(path, 3_000_000, seed))

    first = whole("/a", 0)
    assert len(first) == 3_000_000
    assert whole("/a", 0) == first
    assert whole("/b", 0) != first
    assert whole("/a", 1) != first
    assert b"".join(content("/a", 0, 0)) == b""


def test_files_and_lists_fit_together(tmp_path: Path) -> None:
    entries = generate(TINY, str(tmp_path), seed=3)
    assert len(entries) == 6
    assert read_manifest(str(tmp_path / "manifest.txt")) == entries
    assert compare(entries, str(tmp_path / "files"), exact=True) == []
    assert len(read_workload(str(tmp_path / "workload.txt"))) == 20
    keys_and_files = [line.split(" ") for line in (tmp_path / "locals.txt").read_text().splitlines()]
    assert [key for key, _ in keys_and_files] == [entry.path for entry in entries]
    assert [Path(name).stat().st_size for _, name in keys_and_files] == [entry.size_bytes for entry in entries]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["small", str(tmp_path / "made"), "--seed", "5"]) == 0
    assert capsys.readouterr().out.startswith("256 files, ")
    (tmp_path / "file").write_bytes(b"")
    assert main(["small", str(tmp_path / "file")]) == 2
