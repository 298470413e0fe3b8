"""Training without flushes against its definition: every version of every weight, and what is in memory."""

import pytest
import torch

from runtime.stage import Division
from runtime.versions import Versions, WeightPolicy
from synth.baselines import baseline_schedule
from synth.problem import uniform_problem
from synth.schedule import Schedule
from tests.builders import DIVIDED, EITHER
from tests.runtime_cases import Case
from tests.unflushed_cases import (
    Unflushed,
    accumulators_in_memory,
    against_definition,
    refused,
    resumed,
    versions_in_memory,
)

FLUSH, TWO, STASH = WeightPolicy.FLUSH, WeightPolicy.DOUBLE_BUFFERED, WeightPolicy.STASHED


def schedule(num_ranks: int, microbatches: int, stage=EITHER) -> Schedule:
    problem = uniform_problem(num_ranks, microbatches, stage, transfer_ticks=1)
    return baseline_schedule("pipedream-2bw", problem)


def how(num_ranks: int, m: int, *phases, stage=EITHER, optimizer="adamw", **options) -> Unflushed:
    case = Case(schedule=schedule(num_ranks, 2 * m, stage), **options)
    return Unflushed(case=case, batch_microbatches=m, phases=phases, optimizer=optimizer)


def check(ranks, *, exact: bool = True) -> None:
    for seen in ranks:
        assert seen.equal if exact else seen.difference < 1e-12
    last = ranks[-1]
    assert last.losses
    assert last.losses == (last.expected if exact else pytest.approx(last.expected, abs=1e-12))


@pytest.mark.parametrize("policy", WeightPolicy)
@pytest.mark.parametrize(("num_ranks", "m"), [(4, 4), (3, 5), (2, 2), (1, 2)])
def test_weights_are_those_of_the_definition(pool, policy, num_ranks, m):
    """Bit for bit, after every update, with dropout and AdamW."""
    answers = pool.run(num_ranks, against_definition, how(num_ranks, m, (policy, 5), dropout=0.3))
    check(answers)
    updates = 5 * m if policy is STASH else 5
    assert [seen.versions_made for seen in answers] == [updates] * num_ranks


@pytest.mark.parametrize(("num_ranks", "m"), [(4, 3), (4, 2), (4, 1), (3, 1)])
def test_fewer_microbatches_than_ranks_are_one_update_late_too(pool, num_ranks, m):
    """Not the paper's setting (m ≥ p): a document of two batches that small says how batches follow, and the
    delay is one whatever they are; only the pipeline idles."""
    answers = pool.run(num_ranks, against_definition, how(num_ranks, m, (TWO, 5), dropout=0.3))
    check(answers)
    assert [seen.most_versions for seen in answers] == [{rank: 2} for rank in range(num_ranks)]


@pytest.mark.parametrize(("microbatches", "m"), [(6, 2), (8, 2), (4, 1)])
def test_too_few_microbatches_for_a_document_are_refused_on_all_ranks(pool, microbatches, m):
    """Over three or more batches 1F1B has too many of them in flight to be one update late."""
    given = Unflushed(case=Case(schedule=schedule(4, microbatches)), batch_microbatches=m, phases=((TWO, 1),))
    for message in pool.run(4, refused, given, ""):
        assert f"does not repeat itself from the second batch of {m} microbatches on" in message
        assert "batches of at least as many microbatches as there are ranks" in message


@pytest.mark.parametrize("policy", [TWO, STASH])
@pytest.mark.parametrize("division", Division)
def test_divided_backwards(pool, policy, division):
    """B and W on all stages, with plain gradient descent."""
    given = how(3, 3, (policy, 4), stage=DIVIDED, division=division, optimizer="sgd", dropout=0.2)
    check(pool.run(3, against_definition, given))


def test_recomputed_forwards_see_the_version_of_the_first(pool):
    """Activation checkpointing runs the forward again, after newer versions were made."""
    given = how(3, 3, (STASH, 3), model="recomputed", dropout=0.2)
    check(pool.run(3, against_definition, given))


@pytest.mark.parametrize("policy", [TWO, STASH])
def test_mixed_precision(pool, policy):
    """What autocast makes of a version's weights is not taken for another's."""
    given = how(2, 3, (policy, 4), autocast=torch.bfloat16, division=Division.NATIVE)
    check(pool.run(2, against_definition, given))


def test_policies_take_turns_in_one_run(pool):
    """Emptying the pipeline between two double-buffered phases changes nothing but the time."""
    phases = ((FLUSH, 2), (TWO, 3), (TWO, 2), (FLUSH, 1), (STASH, 2), (TWO, 1), (TWO, 1), (FLUSH, 2))
    check(pool.run(3, against_definition, how(3, 4, *phases, dropout=0.2)))


@pytest.mark.parametrize("policy", WeightPolicy)
def test_replicas_share_every_update(pool, policy):
    """Two replicas of two ranks; the sum over replicas has another order."""
    given = how(2, 3, (policy, 3), dropout=0.2, dtype=torch.float64, optimizer="sgd")
    check(pool.run(4, against_definition, given), exact=False)


@pytest.mark.parametrize("policy", [FLUSH, TWO])
def test_checkpoint_holds_both_buffers(pool, policy, tmp_path):
    """A run that stops and resumes in new objects makes the weights of one that never stopped."""
    check(pool.run(3, resumed, how(3, 3, (policy, 5), dropout=0.3), str(tmp_path), 3))


def test_versions_in_memory_are_as_many_as_the_papers_say(pool):
    """Counted by storages alive: one, two, and p - s on stage s; and at no moment anything more."""
    flush, two, stash = (
        pool.run(4, versions_in_memory, how(4, 4, (policy, 6), optimizer="sgd"))
        for policy in (FLUSH, TWO, STASH)
    )
    assert [seen for seen, _ in flush] == [1] * 4
    assert [seen for seen, _ in two] == [2] * 4
    assert [seen for seen, _ in stash] == [4, 3, 2, 1]
    # Beside the versions the gradient and, where it is a sum, that of the microbatch which is being added.
    assert [peak for _, peak in flush] == [1 + 2] * 4
    assert [peak for _, peak in two] == [2 + 2] * 4
    assert [peak for _, peak in stash] == [4 + 1, 3 + 1, 2 + 1, 1 + 1]


def test_replicas_hold_one_accumulator(pool):
    """A sum over replicas ends before the next batch adds to it: the second accumulator that the planner
    counts is that of trainers that sum beside the next batch.
    """
    given = how(2, 3, (TWO, 4), optimizer="sgd")
    assert pool.run(4, accumulators_in_memory, given) == [1] * 4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("not begun", "no batch is announced: call begin before step"),
        ("begun again", "2 announced batches are still to come: run them before"),
        ("saved on the way", "2 announced batches are still to come: save behind the last one"),
    ],
)
def test_calls_out_of_turn_are_refused(pool, fault, message):
    assert pool.run(2, refused, how(2, 2, (TWO, 3)), fault) == [message] * 2


def test_schedule_of_one_batch_is_refused_on_all_ranks(pool):
    given = Unflushed(case=Case(schedule=schedule(2, 4)), batch_microbatches=4, phases=((TWO, 1),))
    for message in pool.run(2, refused, given, ""):
        assert "4 microbatches, which is not two or more batches of 4" in message


class Halving:
    """An optimizer that halves every weight."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.parameters = tuple(module.parameters())

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self.parameters:
            parameter.mul_(0.5)


def test_versions_are_made_in_memory_that_nobody_needs():
    module = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    versions, optimizer = Versions(module), Halving(module)
    first = module.weight.data_ptr()
    versions.advance(optimizer, needed=0)
    second = module.weight.data_ptr()
    assert second != first
    versions.advance(optimizer, needed=1)
    assert module.weight.data_ptr() == first, "version 0's, which version 2 took"
    assert (versions.oldest, versions.newest, versions.most) == (1, 2, 2)
    versions.use(1)
    assert module.weight.tolist() == [[0.5, 0.5]]
    versions.advance(optimizer, needed=3)
    assert module.weight.data_ptr() == first, "in place"
    assert module.weight.tolist() == [[0.125, 0.125]]
    assert versions.older() == {}


def test_backward_after_an_update_finds_the_weights_of_its_forward():
    """Autograd would refuse a backward through weights that were written to."""
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    versions = Versions(module)
    x = torch.ones(1, 1, requires_grad=True)
    y = module(x)
    versions.advance(Halving(module), needed=0)
    versions.use(0)
    y.backward()
    assert x.grad.tolist() == [[1.0]]
