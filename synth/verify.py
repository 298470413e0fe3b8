"""The verifier: every way in which a schedule breaks a rule.

It shares nothing with what makes schedules. The edges, the memory over time and the metrics are derived here
again, from the problem and the listed times alone, so that a fault elsewhere shows as a disagreement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from operator import attrgetter

from synth.certificate import Certificate, Status
from synth.ops import Op, OpKind, TimedOp
from synth.problem import Links, Objective, OpCost, Problem
from synth.rules import Rule
from synth.schedule import Metrics, Schedule

RATIO_TOLERANCE = 1e-9
"""How far a stated bubble ratio may be from the recomputed one."""

MISSING_NAMED = 1000
"""How many missing ops of one stage are named one by one; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule broken at one place.

    Parameters
    ----------
    rule
        The rule.
    rank
        The rank it is broken on, None where it is not one rank's.
    ops
        The ops involved, the one that should come first ahead.
    times
        The times the message compares, ticks.
    amount
        By how much: ticks, bytes, or a count; a ratio for the bubble ratio.
    message
        What is wrong and by how much, in a sentence.
    """

    rule: Rule
    rank: int | None
    ops: tuple[Op, ...]
    times: tuple[int, ...]
    amount: int | float
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


def verify_schedule(
    schedule: Schedule,
    *,
    metrics: Metrics | None = None,
    certificate: Certificate | None = None,
    stated_gap: float | None = None,
    stated_status: Status | None = None,
) -> list[Violation]:
    """Find every violation of every rule, in a fixed order; none means the schedule is valid.

    Whatever is listed gets an answer, never an exception: ops of absent stages, lists of absent ranks,
    no ops at all. An op's consumers are held against its first listing.

    Parameters
    ----------
    schedule
        What to check.
    metrics, certificate, stated_gap, stated_status
        What is stated of it, checked where given; the gap and the status belong to the certificate.
    """
    book = _Book.of(schedule)
    found = [
        *_one_list_per_rank(book),
        *_every_op_once(book),
        *_op_on_its_rank(book),
        *_op_duration(book),
        *_listed_in_order(book),
        *_no_overlap_on_rank(book),
        *_precedence(book),
        *_memory_limit(book),
    ]
    if metrics is not None:
        found += _stated_metrics(metrics, _recompute(book))
    if certificate is not None:
        found += _stated_certificate(certificate, book.problem.objective, _recompute(book))
        found += _stated_gap(certificate, stated_gap, stated_status)
    place = {rule: n for n, rule in enumerate(Rule)}

    def key(violation: Violation) -> tuple[object, ...]:
        rank = -1 if violation.rank is None else violation.rank
        return place[violation.rule], rank, violation.times, violation.ops, violation.message

    return sorted(found, key=key)


@dataclass(frozen=True, slots=True)
class _Book:
    """A schedule with what the checks look up.

    ``cost`` holds what each (stage, kind) offers, ``carried`` the microbatches of each stage; ``first`` the
    first listing of every op the problem has.
    """

    problem: Problem
    ranks: tuple[tuple[TimedOp, ...], ...]
    cost: Mapping[tuple[int, OpKind], OpCost]
    carried: Sequence[Collection[int]]
    first: Mapping[Op, TimedOp]

    @classmethod
    def of(cls, schedule: Schedule) -> _Book:
        problem = schedule.problem
        cost = {(s, kind): cost for s, costs in enumerate(problem.stages) for kind, cost in costs.offered}
        first: dict[Op, TimedOp] = {}
        everything = range(problem.num_microbatches)
        carried = [frozenset(feed.microbatches) for feed in problem.feeds]
        book = cls(problem, schedule.ranks, cost, carried or [everything] * problem.num_stages, first)
        for _, timed in book.known():
            first.setdefault(timed.op, timed)
        return book

    def knows(self, op: Op) -> bool:
        """Whether the problem has this op."""
        if (op.stage, op.kind) not in self.cost:
            return False
        return op.microbatch == 0 if op.kind is OpKind.R else op.microbatch in self.carried[op.stage]

    def known(self) -> Iterator[tuple[int, TimedOp]]:
        """Every listing of an op that the problem has, with the rank that lists it."""
        for rank, listed in enumerate(self.ranks):
            for timed in listed:
                if self.knows(timed.op):
                    yield rank, timed


def _one_list_per_rank(book: _Book) -> Iterator[Violation]:
    given, wanted = len(book.ranks), book.problem.num_ranks
    if given != wanted:
        message = f"the schedule has {given} lists of ops, the problem {wanted} ranks"
        yield Violation(Rule.ONE_LIST_PER_RANK, None, (), (), abs(given - wanted), message)


def _every_op_once(book: _Book) -> Iterator[Violation]:
    """Ops the problem lacks, repeated ops, then what every stage misses."""
    seen: set[Op] = set()
    for rank, listed in enumerate(book.ranks):
        for timed in listed:
            where = f"rank {rank} lists {timed.op}"
            if not book.knows(timed.op):
                message = f"{where}, which the problem lacks: {_why_unknown(book.problem, timed.op)}"
            elif timed.op in seen:
                message = f"{where} at {timed.start}, though it is listed before"
            else:
                seen.add(timed.op)
                continue
            yield Violation(Rule.EVERY_OP_ONCE, rank, (timed.op,), (timed.start,), 1, message)
    listed_microbatches: dict[tuple[int, OpKind], set[int]] = {key: set() for key in book.cost}
    for op in seen:
        listed_microbatches[op.stage, op.kind].add(op.microbatch)
    for stage, carried in enumerate(book.carried):
        done = {kind: listed_microbatches.get((stage, kind), set()) for kind in OpKind}
        yield from _incomplete_stage(book.problem, stage, carried, done)


def _why_unknown(problem: Problem, op: Op) -> str:
    if not 0 <= op.stage < problem.num_stages:
        return f"its stages are 0 to {problem.num_stages - 1}"
    if not 0 <= op.microbatch < problem.num_microbatches:
        return f"its microbatches are 0 to {problem.num_microbatches - 1}"
    if op.kind is OpKind.R and problem.stages[op.stage].R is not None:
        return "R runs once, as microbatch 0"
    if problem.feeds and op.microbatch not in problem.feeds[op.stage].microbatches:
        return f"stage {op.stage} does not carry that microbatch"
    offered = ", ".join(kind.value for kind, _ in problem.stages[op.stage].offered)
    return f"stage {op.stage} offers {offered}"


def _incomplete_stage(
    problem: Problem, stage: int, carried: Collection[int], done: Mapping[OpKind, set[int]]
) -> Iterator[Violation]:
    """What a stage misses or does twice over, given the microbatches listed of every kind."""
    rank = problem.stage_to_rank[stage]
    whole, inputs, weights = done[OpKind.BW], done[OpKind.B], done[OpKind.W]
    anyhow = whole | inputs | weights
    costs = problem.stages[stage]
    yield from _missing(rank, OpKind.F, stage, carried, done[OpKind.F])
    if costs.must_divide:
        yield from _missing(rank, OpKind.B, stage, carried, anyhow)
        yield from _missing(rank, OpKind.W, stage, carried, anyhow)
    else:
        other_way = " (or B and W)" if costs.can_divide else ""
        yield from _missing(rank, OpKind.BW, stage, carried, anyhow, other_way)
    if costs.R is not None and not done[OpKind.R]:
        yield _missing_op(rank, Op(OpKind.R, stage, 0))
    for kind, halves in ((OpKind.B, weights - inputs - whole), (OpKind.W, inputs - weights - whole)):
        for microbatch in sorted(halves):
            yield _missing_op(rank, Op(kind, stage, microbatch))
    for microbatch in sorted(whole & (inputs | weights)):
        kinds = [kind for kind in (OpKind.B, OpKind.W, OpKind.BW) if microbatch in done[kind]]
        ops = tuple(Op(kind, stage, microbatch) for kind in kinds)
        message = f"{' and '.join(map(str, ops))} are listed together: a backward is BW, or B and W"
        yield Violation(Rule.EVERY_OP_ONCE, rank, ops, (), 1, message)


def _missing(
    rank: int, kind: OpKind, stage: int, carried: Collection[int], listed: set[int], other_way: str = ""
) -> Iterator[Violation]:
    """The microbatches not listed; a file may state any number, so only the first are named."""
    count = len(carried) - len(listed)
    if not count:
        return
    absent = (i for i in (carried if isinstance(carried, range) else sorted(carried)) if i not in listed)
    for microbatch in islice(absent, MISSING_NAMED):
        yield _missing_op(rank, Op(kind, stage, microbatch), other_way)
    if count > MISSING_NAMED:
        rest = count - MISSING_NAMED
        message = f"no rank lists {kind} of stage {stage} for {rest} microbatches more"
        yield Violation(Rule.EVERY_OP_ONCE, rank, (), (), rest, message)


def _missing_op(rank: int, op: Op, other_way: str = "") -> Violation:
    message = f"no rank lists {op}{other_way}; it belongs on rank {rank}"
    return Violation(Rule.EVERY_OP_ONCE, rank, (op,), (), 1, message)


def _op_on_its_rank(book: _Book) -> Iterator[Violation]:
    for rank, timed in book.known():
        own = book.problem.stage_to_rank[timed.op.stage]
        if rank != own:
            message = f"rank {rank} runs {timed.op} at {timed.start}, but rank {own} holds its stage"
            yield Violation(Rule.OP_ON_ITS_RANK, rank, (timed.op,), (timed.start,), 1, message)


def _op_duration(book: _Book) -> Iterator[Violation]:
    for rank, (op, start, end) in book.known():
        ticks = book.cost[op.stage, op.kind].ticks
        if end - start != ticks:
            amount = abs(end - start - ticks)
            longer = "long" if end - start > ticks else "short"
            message = (
                f"{op} on rank {rank} runs from {start} to {end}, {_ticks(amount)} too {longer}: "
                f"it takes {_ticks(ticks)}"
            )
            yield Violation(Rule.OP_DURATION, rank, (op,), (start, end), amount, message)


def _listed_in_order(book: _Book) -> Iterator[Violation]:
    for rank, listed in enumerate(book.ranks):
        for before, after in pairwise(listed):
            if after.start < before.start:
                early = before.start - after.start
                message = (
                    f"rank {rank} lists {before.op} at {before.start} ahead of {after.op} at {after.start}, "
                    f"which starts {_ticks(early)} before it"
                )
                yield _between(Rule.LISTED_IN_ORDER, rank, before.op, before.start, after, message)


def _no_overlap_on_rank(book: _Book) -> Iterator[Violation]:
    """Hold every op against the one that ends last among those that started before it."""
    for rank, listed in enumerate(book.ranks):
        by_start = sorted(listed, key=attrgetter("start"))
        last = by_start[0] if by_start else None
        for timed in by_start[1:]:
            assert last is not None
            if timed.start < last.end:
                message = (
                    f"rank {rank} starts {timed.op} at {timed.start}, "
                    f"{_ticks(last.end - timed.start)} before {last.op} ends at {last.end}"
                )
                yield _between(Rule.NO_OVERLAP_ON_RANK, rank, last.op, last.end, timed, message)
            if timed.end > last.end:
                last = timed


@dataclass(frozen=True, slots=True)
class _Flow:
    """Which stages feed which: what the rules of precedence follow.

    ``replicas`` holds for every stage those that share its weights, itself among them.
    """

    before: Sequence[Sequence[int]]
    after: Sequence[Sequence[int]]
    replicas: Sequence[Sequence[int]]

    @classmethod
    def of(cls, problem: Problem) -> _Flow:
        count = problem.num_stages
        feeds = problem.feeds
        before: list[Sequence[int]] = [range(s - 1, s) if s else () for s in range(count)]
        if feeds:
            before = [feed.inputs for feed in feeds]
        after: list[list[int]] = [[] for _ in range(count)]
        for stage, inputs in enumerate(before):
            for source in inputs:
                after[source].append(stage)
        replicas = [[s] for s in range(count)]
        if feeds:
            replicas = [[s for s in range(count) if feeds[s].model_stage == f.model_stage] for f in feeds]
        return cls(before, after, replicas)

    def producers(self, op: Op, carried: Sequence[Collection[int]]) -> Iterator[tuple[Rule, Op]]:
        """The ops that may feed this one, each under its rule; of B and BW a valid schedule lists one."""
        kind, stage, microbatch = op
        if kind is OpKind.F:
            for source in self.before[stage]:
                yield Rule.FORWARD_CHAIN, Op(OpKind.F, source, microbatch)
        elif kind is OpKind.W:
            yield Rule.WEIGHT_AFTER_BACKWARD, Op(OpKind.B, stage, microbatch)
        elif kind is OpKind.R:
            for replica in self.replicas[stage]:
                for each in carried[replica]:
                    yield Rule.REDUCE_AFTER_WEIGHTS, Op(OpKind.W, replica, each)
                    yield Rule.REDUCE_AFTER_WEIGHTS, Op(OpKind.BW, replica, each)
        else:
            yield Rule.BACKWARD_AFTER_FORWARD, Op(OpKind.F, stage, microbatch)
            for source in self.after[stage]:
                yield Rule.BACKWARD_CHAIN, Op(OpKind.B, source, microbatch)
                yield Rule.BACKWARD_CHAIN, Op(OpKind.BW, source, microbatch)


def _precedence(book: _Book) -> Iterator[Violation]:
    """The chains, then transfers, then links: an op too early is told of the first it breaks."""
    problem = book.problem
    flow = _Flow.of(problem)
    arrivals = _exclusive_arrivals(book, flow) if problem.links is Links.EXCLUSIVE else {}
    for rank, timed in book.known():
        for rule, producer in flow.producers(timed.op, book.carried):
            source = book.first.get(producer)
            if source is None:
                continue
            start = timed.start
            is_sum = rule is Rule.REDUCE_AFTER_WEIGHTS
            lag = 0 if is_sum else problem.lag_ticks(producer.stage, timed.op.stage)
            ready = source.end + lag
            arrival = arrivals.get((producer, timed.op), ready)
            starts = f"{timed.op} starts on rank {rank} at {start}"
            if start < source.end:
                message = f"{starts}, {_ticks(source.end - start)} before {producer} ends at {source.end}"
                yield _between(rule, rank, producer, source.end, timed, message)
            elif start < ready:
                message = (
                    f"{starts}, {_ticks(ready - start)} before the transfer from {producer} "
                    f"arrives at {ready}, {_ticks(ready - source.end)} after it ends"
                )
                yield _between(Rule.TRANSFER_TIME, rank, producer, ready, timed, message)
            elif start < arrival:
                message = (
                    f"{starts}, {_ticks(arrival - start)} before the transfer from {producer} "
                    f"arrives at {arrival}, held up {_ticks(arrival - ready)} by others on its link"
                )
                yield _between(Rule.EXCLUSIVE_LINK, rank, producer, arrival, timed, message)


def _exclusive_arrivals(book: _Book, flow: _Flow) -> dict[tuple[Op, Op], int]:
    """When each transfer (from an op to another) arrives, if an ordered rank pair carries one at a time."""
    problem = book.problem
    sent: dict[tuple[int, int], list[tuple[TimedOp, Op]]] = {}
    for op in book.first:
        for rule, producer in flow.producers(op, book.carried):
            source = book.first.get(producer)
            link = problem.stage_to_rank[producer.stage], problem.stage_to_rank[op.stage]
            if source is not None and rule is not Rule.REDUCE_AFTER_WEIGHTS and link[0] != link[1]:
                sent.setdefault(link, []).append((source, op))
    arrivals: dict[tuple[Op, Op], int] = {}
    for (sender, receiver), queue in sent.items():
        queue.sort(key=lambda hop: (hop[0].end, hop[0].start, hop[0].op, hop[1].stage))
        free = queue[0][0].end
        for timed, consumer in queue:
            free = max(timed.end, free) + problem.transfer_ticks[sender][receiver]
            arrivals[timed.op, consumer] = free
    return arrivals


def _memory_limit(book: _Book) -> Iterator[Violation]:
    problem = book.problem
    for rank, limit in enumerate(problem.memory_limit_bytes or ()):
        static = problem.static_bytes_by_rank[rank]
        peak, over = _peak(book, rank, limit)
        if peak <= limit:
            continue
        ops: tuple[Op, ...] = ()
        times: tuple[int, ...] = ()
        since = f"its {static} static bytes alone are over it"
        if static <= limit and over is not None:
            ops, times = (over.op,), (over.start,)
            since = f"first over it at {over.op}, which starts at {over.start}"
        message = f"rank {rank} holds up to {peak} bytes, {peak - limit} over its limit of {limit}; {since}"
        yield Violation(Rule.MEMORY_LIMIT, rank, ops, times, peak - limit, message)


def _peak(book: _Book, rank: int, limit: int | None = None) -> tuple[int, TimedOp | None]:
    """The peak of a rank by its times, and the op whose allocation first exceeds the limit."""
    listed = book.ranks[rank] if rank < len(book.ranks) else ()
    events = []
    for place, timed in enumerate(listed):
        if book.knows(timed.op):
            cost = book.cost[timed.op.stage, timed.op.kind]
            # At one moment, what ends frees (0) before what starts allocates (1).
            events.append((timed.end, 0, place, -cost.free_bytes))
            events.append((timed.start, 1, place, cost.alloc_bytes))
    live = peak = book.problem.static_bytes_by_rank[rank]
    over = None
    for _, _, place, change in sorted(events):
        live += change
        peak = max(peak, live)
        if over is None and limit is not None and live > limit:
            over = listed[place]
    return peak, over


def _recompute(book: _Book) -> Metrics:
    """The metrics of whatever is listed; all 0 where nothing is."""
    spans = [(min(t.start for t in rank), max(t.end for t in rank)) for rank in book.ranks if rank]
    makespan = max((end for _, end in spans), default=0) - min((start for start, _ in spans), default=0)
    rank_span = max((end - start for start, end in spans), default=0)
    work = max((sum(max(0, t.end - t.start) for t in rank) for rank in book.ranks), default=0)
    value = makespan if book.problem.objective is Objective.MAKESPAN else rank_span
    return Metrics(
        makespan=makespan,
        rank_span=rank_span,
        work=work,
        bubble_ratio=1 - work / value if value > 0 else 0.0,
        peak_memory_bytes=tuple(_peak(book, rank)[0] for rank in range(book.problem.num_ranks)),
    )


def _stated_metrics(stated: Metrics, actual: Metrics) -> Iterator[Violation]:
    for name in ("makespan", "rank_span", "work"):
        yield from _misstated(name, None, getattr(stated, name), getattr(actual, name))
    # Written so that a stated NaN fails.
    if not abs(stated.bubble_ratio - actual.bubble_ratio) <= RATIO_TOLERANCE:
        yield from _misstated("bubble_ratio", None, stated.bubble_ratio, actual.bubble_ratio)
    given, wanted = len(stated.peak_memory_bytes), len(actual.peak_memory_bytes)
    yield from _misstated("the length of peak_memory_bytes", None, given, wanted)
    peaks = zip(stated.peak_memory_bytes, actual.peak_memory_bytes, strict=False)
    for rank, (peak, recomputed) in enumerate(peaks):
        yield from _misstated(f"peak_memory_bytes[{rank}]", rank, peak, recomputed)


def _misstated(name: str, rank: int | None, stated: float, actual: float) -> Iterator[Violation]:
    if stated != actual:
        amount = abs(stated - actual)
        message = f"{name} is stated as {stated}, {amount} off: the ops give {actual}"
        yield Violation(Rule.STATED_METRICS, rank, (), (), amount, message)


def _stated_certificate(stated: Certificate, objective: Objective, actual: Metrics) -> Iterator[Violation]:
    value = actual.value(stated.objective)
    wrong: list[tuple[int, str]] = []
    if stated.objective is not objective:
        wrong.append((1, f"the certificate is of {stated.objective}, the problem's objective is {objective}"))
    if stated.value != value:
        off = abs(stated.value - value)
        wrong.append((off, f"the certified value is {stated.value}, {off} off: the ops give {value}"))
    if stated.lower_bound > value:
        above = stated.lower_bound - value
        wrong.append((above, f"the lower bound {stated.lower_bound} is {above} above the value {value}"))
    if stated.lower_bound < 0:
        wrong.append((-stated.lower_bound, f"the lower bound {stated.lower_bound} is below 0"))
    for amount, message in wrong:
        yield Violation(Rule.STATED_CERTIFICATE, None, (), (), amount, message)


def _stated_gap(certificate: Certificate, gap: float | None, status: Status | None) -> Iterator[Violation]:
    value, bound = certificate.value, certificate.lower_bound
    wrong: list[tuple[float, str]] = []
    if gap is not None and value > 0 and abs(gap * value - (value - bound)) > RATIO_TOLERANCE * value:
        off = abs(gap - (value - bound) / value)
        wrong.append((off, f"the gap is stated as {gap}, {off} off: {value} over {bound} gives another"))
    if status is Status.OPTIMAL and bound != value:
        wrong.append((value - bound, f"the status is optimal, but {value} is not the lower bound {bound}"))
    if status is Status.INFEASIBLE:
        wrong.append((1, "the status is infeasible, but here is a schedule"))
    for amount, message in wrong:
        yield Violation(Rule.STATED_CERTIFICATE, None, (), (), amount, message)


def _between(rule: Rule, rank: int, first: Op, until: int, late: TimedOp, message: str) -> Violation:
    """An op that starts before the moment another sets; the amount is how much too early."""
    return Violation(rule, rank, (first, late.op), (until, late.start), until - late.start, message)


def _ticks(amount: int) -> str:
    return f"{amount} tick" if amount == 1 else f"{amount} ticks"
