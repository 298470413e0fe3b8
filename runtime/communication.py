"""Which rank sends what to which, and when: derived from the schedule document alone, before anything runs.

All ops of all ranks are put into one global order, that of a replay on the document's own costs. Every
transfer has its place in it, behind its producer. A sender hands over in the order of its own ops; its
receiver posts receives in the global order. Restricted to one direction between two ranks both are the same
sequence, because every rank derives it from the same document by the same function. So no two ranks can
disagree, and messages need no tags. Posting a receive never waits, and an op waits only for a message whose
producer stands earlier in the global order, so the first op in it that has not run can always run: nothing
deadlocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from synth.errors import DeadlockError, InvalidOrdersError, WaitingRank
from synth.ops import PASSES, Op, OpKind, RankOrders, TimedOp
from synth.problem import Problem


class Message(NamedTuple):
    """What one op hands to an op of another rank: an activation behind F, a gradient behind B or BW.

    Parameters
    ----------
    number
        Its place in the global order among all messages.
    producer, consumer
        The op that makes it and the op that needs it.
    sender, receiver
        Their pipeline ranks.
    """

    number: int
    producer: Op
    consumer: Op
    sender: int
    receiver: int


@dataclass(frozen=True, slots=True)
class Step:
    """One op of a rank with its communication.

    Parameters
    ----------
    op
        The op.
    posts
        Receives to post before it, in this order.
    awaits
        The message it needs, None where its input is on the rank or it has none.
    sends
        The message it makes.
    ends_stage
        Whether it is the last to add to its stage's gradients.
    """

    op: Op
    posts: tuple[Message, ...]
    awaits: Message | None
    sends: Message | None
    ends_stage: bool


def plan_rank(problem: Problem, orders: RankOrders, rank: int) -> tuple[Step, ...]:
    """What a rank does, op by op.

    Parameters
    ----------
    problem
        The placement and the costs; costs only decide how early receives are posted.
    orders
        For every rank, its ops in execution order.
    rank
        The pipeline rank.

    Raises
    ------
    InvalidOrdersError
        When the orders do not hold every op of the problem once, each on its stage's rank.
    DeadlockError
        When the ranks wait for one another.
    """
    check_orders(problem, orders)
    times = global_order(problem, orders)
    messages = plan_messages(problem, [timed.op for timed in times])
    at = {timed.op: timed for timed in times}
    posts = _posts(orders[rank], [message for message in messages if message.receiver == rank], at)
    awaits = {message.consumer: message for message in messages}
    sends = {message.producer: message for message in messages}
    last = {op.stage: op for op in orders[rank] if op.kind is not OpKind.F}
    return tuple(
        Step(op, tuple(posts[n]), awaits.get(op), sends.get(op), last[op.stage] == op)
        for n, op in enumerate(orders[rank])
    )


def check_orders(problem: Problem, orders: RankOrders) -> None:
    """Make sure that orders hold every op of a problem once, on its rank.

    Raises
    ------
    InvalidOrdersError
        Naming the first op that is missing, misplaced or there twice.
    """
    seen: set[Op] = set()
    for rank, order in enumerate(orders):
        for op in order:
            if not (op.stage < problem.num_stages and op.microbatch < problem.num_microbatches):
                raise InvalidOrdersError(f"rank {rank} runs {op}, which the problem lacks")
            own = problem.stage_to_rank[op.stage]
            if own != rank:
                raise InvalidOrdersError(f"rank {rank} runs {op}, which belongs on rank {own}")
            if op.kind not in dict(problem.stages[op.stage].offered):
                raise InvalidOrdersError(f"rank {rank} runs {op}, which its stage's costs do not offer")
            if op in seen:
                raise InvalidOrdersError(f"rank {rank} runs {op} twice")
            seen.add(op)
    for stage in range(problem.num_stages):
        for microbatch in range(problem.num_microbatches):
            _check_complete(seen, stage, microbatch)


def _check_complete(seen: set[Op], stage: int, microbatch: int) -> None:
    forward, inputs, weights, whole = (Op(kind, stage, microbatch) for kind in PASSES)
    if forward not in seen:
        raise InvalidOrdersError(f"no rank runs {forward}")
    if [inputs in seen, weights in seen] != [whole not in seen] * 2:
        given = ", ".join(str(op) for op in (inputs, weights, whole) if op in seen) or "none"
        raise InvalidOrdersError(
            f"of {inputs}, {weights} and {whole} {given} is run: run the first two or the last"
        )


def needs(op: Op, divided: set[tuple[int, int]], num_stages: int) -> Iterator[Op]:
    """The ops that must end before an op starts (FORMATS.md, Dependencies).

    ``divided`` holds the (stage, microbatch) pairs whose backward is B and W.
    """
    kind, stage, microbatch = op
    if kind is OpKind.W:
        yield Op(OpKind.B, stage, microbatch)
    elif kind is OpKind.F:
        if stage > 0:
            yield Op(OpKind.F, stage - 1, microbatch)
    else:
        yield Op(OpKind.F, stage, microbatch)
        if stage + 1 < num_stages:
            kind = OpKind.B if (stage + 1, microbatch) in divided else OpKind.BW
            yield Op(kind, stage + 1, microbatch)


def global_order(problem: Problem, orders: RankOrders) -> list[TimedOp]:
    """All ops in the order, and with the times, in which a replay on the problem's costs starts them.

    Ties go to the lower rank, so every rank computes the same list.

    Raises
    ------
    DeadlockError
        With each unfinished rank's next op and what it waits for.
    """
    divided = {(op.stage, op.microbatch) for order in orders for op in order if op.kind is OpKind.B}
    ends: dict[Op, int] = {}
    found: list[TimedOp] = []
    position = [0] * len(orders)
    free_from = [0] * len(orders)
    waiting: dict[Op, list[int]] = defaultdict(list)  # ranks at the op that waits for this one
    ready: list[tuple[int, int]] = []

    def offer(rank: int) -> None:
        """Put a rank among the ready, or among those that wait for an op."""
        if position[rank] == len(orders[rank]):
            return
        op, start = orders[rank][position[rank]], free_from[rank]
        for needed in needs(op, divided, problem.num_stages):
            if needed not in ends:
                waiting[needed].append(rank)
                return
            start = max(start, ends[needed] + problem.lag_ticks(needed.stage, op.stage))
        heappush(ready, (start, rank))

    for rank in range(len(orders)):
        offer(rank)
    while ready:
        start, rank = heappop(ready)
        op = orders[rank][position[rank]]
        ends[op] = free_from[rank] = start + problem.stages[op.stage].cost(op.kind).ticks
        found.append(TimedOp(op, start, ends[op]))
        position[rank] += 1
        for other in (rank, *waiting.pop(op, ())):
            offer(other)
    unfinished = [rank for rank, order in enumerate(orders) if position[rank] < len(order)]
    if unfinished:
        raise DeadlockError(
            [waiting_rank(rank, orders[rank][position[rank]], waiting) for rank in unfinished]
        )
    return found


def waiting_rank(rank: int, op: Op, waiting: dict[Op, list[int]]) -> WaitingRank:
    """A rank that cannot go on: the op it is at and, of those that ranks wait for, the ones it needs."""
    return WaitingRank(
        rank, str(op), tuple(str(needed) for needed, ranks in waiting.items() if rank in ranks)
    )


def plan_messages(problem: Problem, order: list[Op]) -> list[Message]:
    """Every message between ranks, in the global order of their producers."""
    divided = {(op.stage, op.microbatch) for op in order if op.kind is OpKind.B}
    consumer_of = {
        needed: op
        for op in order
        for needed in needs(op, divided, problem.num_stages)
        if needed.stage != op.stage
    }
    found: list[Message] = []
    for producer in order:
        consumer = consumer_of.get(producer)
        if consumer is not None:
            sender, receiver = (problem.stage_to_rank[op.stage] for op in (producer, consumer))
            if sender != receiver:
                found.append(Message(len(found), producer, consumer, sender, receiver))
    return found


def _posts(order: tuple[Op, ...], arriving: list[Message], at: dict[Op, TimedOp]) -> list[list[Message]]:
    """Before which op each receive is posted: the one that is running when the message's producer starts.

    So that the message finds its buffer, and no buffer waits much longer than it must. Messages come in the
    global order, in which starts never fall, and are posted in it.
    """
    posts: list[list[Message]] = [[] for _ in order]
    step = 0
    for message in arriving:
        while at[order[step]].end <= at[message.producer].start:
            step += 1
        posts[step].append(message)
    return posts
