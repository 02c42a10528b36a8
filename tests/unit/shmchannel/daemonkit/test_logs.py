"""Does every event become one line with its facts, whatever they hold?"""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmchannel.daemonkit.log_lines import id_text, without_queries
from shmchannel.daemonkit.logs import LogForm, about, configure, subject

if TYPE_CHECKING:
    pass

log = logging.getLogger("tests.daemonkit.logs")


def json_events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_event() -> None:
    stream = io.StringIO()
    configure("info", prog="webproxy", form="json", stream=stream)
    log.info("exchange %s", "done", extra={"outcome": "hit", "ratio": float("nan"), "path": b"/\xc3\xbc\xff"})
    (event,) = json_events(stream)
    assert event["timestamp"].endswith("Z")
    assert (event["level"], event["prog"], event["logger"]) == ("info", "webproxy", "tests.daemonkit.logs")
    assert (event["event"], event["outcome"], event["ratio"], event["path"]) == (
        "exchange done",
        "hit",
        "nan",
        "/ü\\xff",
    )


@pytest.mark.parametrize("form", list(LogForm))
def test_names_of_facts_are_words(form: LogForm) -> None:
    stream = io.StringIO()
    configure("info", prog="webproxy", form=form, stream=stream)
    log.info("stopped", extra={"not found": 1, "http uri-miss": 2, "failed OriginTimeout": 3})
    written = stream.getvalue()
    assert all(name in written for name in ("not_found", "http_uri_miss", "failed_OriginTimeout"))


def test_bytes_inside_a_list_are_text_too() -> None:
    stream = io.StringIO()
    configure("info", prog="webproxy", form="json", stream=stream)
    log.info("purged", extra={"keys": (b"/a", b"/b")})
    assert json_events(stream)[0]["keys"] == ["/a", "/b"]


def test_timestamp_is_when_it_happened() -> None:
    stream = io.StringIO()
    handler = configure("info", prog="webproxy", form="json", stream=stream)
    record = log.makeRecord(log.name, logging.INFO, "f", 1, "old", (), None)
    record.created = 86400.5
    handler.handle(record)
    assert json_events(stream)[0]["timestamp"] == "1970-01-02T00:00:00.500Z"


def test_console_event() -> None:
    stream = io.StringIO()
    configure("info", prog="webproxy", stream=stream)
    log.warning("origin slow", extra={"url": "http://a/\nb"})
    (line,) = stream.getvalue().splitlines()
    assert line.endswith('tests.daemonkit.logs: origin slow url="http://a/\\nb"')
    assert " warning " in line


@pytest.mark.parametrize("form", list(LogForm))
def test_exception_stays_on_the_line(form: LogForm) -> None:
    stream = io.StringIO()
    configure("info", prog="webproxy", form=form, stream=stream)
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("job failed", stack_info=True)
    (line,) = stream.getvalue().splitlines()
    assert "KeyError: 'lost'" in line
    assert "test_exception_stays_on_the_line" in line


def test_no_query_is_shown_wherever_it_is() -> None:
    stream = io.StringIO()
    configure("info", prog="webproxy", form="json", stream=stream)
    try:
        raise KeyError("http://h/p?token=secret")
    except KeyError:
        log.exception("asked for /p?token=secret", extra={"url": "/p?token=secret"})
    assert "secret" not in json.dumps({**json_events(stream)[0], "exception": ""})
    assert "KeyError: 'http://h/p?...'" in json_events(stream)[0]["exception"]


def test_facts_cannot_displace_the_head() -> None:
    stream = io.StringIO()
    configure("info", prog="webproxy", form="json", stream=stream)
    log.info("true", extra={"event": "false", "level": "fake", "pid": -1})
    (event,) = json_events(stream)
    assert (event["event"], event["level"]) == ("true", "info")
    assert (event["event_"], event["level_"], event["pid_"]) == ("false", "fake", -1)


def test_level() -> None:
    stream = io.StringIO()
    configure("warning", prog="webproxy", stream=stream)
    log.info("quiet")
    configure("debug", prog="webproxy", stream=stream)
    log.debug("loud")
    assert [line.split(": ")[1] for line in stream.getvalue().splitlines()] == ["loud"]


def test_again_replaces_its_own_handler_only() -> None:
    root = logging.getLogger()
    other = logging.NullHandler()
    root.addHandler(other)
    first = configure("info", prog="webproxy", stream=io.StringIO())
    second = configure("info", prog="webproxy", stream=io.StringIO())
    assert first not in root.handlers
    assert other in root.handlers
    assert second in root.handlers


@pytest.mark.parametrize(("level", "form"), [("loud", "json"), ("", "json"), ("info", "xml")])
def test_refuses_unknown_words(level: str, form: str) -> None:
    before = list(logging.getLogger().handlers)
    with pytest.raises(ValueError, match="is not a valid"):
        configure(level, prog="webproxy", form=form, stream=io.StringIO())
    assert logging.getLogger().handlers == before


@settings(deadline=None)
@given(st.text(), st.dictionaries(st.text(), st.text() | st.floats() | st.binary() | st.lists(st.text()), max_size=3))
def test_any_event_is_one_line(text: str, facts: dict[str, Any]) -> None:
    for form in LogForm:
        stream = io.StringIO()
        handler = configure("info", prog="webproxy", form=form, stream=stream)
        record = log.makeRecord(log.name, logging.INFO, "f", 1, "%s", (text,), None)
        vars(record).update({f"fact_{name}": value for name, value in facts.items()})
        handler.handle(record)
        written = stream.getvalue()
        assert written.endswith("\n")
        assert written[:-1].isprintable()
        if form is LogForm.JSON:
            assert json.loads(written)["event"] == without_queries(text)


def test_costs_no_more_than_it_must() -> None:
    """A daemon's memory is bounded: no rich, no asyncio."""
    program = (
        "import sys; from shmchannel.daemonkit import sources, signals, readiness, limits, logs\n"
        "assert not {'rich', 'asyncio'} & set(sys.modules)\n"
        "logs.configure('info', prog='x')\n"
        "assert 'rich' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_rich_can_still_be_imported_after() -> None:
    program = "from shmchannel.daemonkit import logs; logs.configure('info', prog='x'); import rich.console"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"a3f0-2", "a3f0-2"),
        (b"a3f0-2\0\0\0", "a3f0-2"),
        (b"\0\x01a\0", "00016100"),
        (b"a b", "612062"),
        (b"\xc3\xbc", "c3bc"),
    ],
)
def test_ids_are_written_as_words(name: bytes, text: str) -> None:
    assert id_text(name) == text


def test_events_are_about_a_request_of_their_thread() -> None:
    stream = io.StringIO()
    configure("info", prog="webproxy", form="json", stream=stream)

    def in_another_thread(request: bytes) -> None:
        with about(request):
            log.info("elsewhere")

    with about(b"a-1"):
        with about(b"a-2"):
            log.info("inner")
            assert subject() == b"a-2"
        with pytest.raises(ValueError, match="of the block"), about(b"a-3"):
            raise ValueError("of the block")
        thread = threading.Thread(target=in_another_thread, args=(subject() + b"x",))
        thread.start()
        thread.join()
        log.info("outer")
        with about(b""):
            log.info("nothing")
    log.info("after")
    assert subject() == b""
    assert [(event["event"], event.get("request")) for event in json_events(stream)] == [
        ("inner", "a-2"),
        ("elsewhere", "a-1x"),
        ("outer", "a-1"),
        ("nothing", None),
        ("after", None),
    ]
