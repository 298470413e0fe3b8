"""Three levels against closed forms, and against each other where they must agree."""

from dataclasses import replace
from fractions import Fraction

import pytest
from builders import EITHER, UNDIVIDED, two_by_two
from hypothesis import given, settings
from strategies import problems

from synth.baselines import BASELINES, baseline_orders
from synth.chunks import cut_stages
from synth.errors import InputError
from synth.flow_memory import flow_serial_orders
from synth.flows import Direction, with_directions, with_slices
from synth.levels import (
    Cut,
    Entrant,
    FormulaLevel,
    Levels,
    SimulationLevel,
    SlotLevel,
    baseline_entrants,
    cuts_of,
    formula_level,
    is_laid_out,
    look_at,
    rank_levels,
    same_model,
    simulation_level,
    slot_level,
    topology_for,
    with_transfers_over,
)
from synth.placement import PlacementKind
from synth.problem import Links, Objective, OpCost, StageCosts, uniform_problem
from synth.simulate import planned_network
from synth.timing import schedule_orders
from synth.topology import AllReduce, Link, Topology, TransferBytes

STAGE = StageCosts(
    F=OpCost(ticks=600, alloc_bytes=1200),
    B=OpCost(ticks=600, free_bytes=600),
    W=OpCost(ticks=600, free_bytes=600),
    BW=OpCost(ticks=1200, free_bytes=1200),
)
"""Unit times of 600 ticks; half of what F holds stays until W."""

TICK_TO_STORE = "bpipe"
"""The baseline that runs ops of one tick, however long a slot is."""


def unit(p, m, **more):
    return uniform_problem(p, m, STAGE, **more)


def baselines_of(problem):
    entrants, _ = baseline_entrants(cuts_of(problem))
    return {entrant.name: entrant for entrant in entrants}


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (4, 12), (8, 16)])
def test_formulas_and_slot_tables_agree_on_one_rank_span(p, m):
    entrants = baselines_of(unit(p, m, objective=Objective.RANK_SPAN))
    assert set(entrants) == set(BASELINES)
    compared = 0
    for entrant in entrants.values():
        formula, slots = formula_level(entrant), slot_level(entrant)
        if formula.idle_share is not None:
            assert slots.idle_share == pytest.approx(float(formula.idle_share)), entrant.name
            compared += 1
        if formula.peak_activations is not None:
            assert slots.peak_activations == formula.peak_activations, entrant.name
    assert compared > 10


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (8, 16)])
def test_slots_are_of_one_size_however_the_model_is_cut(p, m):
    entrants = baselines_of(unit(p, m))
    slots = {name: slot_level(entrant) for name, entrant in entrants.items()}
    assert slots["gpipe"].slots == slots["1f1b"].slots == 3 * (m + p - 1)
    assert slots["interleaved-1f1b"].slots == 3 * m + Fraction(3 * (p - 1), 2)
    assert (slots["gpipe"].peak_activations, slots["1f1b"].peak_activations) == (m, p)
    assert slots["interleaved-1f1b"].peak_activations == Fraction(3 * p - 1, 2)


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (8, 16)])
def test_simulation_of_unit_times_without_transfers_is_the_slot_table(p, m):
    problem = unit(p, m)
    for entrant in baselines_of(problem).values():
        levels = look_at(entrant, planned_network(entrant.cut.problem))
        assert levels.simulation.peak_bytes == levels.slots.peak_activations * 1200
        if entrant.name != TICK_TO_STORE:
            assert levels.simulation.seconds == levels.slots.slots * 600 * Fraction(problem.tick_seconds)
            assert levels.simulation.idle_share == pytest.approx(levels.slots.idle_share)


def test_one_stage_per_rank_where_the_paper_has_it():
    entrants = baselines_of(unit(4, 8))
    for name in ("gpipe", "2bp-gpipe", "1f1b", "2bp-1f1b", "zb-h1", "zb-h2"):
        assert entrants[name].cut.problem.num_stages == 4
    for name in ("interleaved-1f1b", "looped-bfs", "hanayo", "v-half"):
        assert entrants[name].cut.problem.num_stages == 8


def test_baselines_that_make_another_problem_stand_on_that():
    entrants = baselines_of(unit(4, 8))
    copies = {
        name: formula_level(entrants[name]).weight_copies for name in ("chimera", "dualpipe", "seq1f1b")
    }
    assert copies == {"chimera": 2, "dualpipe": 2, "seq1f1b": 1}
    assert [entrants[name].cut.problem.num_stages for name in copies] == [8, 8, 16]
    assert {entrants[name].parts_of_a_share for name in copies} == {1}
    # (s+p-1)/s activations and a bubble of (p-1)(F+BW)/s, in four slices.
    sliced = slot_level(entrants["seq1f1b"])
    assert (sliced.slots, sliced.peak_activations) == (3 * 8 + Fraction(9, 4), Fraction(7, 4))


def test_what_has_no_size_in_a_topology():
    entrants = baselines_of(unit(4, 8))
    assert [name for name, e in entrants.items() if not is_laid_out(e.cut.problem)] == [TICK_TO_STORE]


def test_weight_copies_and_formulas_of_none():
    entrant = baselines_of(unit(4, 8))["1f1b"]
    assert formula_level(entrant).weight_copies == 1
    assert formula_level(replace(entrant, name="synthesized")) is None


def test_formulas_outside_their_domain_are_left_out():
    few = formula_level(baselines_of(unit(4, 4))["v-half"])  # it takes m ≥ 2p
    assert few.idle_share is None


def test_formulas_of_other_orders_are_left_out():
    """Under a limit the groups are smaller than those of the formula without one."""
    problem = cut_stages(unit(4, 8), 4, PlacementKind.LOOP).problem
    for limit, is_known in ((None, True), (10**6, True), (3 * 1200, False)):
        entrant = baselines_of(problem.with_memory_limit(limit))["group-interleaved-1f1b"]
        found = formula_level(entrant)
        assert (found.idle_share is not None) == (found.peak_activations is not None) == is_known


@settings(max_examples=40)
@given(problems(max_ranks=3))
def test_every_cut_is_the_same_model(problem):
    for cut in cuts_of(problem):
        own, ticks = cut.problem, round(problem.tick_seconds / cut.problem.tick_seconds)
        assert sum(costs.F.ticks for costs in own.stages) == ticks * sum(c.F.ticks for c in problem.stages)
        assert sum(own.static_bytes_by_rank) == cut.bytes_scale * sum(problem.static_bytes_by_rank)
        same_model("this", own, problem)


def test_limits_go_with_every_cut():
    problem = unit(2, 2).with_memory_limit((1201, 1300))
    odd = replace(problem, stages=(replace(STAGE, static_bytes=81),) * 2)
    for cut in cuts_of(odd):
        assert [limit / cut.bytes_scale for limit in cut.problem.memory_limit_bytes] == [1201, 1300]


def test_own_cut_comes_first_where_it_has_several_stages_per_rank():
    problem = cut_stages(unit(2, 4), 4, PlacementKind.LOOP).problem
    entrants = baselines_of(problem)
    assert entrants["interleaved-1f1b"].cut.problem.num_stages == 8
    assert entrants["hanayo"].cut.problem.num_stages == 4
    assert entrants["1f1b"].cut.problem.num_stages == 2


def test_baselines_that_exist_on_no_cut_say_why():
    _, reasons = baseline_entrants(cuts_of(two_by_two(UNDIVIDED)))
    assert set(reasons) >= {"zb-h1", "v-half"}
    assert "with 2 stages (map), stages[0] offers BW only" in reasons["zb-h1"]
    assert "1f1b" not in reasons


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (unit(4, 8), "mine has 4 ranks and the problem 2: give schedules of this problem"),
        (unit(2, 9), "mine has 9 microbatches and the problem 8: give"),
        (
            uniform_problem(2, 8, EITHER),
            "the forwards of mine are 3.2e-05 s of work and those of the problem 0.0096 s: give",
        ),
        (
            uniform_problem(2, 8, replace(STAGE, F=OpCost(ticks=600, alloc_bytes=900))),
            "the forwards of mine allocate 14400 bytes in all and those of the problem 19200: give",
        ),
    ],
)
def test_schedules_of_other_models_are_refused(other, sentence):
    with pytest.raises(InputError) as refused:
        same_model("mine", other, unit(2, 8))
    assert str(refused.value).startswith(sentence)


def test_finer_bytes_of_a_document_are_told():
    finer = uniform_problem(2, 8, replace(STAGE, F=OpCost(ticks=600, alloc_bytes=3600)))
    assert same_model("mine", finer, unit(2, 8)) == Cut(problem=finer, bytes_scale=3)


def test_planned_starts_are_kept():
    problem = unit(2, 2, objective=Objective.RANK_SPAN)
    orders = baseline_orders("1f1b", problem)
    late = schedule_orders(problem, orders, release_ticks=(0, 500))
    entrant = Entrant.planned("late", Cut(problem=problem), late)
    assert simulation_level(entrant, planned_network(problem)).seconds == late.value * Fraction(1e-6)


# Flows.


def with_sums(problem):
    stages = tuple(replace(costs, R=OpCost(ticks=7)) for costs in problem.stages)
    return replace(problem, stages=stages)


def halved(cost):
    return OpCost(ticks=cost.ticks // 2, alloc_bytes=cost.alloc_bytes // 2, free_bytes=cost.free_bytes // 2)


def flows():
    """The same model as two directions, whose gradients are summed, and in two slices."""
    chain = unit(2, 4)
    there, back = Direction((0, 1), (0, 2)), Direction((1, 0), (1, 3))
    half = STAGE.map_costs(lambda _, cost: halved(cost))
    return with_sums(with_directions(chain, [there, back])), with_slices(chain, [(half, half)] * 2)


@pytest.mark.parametrize(("flow", "parts", "slots"), [(0, 1, 21), (1, 2, 18)])
def test_directions_and_slices_are_of_the_same_model(flow, parts, slots):
    """Serially 6 slots per microbatch: a turn of direction saves one, slices 1.5 each; sums take none."""
    problem = flows()[flow]
    serial = schedule_orders(problem, flow_serial_orders(problem))
    entrant = Entrant.planned("serial", same_model("serial", problem, unit(2, 4)), serial)
    assert entrant.parts_of_a_share == parts
    found = slot_level(entrant)
    assert (found.slots, found.peak_activations) == (slots, 1)
    assert [cut.problem.is_chain for cut in cuts_of(problem)] == [False, True, True, True]
    assert formula_level(entrant) is None


@pytest.mark.parametrize("name", ["chimera", "dualpipe"])
def test_directions_that_are_given_are_those_that_a_baseline_makes(name):
    """Halves of the microbatches in two directions: the same schedule, in the same slots and the same A."""
    chain = unit(4, 8)
    made = baselines_of(chain)[name]
    taken = baselines_of(made.cut.problem)[name]
    assert taken.cut.problem.feeds == made.cut.problem.feeds
    assert slot_level(taken) == slot_level(made)
    assert formula_level(taken) == formula_level(made)


def test_a_problem_whose_stages_are_no_flow_of_a_chain_is_refused():
    problem = baselines_of(unit(4, 8))["bpipe"].cut.problem
    with pytest.raises(
        InputError, match="are neither a chain nor directions and slices of one: give the chain"
    ):
        cuts_of(problem)


@pytest.mark.parametrize(("p", "m"), [(4, 8), (6, 9)])
def test_schedules_of_any_stages_stand_where_the_baseline_stands(p, m):
    """BPipe's storage stages compute nothing: next to none in slots, and no forwards of the model."""
    made = baselines_of(unit(p, m))["bpipe"]
    schedule = schedule_orders(made.cut.problem, made.orders)
    read = Entrant.planned("evicting", same_model("evicting", made.cut.problem, unit(p, m)), schedule)
    assert read.parts_of_a_share == made.parts_of_a_share == 1
    assert slot_level(read) == slot_level(made)


# Topologies.


def link(bytes_per_s):
    return Link(latency_s=0, bytes_per_s=bytes_per_s)


def test_all_reduced_bytes_of_the_model_stay():
    given_one, cut = unit(2, 4), cut_stages(unit(2, 4), 2, PlacementKind.LOOP).problem
    for each in (100, (50, 150)):
        wide = Topology(
            nodes=((0,), (1,)),
            between=link(1e9),
            all_reduce=AllReduce(replicas=2, weight_gradient_bytes=each),
        )
        assert topology_for(wide, given_one, cut).all_reduce.weight_gradient_bytes == 50
        assert topology_for(wide, given_one, given_one) == wide


def test_a_size_for_every_boundary_holds_for_one_cut_only():
    given_one, cut = unit(2, 4), cut_stages(unit(2, 4), 2, PlacementKind.LOOP).problem
    sizes = TransferBytes(activation=(5,), gradient=5)
    topology = Topology(nodes=((0, 1),), inside=link(1e9), transfer_bytes=sizes)
    assert topology_for(topology, given_one, given_one) == topology
    with pytest.raises(InputError, match=r"every boundary of 2 stages .* into 4: give one size for all"):
        topology_for(topology, given_one, cut)


def test_transfers_planned_as_the_topology_takes_them():
    topology = Topology(
        nodes=((0, 1), (2,)),
        inside=link(10e6),
        between=link(1e6),
        transfer_bytes=TransferBytes(activation=20, gradient=(30, 10)),
    )
    planned = with_transfers_over(topology, unit(3, 2))
    assert planned.transfer_ticks == ((0, 3, 30), (3, 0, 30), (30, 30, 0))
    assert planned.links is Links.EXCLUSIVE
    with pytest.raises(InputError, match="no transfer_bytes: give them there, or --transfer-bytes"):
        with_transfers_over(replace(topology, transfer_bytes=None), unit(3, 2))


# Places.


def levels(formula, slots, seconds):
    found = None
    if formula is not None:
        found = FormulaLevel(idle_share=Fraction(formula), peak_activations=None, weight_copies=1)
    return Levels(
        name="",
        num_stages=2,
        formula=found,
        slots=SlotLevel(slots=Fraction(slots), idle_share=0.0, peak_activations=Fraction(1)),
        simulation=SimulationLevel(
            seconds=Fraction(seconds), idle_share=0.0, peak_bytes=Fraction(1), fits=True
        ),
    )


def test_places_and_their_changes():
    rows = [levels(3, 30, 5), levels(1, 20, 5), levels(None, 10, 9), levels(1, 40, 1)]
    standings = rank_levels(rows)
    assert [standing.places for standing in standings] == [(3, 3, 2), (1, 2, 2), (None, 1, 4), (1, 4, 1)]
    # From formulas to slots among the three that have formulas.
    assert [standing.rises for standing in standings] == [(1, 1), (0, 0), (None, -3), (-2, 3)]


def test_slow_links_turn_the_ranking_of_gpipe_and_1f1b():
    """(p-1)(F+BW+2c) against (p-1)(F+BW) + 2(p-1+m-1-⌈(m-1)/p⌉)c."""
    problem = unit(4, 16, transfer_ticks=100)
    entrants = [entrant for name, entrant in baselines_of(problem).items() if name in ("gpipe", "1f1b")]
    gpipe, one = (look_at(entrant, planned_network(problem)) for entrant in entrants)
    assert gpipe.slots.slots == one.slots.slots
    assert gpipe.formula.idle_share == one.formula.idle_share
    ticks = Fraction(problem.tick_seconds)
    assert gpipe.simulation.seconds == (1800 * 19 + 6 * 100) * ticks
    assert one.simulation.seconds == (1800 * 19 + 2 * (3 + 15 - 4) * 100) * ticks
    assert [standing.rises[1] for standing in rank_levels([gpipe, one])] == [0, -1]
