"""One model, cut in several ways: into stages, with limits, sizes and transfers that mean the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

from synth.chunks import cut_every_way, merge_into_ranks
from synth.errors import InputError
from synth.flows import as_chain, computing_stages, laid_out_of
from synth.placement import PlacementKind
from synth.problem import Links, Problem
from synth.topology import AllReduce, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The model cut in one way.

    Parameters
    ----------
    problem
        Its tick is as much shorter as the cut needs to be exact.
    bytes_scale
        All its bytes are so many times the real ones.
    """

    problem: Problem
    bytes_scale: int = 1

    @property
    def title(self) -> str:
        """How it is cut, in words."""
        return f"{self.problem.num_stages} stages ({self.problem.placement.kind})"


def cuts_of(problem: Problem) -> tuple[Cut, ...]:
    """The ways to cut a problem's model that schedules are looked for on, in the order of preference.

    The problem's own where it has several stages per rank; two chunks per rank in a loop and in a V; and one
    stage per rank. Nothing is rounded: ticks and bytes are made finer where they do not divide.

    Raises
    ------
    InputError
        When the stages are neither a chain nor directions and slices of one.
    """
    given = problem.placements[0]
    if not is_laid_out(given):
        raise InputError(
            "the stages of the problem are neither a chain nor directions and slices of one: give the chain, "
            "and schedules of these stages with --schedules"
        )
    chain = merge_into_ranks(as_chain(given))
    loops, waves = cut_every_way(chain, None), cut_every_way(chain, PlacementKind.WAVE)
    finer = [loops.problems[1], waves.problems[1], loops.problems[0]]
    own = [Cut(problem=given)] if given.num_stages > given.num_ranks else []
    limits = [_total_limit(given, loops.bytes_scale, cut) for cut in finer]
    return (*own, *(Cut(problem=cut, bytes_scale=loops.bytes_scale) for cut in limits))


def _total_limit(given: Problem, bytes_scale: int, cut: Problem) -> Problem:
    limits = given.memory_limit_bytes
    return cut.with_memory_limit(None if limits is None else [limit * bytes_scale for limit in limits])


def same_model(name: str, problem: Problem, given: Problem) -> Cut:
    """A problem as a cut of the same model as a given one.

    Parameters
    ----------
    name
        For messages.
    problem, given
        Their forwards may differ by a thousandth in time, for rounded cuts; bytes may be a whole multiple.

    Raises
    ------
    InputError
        When ranks, microbatches, the forwards' time or their memory differ.
    """
    counts = [
        ("ranks", problem.num_ranks, given.num_ranks),
        ("microbatches", problem.num_microbatches, given.num_microbatches),
    ]
    for what, own, wanted in counts:
        if own != wanted:
            raise InputError(
                f"{name} has {own} {what} and the problem {wanted}: give schedules of this problem"
            )
    own_s, wanted_s = (_forward_ticks(p) * p.tick_seconds for p in (problem, given))
    if abs(own_s - wanted_s) > wanted_s / 1000:
        raise InputError(
            f"the forwards of {name} are {own_s:.6g} s of work and those of the problem {wanted_s:.6g} s: "
            "give schedules of this problem"
        )
    own_bytes, wanted_bytes = _forward_bytes(problem), _forward_bytes(given)
    scale = own_bytes // wanted_bytes if wanted_bytes else 1
    if own_bytes != scale * wanted_bytes or scale < 1:
        raise InputError(
            f"the forwards of {name} allocate {own_bytes} bytes in all and those of the problem "
            f"{wanted_bytes}: give schedules of this problem"
        )
    return Cut(problem=problem, bytes_scale=scale)


def _forward_ticks(problem: Problem) -> int:
    """Of all microbatches, through every stage that carries them."""
    return sum(len(problem.microbatches_of(s)) * problem.stages[s].F.ticks for s in computing_stages(problem))


def _forward_bytes(problem: Problem) -> int:
    stages = computing_stages(problem)
    return sum(len(problem.microbatches_of(s)) * problem.stages[s].F.alloc_bytes for s in stages)


def topology_for(topology: Topology, given: Problem, cut: Problem) -> Topology:
    """A topology whose sizes are those of another cut of the same model, in whatever directions and slices.

    What crosses a boundary of stages is the same wherever the model is cut; weight gradients are spread
    evenly over the stages.

    Raises
    ------
    InputError
        When sizes differ from boundary to boundary and the boundaries are others.
    """
    before, after = (_num_model_stages(problem) for problem in (given, cut))
    if before == after:
        return topology
    sizes, reduced = topology.transfer_bytes, topology.all_reduce
    if sizes and not (isinstance(sizes.activation, int) and isinstance(sizes.gradient, int)):
        raise InputError(
            f"transfer_bytes gives a size for every boundary of {before} stages and schedules are "
            f"set beside it that cut the model into {after}: give one size for all"
        )
    if reduced is None:
        return topology
    each = reduced.weight_gradient_bytes
    total = each * before if isinstance(each, int) else sum(each)
    shared = AllReduce(replicas=reduced.replicas, weight_gradient_bytes=total // after)
    return replace(topology, all_reduce=shared)


def _num_model_stages(problem: Problem) -> int:
    """The stages of the model, however many directions and slices run each."""
    return len({feed.model_stage for feed in problem.feeds}) or problem.num_stages


def is_laid_out(problem: Problem) -> bool:
    """Whether a problem is a chain, or directions and slices of one: only its boundaries have sizes."""
    return laid_out_of(problem) is not None


def with_transfers_over(topology: Topology, problem: Problem) -> Problem:
    """A problem that plans with what a topology's transfers take, where nothing queues but in one pair.

    Raises
    ------
    InputError
        When the topology gives no sizes.
    """
    sizes = topology.transfer_bytes
    if sizes is None:
        raise InputError("the topology has no transfer_bytes: give them there, or --transfer-bytes")
    every = [(each,) if isinstance(each, int) else each for each in (sizes.activation, sizes.gradient)]
    largest = max(max(each) for each in every)

    def ticks(sender: int, receiver: int) -> int:
        link = None if sender == receiver else topology.link(sender, receiver)
        return 0 if link is None else round(link.transfer_s(largest) / problem.tick_seconds)

    ranks = range(problem.num_ranks)
    matrix = tuple(tuple(ticks(sender, receiver) for receiver in ranks) for sender in ranks)
    return replace(problem, transfer_ticks=matrix, links=Links.EXCLUSIVE)
