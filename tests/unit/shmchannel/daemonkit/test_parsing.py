"""Does every text give a value that is allowed, or a refusal that says what would be?"""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmchannel.daemonkit.settings import Setting, SettingError, Value, settings_of
from tests.unit.shmchannel.daemonkit.sample_config import Colour, SampleConfig

SETTINGS = {setting.name: setting for setting in settings_of(SampleConfig)}
NUMBER_TEXTS = st.from_regex(r"[+-]?[0-9]{0,25}(\.[0-9]{0,3})?(e-?[0-9]{1,3})?[kmgtKMGT]?(ib)?", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("port", " 65535 ", 65535),
        ("port", "+80", 80),
        ("block_bytes", "512", 512),
        ("block_bytes", "64k", 65536),
        ("block_bytes", "64KiB", 65536),
        ("block_bytes", "1m", 1 << 20),
        ("block_bytes", "2G", 2 << 30),
        ("block_bytes", "1t", 1 << 40),
        ("origin_url", "", None),
        ("origin_url", "http://a/", "http://a/"),
        ("host", "::1", "::1"),
        ("use_cache", "off", False),
        ("use_cache", "YES", True),
        ("colour", "Blue", Colour.BLUE),
        ("timeout_s", ".5", 0.5),
        ("timeout_s", "5.", 5.0),
        ("timeout_s", "1e2", 100.0),
        ("timeout_s", "3600", 3600.0),
    ],
)
def test_reads(name: str, text: str, value: object) -> None:
    found = SETTINGS[name].read(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "given_value"),
    [
        *[("port", text) for text in ("", "-1", "65536", "1.0", "1_0", "0x10", "8k", "٣", "9" * 5000, "true")],
        *[("port", value) for value in (True, 1.0, None, [1], -1)],
        *[("block_bytes", text) for text in ("511", "1.5m", "64kb", "64 k", "k", "-1k", "9999999999999999999t")],
        *[("host", value) for value in ("", "a\0b", "a" * 256, 5, None)],
        *[("use_cache", value) for value in ("", "maybe", "2", 1, None)],
        *[("colour", value) for value in ("", "green", 1)],
        *[("timeout_s", text) for text in ("nan", "inf", "0.04", "3600.1", "1e999", "1e", ".", "ten")],
        *[("timeout_s", value) for value in (math.nan, math.inf, 10**400, True, "10s")],
        ("origin_url", 7),
    ],
)
def test_refuses(name: str, given_value: object) -> None:
    with pytest.raises(SettingError) as refused:
        SETTINGS[name].read(given_value)
    assert refused.value.allowed.startswith(SETTINGS[name].allowed)


def test_whole_number_stands_for_decimal_one() -> None:
    assert type(SETTINGS["timeout_s"].check(3)) is float


def within_bounds(setting: Setting, value: Value) -> bool:
    if value is None:
        return setting.optional
    if type(value) is not setting.kind:
        return False
    assert not isinstance(value, tuple)
    measure = len(value) if isinstance(value, str) else value
    return bool(setting.choices) or (
        (setting.low is None or measure >= setting.low) and (setting.high is None or measure <= setting.high)
    )


@settings(deadline=None)
@given(st.sampled_from(sorted(SETTINGS)), st.text() | NUMBER_TEXTS | st.text("0123456789.eE+-kmgtib \u0663"))
def test_any_text_is_a_value_or_refused(name: str, text: str) -> None:
    setting = SETTINGS[name]
    try:
        value = setting.read(text)
    except SettingError:
        return
    assert within_bounds(setting, value)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(SETTINGS)),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.dates(),
)
def test_any_object_is_a_value_or_refused(name: str, thing: object) -> None:
    setting = SETTINGS[name]
    try:
        value = setting.read(thing)
    except SettingError:
        return
    assert within_bounds(setting, value)


@settings(deadline=None)
@given(st.integers(512, 1 << 62))
def test_byte_count_reads_back_as_written(count: int) -> None:
    setting = SETTINGS["block_bytes"]
    plain, _, short = setting.format(count).partition(" ")
    assert setting.read(plain) == count
    assert not short or setting.read(short.strip("()")) == count


def test_allowed_texts() -> None:
    assert {name: setting.allowed for name, setting in SETTINGS.items()} == {
        "port": "0 to 65535",
        "block_bytes": f"512 to {1 << 62} bytes",
        "origin_url": "text, or empty for none",
        "host": "text of 1 to 255 characters",
        "use_cache": "true or false",
        "trace": "true or false",
        "colour": "red or blue",
        "timeout_s": "0.05 to 3600 seconds",
    }


def test_error_tells_everything() -> None:
    error = SettingError("port", "x", "0 to 65535", "flag -p", "change or leave out -p")
    assert str(error) == "port: 'x' from flag -p is refused; allowed: 0 to 65535 (change or leave out -p)"
    assert (error.name, error.value, error.allowed, error.source) == ("port", "x", "0 to 65535", "flag -p")


def test_error_cuts_long_values() -> None:
    assert len(str(SettingError("port", "9" * 5000, "0 to 65535"))) < 200


def test_a_refused_size_says_how_it_can_be_written() -> None:
    setting = next(setting for setting in settings_of(SampleConfig) if setting.unit == "bytes")
    with pytest.raises(SettingError, match=f"{setting.allowed}, also as 64k, 1m or 2g"):
        setting.read("64q")
