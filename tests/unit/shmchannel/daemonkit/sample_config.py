"""A configuration with one setting of each kind, for the tests of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shmchannel.daemonkit.settings import SettingError, check_bounds, option
from shmchannel.daemonkit.sources import Loaded, load


class Colour(StrEnum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """Every kind of setting once."""

    port: int = option(8000, "port to listen on", flags=("-p", "--port"), metavar="PORT", low=0, high=65535)
    block_bytes: int = option(65536, "size of a block", flags=("-z",), low=512, high=1 << 62)
    origin_url: str | None = option(None, "where to fetch from", flags=("-s", "--origin"), metavar="URL")
    host: str = option("127.0.0.1", "address to listen on", flags=("--host",), high=255)
    use_cache: bool = option(True, "ask the cache first", flags=("--no-cache",))
    trace: bool = option(False, "trace 100% of the requests", flags=("--trace",))
    colour: Colour = option(Colour.RED, "colour of the bar", flags=("--colour",), formerly=("bar_color", "hue"))
    timeout_s: float = option(10.0, "time limit of a request", low=0.05, high=3600, formerly=("deadline_s",))

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        check_bounds(self)
        if not self.use_cache and self.origin_url is None:
            raise SettingError("use_cache", self.use_cache, "true, unless origin_url is given")


def load_sample(*argv: str, is_again: bool = False, **environ: str) -> Loaded[SampleConfig]:
    """Load the sample as the program `sample-d` would."""
    return load(
        SampleConfig,
        prog="sample-d",
        description="A sample.",
        version=lambda: "1.2",
        argv=argv,
        environ=environ,
        is_again=is_again,
    )
