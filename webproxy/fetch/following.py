"""Following: what the plans of both protocols are if another process fetches the object: it is asked, and stores it.

Where its body ends too soon the origin is asked for the rest, as the protocol's own plan does it.
"""

from __future__ import annotations

from shmchannel.objects.commands import FetchLease
from webproxy.caching.partial import continuation
from webproxy.fetch.follow_messages import Followed
from webproxy.fetch.holder import Holder
from webproxy.fetch.plan import Answered, Draft, Plan
from webproxy.fetch.spool import Spool
from webproxy.fetch.state import Event, State
from webproxy.origin.request import OriginLimits, OriginRequest
from webproxy.origin.response_head import OriginResponse
from webproxy.store.fill import NO_FILL, Fill, StoreToken


class Following(Plan):
    """To be named before a protocol's plan among the bases; its constructor is that plan's, followed by follow()."""

    follows = True

    def follow(self, lease: FetchLease, timeout_s: float) -> None:
        """Ask the holder of this lease first; `timeout_s` is its longest silence before the head."""
        self.lease = lease.number
        self._holder = Holder(lease, self.name, timeout_s)
        self.hears = self._holder.hears
        self.overdue = self._holder.overdue
        self.failed = self._holder.failed
        self.tries += 1  # the origin has all of its own
        self._followed: Followed

    def first(self) -> Event:
        """As Plan.first(): the holder knows whether there is something to complete."""
        return Event.TO_FETCH

    def request(self, question: State, now: float) -> OriginRequest:
        """As Plan.request()."""
        if question is State.WHOLE:
            return self._holder.request(self.key)
        self._holder.leave()
        return super().request(question, now)

    def limits_of(self, request: OriginRequest) -> OriginLimits:
        """As Plan.limits_of()."""
        return self._holder.limits(self.limits) if request.holder else self.limits

    def judge(self, question: State, answered: Answered) -> Event:  # noqa: ARG002
        """As Plan.judge()."""
        answer = self._holder.answer(answered.response)
        if answer is None:
            return self.nothing_there()
        self._followed = answer
        return Event.ANSWER

    def nothing_there(self) -> Event:
        """The meaning of an answer that only getfile knows: there is no such object.

        Raises:
            NotFollowed: the protocol is another one.
        """
        raise NotImplementedError

    def draft(self, answered: Answered) -> Draft:
        """As Plan.draft(): the holder stores it, nobody else."""
        stored, length = self._followed.stored, answered.response.length
        return Draft(
            response=OriginResponse(status=stored.status, fields=stored.fields, length=length, reason=stored.reason),
            stored=stored,
            place=None,
            continuation=continuation(stored.status, stored.fields, length, answered.response_time),
        )

    draft_may_wait = False

    def keep(self, draft: Draft, spool: Spool, token: StoreToken) -> Fill:  # noqa: ARG002
        """As Plan.keep()."""
        return NO_FILL

    def keep_may_wait(self, draft: Draft) -> bool:  # noqa: ARG002
        """As Plan.keep_may_wait()."""
        return False
