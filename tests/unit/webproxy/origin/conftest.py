from contextlib import ExitStack
import pytest
import tests.support.sinks as S
from webproxy.origin.request import OriginLimits
stack: ExitStack | None = None
def origin_client(**k):
    return S.WaitingClient(stack.enter_context(S.running_driver()), S.limits(**k))
class LimitedClient(S.WaitingClient):
    def __init__(self, limits):
        super().__init__(stack.enter_context(S.running_driver()), limits)
S.origin_client = origin_client
S.LimitedClient = LimitedClient
@pytest.fixture(autouse=True)
def _drivers():
    global stack
    with ExitStack() as stack:
        yield
