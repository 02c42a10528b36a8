"""Does a declaration give a complete setting, and is a wrong one refused at once?"""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Any, Optional

import pytest

from shmchannel.daemonkit.settings import environment_prefix, option, settings_of
from tests.unit.shmchannel.daemonkit.sample_config import Colour, SampleConfig


def test_lists_settings_in_order_of_fields() -> None:
    names = [setting.name for setting in settings_of(SampleConfig)]
    assert names == ["port", "block_bytes", "origin_url", "host", "use_cache", "trace", "colour", "timeout_s"]


def test_setting_is_complete() -> None:
    port, block_bytes, origin_url, host, *_, colour, timeout_s = settings_of(SampleConfig)
    assert (port.kind, port.default, port.flags, port.low, port.high) == (int, 8000, ("-p", "--port"), 0, 65535)
    assert (block_bytes.unit, block_bytes.placeholder) == ("bytes", "BYTES")
    assert (origin_url.kind, origin_url.optional, origin_url.placeholder) == (str, True, "URL")
    assert (host.optional, host.low, host.placeholder) == (False, 1, "TEXT")
    assert (colour.kind, colour.choices, colour.placeholder) == (Colour, ("red", "blue"), "red|blue")
    assert (timeout_s.unit, timeout_s.placeholder) == ("seconds", "SECONDS")


def test_environment_names() -> None:
    setting = settings_of(SampleConfig)[0]
    assert setting.environment_name(environment_prefix("web-proxy")) == "WEB_PROXY_PORT"


def test_optional_in_either_spelling() -> None:
    @dataclass(frozen=True)
    class Old:
        limit: Optional[int] = option(None, "a limit", low=0, high=9)  # noqa: UP045 - the older spelling is what is tested

    (setting,) = settings_of(Old)
    assert (setting.kind, setting.optional) == (int, True)


@pytest.mark.parametrize(
    ("annotation", "declared", "reason"),
    [
        (int, 3, "not declared with option"),
        (tuple[int, ...], option((1,), "several"), "cannot have the type"),
        (int | str, option(1, "either"), "cannot have the type"),
        (int | str | None, option(1, "either or none"), "cannot have the type"),
        (bytes, option(b"", "raw"), "cannot have the type"),
        (float, option(1.0, "a number", low=0), "low and high"),
        (bool, option(True, "on", flags=("--cache",)), "--cache"),
        (bool, option(False, "off", flags=("--no-trace",)), "--no-trace"),
    ],
)
def test_refuses_wrong_declaration(annotation: Any, declared: Any, reason: str) -> None:
    config_type = make_dataclass("Wrong", [("field", annotation, declared)])
    with pytest.raises(TypeError, match=reason):
        settings_of(config_type)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("block_bytes", "bytes"),
        ("block_bytes_max", "bytes"),
        ("min_rate_bytes_per_s", "bytes"),
        ("between_bytes_timeout_s", "seconds"),
        ("delay_us", "microseconds"),
        ("tries", ""),
    ],
)
def test_the_name_of_a_number_says_its_unit(name: str, unit: str) -> None:
    (setting,) = settings_of(make_dataclass("Named", [(name, int, option(1, "a number", low=0, high=9))]))
    assert setting.unit == unit


def test_a_byte_count_is_whole() -> None:
    with pytest.raises(TypeError, match="must be int"):
        settings_of(make_dataclass("Wrong", [("block_bytes", float, option(1.0, "size", low=0, high=9))]))
