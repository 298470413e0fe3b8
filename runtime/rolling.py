"""Orders without end: a document of a few batches, its steady state repeated for as many as are wanted.

A *batch* is m microbatches that follow one another, i·m … i·m + m - 1: the data of one call of ``step``. On
every rank an order falls into *segments*: batch t's begins at the first op of that batch and ends where batch
t + 1's begins, so it also holds the backwards that batch t - 1 has left over. Of an unflushed document
segment 0 fills the pipeline, segment 1 is the steady state, which every further batch repeats m microbatches
later, and behind the last segment stands what empties it::

    p = 2, m = 3, two batches          segment 0             segment 1              rest
     rank 0                            F0 F1 B0 F2 B1        F3 B2 F4 B3 F5 B4      B5
     rank 1                            F0 B0 F1 B1 F2 B2     F3 B3 F4 B4 F5 B5

A run of any number of batches is segment 0, the steady state again and again, and the rest. Its messages are
planned as :mod:`runtime.communication` plans those of a document, by the same replay, which here goes on only
as far as it is asked to: every rank derives the same global order, and nothing grows with the batches.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from runtime.communication import Message, Needs, Step, replay
from runtime.orders import check_orders
from synth.errors import InputError
from synth.ops import Op, OpKind, RankOrders, TimedOp
from synth.problem import Problem

_NUMBERS = 2**20
"""Messages are numbered modulo this; many fewer are under way at once."""


@dataclass(frozen=True, slots=True)
class RollingOrder:
    """One rank's order for any number of batches.

    Parameters
    ----------
    first
        Segment 0.
    steady
        Segment 1.
    rest
        What empties the pipeline, of batch 0 where that is the only one.
    """

    first: tuple[Op, ...]
    steady: tuple[Op, ...]
    rest: tuple[Op, ...]

    def ops(self, batch_microbatches: int, num_batches: int) -> Iterator[Op]:
        """All ops of so many batches, in order."""
        yield from self.first
        for batch in range(1, num_batches):
            yield from _shifted(self.steady, (batch - 1) * batch_microbatches)
        yield from _shifted(self.rest, (num_batches - 1) * batch_microbatches)


@dataclass(frozen=True, slots=True)
class Rolling:
    """The orders of all ranks.

    Parameters
    ----------
    problem
        Whose placement and costs they are for.
    batch_microbatches
        m.
    orders
        By rank.
    """

    problem: Problem
    batch_microbatches: int
    orders: tuple[RollingOrder, ...]

    @property
    def one_batch(self) -> Iterator[Op]:
        """All ops of batch 0, every rank's in its order; other batches' are the same, so many further."""
        return (op for order in self.orders for op in (*order.first, *order.rest))

    def last_of_updates(self, unit: int) -> frozenset[Op]:
        """The ops of batch 0 behind which a stage has all gradients of an update of ``unit`` microbatches."""
        last = {(op.stage, op.microbatch // unit): op for op in self.one_batch if op.kind is not OpKind.F}
        return frozenset(last.values())

    def within_batch(self, op: Op) -> Op:
        """The op of batch 0 that an op repeats."""
        return op._replace(microbatch=op.microbatch % self.batch_microbatches)


def roll(problem: Problem, orders: RankOrders, batch_microbatches: int) -> Rolling:
    """Find the steady state of a document's orders.

    What a batch leaves over ends with the segment of the next one: when the batch after that begins, all
    gradients of it are there, so that double-buffered weights are one update late whatever m is. With fewer
    than p - 1 microbatches in a batch 1F1B has more than two batches in flight and is refused, but where the
    document has just two; the paper asks for m ≥ p, with which no rank idles.

    Parameters
    ----------
    problem
        With as many microbatches as some batches, at least two, have together.
    orders
        For every rank, its ops in execution order.
    batch_microbatches
        m.

    Raises
    ------
    InputError
        When the orders have no steady state of one batch.
    """
    if not problem.is_chain:
        raise InputError("the schedule has directions or slices: a run without flushes takes a plain chain")
    check_orders(problem, orders)
    num_batches, over = divmod(problem.num_microbatches, batch_microbatches)
    if over or num_batches < 2:
        raise InputError(
            f"the schedule has {problem.num_microbatches} microbatches, which is not two or more batches of "
            f"{batch_microbatches}: give a schedule of {2 * batch_microbatches}"
        )
    rolled = tuple(
        _roll_rank(rank, order, batch_microbatches, num_batches) for rank, order in enumerate(orders)
    )
    return Rolling(problem, batch_microbatches, rolled)


def _roll_rank(rank: int, order: tuple[Op, ...], m: int, num_batches: int) -> RollingOrder:
    """One rank's part of :func:`roll`."""
    per_batch = len(order) // num_batches
    starts = [next(n for n, op in enumerate(order) if op.microbatch // m == t) for t in range(num_batches)]
    end = starts[-1] + per_batch
    segments = [order[a:b] for a, b in pairwise([*starts, end])]
    rest = tuple(_shifted(order[end:], -(num_batches - 1) * m))
    steady = segments[1]
    repeats = (
        starts == sorted(starts)
        and all(part == tuple(_shifted(steady, batch * m)) for batch, part in enumerate(segments[1:]))
        and rest == tuple(op for op in steady if op.microbatch < m)
        and {*segments[0], *rest} == {op for op in order if op.microbatch < m}
    )
    if not repeats:
        raise InputError(
            f"rank {rank}'s order does not repeat itself from the second batch of {m} microbatches on, as a "
            "run without flushes does: give an order like pipedream-2bw's, and batches of at least as many "
            "microbatches as there are ranks"
        )
    if any(op.kind is OpKind.F for op in rest):
        raise InputError(
            f"rank {rank} runs forwards of a batch after the first of the next one: finish them before"
        )
    return RollingOrder(segments[0], steady, rest)


def check_updates(problem: Problem, orders: RankOrders, unit: int) -> None:
    """Make sure that no stage mixes the gradients of two updates.

    Parameters
    ----------
    problem, orders
        The document's.
    unit
        After how many microbatches a stage updates its weights.

    Raises
    ------
    InputError
        Naming the first op that comes too early.
    """
    for order in orders:
        latest = dict.fromkeys(range(problem.num_stages), 0)
        for op in order:
            update = op.microbatch // unit
            if op.kind is OpKind.F:
                continue
            if update < latest[op.stage]:
                raise InputError(
                    f"{op} comes after a backward of microbatch {latest[op.stage] * unit} or later, whose "
                    "gradients belong to the next update: give an order that ends one update's first"
                )
            latest[op.stage] = update


def plan_rolling(rolling: Rolling, rank: int, num_batches: int, unit: int) -> Iterator[Step]:
    """What a rank does, op by op, as :func:`runtime.communication.plan_rank` says it for a document.

    Parameters
    ----------
    rolling
        The orders.
    rank
        The pipeline rank.
    num_batches
        How many the run has.
    unit
        After how many microbatches a stage updates its weights, which ``sums`` marks.

    Raises
    ------
    DeadlockError
        When the ranks wait for one another.
    """
    last = rolling.last_of_updates(unit)
    awaits: dict[Op, Message] = {}
    posts: list[Message] = []
    held: tuple[TimedOp, list[Message], Message | None] | None = None

    def step(timed: TimedOp, posts: list[Message], sends: Message | None) -> Step:
        sums = (timed.op.stage,) if rolling.within_batch(timed.op) in last else ()
        return Step(timed.op, tuple(posts), awaits.pop(timed.op, None), sends, sums)

    for timed, message in _with_messages(rolling, replayed(rolling, num_batches)):
        if message is not None and message.receiver == rank:
            awaits[message.consumer] = message
            # Posted before the op that runs when the producer starts, so that it finds its buffer.
            (held[1] if held is not None and timed.start < held[0].end else posts).append(message)
        if rolling.problem.stage_to_rank[timed.op.stage] == rank:
            if held is not None:
                yield step(*held)
            held, posts = (timed, posts, message), []
    if held is not None:
        yield step(*held)


def _with_messages(rolling: Rolling, ops: Iterable[TimedOp]) -> Iterator[tuple[TimedOp, Message | None]]:
    """Every op with what it hands to an op of another rank."""
    ranks, number = rolling.problem.stage_to_rank, 0
    needs = Needs(rolling.problem, rolling.one_batch)
    consumer_of = {
        needed: op
        for op in rolling.one_batch
        for needed in needs.of(op)
        if ranks[needed.stage] != ranks[op.stage]
    }
    for timed in ops:
        consumer = consumer_of.get(rolling.within_batch(timed.op))
        if consumer is None:
            yield timed, None
            continue
        sender, receiver = ranks[timed.op.stage], ranks[consumer.stage]
        consumer = consumer._replace(microbatch=timed.op.microbatch)
        yield timed, Message(number % _NUMBERS, timed.op, consumer, sender, receiver)
        number += 1


def replayed(rolling: Rolling, num_batches: int) -> Iterator[TimedOp]:
    """All ops of so many batches in the order, and with the times, in which a replay starts them.

    Raises
    ------
    DeadlockError
        With each unfinished rank's next op and what it waits for.
    """
    m = rolling.batch_microbatches
    needs = Needs(rolling.problem, rolling.one_batch)
    within = {op: tuple(needs.of(op)) for op in rolling.one_batch}

    def needed_by(op: Op) -> Iterator[Op]:
        needed = within[rolling.within_batch(op)]
        return (one._replace(microbatch=op.microbatch) for one in needed)

    orders = [order.ops(m, num_batches) for order in rolling.orders]
    return replay(rolling.problem, orders, needed_by, UnderWay(rolling))


class UnderWay(dict[Op, int]):
    """When ops of microbatches under way end: those of one that is through are forgotten.

    Parameters
    ----------
    rolling
        Which ops a microbatch has.
    """

    def __init__(self, rolling: Rolling) -> None:
        super().__init__()
        self._m = rolling.batch_microbatches
        self._ops_of: dict[int, list[Op]] = defaultdict(list)
        for op in rolling.one_batch:
            self._ops_of[op.microbatch].append(op)
        self._ended = Counter[int]()

    def __setitem__(self, op: Op, end: int) -> None:
        super().__setitem__(op, end)
        self._ended[op.microbatch] += 1
        ops = self._ops_of[op.microbatch % self._m]
        if self._ended[op.microbatch] == len(ops):
            del self._ended[op.microbatch]
            for one in ops:
                del self[one._replace(microbatch=op.microbatch)]


def _shifted(ops: Iterable[Op], microbatches: int) -> Iterator[Op]:
    return (op._replace(microbatch=op.microbatch + microbatches) for op in ops)
