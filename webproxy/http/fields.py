"""Fields: the header (or trailer) section of one HTTP message, an immutable value.

Fields are built from lines, or from a block (the lines as they are on the wire) that is parsed only when a line is
needed. A stored response is sent as its block, often without a look at any single field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from webproxy.http.syntax import is_field_block

Field = tuple[bytes, bytes]
"""The name as received, and the value without surrounding white space."""


class Fields:
    """Field lines in order.

    Names are compared case-insensitively (RFC 9110 section 5.1); methods take names in lower case.
    """

    __slots__ = ("_block", "_index", "_lines")

    def __init__(self, lines: Iterable[Field] = ()) -> None:
        self._lines: tuple[Field, ...] | None = tuple(lines)
        self._block: bytes | None = None
        self._index: dict[bytes, bytes | list[bytes]] | None = None

    @classmethod
    def parse_block(cls, block: bytes) -> Fields:
        """Fields from lines of the form `Name: value`, each with its CR LF, without the empty line that ends a head.

        Only for blocks that we wrote: exactly one space after the colon. Raises ValueError if a name is not a token or
        a value contains CR, LF or NUL (RFC 9110 section 5.5).
        """
        if is_field_block(block) is None:
            raise ValueError("not a block of field lines")
        fields = cls.__new__(cls)
        fields._block = block
        fields._lines = fields._index = None
        return fields

    @property
    def lines(self) -> tuple[Field, ...]:
        """The lines, in order."""
        lines = self._lines
        if lines is None:
            pairs = [line.split(b": ", 1) for line in (self._block or b"").split(b"\r\n")[:-1]]
            self._lines = lines = tuple([(name, value) for name, value in pairs])
        return lines

    @property
    def block(self) -> bytes:
        """The lines as they are sent, each with its CR LF; their content is not checked here."""
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
        return name in (self._index or self._indexed())

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
        """The distinct field names, in lower case."""
        return (self._index or self._indexed()).keys()

    def get(self, name: bytes) -> bytes | None:
        """The field's value, multiple lines joined with ", " (RFC 9110 section 5.3); None if absent."""
        value = (self._index or self._indexed()).get(name)
        return b", ".join(value) if isinstance(value, list) else value

    def get_all(self, name: bytes) -> list[bytes]:
        """The values of all lines with this name, in order."""
        value = (self._index or self._indexed()).get(name)
        if value is None:
            return []
        return list(value) if isinstance(value, list) else [value]

    def without(self, names: Iterable[bytes]) -> Fields:
        """All lines except those with these names."""
        index = self._index or self._indexed()
        dropped = index.keys() & names
        if not dropped:  # nothing changes, neither here nor there
            return self
        fields = Fields([line for line in self.lines if line[0].lower() not in dropped])
        fields._index = left = dict(index)
        for name in dropped:
            del left[name]
        return fields

    def with_line(self, name: bytes, value: bytes) -> Fields:
        """With one more line at the end."""
        fields = Fields((*self.lines, (name, value)))
        index, lower = self._index, name.lower()
        if index is not None and lower not in index:
            fields._index = {**index, lower: value}
        return fields

    def replaced(self, name: bytes, value: bytes) -> Fields:
        """With this line in place of all lines of the same name (which may contain capitals here)."""
        return Fields((*self.without((name.lower(),)).lines, (name, value)))
