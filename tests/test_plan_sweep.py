"""The sweep finds what judging everything finds, wherever it runs and however often it is broken."""

import multiprocessing
import os
import signal
import time

import pytest
from plan_cases import Broken, everything, recipe_of

from synth.baselines import BASELINES
from synth.drafts import WeightPolicy
from synth.errors import InputError
from synth.planner.documents import schedule_document
from synth.planner.executors import LocalExecutor, SerialExecutor, executor_of
from synth.planner.journal import JUDGED, SYNTHESIZED, Journal
from synth.planner.judging import DOUBLE_BUFFERED, QUICK, SCHEDULES, judge
from synth.planner.steps import flushed_step_ticks
from synth.planner.sweeping import sweep
from synth.planner.synthesizing import synthesis_candidates, synthesize_best
from synth.problem import Problem
from synth.schedule import fits
from synth.verify import verify_schedule


def best_of(verdicts, recipe, policy, keep):
    """The shortest steps of one policy, equals in the recipe's order."""
    place = {key: number for number, key in enumerate(recipe.keys)}
    fitting = [v for v in verdicts if v.policy is policy and v.step_ticks is not None]
    ordered = sorted(fitting, key=lambda v: (v.step_ticks, place[v.key]))
    return [(v.key, v.step_ticks) for v in ordered[:keep]]


@pytest.mark.parametrize(
    ("gpus", "limit_mib", "batch", "keep"),
    [(2, 4096, 4, 3), (2, 300, 4, 3), (4, 200, 8, 3), (4, 150, 8, 1), (8, 110, 8, 4)],
)
def test_as_good_as_brute_force(gpus, limit_mib, batch, keep):
    """With nothing left out: the same best, in the same order, of each policy; and much is left out."""
    recipe = recipe_of(gpus, limit_mib=limit_mib, batch=batch, chunks=(1, 2) if gpus < 8 else (1,))
    swept = sweep(recipe, SerialExecutor(), keep=keep)
    brute = everything(recipe)
    for policy in WeightPolicy:
        expected = best_of(brute.values(), recipe, policy, keep)
        assert expected
        assert [(v.key, v.step_ticks) for v in swept.ranking(policy)[:keep]] == expected
        best = brute[expected[0][0]].best
        assert swept.verdicts[expected[0][0]].best == best
    tried = sum(len(verdict.rows) for verdict in swept.verdicts.values())
    assert tried < sum(len(verdict.rows) for verdict in brute.values())


def test_processes_find_the_same():
    recipe = recipe_of(4, limit_mib=200)
    here = sweep(recipe, SerialExecutor(), keep=4)
    executor = LocalExecutor(2)
    try:
        there = sweep(recipe, executor, keep=4)
    finally:
        executor.close()
    assert there.ranking()[:4] == here.ranking()[:4]


def test_one_worker_is_this_process():
    assert isinstance(executor_of(1), SerialExecutor)


def test_a_bound_settles_it():
    """Where no schedule can be short enough, none is tried."""
    recipe = recipe_of(2, limit_mib=4096, batch=4)
    key = recipe.keys[0]
    verdict = judge(recipe, key, most_ticks=1)
    assert (verdict.rows, verdict.tried, verdict.refusal) == ((), (), "")
    assert verdict.least_ticks > 1
    assert judge(recipe, key).least_ticks == verdict.least_ticks


def test_a_broken_sweep_goes_on(tmp_path):
    """What is judged stays judged, and the end is the same as without a break."""
    recipe, folder = recipe_of(4, limit_mib=200), str(tmp_path / "sweep")
    whole = sweep(recipe, SerialExecutor(), keep=3)
    first = sweep(recipe, Broken(10), keep=3, journal=Journal(folder, recipe.fingerprint))
    assert first.interrupted
    assert len(first.verdicts) == 10
    seen = []
    second = sweep(
        recipe,
        SerialExecutor(),
        keep=3,
        journal=Journal(folder, recipe.fingerprint),
        on_verdict=lambda verdict: seen.append((verdict.key, verdict.tried)),
    )
    assert not second.interrupted
    assert second.ranking()[:3] == whole.ranking()[:3]
    before = {(key, name) for key, verdict in first.verdicts.items() for name in verdict.tried}
    assert not before & {(key, name) for key, tried in seen for name in tried}
    again = sweep(recipe, Broken(0), keep=3, journal=Journal(folder, recipe.fingerprint))
    assert not again.interrupted
    assert again.ranking()[:3] == whole.ranking()[:3]


def test_a_torn_line_is_left_out(tmp_path):
    recipe, folder = recipe_of(2, batch=4), str(tmp_path / "sweep")
    sweep(recipe, SerialExecutor(), journal=Journal(folder, recipe.fingerprint))
    path = tmp_path / "sweep" / JUDGED
    whole = Journal(folder, recipe.fingerprint).read()
    text = path.read_text()
    path.write_text(text[: len(text) - 30])
    journal = Journal(folder, recipe.fingerprint)
    left = journal.read()
    assert len(left) <= len(whole)
    assert sum(len(v.tried) for v in left.values()) < sum(len(v.tried) for v in whole.values())
    verdict = next(iter(whole.values()))
    journal.add(verdict)
    assert journal.read()[verdict.key].rows == verdict.rows


def test_a_folder_is_of_one_recipe(tmp_path):
    folder = str(tmp_path / "sweep")
    Journal(folder, "one")
    with pytest.raises(InputError, match="is of another model, cluster or batch"):
        Journal(folder, "another")
    with pytest.raises(InputError, match="cannot hold a sweep"):
        Journal(str(tmp_path / "there" / "is none"), "one")


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_folder_that_was_broken_off_in_its_first_line_begins_anew(tmp_path, share):
    journal = Journal(str(tmp_path), "one")
    path = tmp_path / JUDGED
    text = path.read_text()
    path.write_text(text[: round(share * (len(text) - 1))])
    assert Journal(str(tmp_path), "one").read() == journal.read() == {}
    assert path.read_text() == text


def test_a_folder_that_fails_later(tmp_path):
    """As a full disk does."""
    recipe, folder = recipe_of(2, batch=4), tmp_path / "sweep"
    journal = Journal(str(folder), recipe.fingerprint)
    (folder / JUDGED).unlink()
    (folder / JUDGED).mkdir()
    for use in (journal.read, lambda: journal.add(judge(recipe, recipe.keys[0]))):
        with pytest.raises(InputError, match="cannot hold a sweep: is a directory; name another folder"):
            use()
    with pytest.raises(InputError, match="is no file: name another folder"):
        Journal(str(folder), recipe.fingerprint)


def test_only_what_is_asked_for(tmp_path):
    """Of a folder that knows more shapes and schedules, a narrower plan takes its own."""
    wide, folder = recipe_of(2, batch=4), str(tmp_path / "sweep")
    sweep(wide, SerialExecutor(), journal=Journal(folder, wide.fingerprint))
    narrow = recipe_of(2, batch=4, pp=(2,))
    known = Journal(folder, narrow.fingerprint)
    resumed = sweep(narrow, SerialExecutor(), schedules=("gpipe",), journal=known)
    assert set(resumed.verdicts) <= set(narrow.keys)
    assert {row.schedule for verdict in resumed.ranking() for row in verdict.rows} == {"gpipe"}
    fresh = sweep(narrow, SerialExecutor(), schedules=("gpipe",))
    assert resumed.ranking()[0].best == fresh.ranking()[0].best


def test_closing_ends_what_is_under_way():
    """A call of an hour is not waited for."""
    before = set(multiprocessing.active_children())
    executor = LocalExecutor(1)
    executor.submit(time.sleep, 3600)
    executor.close()
    assert set(multiprocessing.active_children()) <= before


def test_a_worker_that_ends():
    """As a process that the system kills."""
    executor = LocalExecutor(1)
    executor.submit(os._exit, 9)
    with pytest.raises(InputError, match="a worker process has ended"):
        executor.next()
    executor.close()


def test_a_worker_that_starts_hears_no_interrupt():
    """Ctrl-C reaches it before a line of Python is run there; this process hears it as ever."""
    others = set(multiprocessing.active_children())  # of other tests, which would end
    executor = LocalExecutor(1)
    try:
        executor.submit(int, "7")
        for child in set(multiprocessing.active_children()) - others:
            os.kill(child.pid, signal.SIGINT)
        assert executor.next() == 7
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        executor.close()


def test_more_schedules_after_fewer(tmp_path):
    """Resumed with all schedules, the end is as without."""
    recipe, folder = recipe_of(2, batch=4), str(tmp_path / "sweep")
    sweep(recipe, SerialExecutor(), schedules=("1f1b",), journal=Journal(folder, recipe.fingerprint))
    resumed = sweep(recipe, SerialExecutor(), journal=Journal(folder, recipe.fingerprint))
    whole = sweep(recipe, SerialExecutor())
    assert [v.best for v in resumed.ranking()[:3]] == [v.best for v in whole.ranking()[:3]]


def test_the_synthesizer_is_never_worse():
    """And only works where the bound is below the best known step."""
    recipe = recipe_of(2, batch=4, limit_mib=300, weights=(WeightPolicy.FLUSH,))
    standing = sweep(recipe, SerialExecutor())
    best = standing.ranking()[0].step_ticks
    candidates = synthesis_candidates(standing)
    assert all(standing.verdicts[key].least_ticks < best for key in candidates)
    found = synthesize_best(recipe, SerialExecutor(), standing, most=2, time_limit_s=1.0)
    assert 0 < len(found) <= 2
    for answer in found:
        known = standing.verdicts[answer.key]
        problem = answer.document.schedule.problem
        assert isinstance(problem, Problem)
        assert known.step_ticks is None or answer.step_ticks <= known.step_ticks + max(
            recipe.draft(answer.key).all_reduce_ticks
        )
        assert answer.step_ticks >= known.least_ticks
        assert fits(problem, answer.document.metrics.peak_memory_bytes)
        assert not verify_schedule(answer.document.schedule)


def test_schedules_found_before_are_taken(tmp_path):
    """With the same time and seed nothing is searched again; a broken line is."""
    recipe = recipe_of(2, batch=4, limit_mib=300, weights=(WeightPolicy.FLUSH,))
    standing, folder = sweep(recipe, SerialExecutor()), str(tmp_path / "sweep")

    def search(seed, searched):
        journal = Journal(folder, recipe.fingerprint)
        return synthesize_best(
            recipe,
            SerialExecutor(),
            standing,
            most=1,
            time_limit_s=0.3,
            seed=seed,
            journal=journal,
            on_found=searched.append,
        )

    first, again, other, torn = ([] for _ in range(4))
    (found,) = search(0, first)
    (kept,) = search(0, again)
    assert (len(first), again) == (1, [])
    assert (kept.key, kept.step_ticks, kept.peak_bytes) == (found.key, found.step_ticks, found.peak_bytes)
    assert not verify_schedule(kept.document.schedule)
    search(1, other)
    assert len(other) == 1
    path = tmp_path / "sweep" / SYNTHESIZED
    header, one, *_ = path.read_text().split("\n")
    path.write_text(f"{header}\n{one[:-40]}\n")
    search(0, torn)
    assert len(torn) == 1


def test_documents_say_what_was_judged():
    recipe = recipe_of(4, limit_mib=200)
    for verdict in sweep(recipe, SerialExecutor(), keep=3).ranking()[:6]:
        draft, row = recipe.draft(verdict.key), verdict.best
        document = schedule_document(draft, row.schedule)
        assert not verify_schedule(document.schedule)
        assert max(document.metrics.peak_memory_bytes) == row.peak_bytes
        if verdict.policy is WeightPolicy.FLUSH:
            assert flushed_step_ticks(document.schedule, draft.all_reduce_ticks) == row.step_ticks


def test_a_buffered_document_is_not_flushed():
    """Three batches in a row: the second ends a step after the first."""
    recipe = recipe_of(
        4, batch=16, weights=(WeightPolicy.DOUBLE_BUFFERED,), tp=(1,), dp=(1,), microbatch=(1,)
    )
    verdict = sweep(recipe, SerialExecutor()).ranking()[0]
    draft = recipe.draft(verdict.key)
    document = schedule_document(draft, "pipedream-2bw")
    problem = document.schedule.problem
    assert problem.num_microbatches == 3 * draft.problem.num_microbatches
    assert {costs.weight_versions for costs in problem.stages} == {2}
    flushed = recipe.draft(verdict.key.replace("weights=2bw", "weights=flush")).problem
    assert [c.static_bytes for c in problem.stages] == [c.static_bytes for c in flushed.stages]
    spans = []
    for batches in (1, 2):
        ends = [t.end for t in document.schedule.ranks[0] if t.op.microbatch < batches * 16]
        spans.append(max(ends))
    assert spans[1] - spans[0] == pytest.approx(verdict.step_ticks, rel=0.01)


def test_every_schedule_is_known():
    """Those that flush and take the chain as it is, and one that does not flush."""
    assert len(set(SCHEDULES)) == len(SCHEDULES)
    assert not {"pipedream", "chimera", "dualpipe", "seq1f1b", "bpipe"} & set(SCHEDULES)
    assert {name for name in SCHEDULES if BASELINES[name].reshape} == {DOUBLE_BUFFERED}


def test_a_bound_comes_before_schedules():
    """Each is laid out first, without schedules: what that proves to be too slow is not tried, but for two
    that are under way when the last of the best is found.
    """
    recipe, seen = recipe_of(4, limit_mib=200), []
    standing = sweep(recipe, SerialExecutor(), keep=1, schedules=QUICK, on_verdict=seen.append)
    first = {}
    for verdict in seen:
        first.setdefault(verdict.key, verdict)
    assert not any(verdict.tried for verdict in first.values())
    for policy in WeightPolicy:
        most = standing.most_ticks(policy)
        tried = [v for v in standing.verdicts.values() if v.policy is policy and v.tried]
        assert tried
        assert sum(verdict.least_ticks > most for verdict in tried) <= 2
