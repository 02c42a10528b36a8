"""The requests of `scripts/soak`: those of `checked`, and what makes and ends more state in the daemons.

Among them are purges, 404s, variants, validations, objects that come once and never again, and clients that leave at a
moment of their own choice.
"""

import random

from scripts.stress.checked import (
    CUT,
    HANG,
    MANY,
    NO_ANSWER,
    NO_CONNECTION,
    WRONG,
    Checked,
    any_request,
    outcome_of,
    stored_target,
    whole_object,
)
from scripts.stress.clients import Performed
from scripts.stress.exchange import Asked, Exchange
from scripts.stress.origin import content, content_in

LEFT = "left"
SILENT_KIND = "silent origin"
_TORN_KIND = "body that breaks off"
FAULTY_KINDS = ("miss, faulty origin", SILENT_KIND, _TORN_KIND)
"""Of these alone an answer may be cut or a 5xx."""

_LEAVES_WITHIN_S = 0.05
_NO_SUCH_OBJECT = b"no such object\n"
_LANGUAGES = ("de", "en", "fr", "it")
_FEW = 12


def is_fault(performed: Performed) -> bool:
    """Whether this must not be of an origin that answers, and of daemons that nobody harms."""
    if performed.outcome in (HANG, NO_ANSWER, NO_CONNECTION, WRONG):
        return True
    if performed.kind in FAULTY_KINDS:
        return False
    return performed.outcome == CUT or performed.outcome.startswith("status 5")


def perform_any(port: int, choice: random.Random, hang_s: float) -> Performed:
    """Make the next request of a quick client. Blocks for at most `hang_s`."""
    if choice.random() < 0.1:
        return _leave(port, choice)
    make = choice.choices((any_request, _purge, _absent, _brief, _language, _once, _torn), (60, 4, 6, 10, 8, 12, 3))
    checked = make[0](choice)
    return Performed(checked.kind, checked.as_text, outcome_of(port, checked, hang_s))


def _purge(choice: random.Random) -> Checked:
    asked = Asked(target=stored_target(choice), method="PURGE")
    return Checked("purge", asked, lambda got: got.status in (200, 204, 404))


def _absent(choice: random.Random) -> Checked:
    asked = Asked(target=f"/absent?{choice.randrange(MANY)}", getfile=choice.random() < 0.3)

    def is_exact(got: Exchange) -> bool:
        return got.status == 404 and (asked.getfile or got.body == _NO_SUCH_OBJECT)

    return Checked("404", asked, is_exact)


def _brief(choice: random.Random) -> Checked:
    return whole_object("validated", Asked(target=f"/brief?{choice.randrange(_FEW)}"))


def _language(choice: random.Random) -> Checked:
    target, language = f"/language?{choice.randrange(_FEW)}", choice.choice(_LANGUAGES)
    wanted = content_in(language, target)
    asked = Asked(target=target, fields=(("Accept-Language", language),))
    return Checked("variant", asked, lambda got: got.status == 200 and got.body == wanted, {200: wanted})


def _once(choice: random.Random) -> Checked:
    path = choice.choice(("/small", "/small", "/hit", "/middle"))
    return whole_object("miss", Asked(target=f"{path}?once-{choice.randrange(MANY)}", getfile=choice.random() < 0.3))


def _torn(choice: random.Random) -> Checked:
    """What breaks off, and cannot be asked for again: stored by nobody."""
    target = f"/torn?{choice.choice((0, choice.randrange(MANY)))}"
    return whole_object(_TORN_KIND, Asked(target=target, getfile=choice.random() < 0.3))


def _leave(port: int, choice: random.Random) -> Performed:
    """Ask, and leave before the head has come or after some of the body."""
    kind = "client that leaves"
    path = choice.choice(("/four", "/twenty", "/middle", "/small", "/uncached", "/tardy"))
    number = choice.choice((0, 1 if path in ("/four", "/twenty") else choice.randrange(MANY)))
    asked = Asked(target=f"{path}?{number}", getfile=choice.random() < 0.3)
    wanted = content(asked.target)
    size, patience_s = choice.randrange(len(wanted)), choice.choice((_LEAVES_WITHIN_S, 2.0)) * choice.random()
    outcome, body = LEFT, bytearray()
    try:
        with Exchange(port, asked, max(patience_s, 0.001)) as exchange:
            body = exchange.body if exchange.status == 200 else bytearray()
            outcome = LEFT if exchange.status == 200 else f"status {exchange.status}"
            exchange.read(size)
    except TimeoutError:
        pass
    except (OSError, EOFError):
        outcome = NO_ANSWER
    return Performed(kind, asked.target, outcome if wanted.startswith(bytes(body)) else WRONG)
