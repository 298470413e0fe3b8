"""What replicas do with their gradients: shares of the update come to the same as whole updates."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from runtime.flat import Flat
from runtime.gradients import Exchange, SharedGradients
from synth.baselines import baseline_orders
from synth.errors import InputError
from synth.placement import PlacementKind
from synth.problem import uniform_problem
from synth.timing import schedule_orders
from tests.builders import EITHER
from tests.runtime_cases import Case, resumed, tied, updated


def case(num_ranks=2, **options):
    problem = uniform_problem(num_ranks, 3, EITHER, transfer_ticks=1)
    return Case(schedule=schedule_orders(problem, baseline_orders("zb-h1", problem)), steps=3, **options)


SHARED = Exchange.REDUCE_SCATTER


def assert_same(answers, others):
    """Parameters by stage, process by process."""
    for answer, other in zip(answers, others, strict=True):
        assert answer.keys() == other.keys()
        for stage, parameters in answer.items():
            assert parameters
            for a, b in zip(parameters, other[stage], strict=True):
                assert torch.equal(a, b)


def test_shares_of_two_replicas_are_the_whole_update_bit_for_bit(pool):
    """A sum of two has one order; what the optimizers keep is half, and the padding of a share."""
    whole = pool.run(4, updated, case(dropout=0.3))
    shared = pool.run(4, updated, case(dropout=0.3, exchange=SHARED))
    assert_same([p for p, _ in shared], [p for p, _ in whole])
    assert_same([shared[0][0]], [shared[2][0]])  # replicas of rank 0
    for (_, kept), (_, all_of_it) in zip(shared, whole, strict=True):
        assert kept < 0.55 * all_of_it


def test_shares_of_three_replicas_differ_by_rounding(pool):
    """One rank, three replicas, so that shares are padded; sums of three have several orders."""
    one_rank = replace(case(1), dtype=torch.float64)
    whole = pool.run(3, updated, one_rank)
    shared = pool.run(3, updated, replace(one_rank, exchange=SHARED))
    for (ours, _), (theirs, _) in zip(shared, whole, strict=True):
        for a, b in zip(ours[0], theirs[0], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_shares_without_replicas_are_whole(pool):
    ours = pool.run(2, updated, case(exchange=SHARED))
    assert_same([p for p, _ in ours], [p for p, _ in pool.run(2, updated, case())])


@pytest.mark.parametrize(("first", "second"), [(SHARED, Exchange.ALL_REDUCE), (Exchange.ALL_REDUCE, SHARED)])
def test_a_run_resumes_with_the_other_exchange(pool, tmp_path, first, second):
    answers = pool.run(4, resumed, case(exchange=first), case(exchange=second), str(tmp_path))
    assert_same([with_break for with_break, _ in answers], [without for _, without in answers])


def test_flat_parts_are_in_place_and_padded():
    layer = nn.Linear(3, 2)
    weight, bias = (parameter.detach().clone() for parameter in layer.parameters())
    flat = Flat(dict(enumerate(layer.parameters())), shares=3)
    flat.share_weights(2, 3)
    assert flat.gradients.shape == (9,)
    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer.bias, bias)
    assert flat.share.tolist() == [*bias.tolist(), 0.0]
    flat.share.data.fill_(5.0)
    assert layer.bias.tolist() == [5.0, 5.0], "the share is a view of the same numbers"
    flat.clear_gradients()
    layer.weight.grad.fill_(1.0)
    assert flat.gradients.tolist() == [1.0] * 6 + [0.0] * 3


def test_state_of_parameters_that_never_had_a_gradient_is_zero():
    layer = nn.Linear(2, 2)
    flat = Flat(dict(enumerate(layer.parameters())), shares=2)
    flat.share_weights(1, 2)
    moments = [torch.ones(2, 2), None]
    assert flat.own_share(moments).tolist() == [1.0, 0.0, 0.0]
    assert flat.own_share([torch.tensor(3.0), None]).item() == 3.0


def test_optimizer_with_several_groups_is_refused(pool):
    texts = pool.run(2, state_of_two_groups)
    assert all("the optimizer has 2 groups of parameters: give one" in text for text in texts)


def state_of_two_groups(store, number, count):
    from torch import distributed as dist

    dist.init_process_group("gloo", store=store, rank=number, world_size=count)
    gradients = SharedGradients(nn.Linear(3, 2), dist.group.WORLD)
    groups = [{"params": list(gradients.parameters())}, {"params": [nn.Parameter(torch.zeros(1))]}]
    try:
        gradients.whole_state(torch.optim.SGD(groups, lr=0.1))
    except InputError as error:
        return str(error)
    return "nothing"


def test_stages_that_share_a_parameter_are_refused_where_replicas_sum_by_stage(pool):
    """The sum of the one would begin before the other has added its last part."""
    problem = uniform_problem(2, 4, EITHER, chunks=2, transfer_ticks=1)
    case = Case(schedule=schedule_orders(problem, baseline_orders("interleaved-1f1b", problem)))
    assert set(pool.run(2, tied, case)) == {"nothing"}
    for said in pool.run(4, tied, case):
        assert "stages 0 and 2 of the model share a parameter, and replicas sum gradients stage by" in said


def test_v_of_two_chunks_shares_by_stage(pool):
    problem = uniform_problem(2, 4, EITHER, chunks=2, kind=PlacementKind.V)
    schedule = schedule_orders(problem, baseline_orders("v-half", problem))
    whole = pool.run(4, updated, Case(schedule=schedule))
    shared = pool.run(4, updated, Case(schedule=schedule, exchange=SHARED))
    assert_same([p for p, _ in shared], [p for p, _ in whole])
