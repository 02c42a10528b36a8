"""RFC 9111 section 5.2.2: what an origin may tell the cache, where no other section's file shows it."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, IN_AN_HOUR, action_after, kept, refusal
from tests.support.http_values import fields
from webproxy.caching.decision import Action

HIT, REVALIDATE = Action.HIT, Action.REVALIDATE


def stored_with(control: bytes) -> Action:
    return action_after(5, kept(b"Cache-Control: " + control, ETAG, DATE, b"Expires: " + IN_AN_HOUR))


@pytest.mark.parametrize(
    ("control", "action"),
    [
        pytest.param(b"no-cache", REVALIDATE, id="no-cache"),
        pytest.param(b"max-age=10000, No-CaChE", REVALIDATE, id="any case"),
        pytest.param(b"no-cache=", REVALIDATE, id="no list"),
        pytest.param(b'no-cache="not a name"', REVALIDATE, id="not names"),
        pytest.param(b'no-cache="content-type"', REVALIDATE, id="the rest would not be understood"),
        pytest.param(b'no-cache="a"', HIT, id="with field names"),
        pytest.param(b"no-cache=a", HIT, id="with one, as a token"),
        pytest.param(b"max-age=60, must-revalidate", HIT, id="must-revalidate, fresh"),
        pytest.param(b"max-age=60, proxy-revalidate", HIT, id="proxy-revalidate, fresh"),
        pytest.param(b"max-age=1, must-revalidate", REVALIDATE, id="must-revalidate, stale"),
        pytest.param(b"public", HIT, id="public"),
        pytest.param(b"no-transform", HIT, id="no-transform"),
        pytest.param(b"max-age=60, immutable", HIT, id="immutable"),
        pytest.param(b"max-age=1, immutable", REVALIDATE, id="immutable, stale"),
        pytest.param(b"unknown, other=1", HIT, id="unknown ones"),
        pytest.param(b'max-age=60, x="no-cache"', HIT, id="quoted"),
        pytest.param(b'max-age=60, x="no-cache', REVALIDATE, id="quoted, never closed"),
    ],
)
def test_does_it_serve_without_validation(control: bytes, action: Action) -> None:
    assert stored_with(control) is action


@pytest.mark.parametrize("name", [b"no-cache", b"private"])
@pytest.mark.parametrize(
    ("argument", "left"),
    [
        (b'"a"', (b"B: 2", b"C: 3")),
        (b'"A, c"', (b"B: 2",)),
        (b"b", (b"A: 1", b"C: 3")),
        (b'"d"', (b"A: 1", b"B: 2", b"C: 3")),
    ],
)
def test_fields_that_are_withheld(name: bytes, argument: bytes, left: tuple[bytes, ...]) -> None:
    """Sections 5.2.2.4 and 5.2.2.7: the rest of the response is used as any other."""
    control = b"Cache-Control: max-age=60, %s=%s" % (name, argument)
    assert refusal(control, b"A: 1", b"B: 2", b"C: 3") == b""
    stored = kept(control, DATE, b"A: 1", b"B: 2", b"C: 3")
    assert stored.fields == fields(control, DATE, *left)
    assert action_after(5, stored) is HIT


@pytest.mark.parametrize("argument", [b'""', b'"a b"', b'"content-encoding"', b'"vary, a"'])
def test_private_that_covers_everything(argument: bytes) -> None:
    assert refusal(b"Cache-Control: max-age=60, private=" + argument) == b"private"
