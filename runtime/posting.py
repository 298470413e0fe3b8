"""When receives are posted, and when what other ranks store must have left: time and memory decide.

A receive is posted before the op that is running when its message is made, so that the message finds its
buffer. What a stage keeps and another rank stores (:mod:`runtime.eviction`) is as large as all activations
of a microbatch, and a document counts it on neither side while it is on its way. So that no rank holds more
than planned, such a receive is posted no earlier than the memory of the ops before its own allows, and an op
that would exceed it waits until what was sent has left. Memory is that of the document's costs; what a rank
may hold is its limit, and without one the most that the document lets it hold. A transfer that finds no room
does not overlap what is computed: a limit higher by what one microbatch keeps gives it room.

Nobody waits for ever. Messages of one direction are posted in their order, each before its consumer at the
latest. An op waits for departures only where all that its rank has sent until then is posted by ops that
stand earlier in the global order; where it is not, the wait comes later, and memory gives way.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from runtime.communication import Message, Step, global_order, plan_rank
from runtime.routes import storing_stages
from synth.ops import Op, RankOrders
from synth.problem import Problem


def plan_rank_within_memory(problem: Problem, orders: RankOrders, rank: int) -> tuple[Step, ...]:
    """What a rank does, op by op, as :func:`runtime.communication.plan_rank` says it, with room for storage.

    Parameters
    ----------
    problem, orders, rank
        As there.

    Raises
    ------
    InvalidOrdersError
        When the orders do not hold every op of the problem once, each on its stage's rank.
    DeadlockError
        When the ranks wait for one another.
    """
    if not storing_stages(problem):
        return plan_rank(problem, orders, rank)
    plans = [plan_rank(problem, orders, each) for each in range(problem.num_ranks)]
    place = {timed.op: n for n, timed in enumerate(global_order(problem, orders))}
    waiting: list[set[int]] = [set() for _ in orders]  # by rank: the ops that wait for departures
    while True:
        rooms = [Room(problem, each, order) for each, order in enumerate(orders)]
        posted = [room.receive(plan, at) for room, plan, at in zip(rooms, plans, waiting, strict=True)]
        reached = {
            message: place[plan[post.behind].op] if post.behind >= 0 else -1
            for plan, posts in zip(plans, posted, strict=True)
            for message, post in posts.items()
        }
        left = [room.let_leave(plan, reached, place) for room, plan in zip(rooms, plans, strict=True)]
        more = [before | set(now) for before, now in zip(waiting, left, strict=True)]
        if more == waiting:
            return _arranged(plans[rank], posted[rank], left[rank])
        waiting = more


class Post(NamedTuple):
    """Before which op a message's receive is posted, and whether only once that op's departures are over."""

    step: int
    is_late: bool

    @property
    def behind(self) -> int:
        """The op that its rank has reached by then, waits included; -1 from the start on."""
        return self.step if self.is_late else self.step - 1


class Room:
    """What a rank holds while each of its ops runs, by the document, and what it may hold.

    Parameters
    ----------
    problem, rank
        Whose costs and limit count.
    order
        The rank's ops.
    """

    def __init__(self, problem: Problem, rank: int, order: Sequence[Op]) -> None:
        self._problem, self._step_of = problem, {op: n for n, op in enumerate(order)}
        level, self._held = problem.static_bytes_by_rank[rank], list[int]()
        for op in order:
            cost = problem.stages[op.stage].cost(op.kind)
            self._held.append(level + cost.alloc_bytes)
            level += cost.alloc_bytes - cost.free_bytes
        limits = problem.memory_limit_bytes
        self._most = max(self._held, default=0) if limits is None else limits[rank]

    def receive(self, plan: Sequence[Step], waiting: Collection[int]) -> dict[Message, Post]:
        """When each message to the rank is posted; what is stored has room from there.

        Parameters
        ----------
        plan
            The rank's.
        waiting
            The ops that wait for departures: what comes in their place is posted behind that.
        """
        arriving = [(message, n) for n, step in enumerate(plan) for message in step.posts]
        latest = {message: self._step_of[message.consumer] for message, _ in arriving}
        behind: dict[int, int] = {}  # by sender: when the next of its messages must be posted at the latest
        for message, _ in reversed(arriving):
            latest[message] = behind[message.sender] = min(
                latest[message], behind.get(message.sender, len(plan))
            )
        posted: dict[Message, Post] = {}
        last: dict[int, Post] = defaultdict(lambda: Post(0, False))  # by sender
        for message, soonest in arriving:
            wanted = self._with_room(message, soonest) if message.is_stored else soonest
            before = last[message.sender]
            step = max(before.step, min(wanted, latest[message]))
            is_late = step > soonest or before == Post(step, True) or (message.is_stored and step in waiting)
            posted[message] = last[message.sender] = Post(step, is_late)
            if message.is_stored:
                self._occupy(message, range(step, self._step_of[message.consumer]))
        return posted

    def let_leave(
        self, plan: Sequence[Step], reached: dict[Message, int], place: dict[Op, int]
    ) -> dict[int, list[Message]]:
        """Before which of the rank's ops what it has sent to storage, or from it, must have left.

        Parameters
        ----------
        plan
            The rank's, which says what it sends.
        reached
            For every message, the place in the global order of the op behind which it is posted.
        place
            Of every op.
        """
        found: dict[int, list[Message]] = defaultdict(list)
        leaving: deque[tuple[Message, int]] = deque()  # with the last place by which it can have left
        under_way, latest = 0, -1
        for n, step in enumerate(plan):
            while leaving and self._held[n] + under_way > self._most and leaving[0][1] < place[step.op]:
                message, _ = leaving.popleft()
                under_way -= self._bytes(message)
                found[n].append(message)
            for sent in (step.sends, step.stored.sends):
                if sent is not None:
                    latest = max(latest, reached[sent])
            if step.stored.sends is not None:
                leaving.append((step.stored.sends, latest))
                under_way += self._bytes(step.stored.sends)
        return found

    def _bytes(self, message: Message) -> int:
        store = max(message.producer.stage, message.consumer.stage)  # a stage is fed by earlier ones
        return self._problem.stages[store].F.alloc_bytes

    def _with_room(self, message: Message, soonest: int) -> int:
        """The first op from ``soonest`` on from which there is room for a message until its own op."""
        step = self._step_of[message.consumer]
        while step > soonest and self._held[step - 1] + self._bytes(message) <= self._most:
            step -= 1
        return step

    def _occupy(self, message: Message, steps: Iterable[int]) -> None:
        for n in steps:
            self._held[n] += self._bytes(message)


def _arranged(
    plan: Sequence[Step], posted: dict[Message, Post], left: dict[int, list[Message]]
) -> tuple[Step, ...]:
    """A rank's plan with its receives where they are to be posted, and the departures to wait for."""
    late: dict[int, list[Message]] = defaultdict(list)
    for step in plan:
        for message in step.posts:
            if posted[message].is_late:
                late[posted[message].step].append(message)
    return tuple(
        replace(
            step,
            posts=tuple(message for message in step.posts if not posted[message].is_late),
            stored=replace(step.stored, left=tuple(left.get(n, ())), posts=tuple(late[n])),
        )
        for n, step in enumerate(plan)
    )
