"""The ring's bookkeeping: which lane predicts which samples next, and when a request is answered. Pure.

Theory of operation. Samples get consecutive *positions*, counted from the engine's start and never reused; sample `p`
lies in slot `p % capacity` of the shared buffer. A `Span` is a run of one request's samples that lies in consecutive
slots. Every member keeps a queue (`Todo`) of position ranges it has yet to predict: `publish` appends to it, `claim`
takes from its front, a dead lane's claims are put back at its front. Replicas of a member are lanes that claim from
the same queue. A span counts the (sample, member) pairs it still waits for; at zero it is handed out as finished, and
once the caller has combined its predictions and calls `free`, its slots may be written again. Nothing here knows of
processes, arrays, locks or clocks: the time is an argument, and whoever calls holds a lock.

Which task next: the one whose samples wait at the lowest position (members stay in step, so that answers leave in
order), among equals the longest. A claim takes what is there up to the placement's batch size, and less when few
seconds of work are left, so that all lanes end together (guided self-scheduling), never less than the post's `floor`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ripieno.engine.range_queue import RangeQueue
from ripieno.engine.ring_types import BatchAssignment, InstanceConfig, RequestSlice, WorkerState

WAKING, HANDING = 50e-6, 10e-6
"""Seconds it takes to wake an idle lane, and to hand one task over: a little work is not spread over more lanes."""
SMOOTHING = 0.2
"""Weight of the newest measurement in the running seconds per sample."""
SHORTEST = 0.001
"""Seconds below which a task is not cut further: handing it over would cost too much of it."""
_NOBODY: frozenset[int] = frozenset()


class Ring:
    """Bookkeeping of `capacity` slots read by `members` members in lanes given by their posts.

    With `ahead`, a lane gets further claims before it has finished the last: while it holds less than `ahead` seconds
    of work, or (`second`) one more while so much waits that all lanes can still end together. `max_delay` seconds at
    most may a sample wait for its batch to fill; a range over which lanes died `deaths` times is given up.
    """

    def __init__(
        self,
        capacity: int,
        members: int,
        lanes: Sequence[Sequence[InstanceConfig]],
        *,
        ahead: float = 0.0,
        second: bool = True,
        max_delay: float = 0.0,
        deaths: int = 3,
    ) -> None:
        assert capacity > 0
        assert members > 0
        self.capacity, self.ahead, self.max_delay, self.deaths = capacity, ahead, max_delay, deaths
        self._second = second and ahead > 0
        self.head = self.tail = 0
        self.lanes = [WorkerState({post.member: post for post in posts}) for posts in lanes]
        self.members = [RangeQueue(capacity) for _ in range(members)]
        self.claims: dict[int, BatchAssignment] = {}
        self._spans: deque[RequestSlice] = deque()
        self._owner: list[RequestSlice | None] = [None] * capacity
        self._next = 0
        self._work, self._share = -1.0, 0.5
        """seconds of all that waits, and the part of it that one claim may take; negative until a claim needs them"""
        self.idle = 0
        """lanes that are up and hold no claim"""

    # writers

    def piece(self, samples: int) -> int:
        """How many of `samples` can be written from `head` on now; they lie in consecutive slots."""
        return min(samples, self.capacity - (self.head - self.tail), self.capacity - self.head % self.capacity)

    def enqueue(self, request: Any, offset: int, samples: int, members: Sequence[int], now: float) -> RequestSlice:
        """Show the `samples` that were written from `head` on to `members`."""
        assert 0 < samples <= self.piece(samples)
        start, stop = self.head, self.head + samples
        left = [0] * len(self.members)
        span = RequestSlice(request, offset, start, stop, now, left, samples * len(members), _NOBODY)
        for member in members:
            left[member] = samples
            self.members[member].append(start, stop)
        slot = start % self.capacity
        if samples == 1:
            self._owner[slot] = span
        else:
            self._owner[slot : slot + samples] = [span] * samples
        self._spans.append(span)
        self.head = stop
        return span

    def extend(self, span: RequestSlice, member: int, start: int, stop: int) -> None:
        """Show positions of an unfinished or finished, not yet freed, span to one more member."""
        assert span.start <= start < stop <= span.stop
        assert not span.freed
        span.left[member] += stop - start
        span.remaining += stop - start
        self.members[member].append(start, stop)

    def free(self, span: RequestSlice) -> None:
        """Give back the slots of a finished span, which lets go of its request."""
        assert span.remaining == 0
        span.freed = True
        span.request = None
        spans = self._spans
        while spans and spans[0].freed:
            self.tail = spans.popleft().stop

    # readers

    def schedule(self, now: float) -> dict[int, list[BatchAssignment]]:
        """Claims for every lane that can take one now, by lane: always the lane first that would be done first."""
        taken: dict[int, list[BatchAssignment]] = {}
        if not self.idle and not self.ahead:
            return taken  # the usual case under load
        free = [i for i, lane in enumerate(self.lanes) if lane.wants(self.ahead, self._second)]
        self._work = -1.0
        while free:
            index = free[0] if len(free) == 1 else min(free, key=lambda i: self.lanes[i].load)
            lane = self.lanes[index]
            claim = self._make_assignment(index, lane, now)
            if claim:
                taken.setdefault(index, []).append(claim)
            if not claim or not lane.wants(self.ahead, self._second):
                free.remove(index)
        return taken

    def next_deadline(self, now: float = -math.inf) -> float | None:
        """Return when, after `now`, a member's oldest sample will next have waited `max_delay`: claims may be possible.

        None: no member waits for time to pass. One that is past it waits for a lane, which asks when it is free.
        """
        times = [self._arrival(m) + self.max_delay for m in self.members if m]
        return min((when for when in times if when > now), default=None)

    def complete(self, claim_id: int, seconds: float) -> list[RequestSlice]:
        """A claim's predictions are written; the spans that were waiting for nothing else. Unknown claims are late."""
        claim = self.claims.pop(claim_id, None)
        if claim is None:
            return []
        lane = self.lanes[claim.lane]
        del lane.held[claim_id]
        lane.members[claim.member] -= 1
        if not lane.members[claim.member]:
            del lane.members[claim.member]
        lane.load = lane.load - claim.seconds - HANDING if lane.held else WAKING
        self.measured(claim.lane, claim.member, seconds / claim.samples)
        self.idle += lane.up and not lane.held
        return self._passed(claim.member, claim.ranges)

    def measured(self, lane: int, member: int, rate: float) -> None:
        """Take `rate` seconds per sample of `member` in `lane` into account."""
        post = self.lanes[lane].instances[member]
        post.rate = rate if post.rate == 0 else post.rate + SMOOTHING * (rate - post.rate)
        self.members[member].rate = post.rate

    # what goes wrong

    def worker_up(self, lane: int) -> None:
        """The lane is ready for claims."""
        assert not self.lanes[lane].held
        self.lanes[lane].up = True
        self.lanes[lane].load = WAKING
        self.idle += 1

    def release(self, lane: int) -> tuple[list[tuple[RequestSlice, int]], list[RequestSlice]]:
        """The lane died: its claims go back to the front.

        Returns the (span, member) pairs that died too often, and the spans that finished because their members had
        been withdrawn. Only the oldest claim was running and is suspected; it is cut at request boundaries, so that a
        request that kills lanes dies alone.
        """
        dead = self.lanes[lane]
        self.idle -= dead.up and not dead.held
        dead.up = False
        hopeless: list[tuple[RequestSlice, int]] = []
        finished: list[RequestSlice] = []
        for age, claim in reversed(list(enumerate(dead.held.values()))):
            del self.claims[claim.id]
            tries = claim.tries + 1 if age == 0 else claim.tries
            back = []
            for span, start, stop in self.pieces(claim.ranges):
                if claim.member in span.unwanted:
                    if self._count(span, claim.member, stop - start):
                        finished.append(span)
                    continue
                back.append((start, stop))
                if tries >= self.deaths:
                    hopeless.append((span, claim.member))
            self.members[claim.member].put_back(back, tries)
        dead.held.clear()
        dead.members.clear()
        return hopeless, finished

    def cancel(self, span: RequestSlice, members: Iterable[int]) -> bool:
        """`members` need not predict `span` any more, save what is already claimed. True when it finished by this."""
        finished = False
        span.unwanted = span.unwanted.union(members)
        for index in members:
            if not span.left[index]:
                continue
            if count := self.members[index].cut(span.start, span.stop):
                finished = self._count(span, index, count)
        return finished

    # inner

    def pieces(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[RequestSlice, int, int]]:
        """Ranges cut at span boundaries."""
        for start, stop in ranges:
            while start < stop:
                span = self._owner[start % self.capacity]
                assert span is not None
                end = min(stop, span.stop)
                yield span, start, end
                start = end

    def _passed(self, member: int, ranges: Iterable[tuple[int, int]]) -> list[RequestSlice]:
        """`member` has predicted `ranges`; the spans that need nothing more. The busiest loop there is."""
        owner, capacity = self._owner, self.capacity
        finished = []
        for start, stop in ranges:
            while start < stop:
                span = owner[start % capacity]
                assert span is not None
                end = span.stop if span.stop < stop else stop
                span.left[member] -= end - start
                span.remaining -= end - start
                if not span.remaining:
                    finished.append(span)
                start = end
        return finished

    def _count(self, span: RequestSlice, member: int, samples: int) -> bool:
        """`samples` of `span` need nothing more from `member`. True when the span needs nothing more at all."""
        span.left[member] -= samples
        span.remaining -= samples
        assert span.left[member] >= 0
        return span.remaining == 0

    def _arrival(self, member: RangeQueue) -> float:
        span = self._owner[member.front % self.capacity]
        assert span is not None
        return span.arrival

    def _make_assignment(self, index: int, lane: WorkerState, now: float) -> BatchAssignment | None:
        """The best task for a lane that wants one, taken; None when there is none or it had better wait."""
        held, members = lane.members, self.members
        front, longest, chosen = self.head, -1.0, None
        for post in lane.instances.values():
            member = members[post.member]
            waiting = member.waiting
            if not waiting:
                continue
            if waiting < post.batch_size:
                if post.member in held:
                    continue  # its next samples had better wait for more of them
                if self.max_delay and now < self._arrival(member) + self.max_delay:
                    continue
                seconds = post.rate * waiting
            else:
                seconds = post.rate * post.batch_size
            start = member.front
            if start < front or (start == front and seconds > longest):
                front, longest, chosen = start, seconds, post
        if chosen is None:
            return None
        member = members[chosen.member]
        if self._work < 0:
            self._work = sum([member.waiting * member.rate for member in members])
            self._share = 0.5 / sum([lane.up for lane in self.lanes])
        share = self._work * self._share
        size = chosen.batch_size if longest <= SHORTEST else self._size(chosen, share)
        if held and member.suspected:
            return None  # it must be predicted alone
        if held and lane.load >= self.ahead and chosen.rate * min(size, member.waiting) > share / 2:
            return None  # what is left must still suffice to let all lanes end together
        waited = now - self._arrival(member)
        ranges, samples, tries = member.take(size)
        seconds = chosen.rate * samples
        claim = BatchAssignment(self._next, index, chosen.member, ranges, samples, tries, now, waited, seconds)
        self._next += 1
        self._work = max(0.0, self._work - member.rate * samples)
        if not held:
            self.idle -= 1
            lane.load = 0.0
        lane.load += seconds + HANDING
        lane.alone = tries > 0
        self.claims[claim.id] = lane.held[claim.id] = claim
        held[claim.member] = held.get(claim.member, 0) + 1
        return claim

    def _size(self, post: InstanceConfig, share: float) -> int:
        """Most samples the next claim of `post` takes: `share` seconds of work, half of what a lane would do of all."""
        if post.rate <= 0 or post.floor >= post.batch_size:
            return post.batch_size
        return min(post.batch_size, max(post.floor, int(max(share, SHORTEST) / post.rate)))
