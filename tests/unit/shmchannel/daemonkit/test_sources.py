"""Does the strongest source win, and does every refusal say name, value, range and source?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmchannel.daemonkit.settings import SettingError
from shmchannel.daemonkit.sources import load, refuse
from tests.unit.shmchannel.daemonkit.sample_config import Colour, SampleConfig, load_sample

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def toml_file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.toml"
    path.write_text('port = 3\nblock_bytes = "4k"\ncolour = "blue"\nuse_cache = true\ntimeout_s = 2\n')
    return path


def test_defaults() -> None:
    loaded = load_sample()
    assert loaded.config == SampleConfig()
    assert set(loaded.sources.values()) == {"default"}
    assert not loaded.check_only
    assert loaded.warnings == ()


def test_file_gives_values(toml_file: Path) -> None:
    loaded = load_sample("--config", str(toml_file))
    assert loaded.config == SampleConfig(port=3, block_bytes=4096, colour=Colour.BLUE, timeout_s=2.0)
    assert loaded.sources["port"] == f"file {toml_file}"
    assert loaded.sources["host"] == "default"


def test_flag_then_environment_then_file(toml_file: Path) -> None:
    config = str(toml_file)
    assert load_sample(SAMPLE_D_CONFIG=config).config.port == 3
    by_environment = load_sample(SAMPLE_D_CONFIG=config, SAMPLE_D_PORT="2")
    assert (by_environment.config.port, by_environment.sources["port"]) == (2, "environment SAMPLE_D_PORT")
    by_flag = load_sample("--port=1", SAMPLE_D_CONFIG=config, SAMPLE_D_PORT="2")
    assert (by_flag.config.port, by_flag.sources["port"]) == (1, "flag --port")


def test_config_flag_wins_over_its_variable(toml_file: Path) -> None:
    assert load_sample("--config", str(toml_file), SAMPLE_D_CONFIG="/nowhere").config.port == 3


def test_flag_overrides_broken_environment() -> None:
    assert load_sample("-p", "1", SAMPLE_D_PORT="broken").config.port == 1


def test_switches_turn_their_default_round() -> None:
    loaded = load_sample("--no-cache", "--trace", "-s", "http://a/")
    assert (loaded.config.use_cache, loaded.config.trace) == (False, True)
    assert (loaded.sources["use_cache"], loaded.sources["trace"]) == ("flag --no-cache", "flag --trace")


def test_check_only() -> None:
    assert load_sample("--check-config").check_only


def test_describe_names_each_source() -> None:
    lines = load_sample("-z", "64k", SAMPLE_D_COLOUR="blue").describe().splitlines()
    assert "block_bytes = 65536 (64k)  [flag -z]" in lines
    assert "colour = blue  [environment SAMPLE_D_COLOUR]" in lines
    assert "use_cache = true  [default]" in lines
    assert "origin_url = none  [default]" in lines


def test_unknown_variable_is_a_warning() -> None:
    loaded = load_sample(SAMPLE_D_PROT="1", SAMPLE_D_CONFIG="", OTHER="x", SAMPLE="y")
    (warning,) = loaded.warnings
    assert "SAMPLE_D_PROT" in warning
    assert "did you mean SAMPLE_D_PORT?" in warning


def test_a_prefix_makes_no_variable_similar() -> None:
    (warning,) = load_sample(SAMPLE_D_QXYZ="1").warnings
    assert warning == "environment variable SAMPLE_D_QXYZ is not a setting and is ignored"


@pytest.mark.parametrize(
    ("argv", "environ", "name", "source", "remedy"),
    [
        (["-p", "70000"], {}, "port", "flag -p", "leave out -p"),
        (["--port=-5"], {}, "port", "flag --port", "leave out --port"),
        (["-p", "-5"], {}, "port", "flag -p", "leave out -p"),
        ([], {"SAMPLE_D_COLOUR": "green"}, "colour", "environment SAMPLE_D_COLOUR", "unset SAMPLE_D_COLOUR"),
        (["--no-cache"], {}, "use_cache", "flag --no-cache", "leave out --no-cache"),
        ([], {"SAMPLE_D_USE_CACHE": "no"}, "use_cache", "environment SAMPLE_D_USE_CACHE", "unset SAMPLE_D_USE_CACHE"),
    ],
)
def test_refusal_tells_all(argv: list[str], environ: dict[str, str], name: str, source: str, remedy: str) -> None:
    with pytest.raises(SettingError) as refused:
        load_sample(*argv, **environ)
    error = refused.value
    assert (error.name, error.source) == (name, source)
    for part in (name, repr(error.value), error.allowed, source, remedy):
        assert part in str(error)


@pytest.mark.parametrize(
    ("content", "name", "allowed"),
    [
        ("prot = 1", "prot", "did you mean port"),
        ("[port]\nx = 1", "port", "0 to 65535"),
        ("port = true", "port", "0 to 65535"),
        ("port = 1.0", "port", "0 to 65535"),
        ("timeout_s = nan", "timeout_s", "0.05 to 3600 seconds"),
        ("port = ", "config", "a readable TOML file"),
    ],
)
def test_refuses_file_content(tmp_path: Path, content: str, name: str, allowed: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(content)
    with pytest.raises(SettingError) as refused:
        load_sample("--config", str(path))
    assert refused.value.name == name
    assert allowed in refused.value.allowed
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_refuses_unreadable_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "sample.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match="readable TOML file") as refused:
        load_sample(SAMPLE_D_CONFIG=str(path))
    assert refused.value.source == "environment SAMPLE_D_CONFIG"


def test_a_pipe_is_read_once_only(tmp_path: Path) -> None:
    """Read again it would have no settings, or keep the daemon waiting for a writer."""
    path = tmp_path / "sample.toml"
    os.mkfifo(path)
    with pytest.raises(SettingError, match="not a pipe") as refused:
        load_sample("--config", str(path), is_again=True)
    assert refused.value.source == "flag --config"
    read_fd, write_fd = os.pipe()
    with open(write_fd, "wb") as writer:
        writer.write(b"port = 7")
    try:
        assert load_sample("--config", f"/dev/fd/{read_fd}").config.port == 7
        with pytest.raises(SettingError, match="not a pipe"):
            load_sample("--config", f"/dev/fd/{read_fd}", is_again=True)
    finally:
        os.close(read_fd)


@settings(deadline=None)
@given(st.sampled_from(["port", "block_bytes", "host", "colour", "timeout_s"]), st.text())
def test_any_text_loads_or_is_refused_with_its_source(name: str, text: str) -> None:
    variable = f"SAMPLE_D_{name.upper()}"
    try:
        source = load_sample(**{variable: text}).sources[name]
    except SettingError as refused:
        source = refused.source
    assert source == f"environment {variable}"


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        pytest.param(
            ["--bar-color", "red"],
            {},
            "bar_color: 'red' from flag --bar-color is refused; allowed: colour, the new name of this"
            " setting, or --colour (change or leave out --bar-color)",
            id="flag",
        ),
        pytest.param(["--hue=red"], {}, "hue: 'red' from flag --hue is refused; allowed: colour", id="another"),
        pytest.param(["--hue"], {}, "hue: None from flag --hue is refused; allowed: colour", id="flag without value"),
        pytest.param(
            ["--colour", "blue"],
            {"SAMPLE_D_DEADLINE_S": "5"},
            "deadline_s: '5' from environment SAMPLE_D_DEADLINE_S is refused; allowed: timeout_s, the new name of this"
            " setting (change or unset SAMPLE_D_DEADLINE_S)",
            id="environment",
        ),
    ],
)
def test_a_former_name_is_refused_with_the_new_one(argv: list[str], environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError) as refused:
        load_sample(*argv, **environ)
    assert str(refused.value).startswith(message)


def test_a_former_name_in_the_file_is_refused_with_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text("deadline_s = 5\n")
    with pytest.raises(SettingError) as refused:
        load_sample("--config", str(path))
    assert str(refused.value) == (
        f"deadline_s: 5 from file {path} is refused; allowed: timeout_s, the new name of this setting"
        f" (correct or remove deadline_s in {path})"
    )


def test_help_leaves_former_names_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_sample("--help")
    out = capsys.readouterr().out
    assert "deadline_s" not in out
    assert "--hue" not in out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass/word@host/", "http://***@host/"),
        ("http://user:pass word@host/", "http://***@host/"),
        ("http:/user:password@host/", "http:/***@host/"),
        ("user:password@host", "***@host"),
        ("https://host/path?token=password", "https://host/path?***"),
        ("http://user:pass?word@host/?password", "http://***@host/?***"),
    ],
)
def test_credentials_of_a_url_are_not_shown(url: str, shown: str) -> None:
    refused = SettingError("origin_url", url, "a URL without user")
    assert str(refused) == f"origin_url: '{shown}' is refused; allowed: a URL without user"


def test_config_made_by_the_program_is_held_to_the_bounds() -> None:
    with pytest.raises(SettingError, match="port: 70000 is refused; allowed: 0 to 65535"):
        SampleConfig(port=70000)


def exit_of(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[object, str, str]:
    def run() -> None:
        try:
            load_sample(*argv)
        except SettingError as error:
            refuse("sample-d", error)

    with pytest.raises(SystemExit) as stopped:
        run()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_flags_and_environment_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["sample-d", "-p", "5"])
    monkeypatch.setitem(os.environ, "SAMPLE_D_HOST", "::1")
    loaded = load(SampleConfig, prog="sample-d", description="A sample.", version=lambda: "1.2")
    assert (loaded.config.port, loaded.config.host) == (5, "::1")


def test_refused_value_exits_2_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = exit_of(capsys, "-p", "\n70000\x1b[2J")
    assert (code, out) == (2, "")
    assert err.startswith("sample-d: port: ")
    assert err.count("\n") == 1
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--prot=3"], "did you mean --port?"),
        (["stray"], "unknown argument 'stray'"),
        (["--por", "3"], "unknown argument '--por'"),
        (["-p"], "-p/--port"),
        (["--no-cache=1"], "--no-cache"),
        (["--config"], "--config"),
    ],
)
def test_command_line_errors_exit_2_and_name_the_flag(
    capsys: pytest.CaptureFixture[str], argv: list[str], told: str
) -> None:
    code, out, err = exit_of(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("sample-d: ")
    assert told in err
    assert err.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(capsys, "--version") == (0, "sample-d 1.2\n", "")


def test_help_names_default_range_and_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = exit_of(capsys, "--help")
    assert (code, err) == (0, "")
    assert "port to listen on (default 8000; 0 to 65535; SAMPLE_D_PORT)" in out
    assert "do not ask the cache first (SAMPLE_D_USE_CACHE=false)" in out
    assert "trace 100% of the requests (SAMPLE_D_TRACE=true)" in out
    assert "time limit of a request (default 10; 0.05 to 3600 seconds; SAMPLE_D_TIMEOUT_S)" in out
    assert "SAMPLE_D_CONFIG" in out
