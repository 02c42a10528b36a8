"""The screen of gfmon, by textual: shows one page of views at a time, takes a reading each interval, and hears keys.

What is shown is decided in `views.py`; here it gets its colours and its place. A reading asks nobody and waits for
nothing, so it is taken where the keys are heard.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table as RichTable
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ScrollableContainer
from textual.events import Resize
from textual.widgets import Footer, Static

from webproxy.monitor.blocks import Block, Cell, Lines, Table, Tone, as_text
from webproxy.monitor.figures import Figures
from webproxy.monitor.history import History
from webproxy.monitor.quantities import duration
from webproxy.monitor.views import PAGES, Frame, Page

_STYLES = {
    Tone.PLAIN: "",
    Tone.DIM: "dim",
    Tone.GOOD: "green",
    Tone.WARNING: "yellow",
    Tone.BAD: "bold red",
    Tone.STRONG: "bold",
}
_TITLE = "bold cyan"
_TEXTUAL_NAMES = {"?": "question_mark"}
_EDGES = 4
"""Columns beside a page: its padding, and the scroll bar."""
_WIDTH_MIN = 20
ENDED_BY_SIGINT, ENDED_BY_SIGTERM = 128 + signal.SIGINT, 128 + signal.SIGTERM


def rendered(blocks: Iterable[Block], width: int) -> RenderableType:
    """The blocks of a page with colours, an empty line after each; lines are wrapped at the width, tables are not."""
    parts: list[RenderableType] = []
    for block in blocks:
        if block.title:
            parts.append(Text(block.title, _TITLE))
        if isinstance(block, Lines):
            parts += [Constrain(_line(line), width) for line in block.lines]
        elif not block.rows:
            parts.append(Text(f"  {block.empty}", "dim"))
        else:
            table = RichTable(box=None, pad_edge=True, padding=(0, 1), header_style="dim")
            for column in block.columns:
                table.add_column(column.title, justify="right" if column.is_number else "left", no_wrap=True)
            for row in block.rows:
                table.add_row(*map(_text, row))
            parts.append(table)
        parts.append(Text())
    return Group(*parts)


def _text(cell: Cell) -> Text:
    return Text(cell.text, _STYLES[cell.tone])


def _line(cells: Iterable[Cell]) -> Text:
    return Text.assemble(*map(_text, cells))


class MonitorApp(App[None]):
    """Shows what a history finds, until `q`; `return_code` is then the exit status."""

    TITLE = "gfmon"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #banner { height: 1; padding: 0 1; background: $panel; }
    #page { padding: 0 1; }
    #body { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(_TEXTUAL_NAMES.get(page.key, page.key), f"show('{page.name}')", page.name) for page in PAGES),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", f"end({ENDED_BY_SIGINT})", show=False, priority=True),
    ]

    def __init__(self, history: History, interval_s: float, what: str, nobody: str) -> None:
        """`what` says in a few words whose figures these are, and `nobody` that there are none."""
        super().__init__()
        self._history = history
        self._interval_s = interval_s
        self._what = what
        self._nobody = nobody
        self._shown: Page = PAGES[0]
        self._figures: Figures | None = None

    def compose(self) -> ComposeResult:
        """A line of banner, the page, the keys."""
        yield Static(id="banner", markup=False)
        with ScrollableContainer(id="page"):
            yield Static(id="body", markup=False)
        footer = Footer(show_command_palette=False)
        footer.compact = True  # all keys in 80 columns
        yield footer

    def on_mount(self) -> None:
        """Begin to read; signals leave the terminal as `q` does."""
        for signum, code in ((signal.SIGINT, ENDED_BY_SIGINT), (signal.SIGTERM, ENDED_BY_SIGTERM)):
            asyncio.get_running_loop().add_signal_handler(signum, self.action_end, code)
        self.query_one("#page").focus()
        self.look()
        self.set_interval(self._interval_s, self.look)

    def look(self) -> None:
        """Take a reading and show it."""
        try:
            self._figures = self._history.look()
        except OSError as error:
            self._say(f"cannot read shared memory: {error}", is_trouble=True)
            return
        troubled = len(self._figures.troubled)
        self._say(f"{troubled} in trouble" if troubled else "", is_trouble=bool(troubled))
        self._draw()

    def action_show(self, name: str) -> None:
        """Show the page of this name from its top."""
        self._shown = next(page for page in PAGES if page.name == name)
        self.query_one("#page").scroll_home(animate=False)
        self.look()

    def action_end(self, code: int) -> None:
        """End with this exit status."""
        self.exit(return_code=code)

    def on_resize(self, _event: Resize) -> None:
        """What depends on the width is laid out again, once the window has it."""
        self.call_after_refresh(self._draw)

    def _say(self, message: str, *, is_trouble: bool) -> None:
        every = f"{self._shown.name} · {self._what} · every {duration(self._interval_s)}"
        parts = [Text("gfmon  ", "bold"), Text(every)]
        if message:
            parts.append(Text(f"  {message}", _STYLES[Tone.BAD if is_trouble else Tone.PLAIN]))
        self.query_one("#banner", Static).update(Text.assemble(*parts))

    def _draw(self) -> None:
        if self._figures is None:
            return
        width = max(_WIDTH_MIN, self.size.width - _EDGES)
        blocks = self._shown.view(Frame(self._figures, width, self._history.curve, self._nobody))
        tables = as_text(block for block in blocks if isinstance(block, Table))
        body = self.query_one("#body", Static)
        body.styles.width = max(width, *map(len, tables.split("\n")))  # what is wider can be scrolled to
        body.update(rendered(blocks, width))
