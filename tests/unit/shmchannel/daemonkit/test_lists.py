"""Settings that are lists: of texts and choices from every source, of tables from the file."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import TYPE_CHECKING, Any

import pytest

from shmchannel.daemonkit.settings import SettingError, check_bounds, option, settings_of, settings_table
from shmchannel.daemonkit.sources import Loaded, load
from tests.unit.shmchannel.daemonkit.sample_config import Colour

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A table."""

    name: str = option("hall", "what it is called")
    size: int = option(1, "how large", low=1, high=9)
    doors: tuple[str, ...] = option((), "where they lead")
    keys: tuple[str, ...] = option((), "what opens them", secret=True, formerly=("locks",))

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.name in self.doors:
            raise SettingError("doors", self.doors, "doors to other rooms")


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Every kind of list once."""

    colours: tuple[Colour, ...] = option((Colour.RED,), "of the walls", flags=("--colours",), low=1)
    guests: tuple[str, ...] = option((), "who comes", high=2)
    room: tuple[Room, ...] = option((), "its rooms", high=3)

    def __post_init__(self) -> None:
        check_bounds(self)
        if "nobody" in self.guests:
            raise SettingError("guests", "nobody", "somebody")


SETTINGS = {setting.name: setting for setting in settings_of(House)}


def load_house(path: Path | None = None, *argv: str, **environ: str) -> Loaded[House]:
    """Load it as the program `house` would."""
    named = [] if path is None else ["--config", str(path)]
    return load(House, prog="house", description="A.", version=lambda: "1", argv=[*named, *argv], environ=environ)


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "house.toml"
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("colours", "blue", (Colour.BLUE,)),
        ("colours", "Blue , red", (Colour.BLUE, Colour.RED)),
        ("colours", ["blue", "RED"], (Colour.BLUE, Colour.RED)),
        ("colours", (Colour.BLUE,), (Colour.BLUE,)),
        ("guests", "", ()),
        ("guests", "  ", ()),
        ("guests", "a, b c", ("a", "b c")),
        ("guests", ["a, b"], ("a, b",)),
        ("guests", [], ()),
        ("room", (Room(),), (Room(),)),
        ("room", [{"name": "attic"}, Room()], (Room(name="attic"), Room())),
    ],
)
def test_reads(name: str, given: object, value: tuple[object, ...]) -> None:
    found = SETTINGS[name].read(given)
    assert found == value
    assert isinstance(found, tuple)
    assert [type(item) for item in found] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *[("colours", given) for given in ("", "green", "red,", "red,,blue", [], ["green"], [1], 1, None, {"a": 1})],
        *[("guests", given) for given in ("a,b,c", "a,,b", ["a", ""], ["a\0"], [5], 5, True, {"a"})],
        *[("room", given) for given in ("hall", {"name": "hall"}, [Room(), 1], Room(), [Room()] * 4)],
    ],
)
def test_refuses(name: str, given: object) -> None:
    with pytest.raises(SettingError) as refused:
        SETTINGS[name].read(given)
    assert refused.value.allowed == SETTINGS[name].allowed


def test_allowed_texts() -> None:
    assert {name: setting.allowed for name, setting in SETTINGS.items()} == {
        "colours": "some of red, blue, separated by commas",
        "guests": "texts, separated by commas; or empty for none",
        "room": "[[room]] tables in the file",
    }


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("colours", (Colour.RED, Colour.BLUE), "red, blue"),
        ("guests", (), "none"),
        ("room", (Room(size=2, doors=("a", "b")), Room()), "{size=2 doors=a, b}, {}"),
    ],
)
def test_formats(name: str, value: tuple[object, ...], text: str) -> None:
    assert SETTINGS[name].format(value) == text


def test_the_strongest_source_wins_whole(tmp_path: Path) -> None:
    path = written(tmp_path, 'colours = ["blue", "red"]\nguests = "a"\n[[room]]\nname = "attic"\n[[room]]\nsize = 3\n')
    by_file = load_house(path).config
    assert by_file == House(colours=(Colour.BLUE, Colour.RED), guests=("a",), room=(Room(name="attic"), Room(size=3)))
    stronger = load_house(path, "--colours", "blue", HOUSE_GUESTS="c,d")
    assert stronger.config == House(colours=(Colour.BLUE,), guests=("c", "d"), room=by_file.room)
    assert stronger.sources["guests"] == "environment HOUSE_GUESTS"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[[room]]\n[[room]]\nsize = 10", "size in [[room]] table 2: 10 from file {path} is refused; allowed: 1 to 9"),
        (
            "[[room]]\nsiez = 1",
            "siez in [[room]] table 1: 1 from file {path} is refused; allowed: the name of a key",
        ),
        (
            '[[room]]\nlocks = ["hall: 1234"]',
            "locks in [[room]] table 1: ['hall: ***'] from file {path} is refused; allowed: keys, the new name of",
        ),
        (
            '[[room]]\nnobody = "a"',
            "nobody in [[room]] table 1: '***' from file {path} is refused; allowed: the name of a key: name, ",
        ),
        ('[[room]]\nname = "a"\ndoors = ["a"]', "doors in [[room]] table 1: ('a',) from file {path} is refused;"),
        ('[[room]]\ndoors = [["a"]]', "doors in [[room]] table 1: [['a']] from file {path} is refused; allowed: texts"),
        ("[room]\nsize = 1", "room: '***' from file {path} is refused; allowed: [[room]] tables in the file"),
        ('room = ["a"]', "room: '***' from file {path} is refused; allowed: [[room]] tables in the file"),
        ("[[room]]\n" * 4, "room: "),
        ('guests = ["a", "nobody"]', "guests: 'nobody' from file {path} is refused; allowed: somebody"),
    ],
)
def test_a_refusal_names_the_place(tmp_path: Path, content: str, text: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(SettingError) as refused:
        load_house(path)
    assert str(refused.value).startswith(text.format(path=path))
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param('[[room]]\nkeys = ["hall: 1234"]', id="a value that is used"),
        pytest.param('[[room]]\nkeys = ["hall: 1234", 5]', id="a list that is refused"),
        pytest.param("[[room]]\nkeys = 1234", id="a value that is refused"),
        pytest.param('[[room]]\nkey = "hall: 1234"', id="a name that is misspelt"),
        pytest.param('[[room]]\npassword = "hall: 1234"', id="a name that nobody knows"),
        pytest.param('[[room]]\nsizes = "hall: 1234"', id="a name that is near another one's"),
        pytest.param('[[rooms]]\nkeys = "hall: 1234"', id="the name of the table misspelt"),
        pytest.param('[room]\nkeys = "hall: 1234"', id="a table that is refused"),
        pytest.param('[[room]]\nlocks = "hall: 1234"', id="a former name"),
    ],
)
def test_a_secret_is_shown_nowhere(tmp_path: Path, content: str) -> None:
    try:
        shown = load_house(written(tmp_path, content)).describe()
    except SettingError as refused:
        shown = str(refused)
    assert "1234" not in shown
    assert "***" in shown


def test_of_a_typed_list_the_refused_item_is_shown() -> None:
    with pytest.raises(SettingError) as refused:
        load_house(HOUSE_GUESTS="a,nobody")
    assert (refused.value.value, refused.value.source) == ("nobody", "environment HOUSE_GUESTS")


def test_tables_come_from_the_file_only(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_house(HOUSE_ROOM="attic")
    assert loaded.config.room == ()
    assert "HOUSE_ROOM" in loaded.warnings[0]
    with pytest.raises(SystemExit):
        load_house(None, "--help")
    out = capsys.readouterr().out
    assert "HOUSE_GUESTS" in out
    assert "HOUSE_ROOM" not in out


def test_documents() -> None:
    assert settings_table(House, "HOUSE_").splitlines()[2:] == [
        "| `colours` | `--colours` | `HOUSE_COLOURS` | red | some of red, blue, separated by commas | of the walls |",
        "| `guests` |  | `HOUSE_GUESTS` | none | texts, separated by commas; or empty for none | who comes |",
        "| `room` |  |  | none | [[room]] tables in the file | its rooms |",
    ]
    assert settings_table(Room, None).splitlines() == [
        "| key | default | allowed | meaning |",
        "| --- | --- | --- | --- |",
        "| `name` | hall | text | what it is called |",
        "| `size` | 1 | 1 to 9 | how large |",
        "| `doors` | none | texts, separated by commas; or empty for none | where they lead |",
        "| `keys` | none | texts, separated by commas; or empty for none | what opens them |",
    ]


@pytest.mark.parametrize(
    ("annotation", "declared", "reason"),
    [
        (tuple[int, ...], option((1,), "numbers"), "cannot have the type"),
        (tuple[str, str], option(("a", "b"), "a pair"), "cannot have the type"),
        (list[str], option((), "mutable"), "cannot have the type"),
        (tuple[Room, ...], option((), "rooms", flags=("--room",)), "tables have no flag"),
    ],
)
def test_refuses_wrong_declaration(annotation: Any, declared: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        settings_of(make_dataclass("Wrong", [("field", annotation, declared)]))
