"""Man pages: nothing in a text is taken for a command of troff, and everything declared is there."""

from __future__ import annotations

import subprocess

import pytest

from shmchannel.daemonkit.command_line import CommandLine, Option, command_line_of
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.man_page import escaped, man_page, quoted
from shmchannel.daemonkit.sources import settings_parser
from tests.support.installed import groff
from tests.unit.shmchannel.daemonkit.sample_config import SampleConfig

HOSTILE = (
    ".so /etc/passwd",
    "'br",
    r"a \fB\n backslash \\",
    "-- dashes - and -x",
    "\"quotes\" and 'quotes'",
    "~ ^ `one backtick",
    "späte Müh €",
    "%(prog)s % $x",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_as_it_is(text: str) -> None:
    page = man_page(
        CommandLine(name="x", description=f"First. {text}\n\n{text}", options=(Option(flags=("-x",), meaning=text),)),
        version="1",
    )
    shown = groff(page)
    assert shown.count(" ".join(text.split())) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a-b", r"a\-b"),
        (".x", r"\&.x"),
        ("'x'", r"\(aqx\(aq"),
        ("a\\b", r"a\eb"),
        ("of `name` and", r"of \fBname\fR and"),
        ("one ` only", r"one \(ga only"),
        ("two\n  lines", "two lines"),
        ("é", r"\[u00E9]"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert escaped(text) == expected
    assert quoted(text) == f'"{expected}"'


def test_everything_that_is_declared_is_in_the_page() -> None:
    sample = command_line_of([settings_parser(SampleConfig, prog="sample-d", description="A sample.")])
    page = man_page(sample, version="1.2", see_also=["other-d"])
    for option in sample.options:
        for flag in option.flags:
            assert f"\\fB{escaped(flag)}\\fR" in page
        assert escaped(option.meaning) in page
    for setting in sample.settings:
        assert f"\\fB{escaped(setting.name)}\\fR\n" in page
        assert f"SAMPLE_D_{setting.name.upper()}" in page
    for code in ExitCode:
        assert f"\\fB{code.value}\\fR\n" in page
    assert r"\fBother\-d\fR(1)" in page
    assert '"gfcache 1.2"' in page


def test_an_optional_value_is_attached() -> None:
    page = man_page(
        CommandLine(
            name="x",
            description="X.",
            options=(Option(flags=("--print",), placeholder="all", is_optional=True),),
            arguments=(Option(placeholder="PATH", is_optional=True, is_repeated=True),),
        ),
        version="1",
    )
    assert r"\fB\-\-print\fR[=\fIall\fR]" in page
    assert r"[\fIPATH\fR]..." in page


def test_the_same_declarations_make_the_same_page() -> None:
    """No date is in it: an installation that is repeated changes nothing."""
    command = CommandLine(name="x", description="X.")
    assert man_page(command, version="1") == man_page(command, version="1")
    assert '.TH "X" 1 "" ' in man_page(command, version="1")


def test_a_mistake_would_be_seen() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        groff(".TH X 1\n.SH NAME\nx \\*[nowhere]\n")
