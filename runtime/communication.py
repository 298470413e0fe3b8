"""Which rank sends what to which, and when: derived from the schedule document alone, before anything runs.

All ops of all ranks are put into one global order, that of a replay on the document's own costs. Every
transfer has its place in it, behind its producer. A sender hands over in the order of its own ops; its
receiver posts receives in the global order. Restricted to one direction between two ranks both are the same
sequence, because every rank derives it from the same document (they compare it at the start) by the same
function. So no two ranks can disagree, and messages need no tags. Posting a receive never waits, and an op
waits only for a message whose producer stands earlier in the global order, so the first op in it that has not
run can always run: nothing deadlocks. Sums of gradients are started in one order too, that in which the last
of their parts are ready; starting one never waits either. Where ranks store what others keep, receives may be
posted later and ops wait for departures: :mod:`runtime.posting` says why that holds no one up for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import chain
from typing import NamedTuple

from runtime.orders import check_orders
from runtime.routes import storing_stages
from synth.errors import DeadlockError, WaitingRank
from synth.ops import Op, OpKind, RankOrders, TimedOp
from synth.problem import Problem


class Message(NamedTuple):
    """What one op hands to an op of another rank: an activation behind F, a gradient behind B or BW.

    To and from a stage that stores it is what the other keeps of a microbatch.

    Parameters
    ----------
    number
        Its place in the global order among all messages.
    producer, consumer
        The op that makes it and the op that needs it.
    sender, receiver
        Their pipeline ranks.
    is_stored
        Whether it goes to a stage that stores, or comes from one.
    """

    number: int
    producer: Op
    consumer: Op
    sender: int
    receiver: int
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """What an op has to do with storage on other ranks (:mod:`runtime.posting`).

    Parameters
    ----------
    left
        Messages of this rank that must have left before the op, and before ``posts``.
    posts
        Further receives to post, in this order.
    awaits
        The message that brings back what F kept, or to storage what it takes in.
    sends
        The message that takes it away, or from storage hands it back.
    """

    left: tuple[Message, ...] = ()
    posts: tuple[Message, ...] = ()
    awaits: Message | None = None
    sends: Message | None = None


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
    sums
        The stages of the model whose gradients it starts to sum over their replicas, in this order: this
        rank adds nothing to them any more.
    stored
        What it has to do with storage.
    """

    op: Op
    posts: tuple[Message, ...]
    awaits: Message | None
    sends: Message | None
    sums: tuple[int, ...]
    stored: Stored = Stored()


def plan_rank(problem: Problem, orders: RankOrders, rank: int) -> tuple[Step, ...]:
    """What a rank does, op by op.

    Parameters
    ----------
    problem
        The placement and the costs; costs only decide how early receives are posted, and which of several
        sums comes first.
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
    in_order = [timed.op for timed in times]
    messages = plan_messages(problem, in_order)
    at = {timed.op: timed for timed in times}
    posts = _posts(orders[rank], [message for message in messages if message.receiver == rank], at)
    handed = [message for message in messages if not message.is_stored]
    awaits = {message.consumer: message for message in handed}
    sends = {message.producer: message for message in handed}
    sums = plan_sums(problem, in_order, rank)
    stored = plan_stored(messages, rank)
    return tuple(
        Step(
            op,
            tuple(posts[n]),
            awaits.get(op),
            sends.get(op),
            tuple(sums.get(op, ())),
            stored.get(op, Stored()),
        )
        for n, op in enumerate(orders[rank])
    )


def plan_stored(messages: Iterable[Message], rank: int) -> dict[Op, Stored]:
    """What a rank's ops take from storage and give to it."""
    found: dict[Op, Stored] = {}
    for message in messages:
        if message.is_stored and message.sender == rank:
            found[message.producer] = replace(found.get(message.producer, Stored()), sends=message)
        elif message.is_stored and message.receiver == rank:
            found[message.consumer] = replace(found.get(message.consumer, Stored()), awaits=message)
    return found


class Needs:
    """What ops wait for (FORMATS.md, Dependencies).

    Parameters
    ----------
    problem
        Which stages feed which, for which microbatches.
    ops
        All ops: they say which backwards are divided.
    """

    def __init__(self, problem: Problem, ops: Iterable[Op]) -> None:
        self._problem = problem
        self._inputs, self._outputs = problem.inputs_by_stage, problem.outputs_by_stage
        self._replicas = problem.replicas_by_stage
        self._carried = [set(problem.microbatches_of(stage)) for stage in range(problem.num_stages)]
        self._divided = {(op.stage, op.microbatch) for op in ops if op.kind is OpKind.B}

    def of(self, op: Op) -> Iterator[Op]:
        """The ops that must end before an op starts."""
        kind, stage, microbatch = op
        if kind is OpKind.R:
            for replica in self._replicas[stage]:
                for carried in self._problem.microbatches_of(replica):
                    yield self._backward(OpKind.W, replica, carried)
        elif kind is OpKind.W:
            yield Op(OpKind.B, stage, microbatch)
        elif kind is OpKind.F:
            for before in self._inputs[stage]:
                if self._carries(before, microbatch):
                    yield Op(OpKind.F, before, microbatch)
        else:
            yield Op(OpKind.F, stage, microbatch)
            for after in self._outputs[stage]:
                if self._carries(after, microbatch):
                    yield self._backward(OpKind.B, after, microbatch)

    def _carries(self, stage: int, microbatch: int) -> bool:
        return not self._problem.feeds or microbatch in self._carried[stage]

    def _backward(self, part: OpKind, stage: int, microbatch: int) -> Op:
        """The part of a backward, or all of it where it is not divided."""
        return Op(part if (stage, microbatch) in self._divided else OpKind.BW, stage, microbatch)


def global_order(problem: Problem, orders: RankOrders) -> list[TimedOp]:
    """All ops in the order, and with the times, in which a replay on the problem's costs starts them.

    Raises
    ------
    DeadlockError
        With each unfinished rank's next op and what it waits for.
    """
    needs = Needs(problem, chain.from_iterable(orders))
    return list(replay(problem, [iter(order) for order in orders], needs.of, {}))


def replay(
    problem: Problem,
    orders: Sequence[Iterator[Op]],
    needed_by: Callable[[Op], Iterable[Op]],
    ends: MutableMapping[Op, int],
) -> Iterator[TimedOp]:
    """All ops, each as its turn comes, in the order and with the times in which ranks start them.

    Ties go to the lower rank, so every rank finds the same.

    Parameters
    ----------
    problem
        The placement and the costs.
    orders
        For every rank, its ops in execution order; they may go on and on.
    needed_by
        The ops that must end before an op starts.
    ends
        Takes the tick at which each op ends, and may forget it when nothing needs the op any more.

    Raises
    ------
    DeadlockError
        With each unfinished rank's next op and what it waits for.
    """
    following = [next(order, None) for order in orders]
    free_from = [0] * len(orders)
    waiting: dict[Op, list[int]] = defaultdict(list)  # ranks at the op that waits for this one
    ready: list[tuple[int, int]] = []

    def offer(rank: int) -> None:
        """Put a rank among the ready, or among those that wait for an op."""
        op, start = following[rank], free_from[rank]
        if op is None:
            return
        for needed in needed_by(op):
            end = ends.get(needed)
            if end is None:
                waiting[needed].append(rank)
                return
            # A sum's parts are on no way: its own ticks count that.
            lag = 0 if op.kind is OpKind.R else problem.lag_ticks(needed.stage, op.stage)
            start = max(start, end + lag)
        heappush(ready, (start, rank))

    for rank in range(len(orders)):
        offer(rank)
    while ready:
        start, rank = heappop(ready)
        op = following[rank]
        assert op is not None
        ends[op] = free_from[rank] = start + problem.stages[op.stage].cost(op.kind).ticks
        yield TimedOp(op, start, free_from[rank])
        following[rank] = next(orders[rank], None)
        for other in (rank, *waiting.pop(op, ())):
            offer(other)
    left = [(rank, op) for rank, op in enumerate(following) if op is not None]
    if left:
        raise DeadlockError([_waiting_rank(rank, op, waiting) for rank, op in left])


def _waiting_rank(rank: int, op: Op, waiting: dict[Op, list[int]]) -> WaitingRank:
    """A rank that cannot go on: the op it is at and, of those that ranks wait for, the ones it needs."""
    return WaitingRank(
        rank, str(op), tuple(str(needed) for needed, ranks in waiting.items() if rank in ranks)
    )


def plan_messages(problem: Problem, order: list[Op]) -> list[Message]:
    """Every message between ranks, in the global order of their producers; sums of gradients are none."""
    needs, ranks, storing = Needs(problem, order), problem.stage_to_rank, storing_stages(problem)
    consumers_of: dict[Op, list[tuple[bool, Op]]] = defaultdict(list)
    for op in order:
        for needed in needs.of(op) if op.kind is not OpKind.R else ():
            if ranks[needed.stage] != ranks[op.stage]:
                is_stored = op.stage in storing or needed.stage in storing
                consumers_of[needed].append((is_stored, op))
    found: list[Message] = []
    for producer in order:
        for is_stored, consumer in sorted(consumers_of[producer]):  # what others compute with comes first
            sender, receiver = ranks[producer.stage], ranks[consumer.stage]
            found.append(Message(len(found), producer, consumer, sender, receiver, is_stored))
    return found


def plan_sums(problem: Problem, order: list[Op], rank: int) -> dict[Op, list[int]]:
    """Behind which of its ops a rank starts to sum the gradients of which stages of the model.

    It does so where it adds nothing more to them, or at the R op where there is one: that is behind all
    weight gradients. Of several sums, the one whose last part is ready first on all ranks comes first.

    Parameters
    ----------
    problem
        Which stages are replicas.
    order
        All ops, in the global order.
    rank
        The pipeline rank.
    """
    ends: dict[int, dict[int, int]] = defaultdict(dict)  # model stage, rank: the place of its last op
    storing = storing_stages(problem)
    for place, op in enumerate(order):
        if op.kind in (OpKind.W, OpKind.BW, OpKind.R) and op.stage not in storing:
            model_stage = problem.feeds[op.stage].model_stage if problem.feeds else op.stage
            ends[model_stage][problem.stage_to_rank[op.stage]] = place
    found: dict[Op, list[int]] = defaultdict(list)
    behind = 0
    for model_stage in sorted(ends, key=lambda one: max(ends[one].values())):
        if rank in ends[model_stage]:
            behind = max(behind, ends[model_stage][rank])
            found[order[behind]].append(model_stage)
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
