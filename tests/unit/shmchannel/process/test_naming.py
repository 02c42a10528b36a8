"""Names: made and read in one place, and nothing else is taken for one of ours."""

import pytest

from shmchannel.errors import UsageError
from shmchannel.process.naming import (
    DEFAULT_QUEUE_NAME,
    checked_queue_name,
    entry_guard_path,
    entry_name,
    hot_table_name,
    parse_entry_guard,
    parse_entry_name,
    parse_hot_table_name,
    parse_pool_guard,
    parse_queue_guard,
    parse_segment_name,
    parse_stats_guard,
    parse_stats_page_name,
    pid_of_pool,
    pool_guard_path,
    pool_name,
    pool_of_word,
    pool_word,
    queue_guard_path,
    segment_name,
    stats_guard_path,
    stats_page_name,
    stats_set_name,
)


def test_segment_names() -> None:
    pool = pool_name(4711, "00c0ffee")
    assert pool == "gf-4711-00c0ffee"
    assert segment_name(pool, 12) == "/gf-4711-00c0ffee-12"
    assert parse_segment_name("/gf-4711-00c0ffee-12") == pool
    assert pid_of_pool(pool) == 4711


def test_longest_segment_name_fits() -> None:
    longest = segment_name(pool_name(9_999_999_999, "ffffffff"), 10**19 - 1)
    assert parse_segment_name(longest) is not None
    assert len(longest) <= 255, "its length is one byte in a command, and a file name in /dev/shm has no more either"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gf-1-00000000-0",
        "/gf-0-00000000-0",
        "/gf-01-00000000-0",
        "/gf-1-0000000-0",
        "/gf-1-0000000G-0",
        "/gf-1-00000000-",
        "/gf-1-00000000-01",
        "/gf-1-00000000--1",
        "/gf-1-00000000-0/../x",
        "/gf-1-00000000-0\n",
        "/gf-1-00000000-0 ",
        "/gf-12345678901-00000000-0",
        "/gf-1-00000000-12345678901234567890",
        "/gf-\u0661-00000000-0",
        "/psm_1234",
    ],
)
def test_no_segment_name(name: str) -> None:
    assert parse_segment_name(name) is None


def test_guards() -> None:
    assert pool_guard_path("gf-1-00000000") == "/dev/shm/gf-1-00000000.guard"
    assert parse_pool_guard("gf-1-00000000.guard") == "gf-1-00000000"
    assert queue_guard_path(DEFAULT_QUEUE_NAME) == "/dev/shm/gf-queue-cache_request_q.guard"
    assert parse_queue_guard("gf-queue-cache_request_q.guard") == DEFAULT_QUEUE_NAME


@pytest.mark.parametrize("name", ["gf-1-00000000", "gf-queue-x.guard", "gf-1-00000000-0.guard", "x.guard", ".guard"])
def test_no_pool_guard(name: str) -> None:
    assert parse_pool_guard(name) is None


@pytest.mark.parametrize("name", ["gf-1-00000000.guard", "gf-queue-.guard", "gf-queue-a/b.guard", "queue-x.guard"])
def test_no_queue_guard(name: str) -> None:
    assert parse_queue_guard(name) is None


def test_hot_table_names() -> None:
    assert hot_table_name(DEFAULT_QUEUE_NAME) == "/gf-hot-table-cache_request_q"
    assert parse_hot_table_name("/gf-hot-table-cache_request_q") == DEFAULT_QUEUE_NAME
    assert len(hot_table_name("/" + "x" * 200)) <= 255
    with pytest.raises(UsageError):
        hot_table_name("cache_request_q")


@pytest.mark.parametrize(
    "name",
    ["gf-hot-table-x", "/gf-hot-table-", "/gf-hot-table-a/b", "/gf-hot-table-.x", "/gf-queue-x", "/gf-hot-table-x\n"],
)
def test_no_hot_table_name(name: str) -> None:
    assert parse_hot_table_name(name) is None


@pytest.mark.parametrize("queue", ["x.guard", "1-00000000.guard", "queue-x.guard", "1-00000000-0"])
def test_a_hot_table_is_taken_for_nothing_else(queue: str) -> None:
    """For any name of its queue."""
    name = hot_table_name(f"/{queue}")
    assert parse_hot_table_name(name) == f"/{queue}"
    assert (parse_segment_name(name), parse_pool_guard(name[1:]), parse_queue_guard(name[1:])) == (None, None, None)


def test_stats_page_names() -> None:
    pages = stats_set_name(4711, "00c0ffee")
    assert stats_page_name(pages, 3) == "/gf-stats-4711-00c0ffee-3"
    assert parse_stats_page_name("/gf-stats-4711-00c0ffee-3") == pages
    assert parse_stats_guard(stats_guard_path(pages).removeprefix("/dev/shm/")) == pages
    assert pid_of_pool(pages) == 4711
    assert (parse_segment_name(stats_page_name(pages, 3)), parse_pool_guard(f"{pages}.guard")) == (None, None)


@pytest.mark.parametrize(
    "name",
    ["gf-stats-1-00000000-0", "/gf-stats-1-00000000", "/gf-stats-0-00000000-0", "/gf-1-00000000-0", "/gf-stats-x"],
)
def test_no_stats_page_name(name: str) -> None:
    assert parse_stats_page_name(name) is None
    assert parse_stats_guard(name) is None


@pytest.mark.parametrize("name", ["/q", "/_q", "/q.1-a_B", "/" + "x" * 200])
def test_queue_name(name: str) -> None:
    assert checked_queue_name(name) == name


@pytest.mark.parametrize("name", ["", "/", "q", "//", "/a/b", "/.q", "/-q", "/q\n", "/\u00e4", "/" + "x" * 201])
def test_unusable_queue_name(name: str) -> None:
    with pytest.raises(UsageError, match="letters, digits"):
        checked_queue_name(name)


def test_registry_names() -> None:
    assert entry_name("cache", "a.guard") == "/gf-entry-cache.a.guard"
    assert entry_guard_path("cache", "a.guard") == "/dev/shm/gf-registry-cache.a.guard.guard"
    assert parse_entry_name("/gf-entry-cache.a.guard") == ("cache", "a.guard")
    assert parse_entry_guard("gf-registry-cache.a.guard.guard") == ("cache", "a.guard")


@pytest.mark.parametrize(
    "name", ["gf-entry-a.b", "/gf-entry-a", "/gf-entry-.b", "/gf-entry-A.b", "/gf-entry-a.b/c", "/gf-entry-a.b\n"]
)
def test_names_that_are_no_registry_entry(name: str) -> None:
    assert parse_entry_name(name) is None
    assert parse_entry_guard(name) is None


@pytest.mark.parametrize(("role", "name"), [("", "a"), ("A", "a"), ("a", ""), ("a.b", "c"), ("a", ".b"), ("a", "b/c")])
def test_registry_names_that_are_refused(role: str, name: str) -> None:
    with pytest.raises(UsageError, match="is not valid"):
        entry_name(role, name)


@pytest.mark.parametrize(("pid", "nonce"), [(1, "00000000"), (4_194_304, "ffffffff"), (4711, "00c0ffee")])
def test_a_pool_is_named_by_one_word(pid: int, nonce: str) -> None:
    word = pool_word(pool_name(pid, nonce))
    assert word == pid << 32 | int(nonce, 16)
    assert pool_of_word(word) == pool_name(pid, nonce)


def test_a_word_without_a_pid_names_no_pool() -> None:
    assert [pool_of_word(word) for word in (0, 0xFFFF_FFFF)] == [None, None]
    assert pool_word(pool_name(9_999_999_999, "00000001")) < 1 << 64
