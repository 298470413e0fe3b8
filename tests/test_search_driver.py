"""The main job: whatever is given, what comes back is verified, replayed, bounded and no worse than known."""

from dataclasses import replace

import pytest
from builders import DIVIDED, EITHER, UNDIVIDED, two_by_two
from exhaustive import best_value
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

from synth.baselines import BASELINES, baseline_orders
from synth.certificate import Status
from synth.chunks import cut_every_way, cut_stages
from synth.errors import BaselineUndefinedError, InfeasibleError, InputError, NoScheduleFoundError
from synth.free_maps import open_placements
from synth.instances import load_instance
from synth.memory import parse_limit, smallest_limits_bytes
from synth.placement import Placement, PlacementKind, place
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_problem, uniform_transfers
from synth.schedule import fits, peak_memory_bytes
from synth.search.synthesizer import Result, synthesize
from synth.simulate import replay
from synth.timing import schedule_orders
from synth.verify import verify_schedule

SECONDS = 0.4


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    """Compile, or load what was compiled, before any time counts."""
    synthesize(uniform_problem(3, 4, DIVIDED, transfer_ticks=1, memory_limit_bytes=6), time_limit=60)


def solved(problem: Problem, **options) -> Result:
    """Synthesize within a blink, and hold the result against everything it promises."""
    result = synthesize(problem, **({"time_limit": SECONDS, "workers": 1} | options))
    schedule = result.schedule
    assert (
        verify_schedule(
            schedule,
            metrics=result.metrics,
            certificate=result.certificate,
            stated_gap=result.gap,
            stated_status=result.status,
        )
        == []
    )
    assert replay(schedule) == schedule
    begins = [rank[0].start for rank in schedule.ranks]  # a rank's span may be shorter when it begins later
    assert schedule_orders(schedule.problem, schedule.orders, release_ticks=begins) == schedule
    open_work = min(placed.work_ticks for placed in open_placements(problem))
    assert result.value == schedule.value >= result.lower_bound >= open_work
    assert result.metrics.value(problem.objective) == result.value
    assert result.status is (Status.OPTIMAL if result.gap == 0 else Status.FEASIBLE)
    return result


def best_baseline(problem: Problem) -> int | None:
    """The value of the best baseline that fits."""
    values = []
    for name in BASELINES:
        try:
            orders = baseline_orders(name, problem)
        except BaselineUndefinedError:
            continue
        if fits(problem, peak_memory_bytes(problem, orders)):
            values.append(schedule_orders(problem, orders).value)
    return min(values, default=None)


@settings(max_examples=40)
@given(problems(), st.sampled_from([1, 2]), st.data())
def test_whatever_is_drawn(problem, workers, data):
    if data.draw(st.booleans(), "with a limit"):
        more = data.draw(st.tuples(*[st.integers(-1, 12)] * problem.num_ranks))
        least = smallest_limits_bytes(problem)
        problem = problem.with_memory_limit([max(0, a + b) for a, b in zip(least, more, strict=True)])
        if any(limit < a for limit, a in zip(problem.memory_limit_bytes, least, strict=True)):
            with pytest.raises(InfeasibleError) as caught:
                synthesize(problem, time_limit=SECONDS)
            solved(problem.with_memory_limit(caught.value.smallest_limit_bytes))
            return
    result = solved(problem, workers=workers, seed=data.draw(st.integers(0, 100)))
    known = best_baseline(problem)
    assert known is None or result.value <= known


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("limit", [None, 2, 3, 4])
@pytest.mark.parametrize("stage", [DIVIDED, UNDIVIDED])
def test_optimum_of_tiny_problems(stage, limit, objective):
    problem = two_by_two(stage, num_microbatches=3, objective=objective).with_memory_limit(limit)
    assert solved(problem, time_limit=5).value == best_value(problem)


@pytest.mark.parametrize("name", ["1f1b", "zb-h1", "zb-h2"])
def test_never_worse_than_a_baseline_of_published_size(name):
    problem = load_instance("zb-1.5b-m24")
    orders = baseline_orders(name, problem)
    tight = problem.with_memory_limit(peak_memory_bytes(problem, orders))
    assert solved(tight, time_limit=1, workers=2).value <= schedule_orders(tight, orders).value


def test_published_v_at_half_the_memory():
    problem = replace(load_instance("zb-1.5b-m24"), num_microbatches=8)
    cut = cut_stages(problem, 2, PlacementKind.V).problem
    limited = cut.with_memory_limit(parse_limit("0.5x", problem.with_memory_limit(None))[0] * 2)
    known = best_baseline(limited)
    assert solved(limited, time_limit=1.5, workers=2).value <= known


@pytest.mark.parametrize("name", ["zb-1.5b-m32", "zb-6.2b-m64", "zb-14.6b-m48"])
def test_twice_the_memory_is_proved_optimal(name):
    """Tuned list schedules meet the bound from whole forwards, below the published ZB-2p."""
    problem = load_instance(name)
    result = solved(problem.with_memory_limit(parse_limit("2x", problem)), time_limit=60, workers=2)
    assert result.status is Status.OPTIMAL
    assert "whole forwards" in result.certificate.bound_from


def test_counting_the_whole_horizon_closes_what_windows_leave_open():
    """At 11 chunk activations windows prove 2 idle slots; the published frontier, and the optimum, are 3."""
    stage = StageCosts(F=OpCost(ticks=1, alloc_bytes=1), B=OpCost(ticks=1), W=OpCost(ticks=1, free_bytes=1))
    problem = uniform_problem(6, 12, stage, chunks=2, kind=PlacementKind.V, objective=Objective.RANK_SPAN)
    result = solved(problem.with_memory_limit(11), time_limit=60, workers=2)
    assert result.value - problem.work_ticks == 3
    assert result.status is Status.OPTIMAL
    assert "HiGHS" in result.certificate.bound_from


@pytest.mark.parametrize("objective", Objective)
def test_uneven_instance_is_proved_optimal(objective):
    problem = replace(load_instance("zb-8stage-uneven"), objective=objective)
    result = solved(problem.with_memory_limit(None), time_limit=10)
    assert result.value == (3831880 if objective is Objective.MAKESPAN else 3623744)
    assert result.status is Status.OPTIMAL


TERA = 10**12


def stage(forward: int, backward: int, weight: int, held: int = 2) -> StageCosts:
    return StageCosts(
        F=OpCost(ticks=forward, alloc_bytes=held),
        B=OpCost(ticks=backward, free_bytes=held // 2),
        W=OpCost(ticks=weight, free_bytes=held - held // 2),
    )


def chain(*stages: StageCosts, transfer_ticks: int = 1, num_microbatches: int = 4, **more) -> Problem:
    return Problem(
        num_ranks=len(stages),
        num_microbatches=num_microbatches,
        placement=Placement.explicit(range(len(stages))),
        stages=stages,
        transfer_ticks=uniform_transfers(len(stages), transfer_ticks),
        **more,
    )


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(uniform_problem(1, 1, DIVIDED), id="one rank, one microbatch"),
        pytest.param(uniform_problem(1, 5, EITHER), id="one rank"),
        pytest.param(uniform_problem(4, 1, DIVIDED, transfer_ticks=3), id="one microbatch"),
        pytest.param(uniform_problem(3, 4, DIVIDED), id="no transfer time"),
        pytest.param(uniform_problem(3, 4, DIVIDED, transfer_ticks=5000), id="transfers longer than ops"),
        pytest.param(chain(*[stage(3, 3, 2)] * 2, stage(300, 300, 200), stage(3, 3, 2)), id="100 times"),
        pytest.param(
            chain(*[stage(TERA, 2 * TERA, TERA)] * 3, transfer_ticks=TERA, num_microbatches=10), id="tera"
        ),
        pytest.param(chain(stage(1, 1, 1), stage(TERA, TERA, TERA), stage(7, 8, 9)), id="from 1 to tera"),
        pytest.param(uniform_problem(3, 5, UNDIVIDED, transfer_ticks=1), id="whole backwards"),
        pytest.param(chain(DIVIDED, UNDIVIDED, EITHER, stage(1, 4, 1)), id="all kinds of backward"),
        pytest.param(
            replace(uniform_problem(3, 4, DIVIDED, transfer_ticks=6), links=Links.EXCLUSIVE), id="links"
        ),
        pytest.param(two_by_two(stage_to_rank=(1, 0, 0, 1, 0), num_microbatches=3), id="any map"),
    ],
)
def test_corners(problem, limit, objective):
    if limit is not None:
        limit *= -(-problem.num_stages // problem.num_ranks)
    problem = replace(problem, objective=objective).with_memory_limit(limit)
    result = solved(problem, time_limit=SECONDS)
    known = best_baseline(problem)
    assert known is None or result.value <= known
    if problem.num_ranks == 1 or (problem.num_microbatches == 1 and objective is Objective.MAKESPAN):
        assert result.status is Status.OPTIMAL


def test_static_bytes_count():
    heavy = replace(DIVIDED, static_bytes=100)
    problem = uniform_problem(2, 4, heavy, transfer_ticks=1, memory_limit_bytes=103)
    assert max(solved(problem).metrics.peak_memory_bytes) <= 103
    with pytest.raises(InfeasibleError, match="which takes 100 static and 2 activation bytes"):
        synthesize(problem.with_memory_limit(101), time_limit=SECONDS)


def test_one_worker_and_one_seed_give_one_schedule():
    problem = two_by_two(DIVIDED, stage_to_rank=(0, 1, 1, 0), num_microbatches=4).with_memory_limit(6)
    first, second = (synthesize(problem, time_limit=100, workers=1, seed=3) for _ in range(2))
    assert first.schedule == second.schedule
    assert first.certificate == second.certificate
    assert first.provenance.method == second.provenance.method
    assert first.provenance.wall_seconds < 100


def test_provenance_says_how():
    provenance = solved(two_by_two(), seed=7).provenance
    assert (provenance.tool, provenance.seed, provenance.workers) == ("pipesynth", 7, 1)
    assert provenance.method
    assert provenance.created.endswith("+00:00")


def test_progress_falls():
    seen = []
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=6)
    result = solved(problem, on_progress=seen.append)
    values = [progress.value for progress in seen if progress.value is not None]
    assert values == sorted(values, reverse=True)
    assert values[-1] == result.value
    assert all(progress.lower_bound <= result.value for progress in seen)
    assert all(progress.gap is None or 0 <= progress.gap < 1 for progress in seen)
    times = [progress.elapsed_s for progress in seen]
    assert times == sorted(times)
    assert all(progress.step for progress in seen)


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupt_gives_the_best_so_far(after):
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=6)
    valued = []

    def interrupt(progress):
        if progress.value is not None:
            valued.append(progress.value)
        if len(valued) == after:
            raise KeyboardInterrupt

    result = solved(problem, time_limit=30, on_progress=interrupt)
    assert len(valued) == after
    assert result.value <= valued[-1]


def test_other_errors_of_the_caller_are_its_own():
    def fail(progress):
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        synthesize(two_by_two(), time_limit=SECONDS, on_progress=fail)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit": 0}, "time_limit is 0: give a finite number of seconds above 0"),
        ({"time_limit": -1.0}, "time_limit is -1.0"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"time_limit": float("inf")}, "time_limit is inf"),
        ({"workers": 0}, "workers is 0: give a count from 1 to"),
        ({"seed": -1}, "seed is -1: give an integer from 0"),
        ({"solver": "gurobi"}, "solver is 'gurobi': give one of cpsat, milp"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(InputError, match=message):
        synthesize(two_by_two(), **options)


def auto(num_ranks: int, chunks: int, limit: int | None = None) -> Problem:
    return uniform_problem(
        num_ranks,
        4,
        DIVIDED,
        transfer_ticks=1,
        chunks=chunks,
        kind=PlacementKind.AUTO,
        memory_limit_bytes=limit,
    )


@pytest.mark.parametrize(("num_ranks", "chunks"), [(1, 1), (1, 2), (2, 2), (3, 1), (2, 3)])
def test_auto_resolves_to_a_placement(num_ranks, chunks):
    result = solved(auto(num_ranks, chunks))
    assert result.schedule.problem in open_placements(auto(num_ranks, chunks))
    assert result.schedule.problem.stages == auto(num_ranks, chunks).stages


def test_auto_is_no_worse_than_either_placement_s_bound():
    """The bound holds for every placement searched, and says so."""
    result = solved(auto(2, 2, 6), time_limit=1)
    assert result.lower_bound <= result.value
    assert "loop" in result.certificate.bound_from
    assert "wave" in result.certificate.bound_from


def test_auto_balances_stages_that_no_named_placement_fits():
    """Five stages on two ranks, 7 | 2 1 1 3: each rank works as long as the other."""
    costs = [stage(ticks, ticks, 2 * ticks) for ticks in (7, 2, 1, 1, 3)]
    problem = Problem(
        num_ranks=2,
        num_microbatches=40,
        placement=place(PlacementKind.AUTO, 2, 5),
        stages=tuple(costs),
        transfer_ticks=uniform_transfers(2, 1),
    )
    result = solved(problem, time_limit=2)
    found = result.schedule.problem
    assert found.work_ticks == 40 * 4 * 7
    assert result.gap < 0.05


@pytest.mark.parametrize("kind", [None, PlacementKind.AUTO, PlacementKind.WAVE])
def test_the_best_of_several_cuts(kind):
    """The bound holds for every cut, and no cut alone is proved better."""
    cuts = cut_every_way(uniform_problem(2, 4, DIVIDED, transfer_ticks=1), kind).problems
    cuts = [cut.with_memory_limit(parse_limit("0.75x", cut)) for cut in cuts]
    result = solved(cuts[0], alternatives=cuts[1:], time_limit=2)
    assert "chunks and placements searched (2 stages " in result.certificate.bound_from
    assert ", 8 stages " in result.certificate.bound_from
    assert result.schedule.problem.stages in [cut.stages for cut in cuts]
    for cut in cuts:
        assert result.lower_bound <= solved(cut, time_limit=1).value


def test_alternatives_in_other_units():
    problem = uniform_problem(2, 4, DIVIDED)
    with pytest.raises(InputError, match="alternatives differ in ranks, microbatches, ticks or objective"):
        synthesize(problem, alternatives=[replace(problem, tick_seconds=1.0)])


def leaking(num_stages: int, kind: PlacementKind) -> Problem:
    """Every stage keeps a byte of each microbatch for good, which no rule of thumb for its memory sees."""
    costs = StageCosts(F=OpCost(ticks=2, alloc_bytes=3, free_bytes=1), BW=OpCost(ticks=3, free_bytes=1))
    return Problem(
        num_ranks=2,
        num_microbatches=3,
        placement=place(kind, 2, num_stages),
        stages=(costs,) * num_stages,
        transfer_ticks=uniform_transfers(2, 1),
    )


@pytest.mark.parametrize(("num_stages", "kind"), [(2, PlacementKind.LOOP), (4, PlacementKind.AUTO)])
def test_that_no_order_fits_is_proved(num_stages, kind):
    problem = leaking(num_stages, kind)
    enough = smallest_limits_bytes(open_placements(problem)[0])
    with pytest.raises(
        InfeasibleError, match="CP-SAT proves that no order of all ops keeps within"
    ) as caught:
        synthesize(problem.with_memory_limit([limit - 1 for limit in enough]), time_limit=60, workers=1)
    solved(problem.with_memory_limit(caught.value.smallest_limit_bytes))


@pytest.mark.parametrize(("num_stages", "kind"), [(2, PlacementKind.LOOP), (4, PlacementKind.AUTO)])
def test_that_no_order_fits_and_none_is_proved(num_stages, kind, monkeypatch):
    monkeypatch.setattr("synth.search.solving.MOST_EXACT_OPS", 0)
    problem = leaking(num_stages, kind)
    enough = smallest_limits_bytes(open_placements(problem)[0])
    with pytest.raises(
        NoScheduleFoundError, match=r"within \[.*\] bytes, and none may exist; \[.*\] would do"
    ):
        synthesize(problem.with_memory_limit([limit - 1 for limit in enough]), time_limit=1, workers=1)


def test_auto_that_nothing_fits():
    with pytest.raises(InfeasibleError, match="the smallest limit that would do"):
        synthesize(auto(2, 2, 1), time_limit=SECONDS)


@settings(max_examples=25)
@given(problems(max_ranks=3, max_chunks=2, max_microbatches=4, max_ticks=3))
def test_the_milp_keeps_every_promise(problem):
    result = solved(problem, time_limit=1, solver="milp")
    known = best_baseline(problem)
    assert known is None or result.value <= known
    assert result.provenance.solver in ("", "highs")


@pytest.mark.parametrize("objective", Objective)
def test_the_milp_proves_what_it_finds(objective):
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, memory_limit_bytes=6, objective=objective)
    result = solved(problem, time_limit=60, solver="milp")
    assert result.status is Status.OPTIMAL
    assert result.value == solved(problem, time_limit=60).value
    assert (result.provenance.solver, result.provenance.method) == ("highs", "counter MILP")
    assert result.certificate.bound_from.startswith("counter MILP: HiGHS finds no schedule that takes less")


def test_too_large_for_the_milp():
    problem = load_instance("zb-1.5b-m24")
    result = solved(problem, time_limit=3, solver="milp")
    assert result.value <= best_baseline(problem)
    assert "the counter MILP is too large for the time limit" in result.certificate.bound_from


def test_small_problems_are_solved_as_a_whole():
    problem = uniform_problem(3, 6, UNIT, chunks=2, kind=PlacementKind.V, memory_limit_bytes=6)
    result = solved(problem, time_limit=100)
    assert (result.value, result.status) == (50, Status.OPTIMAL)
    assert result.provenance.method == "whole horizon"
    assert result.certificate.bound_from.startswith("whole horizon: ")


def test_an_interrupt_of_the_whole_horizon_keeps_what_it_found():
    problem = uniform_problem(4, 8, DIVIDED, transfer_ticks=1, chunks=2, memory_limit_bytes=14)
    steps = []

    def interrupt(progress):
        steps.append(progress.step)
        if progress.step == "whole horizon":
            raise KeyboardInterrupt

    result = solved(problem, time_limit=60, on_progress=interrupt)
    assert steps.count("whole horizon") == 1
    known = best_baseline(problem)
    assert known is None or result.value <= known


UNIT = StageCosts(
    F=OpCost(ticks=1, alloc_bytes=2), B=OpCost(ticks=1, free_bytes=1), W=OpCost(ticks=1, free_bytes=1)
)
