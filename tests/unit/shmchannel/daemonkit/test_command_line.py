"""What is read from parsers: options, arguments, commands; and which completions a placeholder means."""

from __future__ import annotations

import argparse

import pytest

from shmchannel.daemonkit.command_line import CommandLine, Option, command_line_of
from shmchannel.daemonkit.sources import settings_parser
from tests.unit.shmchannel.daemonkit.sample_config import SampleConfig


def command_of(**argument: object) -> Option:
    parser = argparse.ArgumentParser(prog="x", add_help=False)
    parser.add_argument("--flag", **argument)  # type: ignore[arg-type]
    return command_line_of([parser]).options[0]


@pytest.fixture
def sample() -> CommandLine:
    return command_line_of([settings_parser(SampleConfig, prog="sample-d", description="A sample. It does nothing.")])


@pytest.mark.parametrize(
    ("placeholder", "words", "places", "is_list"),
    [
        ("N", (), set(), False),
        ("FILE", (), {"files"}, False),
        ("PATH|-", ("-",), {"files"}, False),
        ("memory|DIR", ("memory",), {"directories"}, False),
        ("crlf|space", ("crlf", "space"), set(), False),
        ("auto|NAME,...", ("auto",), set(), True),
        ("getfile,http", ("getfile", "http"), set(), True),
        ("ORIGIN_URL", (), set(), False),
    ],
)
def test_a_placeholder_says_how_its_value_is_completed(
    placeholder: str, words: tuple[str, ...], places: set[str], is_list: bool
) -> None:
    found = command_of(metavar=placeholder)
    assert (found.placeholder, found.words, found.places, found.is_list) == (placeholder, words, places, is_list)


def test_choices_are_words_under_any_placeholder(sample: CommandLine) -> None:
    assert command_of(choices=["a", "b"], metavar="X").words == ("a", "b")
    colour = next(option for option in sample.options if "--colour" in option.flags)
    assert colour.words == ("red", "blue")


def test_a_switch_has_no_placeholder(sample: CommandLine) -> None:
    assert command_of(action="store_true").placeholder == ""
    assert next(option for option in sample.options if "--no-cache" in option.flags).placeholder == ""


def test_meanings_have_their_values() -> None:
    assert command_of(default=7, help="so many of %(prog)s (%(default)s)").meaning == "so many of x (7)"
    assert command_of(help="100%% of them").meaning == "100% of them"


def test_short_meanings_end_before_details() -> None:
    assert Option(meaning="lowest `level` (default info; debug or info)").short == "lowest level"
    assert Option(meaning="a port; 0 lets the kernel choose").short == "a port"
    assert len(Option(meaning="word " * 40).short) <= 70


def test_settings_are_told_apart_by_their_flags(sample: CommandLine) -> None:
    assert [setting.name for setting in sample.settings] == ["timeout_s"]
    assert sample.prefix == "SAMPLE_D_"
    assert sample.notes == "", "the epilog of --help lists the same settings"
    flags = {flag for option in sample.options for flag in option.flags}
    assert {"-p", "--port", "--config", "--print-config", "--help"} <= flags
    assert not {"--bar-color", "--hue"} & flags, "former names are refused, not offered"


def test_commands_come_from_sub_parsers_and_from_parsers_beside() -> None:
    first, beside = argparse.ArgumentParser(prog="x", description="First."), argparse.ArgumentParser(prog="x beside")
    inner = first.add_subparsers().add_parser("inner", help="done inside")
    inner.add_argument("paths", nargs="*", metavar="PATH", help="what is meant")
    found = command_line_of([first, beside])
    assert [(one.name, one.word) for one in found.commands] == [("x inner", "inner"), ("x beside", "beside")]
    assert found.commands[0].short == "Done inside"
    assert found.arguments == ()
    (argument,) = found.commands[0].arguments
    assert (argument.placeholder, argument.is_repeated, argument.is_optional) == ("PATH", True, True)


def test_the_short_description_is_the_first_sentence(sample: CommandLine) -> None:
    assert sample.short == "A sample"
    assert CommandLine(name="x", description="Reads a.b twice\nand ends").short == "Reads a.b twice and ends"
