"""The codec of commands: what is encoded comes back; any other bytes are a command or refused, nothing else."""

from hypothesis import example, given
from hypothesis import strategies as st

from shmchannel.errors import CommandError
from shmchannel.objects.commands import HEAD_BYTES, KEY_BYTES_MAX, MAGIC, VERSION, Command, CommandKind, decode, encode
from shmchannel.streams.layout import SEGMENTS_MAX, SegmentRef
from tests.support.examples import examples

_WORD = st.integers(0, 2**64 - 1)
_REFS = st.builds(SegmentRef, st.binary(max_size=64), _WORD, _WORD)
_COMMANDS = st.builds(
    Command,
    kind=st.sampled_from([CommandKind.GET, CommandKind.PURGE]),
    key=st.binary(max_size=200),
    segments=st.lists(_REFS, max_size=5).map(tuple),
    deadline_ns=_WORD,
    offset=_WORD,
    length=_WORD,
    version=_WORD,
    flags=st.integers(0, 1),
    priority=st.integers(0, 3),
    request_id=_WORD,
    trace_id=st.binary(min_size=16, max_size=16),
)


@given(_COMMANDS)
@example(Command(CommandKind.GET, b"k" * KEY_BYTES_MAX, tuple([SegmentRef(b"n", 1, 512)] * SEGMENTS_MAX)))
@example(Command(CommandKind.PING, b""))
@example(Command(CommandKind.PURGE, b"/a", flags=3))
@example(Command(CommandKind.UPDATE, b"/a", (SegmentRef(b"n", 1, 512),), version=2**64 - 1))
@examples(200)
def test_round_trip(command: Command) -> None:
    assert decode(encode(command)) == command


def decodes_or_refuses(message: bytes) -> None:
    """Nothing else may come out; what is taken says the same when it is encoded again."""
    try:
        command = decode(message)
    except CommandError:
        return
    assert encode(command) == message


@given(st.binary(max_size=300))
@example(b"")
@examples(150)
def test_any_bytes(message: bytes) -> None:
    decodes_or_refuses(message)


@given(st.binary(min_size=HEAD_BYTES - 6, max_size=400))
@examples(300)
def test_any_bytes_behind_the_magic(rest: bytes) -> None:
    decodes_or_refuses(MAGIC + bytes([VERSION, 1]) + rest)


@given(_COMMANDS, st.data())
@examples(300)
def test_a_byte_changed(command: Command, data: st.DataObject) -> None:
    message = bytearray(encode(command))
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(message))


@given(_COMMANDS, st.integers(1, 500))
@examples(150)
def test_cut_off_or_lengthened(command: Command, count: int) -> None:
    message = encode(command)
    for wrong in (message[: max(0, len(message) - count)], message + bytes(count)):
        try:
            decode(wrong)
        except CommandError:
            continue
        raise AssertionError(f"{len(wrong)} bytes were taken, {len(message)} are right")
