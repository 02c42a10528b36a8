"""webproxy purge: what is given to the keys that are meant, the question to the cache, the answer to an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shmchannel.objects.commands import KEY_BYTES_MAX
from tests.support.channels import unique_queue
from tests.support.pairs import Entry, Pair
from webproxy import cli
from webproxy.daemon.purge_command import BadKey, PurgeRequest, main, orders_for

OBJECTS = {
    b"/a": b"one",
    b"/a\0": b"",
    b"/a\x000123456789abcdef": b"variant",
    b"/ab": b"another",
    b"/a/b": b"below",
    b"http://host.example/a": b"of a host",
}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(segments=1) as living:
        living.cache.entries.update({key: Entry(body) for key, body in OBJECTS.items()})
        yield living


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        pytest.param(b"/a", [b"/a"], id="path"),
        pytest.param(b"/a?b=c&d", [b"/a?b=c&d"], id="query"),
        pytest.param(b"/a/./b/../c", [b"/a/c"], id="dot segments"),
        pytest.param(b"/../%2e%2e/a", [b"/a"], id="above the root"),
        pytest.param(b"/%7e/%c3%bc", [b"/%7e/%c3%bc", b"/%7E/%C3%BC"], id="escapes as they came, and in capitals"),
        pytest.param("/ü".encode(), ["/ü".encode(), b"/%C3%BC"], id="bytes that HTTP escapes"),
        pytest.param(b"/a#b", [b"/a#b"], id="what HTTP cannot ask for"),
        pytest.param(b"/a*b", [b"/a*b"], id="an asterisk inside"),
        pytest.param(b"http://Host.EXAMPLE:80/a/../b", [b"http://host.example/b"], id="URL"),
        pytest.param(b"http://host.example", [b"http://host.example/"], id="URL without a path"),
        pytest.param(b"http://[::0001]:8080/a#part", [b"http://[::1]:8080/a"], id="URL with an address and a fragment"),
    ],
)
def test_a_key_is_purged_with_its_variants(text: bytes, keys: list[bytes]) -> None:
    assert orders_for(text) == [PurgeRequest(key, prefix=False) for key in keys]


@pytest.mark.parametrize(
    ("text", "prefixes"),
    [
        pytest.param(b"*", [b""], id="everything"),
        pytest.param(b"/*", [b"/"], id="all paths"),
        pytest.param(b"/old/*", [b"/old/"], id="folder"),
        pytest.param(b"/old/v1*", [b"/old/v1"], id="beginning of a name"),
        pytest.param(b"/a/./b/*", [b"/a/b/"], id="dot segments"),
        pytest.param(b"/a/.*", [b"/a/."], id="hidden files, not the folder"),
        pytest.param(b"/a/..*", [b"/a/.."], id="two dots at the end, not the folder above"),
        pytest.param(b"/a?v=*", [b"/a?v="], id="query"),
        pytest.param(b"/a**", [b"/a*"], id="an asterisk that is meant"),
        pytest.param("/ü*".encode(), ["/ü".encode(), b"/%C3%BC"], id="both forms"),
        pytest.param(b"http://HOST/*", [b"http://host/"], id="host"),
        pytest.param(b"http://HOST/a*", [b"http://host/a"], id="below a host"),
    ],
)
def test_an_asterisk_at_the_end_means_all_that_begin_so(text: bytes, prefixes: list[bytes]) -> None:
    assert orders_for(text) == [PurgeRequest(prefix, True) for prefix in prefixes]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(b"", "is no key: write /PATH", id="nothing"),
        pytest.param(b"a", "is no key: write /PATH", id="no slash"),
        pytest.param(b"a*", "is no key: write /PATH", id="prefix without a slash"),
        pytest.param(b"https://host/a", "'https://host/a' is no key: write /PATH or", id="https is no part of any key"),
        pytest.param(b"http:///a", "invalid authority", id="no host"),
        pytest.param(b"http://user@host/a", "invalid authority", id="user"),
        pytest.param(b"http://host/a b", "space", id="blank in a URL"),
        pytest.param(b"http://ho*", "the host of a prefix must be whole", id="part of a host"),
        pytest.param(b"http://*", "the host of a prefix must be whole", id="no host of a prefix"),
        pytest.param(b"/" + b"a" * KEY_BYTES_MAX, "at most 4096 bytes", id="too long"),
    ],
)
def test_what_can_be_no_key_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(BadKey, match=said):
        orders_for(text)


def test_the_longest_key() -> None:
    longest = b"/" + b"a" * (KEY_BYTES_MAX - 1)
    assert orders_for(longest) == [PurgeRequest(longest, False)]


@pytest.mark.parametrize(
    ("key", "printed", "gone"),
    [
        pytest.param("/a", "3 objects removed\n", [b"/a", b"/a\0", b"/a\x000123456789abcdef"], id="with variants"),
        pytest.param("/ab", "1 object removed\n", [b"/ab"], id="one"),
        pytest.param("/nothing", "0 objects removed\n", [], id="none"),
        pytest.param("/a/*", "1 object removed\n", [b"/a/b"], id="prefix"),
        pytest.param("/a*", "5 objects removed\n", [key for key in OBJECTS if key.startswith(b"/a")], id="all of a"),
        pytest.param("http://HOST.example/*", "1 object removed\n", [b"http://host.example/a"], id="host"),
        pytest.param("*", "6 objects removed\n", list(OBJECTS), id="everything"),
    ],
)
def test_the_cache_lacks_what_was_purged(
    pair: Pair, key: str, printed: str, gone: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([key, "-q", pair.queue_name]) == 0
    assert capsys.readouterr() == (printed, "")
    assert sorted(pair.cache.entries) == sorted(set(OBJECTS) - set(gone))


def test_the_queue_is_that_of_the_daemon(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its flag wins over the environment, that over the file, whose other settings are the daemon's."""
    file = tmp_path / "webproxy.toml"
    file.write_text(f'queue_name = "{pair.queue_name}"\nport = 1234\norigin_url = "http://127.0.0.1:1"\n')
    assert main(["/ab", "--config", str(file)]) == 0
    monkeypatch.setenv("WEBPROXY_QUEUE_NAME", "/gft-nobody")
    assert main(["/ab", "--config", str(file)]) == 69
    assert main(["/ab", "--config", str(file), "-q", pair.queue_name]) == 0
    shown = capsys.readouterr()
    assert shown.out == "1 object removed\n0 objects removed\n"
    assert shown.err.startswith("webproxy purge: no process serves queue /gft-nobody")


def test_without_a_cache_it_says_so_and_ends_with_69(capsys: pytest.CaptureFixture[str]) -> None:
    queue = unique_queue()
    assert main(["/a", "-q", queue]) == 69
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"webproxy purge: no process serves queue {queue} (start simplecached -q {queue})")


def test_a_cache_that_does_not_answer_ends_it_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEBPROXY_CACHE_TIMEOUT_S", "0.05")
    with Pair(segments=1, workers=0) as silent:
        assert main(["/a", "-q", silent.queue_name]) == 1
    assert capsys.readouterr().err.startswith("webproxy purge: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "required: KEY", id="no key"),
        pytest.param(["/a", "/b"], "unrecognized arguments: /b", id="two keys"),
        pytest.param(["/a", "-p", "1"], "unrecognized arguments: -p", id="a flag of the daemon"),
        pytest.param(["a"], "webproxy purge: 'a' is no key: write /PATH or http://HOST/PATH", id="no key of ours"),
        pytest.param(["/a", "-q", "name"], "flag -q", id="no name of a queue"),
        pytest.param(["/a", "--config", "/absent.toml"], "/absent.toml", id="no such file"),
    ],
)
def test_what_cannot_be_used_ends_with_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_it_is_a_command_of_webproxy(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["webproxy", "purge", "-q", pair.queue_name, "/ab"])
    assert cli.main() == 0
    assert capsys.readouterr().out == "1 object removed\n"
    assert b"/ab" not in pair.cache.entries


def test_a_refused_queue_is_told_with_the_flag_that_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["/a", "--queue", "bad"])
    assert ended.value.code == 2
    assert "queue_name: 'bad' from flag --queue is refused" in capsys.readouterr().err
