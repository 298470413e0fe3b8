"""Traces: golden ones of two ranks, one that torch writes, one of our own, and what is no trace."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from costmodels.measured.traces import read_traces, traced_problem, with_traced_times
from synth.errors import InputError
from synth.export.perfetto import render_perfetto
from synth.export.shown import Shown
from synth.ops import PASSES
from tests.builders import good_schedule

F, B, W, BW = PASSES
DATA = Path(__file__).parent / "data"
GOLDEN = {name: (DATA / name).read_text() for name in ("pp-trace-rank0.json", "pp-trace-rank1.json")}


def event(name, dur=10.0, **changed):
    return {
        "ph": "X",
        "cat": "user_annotation",
        "name": name,
        "pid": 1,
        "tid": 1,
        "ts": 0.0,
        "dur": dur,
    } | changed


def trace(*events, **more):
    return json.dumps({"traceEvents": list(events), **more})


def one(text):
    return read_traces({"t.json": text})


def test_golden_traces_by_their_device_side():
    traced = read_traces(GOLDEN)
    assert (traced.stage_to_rank, traced.num_microbatches, traced.on_device) == ((0, 1), 2, True)
    problem = traced_problem(traced, 1e-6)
    first, second = problem.stages
    assert (first.F.ticks, first.B, first.W, first.BW.ticks) == (41, None, None, 82)
    assert (second.F.ticks, second.B.ticks, second.W.ticks, second.BW.ticks) == (52, 52, 30, 78)
    assert problem.source == (
        "times: medians of device-side PP: ranges in pp-trace-rank0.json, pp-trace-rank1.json; "
        "spread of a time: at most 1.9% of its median (half of the quartiles' distance); "
        "rounding to ticks of 1e-06 s: at most 0.51% of an op; "
        "memory and transfers: none, a trace does not say them"
    )


def test_ranks_say_who_they_are_in_any_order():
    traced = read_traces(dict(reversed(GOLDEN.items())))
    assert traced.stage_to_rank == (0, 1)


def test_host_side_ranges_where_there_are_no_others():
    traced = one(trace(event("PP:0F0", 8.0), event("PP:0F1", 9.0), event("PP:0B0", 20.0)))
    assert not traced.on_device
    assert traced.times_ns == {(0, F): [8000, 9000], (0, BW): [20000]}
    assert "on the host a range includes waiting for what the op needs" in traced.source(1e-6)


def test_one_trace_of_several_processes():
    """A V of two ranks, its processes numbered as they are."""
    homes = {0: 900, 1: 17, 2: 17, 3: 900}
    events = [event(f"PP:{stage}{letter}0", pid=pid) for stage, pid in homes.items() for letter in "FB"]
    assert one(trace(*events)).stage_to_rank == (1, 0, 0, 1)


def test_a_list_of_events_is_a_trace():
    assert one(json.dumps([event("PP:0F0"), event("PP:0B0")])).num_microbatches == 1


def test_times_replace_those_of_the_problem_that_ran():
    plan = good_schedule().problem
    events = [
        event(f"PP:{stage}{op}0", 10.0 * stage + dur)
        for stage in (0, 1)
        for op, dur in {"F": 3, "I": 5, "W": 7}.items()
    ]
    timed = with_traced_times(replace(plan, source="before"), one(trace(*events)))
    assert [(c.F.ticks, c.B.ticks, c.W.ticks) for c in timed.stages] == [(3, 5, 7), (13, 15, 17)]
    assert [c.F.alloc_bytes for c in timed.stages] == [c.F.alloc_bytes for c in plan.stages]
    assert timed.memory_limit_bytes == plan.memory_limit_bytes
    assert timed.source.endswith("; all else: before")
    assert "not in the traces" not in timed.source
    with pytest.raises(
        InputError, match="the traces show PP:0B and the problem offers no BW on stage 0: give"
    ):
        with_traced_times(plan, one(trace(event("PP:0B0"), event("PP:1B0"))))
    part = with_traced_times(plan, one(trace(event("PP:0F0"), event("PP:1F0"))))
    assert "not in the traces and as before: B of stage 0, W of stage 0, B of stage 1" in part.source
    with pytest.raises(InputError, match="the traces show 1 stages and the problem has 2"):
        with_traced_times(plan, one(trace(event("PP:0F0"))))


def test_our_own_traces_come_back():
    """What is exported for Perfetto, imported again: the same times on the same ranks."""
    plan = good_schedule()
    problem = traced_problem(
        one(render_perfetto([Shown(title="plan", schedule=plan)]).decode()), plan.problem.tick_seconds
    )
    for ours, planned in zip(problem.stages, plan.problem.stages, strict=True):
        assert [c.ticks for _, c in ours.offered] == [planned.cost(kind).ticks for kind, _ in ours.offered]
    assert problem.stage_to_rank == plan.problem.stage_to_rank
    assert problem.num_microbatches == plan.problem.num_microbatches


def test_trace_that_torch_writes(tmp_path):
    path = tmp_path / "trace.json"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        for action in ("0F0", "0F1", "0RECV_B0", "0I0", "0W0", "0B1"):
            with torch.profiler.record_function(f"PP:{action}"):
                torch.ones(64) @ torch.ones(64)
    profile.export_chrome_trace(str(path))
    traced = one(path.read_text())
    assert {key: len(times) for key, times in traced.times_ns.items()} == {
        (0, F): 2,
        (0, B): 1,
        (0, W): 1,
        (0, BW): 1,
    }
    assert all(time > 0 for times in traced.times_ns.values() for time in times)
    assert not traced.on_device


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "t.json is no JSON: give a trace in Chrome's format"),
        ("{", "t.json is no JSON"),
        ("[" * 100_000, "t.json is no JSON"),
        ("3", "t.json has no traceEvents"),
        ('{"traceEvents": 3}', "t.json has no traceEvents"),
        (trace(), r"t.json has no PP: ranges such as PP:0F0"),
        (trace(event("forward"), event("PP:0SEND_F0"), event("PP:0F0junk"), 7), "t.json has no PP: ranges"),
        (trace(event("PP:0F0", ph="B")), "t.json has no PP: ranges"),
        (
            trace(event("PP:0F0", float("nan"))),
            "PP:0F0 in t.json lasts nan microseconds: a time is a finite number",
        ),
        (trace(event("PP:0F0", -1)), "PP:0F0 in t.json lasts -1 microseconds"),
        (trace(event("PP:0F0", "long")), "PP:0F0 in t.json lasts long microseconds"),
        (trace(event("PP:0F0", True)), "PP:0F0 in t.json lasts True microseconds"),
        (trace(event("PP:0F0", 1e300)), r"PP:0F0 in t.json lasts 1e\+300 microseconds"),
        (trace(event("PP:0F0", 10**400)), "PP:0F0 in t.json lasts 1000"),
        (trace(event("PP:1F0")), "the traces show no stage 0: give those of all ranks"),
        (
            trace(event("PP:0F0"), event("PP:0F1", pid=2)),
            "the traces show stage 0 on 2 ranks: .* of one replica",
        ),
        (trace(event("PP:0F0")), "the traces show of stage 0 only PP:0F: trace a whole step"),
        (trace(event("PP:0F0"), event("PP:0I0")), "show of stage 0 only PP:0F, PP:0I: trace a whole step"),
        (trace(event("PP:0B0")), "show of stage 0 only PP:0B: trace a whole step"),
    ],
)
def test_wrong_trace_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        traced_problem(one(text), 1e-6)
