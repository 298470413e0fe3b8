"""Documents: what is read, what is written, and the sentence each defect gets."""

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.certificate import Certificate, Provenance, Status
from synth.document import (
    ScheduleDocument,
    generate_schemas,
    read_problem,
    read_schedule,
    read_timeline,
    read_topology,
    write_problem,
    write_schedule,
    write_timeline,
)
from synth.errors import DocumentError
from synth.measured import HeldBytes, MeasuredOp
from synth.ops import Op, OpKind, TimedOp
from synth.placement import Placement, PlacementKind, place
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_problem, uniform_transfers
from synth.schedule import Metrics, Schedule
from synth.topology import AllReduce, Duplex, Link, PairLink, SharedBy, Topology, TransferBytes

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
READERS = {
    "problem": read_problem,
    "schedule": read_schedule,
    "timeline": read_timeline,
    "topology": read_topology,
}
WRITERS = {"problem": write_problem, "schedule": write_schedule, "timeline": write_timeline}

STAGE = StageCosts(F=OpCost(ticks=2, alloc_bytes=1), BW=OpCost(ticks=4, free_bytes=1))


def golden(name: str) -> str:
    return (GOLDEN / "v1" / name).read_text(encoding="utf-8")


def sentence_or_nothing(reader, text: str) -> str:
    """The sentence a text is refused in, empty where it is read."""
    try:
        reader(text)
    except DocumentError as error:
        return str(error)
    return ""


# Bad input.


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_bad_document_is_refused_in_one_sentence(name):
    expected = EXPECTED[name]
    data = (GOLDEN / "bad" / f"{name}.json").read_bytes()
    with pytest.raises(DocumentError) as caught:
        READERS[expected["reads"]](data, f"{name}.json")
    message = str(caught.value)
    assert caught.value.path == expected["path"]
    assert message.startswith(f"{name}.json: {expected['path']} is ")
    assert expected["says"] in message
    assert message.isprintable()
    assert len(message) < 400


def test_every_bad_document_has_its_expected_sentence():
    assert {path.stem for path in (GOLDEN / "bad").iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_deep_nesting_is_refused(text):
    with pytest.raises(DocumentError, match="nested too deeply"):
        read_problem(text)


def test_deep_value_beside_an_unknown_key_is_refused():
    tree = json.loads(golden("problem.json"))
    text = json.dumps({**tree, "name": 0, "unknown": 1}).replace(
        '"name": 0', f'"name": {"[" * 500 + "]" * 500}'
    )
    with pytest.raises(DocumentError, match=r"^\$\.(unknown|name) is "):
        read_problem(text)


def test_text_and_bytes_are_refused_alike():
    for bad in ("", "\ufeff{}", '{"name": "\ud800"}', "{}"):
        with pytest.raises(DocumentError):
            read_problem(bad)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)
)
def test_any_value_anywhere_is_read_or_refused_in_one_sentence(value):
    paths = (("num_ranks",), ("stages", 0), ("problem", "placement"), ("ranks", 0, 0, "op"), ("x",))
    paths += (
        ("nodes", 0, "ranks", 1),
        ("inside", "shared_by"),
        ("pairs", 0),
        ("transfer_bytes", "gradient_bytes"),
    )
    for name, reader in ((f"{name}.json", reader) for name, reader in READERS.items()):
        for path in paths:
            tree = node = json.loads(golden(name))
            try:
                for step in path[:-1]:
                    node = node[step]
                node[path[-1]] = value
            except (KeyError, IndexError):
                continue
            assert sentence_or_nothing(reader, json.dumps(tree)).isprintable()


# Golden files: every version is read for ever.


def test_golden_problem_of_version_1_is_read():
    problem = read_problem(golden("problem.json"))
    costs = [
        StageCosts(
            F=OpCost(ticks=2 + stage % 2, alloc_bytes=2),
            B=OpCost(ticks=3, free_bytes=1),
            W=OpCost(ticks=1, free_bytes=1),
            BW=OpCost(ticks=4, free_bytes=2),
            static_bytes=5 * stage,
            layers=(f"model.layers.{stage}",),
        )
        for stage in range(3)
    ]
    assert problem == Problem(
        num_ranks=2,
        num_microbatches=2,
        placement=Placement(kind=PlacementKind.V, stage_to_rank=(0, 1, 1, 0)),
        stages=(*costs, StageCosts(F=OpCost(ticks=2, alloc_bytes=2), BW=OpCost(ticks=4, free_bytes=2))),
        transfer_ticks=((0, 1), (2, 0)),
        links=Links.EXCLUSIVE,
        memory_limit_bytes=(40, 42),
        objective=Objective.RANK_SPAN,
        tick_seconds=1e-3,
        name="four-stages",
        source="made by hand: every field of version 1 is used",
    )


def test_golden_problem_that_leaves_out_what_it_may_gets_the_defaults():
    cheap = StageCosts(F=OpCost(ticks=1), BW=OpCost(ticks=2))
    assert read_problem(golden("problem-least.json")) == uniform_problem(2, 2, cheap)


def test_golden_schedule_of_version_1_is_read():
    document = read_schedule(golden("schedule.json"))
    assert document.schedule.problem.placement == Placement.explicit((0, 1))
    assert document.schedule.problem.memory_limit_bytes == (4, 4)
    assert " ".join(map(str, document.schedule.ranks[0])) == "0F0@0 0F1@2 0B0@8 0W0@10 0B1@12 0W1@14"
    assert " ".join(map(str, document.schedule.ranks[1])) == "1F0@3 1B0@5 1F1@7 1B1@9 1W0@11 1W1@13"
    assert document.metrics == Metrics(16, 16, 12, 0.25, (4, 3))
    assert document.certificate == Certificate(
        objective=Objective.MAKESPAN,
        value=16,
        lower_bound=15,
        bound_from="the forward fill and the work of rank 1",
    )
    assert (document.stated_gap, document.stated_status) == (0.0625, Status.FEASIBLE)
    assert document.provenance == Provenance(
        method="by hand",
        created="2026-01-01T00:00:00+00:00",
        tool_version="0.1.0",
        solver="none",
        solver_version="1",
        seed=7,
        workers=2,
        wall_seconds=0.5,
    )


def test_golden_topology_of_version_1_is_read():
    assert read_topology(golden("topology.json")) == Topology(
        nodes=((0, 1), (3, 2)),
        inside=Link(latency_s=0, bytes_per_s=450e9, duplex=Duplex.HALF, shared_by=SharedBy.RANK),
        between=Link(latency_s=5e-6, bytes_per_s=50e9, duplex=Duplex.FULL, shared_by=SharedBy.NODE),
        pairs=(PairLink(ranks=(1, 2), link=Link(latency_s=1e-6, bytes_per_s=100e9, duplex=Duplex.HALF)),),
        transfer_bytes=TransferBytes(activation=1024, gradient=(1, 2, 3)),
        all_reduce=AllReduce(replicas=4, weight_gradient_bytes=(4, 3, 2, 1)),
        name="two-nodes",
        source="made by hand: every field of version 1 is used",
    )


def test_golden_topology_that_leaves_out_what_it_may_gets_the_defaults():
    assert read_topology(golden("topology-least.json")) == Topology(nodes=((0,),))


def test_links_of_a_topology_have_defaults():
    tree = json.loads(golden("topology-least.json"))
    link = {"latency_seconds": 1, "bytes_per_second": 2}
    read = read_topology(json.dumps({**tree, "inside": link}))
    assert read.inside == Link(latency_s=1, bytes_per_s=2, duplex=Duplex.FULL, shared_by=SharedBy.PAIR)


def test_golden_timeline_of_version_1_is_read():
    timeline = read_timeline(golden("timeline.json"))
    plan = read_schedule(golden("schedule.json")).schedule
    assert timeline.problem == plan.problem
    assert timeline.orders == plan.orders
    assert timeline.ranks[0][1] == MeasuredOp(Op(OpKind.F, 0, 1), 9000, 11200)
    assert (timeline.peak_memory_bytes, timeline.source) == ((4, 3), "made by hand")


def held(timeline, **other):
    """What ranks of the golden timeline might have held, the last rank's as told."""
    first, last = (
        HeldBytes(start_bytes=7, most_bytes=(9,) * len(rank), after_bytes=(8,) * len(rank))
        for rank in timeline.ranks
    )
    return replace(timeline, held_bytes=(first, replace(last, **other)))


def test_timeline_with_what_ranks_held_survives_writing_and_reading():
    timeline = held(read_timeline(golden("timeline.json")))
    assert read_timeline(write_timeline(timeline)) == timeline
    assert "held_bytes" not in golden("timeline.json"), "left out where nobody looked"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            {"most_bytes": (9, 9)},
            r"\$\.held_bytes\[1\]\.most_bytes is 2 long: give 6 entries, one per op of the rank",
        ),
        ({"after_bytes": ()}, r"\$\.held_bytes\[1\]\.after_bytes is 0 long: give 6 entries, one per op"),
        (
            {"most_bytes": (9, 7, 9, 9, 9, 9)},
            r"\$\.held_bytes\[1\]\.most_bytes\[1\] is 7: give at least 8, what",
        ),
        ({"start_bytes": 10}, r"\$\.held_bytes\[1\]\.most_bytes\[0\] is 9: give at least 10, what"),
        ({"start_bytes": -1}, r"\$\.held_bytes\[1\]\.start_bytes is -1: give an integer ≥ 0"),
    ],
)
def test_what_a_rank_cannot_have_held_is_refused(other, says):
    with pytest.raises(DocumentError, match=says):
        read_timeline(write_timeline(held(read_timeline(golden("timeline.json")), **other)))


def test_what_ranks_held_is_of_all_ranks_and_beside_their_peaks():
    timeline = held(read_timeline(golden("timeline.json")))
    one = write_timeline(replace(timeline, held_bytes=timeline.held_bytes[:1]))
    with pytest.raises(DocumentError, match=r"\$\.held_bytes is 1 long: give 2 entries, one per rank"):
        read_timeline(one)
    with pytest.raises(DocumentError, match=r"\$\.peak_memory_bytes is null: give the peak of every rank"):
        read_timeline(write_timeline(replace(timeline, peak_memory_bytes=None)))


@pytest.mark.parametrize("name", WRITERS)
def test_golden_document_is_written_as_it_is_stored(name):
    text = golden(f"{name}.json")
    assert WRITERS[name](READERS[name](text)) == text


# Problems.


def test_named_placements_are_placed():
    tree = json.loads(golden("problem.json"))
    for kind, ranks in (("loop", (0, 1, 0, 1)), ("v", (0, 1, 1, 0)), ("auto", (0, 1, 0, 1))):
        problem = read_problem(json.dumps({**tree, "placement": {"kind": kind}}))
        assert problem.placement == Placement(kind=PlacementKind(kind), stage_to_rank=ranks)


def test_named_placement_that_holds_another_map_is_written_as_the_map():
    odd = Placement(kind=PlacementKind.LOOP, stage_to_rank=(1, 0))
    problem = uniform_problem(2, 1, STAGE).with_placement(odd)
    assert read_problem(write_problem(problem)).placement == Placement.explicit((1, 0))


def test_uniform_numbers_are_written_once():
    tree = json.loads(write_problem(uniform_problem(3, 1, STAGE, transfer_ticks=7, memory_limit_bytes=9)))
    assert tree["transfers"] == {"ticks": 7, "links": "free"}
    assert tree["memory_limit_bytes"] == 9
    assert tree["placement"] == {"kind": "loop"}


def test_matrix_with_a_diagonal_is_kept():
    problem = replace(uniform_problem(2, 1, STAGE), transfer_ticks=((5, 1), (1, 5)))
    assert read_problem(write_problem(problem)) == problem


def test_tick_may_be_a_whole_number_of_seconds():
    tree = json.loads(golden("problem.json"))
    assert read_problem(json.dumps({**tree, "tick_seconds": 2})).tick_seconds == 2


def test_text_is_written_as_it_reads():
    problem = replace(uniform_problem(1, 1, STAGE), name='prêt "à" \n日本')
    assert "日本" in write_problem(problem)
    assert read_problem(write_problem(problem).encode()) == problem


amounts = st.integers(0, 2**40)
op_costs = st.builds(OpCost, ticks=st.integers(1, 2**40), alloc_bytes=amounts, free_bytes=amounts)


@st.composite
def stage_costs(draw):
    divided, undivided = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    return StageCosts(
        F=draw(op_costs),
        B=draw(op_costs) if divided else None,
        W=draw(op_costs) if divided else None,
        BW=draw(op_costs) if undivided else None,
        static_bytes=draw(amounts),
        layers=tuple(draw(st.lists(st.text(), max_size=2))),
    )


@st.composite
def problems(draw):
    num_ranks, chunks = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    num_stages = num_ranks * chunks
    kinds = [PlacementKind.LOOP, PlacementKind.WAVE, PlacementKind.AUTO, PlacementKind.MAP]
    kind = draw(st.sampled_from([*kinds, PlacementKind.V] if chunks == 2 else kinds))
    if kind is PlacementKind.MAP:
        ranks = place(PlacementKind.LOOP, num_ranks, num_stages).stage_to_rank
        placement = Placement.explicit(draw(st.permutations(ranks)))
    else:
        placement = place(kind, num_ranks, num_stages)
    per_rank = st.tuples(*[amounts] * num_ranks)
    matrix = st.tuples(*[per_rank] * num_ranks)
    return Problem(
        num_ranks=num_ranks,
        num_microbatches=draw(st.integers(1, 9)),
        placement=placement,
        stages=tuple(draw(stage_costs()) for _ in range(num_stages)),
        transfer_ticks=draw(matrix | st.integers(0, 9).map(lambda t: uniform_transfers(num_ranks, t))),
        links=draw(st.sampled_from(Links)),
        memory_limit_bytes=draw(st.none() | per_rank),
        objective=draw(st.sampled_from(Objective)),
        tick_seconds=draw(st.floats(1e-12, 1e6)),
        name=draw(st.text(max_size=9)),
        source=draw(st.text(max_size=9)),
    )


@given(problems())
def test_problem_survives_writing_and_reading(problem):
    assert read_problem(write_problem(problem)) == problem
    assert read_problem(write_problem(problem).encode()) == problem


# Schedules.


@st.composite
def documents(draw):
    """Documents of any ops at any times: reading them is not judging them."""
    problem = draw(problems())
    problem = problem.with_placement(Placement.explicit(problem.stage_to_rank))
    index, tick = st.integers(0, 99), st.integers(-(2**61), 2**61)
    op = st.builds(Op, st.sampled_from(OpKind), index, index)
    order = st.lists(st.builds(TimedOp, op, tick, tick), max_size=4).map(tuple)
    ranks = tuple(draw(order) for _ in range(problem.num_ranks))
    fraction = st.floats(allow_nan=False, allow_infinity=False)
    return ScheduleDocument(
        schedule=Schedule(problem, ranks),
        metrics=Metrics(
            draw(amounts), draw(amounts), draw(amounts), draw(fraction), tuple(draw(amounts) for _ in ranks)
        ),
        certificate=Certificate(
            objective=draw(st.sampled_from(Objective)),
            value=draw(st.integers(1, 2**40)),
            lower_bound=draw(amounts),
            bound_from=draw(st.text(max_size=9)),
        ),
        stated_gap=draw(fraction),
        stated_status=draw(st.sampled_from(Status)),
        provenance=Provenance(method=draw(st.text(max_size=9)), created="2026-01-01", tool_version="0"),
    )


@given(documents())
@settings(max_examples=50)
def test_schedule_survives_writing_and_reading(document):
    assert read_schedule(write_schedule(document)) == document


def test_document_of_a_schedule_states_its_own_numbers():
    golden_document = read_schedule(golden("schedule.json"))
    schedule, certificate = golden_document.schedule, golden_document.certificate
    assert ScheduleDocument.of(schedule, certificate, golden_document.provenance) == golden_document


def test_placement_of_a_schedule_is_resolved():
    document = read_schedule(golden("schedule.json"))
    problem = document.schedule.problem
    for kind in (PlacementKind.LOOP, PlacementKind.AUTO):
        named = problem.with_placement(place(kind, 2, 2))
        text = write_schedule(replace(document, schedule=Schedule(named, document.schedule.ranks)))
        assert json.loads(text)["problem"]["placement"] == {"stage_to_rank": [0, 1]}
        assert read_schedule(text) == document


def test_schedule_with_a_named_placement_is_read_resolved():
    tree = json.loads(golden("schedule.json"))
    tree["problem"]["placement"] = {"kind": "loop"}
    assert read_schedule(json.dumps(tree)) == read_schedule(golden("schedule.json"))


def test_invalid_schedule_is_read_for_the_verifier_to_judge():
    tree = json.loads(golden("schedule.json"))
    tree["ranks"][0][0] |= {"op": "BW", "stage": 77, "microbatch": 99, "start": -5, "end": -9}
    tree["ranks"][1] = []
    tree["certificate"] |= {"gap": 0.0, "status": "optimal"}
    document = read_schedule(json.dumps(tree))
    assert document.schedule.ranks[0][0] == TimedOp(Op(OpKind.BW, 77, 99), -5, -9)
    assert (document.stated_status, document.certificate.status) == (Status.OPTIMAL, Status.FEASIBLE)


def test_every_op_is_written_on_a_line_of_its_own():
    lines = golden("schedule.json").splitlines()
    assert sum(line.strip().startswith('{"op": ') for line in lines) == 12
    assert max(map(len, lines)) <= 110


# Schemas.


def test_committed_schemas_are_those_of_the_wire_types():
    folder = resources.files("synth") / "schemas"
    stored = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert stored == generate_schemas(), "regenerate them: python -m synth.document"
