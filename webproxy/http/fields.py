"""Fields: the header (or trailer) section of one HTTP message, an immutable value.

Fields are made of lines, or of a block (the lines as they stand on the wire) that is taken apart when somebody asks
for a line of it. A stored response is sent as its block, and often nothing else of it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from webproxy.http.syntax import is_field_block

Field = tuple[bytes, bytes]
"""Name as it was received, and its value without white space around it."""


class Fields:
    """Field lines in their order.

    Names are compared without case (RFC 9110 section 5.1); the names that its methods take are lower case.
    """

    __slots__ = ("_block", "_index", "_lines")

    def __init__(self, lines: Iterable[Field] = ()) -> None:
        self._lines: tuple[Field, ...] | None = tuple(lines)
        self._block: bytes | None = None
        self._index: dict[bytes, bytes | list[bytes]] | None = None

    @classmethod
    def parse_block(cls, block: bytes) -> Fields:
        """The fields of lines `Name: value` that end in CR LF each, without the empty line behind them.

        Only for blocks that we wrote: one blank behind the colon, exactly. Raises ValueError when a name is no token
        or a value holds CR, LF or NUL (RFC 9110 section 5.5).
        """
        if is_field_block(block) is None:
            raise ValueError("not a block of field lines")
        fields = cls.__new__(cls)
        fields._block = block
        fields._lines = fields._index = None
        return fields

    @property
    def lines(self) -> tuple[Field, ...]:
        """The lines in their order."""
        lines = self._lines
        if lines is None:
            pairs = [line.split(b": ", 1) for line in (self._block or b"").split(b"\r\n")[:-1]]
            self._lines = lines = tuple([(name, value) for name, value in pairs])
        return lines

    @property
    def block(self) -> bytes:
        """The lines as they are sent, each with its CR LF; what the lines hold is not checked here."""
        block = self._block
        if block is None:
            self._block = block = b"".join([b"%s: %s\r\n" % line for line in self.lines])
        return block

    def _indexed(self) -> dict[bytes, bytes | list[bytes]]:
        index = self._index
        if index is None:
            index = {}
            for name, value in self.lines:
                lower = name.lower()
                known = index.get(lower)
                if known is None:
                    index[lower] = value
                elif isinstance(known, list):
                    known.append(value)
                else:
                    index[lower] = [known, value]
            self._index = index
        return index

    def __contains__(self, name: bytes) -> bool:
        return name in self._indexed()

    def __iter__(self) -> Iterator[Field]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self.lines == other.lines

    def __hash__(self) -> int:
        return hash(self.lines)

    def __repr__(self) -> str:
        return f"Fields({self.lines!r})"

    def names(self) -> Iterable[bytes]:
        """The names that occur, in lower case, each once."""
        return self._indexed().keys()

    def get(self, name: bytes) -> bytes | None:
        """The field's value, several lines joined with ", " (RFC 9110 section 5.3); None when there is none."""
        value = self._indexed().get(name)
        return b", ".join(value) if isinstance(value, list) else value

    def get_all(self, name: bytes) -> list[bytes]:
        """The values of all its lines, in their order."""
        value = self._indexed().get(name)
        if value is None:
            return []
        return list(value) if isinstance(value, list) else [value]

    def without(self, names: Iterable[bytes]) -> Fields:
        """All lines but those of these names."""
        dropped = frozenset(names)
        return Fields(line for line in self.lines if line[0].lower() not in dropped)

    def with_line(self, name: bytes, value: bytes) -> Fields:
        """One more line behind the others."""
        return Fields((*self.lines, (name, value)))

    def replaced(self, name: bytes, value: bytes) -> Fields:
        """This one line in place of all lines of its name (which may be spelled with capitals here)."""
        return Fields((*self.without((name.lower(),)).lines, (name, value)))
