"""Every configuration that can be made comes back from the TOML text of it."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmchannel.daemonkit.settings import Setting, SettingError, check_bounds, option, settings_of
from shmchannel.daemonkit.sources import load
from shmchannel.daemonkit.toml_text import read, render
from simplecached.daemon.config import CacheConfig
from tests.support.examples import examples
from tests.unit.shmchannel.daemonkit.sample_config import Colour
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.origin_config import OriginConfig

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inner:
    label: str = option("", "a label", low=0)
    weight: float | None = option(None, "a weight", low=0, high=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outer:
    label: str = option("", "a label", low=0)
    inner: tuple[_Inner, ...] = option((), "tables in a table")
    weights_first: bool = option(False, "a key after the tables")


@dataclass(frozen=True, slots=True, kw_only=True)
class _EveryKind:
    outer: tuple[_Outer, ...] = option((_Outer(label="default"),), "tables, and one if none is given")
    plain: str = option("x", "a text")
    lacks: str | None = option("something", "a text that can be taken away")
    items: tuple[str, ...] = option(("a", "b"), "texts")
    colours: tuple[Colour, ...] = option((), "choices")
    big: int = option(0, "a large number", low=-(1 << 62), high=1 << 62)
    small: float = option(0.1, "a small number", low=-1e300, high=1e300)
    passwords: tuple[str, ...] = option((), "secret texts", secret=True)

    def __post_init__(self) -> None:
        check_bounds(self)


_LABELLED = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
_INNER = st.builds(_Inner, label=_LABELLED, weight=st.none() | st.floats(0, 1))
_OUTER = st.builds(_Outer, label=_LABELLED, inner=st.lists(_INNER, max_size=2).map(tuple), weights_first=st.booleans())
_EVERY_KIND = st.builds(
    _EveryKind,
    outer=st.lists(_OUTER, max_size=3).map(tuple),
    plain=_TEXT,
    lacks=st.none() | _TEXT,
    items=st.lists(_TEXT, max_size=3).map(tuple),
    colours=st.lists(st.sampled_from(Colour), max_size=3).map(tuple),
    big=st.integers(-(1 << 62), 1 << 62),
    small=st.floats(-1e300, 1e300),
    passwords=st.lists(_TEXT.filter(lambda text: not text.endswith("***")), max_size=2).map(tuple),
)


def _values(setting: Setting) -> st.SearchStrategy[Any]:
    """The values of a number, a switch or a choice; of the others the default."""
    if setting.kind is bool:
        values: st.SearchStrategy[Any] = st.booleans()
    elif setting.kind is int:
        values = st.integers(int(setting.low or 0), int(setting.high or 0))
    elif setting.kind is float:
        values = st.floats(setting.low, setting.high)
    elif setting.choices:
        values = st.sampled_from(setting.kind)
        values = st.lists(values, min_size=int(setting.low or 0), max_size=4).map(tuple) if setting.many else values
    else:
        return st.just(setting.default)
    return st.none() | values if setting.optional else values


def _filled(config_type: type, **texts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Configurations of a daemon, as far as they are valid."""
    strategies = {setting.name: _values(setting) for setting in settings_of(config_type)} | texts

    def made(values: dict[str, Any]) -> Any:
        try:
            return config_type(**values)
        except SettingError:
            return None

    return st.fixed_dictionaries(strategies).map(made).filter(lambda config: config is not None)


_ORIGIN = _filled(
    OriginConfig,
    url=st.sampled_from(("http://a.example", "https://b.example:8443/base/")),
    host=st.sampled_from((None, "a.example", "*.example:81")),
    path=st.sampled_from(("/", "/x/", "/%C3%A4/")),
    headers=st.sampled_from(((), ('A: "quoted" \\ text', "Authorization: Basic Zm9v"))),
    preserve_host=st.just(False),
)
_PROXY = _filled(
    ProxyConfig,
    origin=st.lists(_ORIGIN, max_size=1).map(tuple),
    origin_url=st.sampled_from((None, "http://c.example")),
    host=st.sampled_from(("127.0.0.1", "::1", "ein Höst")),
    forward_hosts=st.sampled_from(((), ("a.example", "*.b.example:8080"))),
    ignored_query_parameters=st.sampled_from(((), ("utm_source", 'a"b\\c'))),
    purge_from=st.sampled_from(((), ("10.0.0.0/8", "::1"))),
    origin_pause_s=st.floats(0.05, 1),
    origin_pause_max_s=st.floats(1, 3600),
    use_cache=st.just(True),
)
_CACHE = _filled(
    CacheConfig,
    queue_name=st.sampled_from(("/cache_request_q", "/another")),
    store=st.sampled_from(("memory", '/tmp/a "b"\n')),
    content=st.sampled_from((None, "/")),
    hot_table_bytes=st.sampled_from((0, 8 << 20)),
)


@given(_EVERY_KIND | _PROXY | _CACHE)
@examples(300)
def test_configurations_come_back(config: Any) -> None:
    assert read(type(config), render(config)) == config


@given(st.text(max_size=8), _TEXT)
@examples(100)
def test_a_note_changes_nothing(note: str, plain: str) -> None:
    config = _EveryKind(plain=plain)
    assert read(_EveryKind, render(config, notes={"plain": note, "big": note})) == config


def test_a_file_of_it_is_loaded(tmp_path: Any) -> None:
    config = ProxyConfig(origin=(OriginConfig(url="http://a", headers=("Authorization: Basic Zm9v",)),), port=4)
    path = tmp_path / "proxy.toml"
    path.write_text(render(config))
    loaded = load(ProxyConfig, prog="webproxy", description="", version=str, argv=("--config", str(path)), environ={})
    assert loaded.config == config


def test_what_is_hidden_is_neither_shown_nor_read_back() -> None:
    config = _EveryKind(passwords=("Authorization: Basic Zm9v", "sesame"))
    text = render(config, hide_secrets=True)
    assert "Zm9v" not in text
    assert "sesame" not in text
    with pytest.raises(SettingError, match=r"passwords: .* --print-config=secrets"):
        read(_EveryKind, text)


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(SettingError, match=r"plain: .*UTF-8"):
        render(_EveryKind(plain="caf\udce9"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("port = ", "allowed: TOML"), ("prot = 1", "did you mean port"), ("port = 65536", "port: 65536 from a pipe")],
)
def test_refusals_name_the_text(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read(ProxyConfig, text, "a pipe")
