"""PyTorch's CSV: what is written, what is read back, and what is said of every wrong cell."""

import pytest
from builders import EITHER, UNDIVIDED, good_schedule, orders_of, schedule_of, two_by_two
from hypothesis import given
from strategies import problems_with_orders

from synth.baselines import baseline_orders
from synth.errors import DeadlockError, InputError, InvalidOrdersError
from synth.export.torch_csv import (
    from_torch_csv,
    lint_torch_csv,
    rename_microbatches,
    schedule_from_torch_csv,
    to_torch_csv,
)
from synth.export.torch_names import torch_action
from synth.ops import OpKind
from synth.placement import Placement, PlacementKind, place
from synth.problem import uniform_problem
from synth.schedule import measure
from synth.timing import schedule_orders

GOOD = "0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1I1,1W0,1W1\n"
"""The export of ``good_schedule()``."""

V_PROBLEM = two_by_two(EITHER, stage_to_rank=(0, 1, 1, 0))
V = "0F0,3F0,0F1,3I0,3W0,3F1,3B1,0I0,0B1,0W0\n1F0,2F0,1F1,2F1,2I0,1I0,2B1,1B1,1W0,2W0\n"


# What is written.


def test_letters_are_those_of_torch():
    """FORMATS.md, Words: B is divided into I and W there, and B is the undivided backward."""
    assert to_torch_csv(good_schedule()) == GOOD
    whole = schedule_of(two_by_two(UNDIVIDED, num_microbatches=1), "0F0@0 0BW0@9", "1F0@3 1BW0@5")
    assert to_torch_csv(whole) == "0F0,0B0\n1F0,1B0\n"


def test_golden_1f1b():
    """arXiv 2006.09503: p - s forwards ahead on rank s of p, then one forward and one backward in turn."""
    problem = uniform_problem(3, 4, UNDIVIDED)
    assert to_torch_csv(schedule_orders(problem, baseline_orders("1f1b", problem))) == (
        "0F0,0F1,0F2,0B0,0F3,0B1,0B2,0B3\n1F0,1F1,1B0,1F2,1B1,1F3,1B2,1B3\n2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3\n"
    )


@given(drawn=problems_with_orders())
def test_read_back_up_to_names_of_microbatches(drawn):
    problem, orders = drawn
    text = to_torch_csv(schedule_orders(problem, orders))
    renamed = rename_microbatches(orders, problem.num_stages - 1)
    assert from_torch_csv(text, problem) == renamed
    assert to_torch_csv(schedule_orders(problem, renamed)) == text
    # The rows alone say where every stage is.
    if problem.num_stages % problem.num_ranks == 0:
        auto = problem.with_placement(place(PlacementKind.AUTO, problem.num_ranks, problem.num_stages))
        assert schedule_from_torch_csv(text, auto).problem.stage_to_rank == problem.stage_to_rank


@given(drawn=problems_with_orders())
def test_renamed_microbatches_are_the_same_schedule(drawn):
    """Costs do not depend on the microbatch: every slot of every rank keeps kind, stage and times."""
    problem, orders = drawn
    last = problem.num_stages - 1
    renamed = rename_microbatches(orders, last)
    forwards = [op.microbatch for op in sum(renamed, ()) if op.kind is OpKind.F and op.stage == last]
    assert forwards == list(range(problem.num_microbatches))
    before, after = schedule_orders(problem, orders), schedule_orders(problem, renamed)
    assert measure(before) == measure(after)
    for one, other in zip(sum(before.ranks, ()), sum(after.ranks, ()), strict=True):
        assert (one.op.kind, one.op.stage, one.start, one.end) == (
            other.op.kind,
            other.op.stage,
            other.start,
            other.end,
        )


def test_incomplete_schedule_is_refused():
    with pytest.raises(InvalidOrdersError, match="no rank runs 0W1"):
        to_torch_csv(schedule_of(two_by_two(), "0F0@0 0F1@2 0B0@8 0W0@10 0B1@12", "1F0@3 1B0@5 1F1@7 1B1@9"))


def test_schedule_that_deadlocks_is_refused():
    with pytest.raises(DeadlockError, match="rank 0 is at 0B0, which waits for 0F0"):
        to_torch_csv(schedule_of(two_by_two(num_microbatches=1), "0B0@0 0F0@2 0W0@4", "1F0@0 1B0@2 1W0@4"))


# What is read.


def test_blank_cells_and_spaces_are_skipped():
    text = '0F0, ,0F1,,0I0 ,0W0,0I1,0W1,\r\n,,1F0,1I0,1F1,1I1,"1W0",1W1\r\n'
    assert from_torch_csv(text, two_by_two()) == good_schedule().orders


def test_overlapped_pair_is_its_parts_one_after_the_other():
    text = V.replace("2F1,2I0", "(2F1;2I0)OVERLAP_F_B").replace("1F1,", "(1F1)OVERLAP_F_B,")
    assert "OVERLAP" in text
    assert from_torch_csv(text, V_PROBLEM) == from_torch_csv(V, V_PROBLEM)


def test_backwards_may_be_divided_one_by_one():
    orders = from_torch_csv(V, V_PROBLEM)
    assert orders[0] == orders_of("0F0 3F0 0F1 3B0 3W0 3F1 3BW1 0B0 0BW1 0W0")[0]


def test_orders_that_deadlock_are_told_in_torch_letters():
    text = GOOD.replace("0F0,0F1,0I0", "0F1,0I0,0F0")
    with pytest.raises(DeadlockError, match=r"rank 0 is at 0I0, which waits for 0F0, 1I0"):
        schedule_from_torch_csv(text, two_by_two())


def test_placement_auto_is_taken_from_the_rows():
    auto = V_PROBLEM.with_placement(place(PlacementKind.AUTO, 2, 4))
    assert auto.stage_to_rank == (0, 1, 0, 1)
    assert schedule_from_torch_csv(V, auto).problem.placement == Placement.explicit((0, 1, 1, 0))
    orders = baseline_orders("gpipe", auto)
    loop = to_torch_csv(schedule_orders(auto, orders))
    assert schedule_from_torch_csv(loop, auto).problem.placement == Placement.explicit((0, 1, 0, 1))


FAULTS = {
    "lower case": (
        GOOD.replace("0I0", "0i0"),
        "row 1, column 3 is '0i0': write it in capitals, 0I0",
    ),
    "junk behind an action": (
        GOOD.replace("1F0", "1F0junk"),
        "row 2, column 1 is '1F0junk': only 1F0 of it is an action; remove what follows",
    ),
    "two actions in a cell": (
        GOOD.replace("0F0,0F1", "0F0;0F1"),
        "row 1, column 1 is '0F0;0F1': only 0F0 of it is an action; remove what follows",
    ),
    "no stage": (
        GOOD.replace("0F1", "F1"),
        "row 1, column 2 is 'F1': write stage, F, I, W or B, and microbatch, as in 2F0",
    ),
    "leading zero": (GOOD.replace("0F1", "00F1"), "row 1, column 2 is '00F1': write stage"),
    "our own letters": (GOOD.replace("0I1", "0BW1"), "row 1, column 5 is '0BW1': write stage"),
    "digits of another script": (GOOD.replace("0F1", "0F١"), "row 1, column 2 is '0F١': write stage"),
    "more digits than Python converts": (
        GOOD.replace("0F1", "0F" + "1" * 5000),
        "row 1, column 2 is '0F1111111111111111111111…': only 0F111111111 of it is an action",
    ),
    "header": (
        "rank 0,rank 1\n" + GOOD,
        "row 1, column 1 is 'rank 0': write stage, F, I, W or B, and microbatch, as in 2F0; "
        "a file has neither header nor notes (4 more)",
    ),
    "communication": (
        GOOD.replace("0F1", "0SEND_F0"),
        "row 1, column 2 is '0SEND_F0': this is communication; dump the schedule with "
        'format="compute_only", PyTorch adds it again',
    ),
    "communication of later versions": (
        GOOD.replace("0F1", "0WAIT_SEND_F0"),
        "row 1, column 2 is '0WAIT_SEND_F0': this is communication",
    ),
    "sharding": (GOOD.replace("0F1", "0UNSHARD"), "row 1, column 2 is '0UNSHARD': this is communication"),
    "reduction": (GOOD.replace("0F1", "0REDUCE_GRAD"), "'0REDUCE_GRAD': this is communication"),
    "other compound": (
        GOOD.replace("0F1", "(0F1)FUSED"),
        "row 1, column 2 is '(0F1)FUSED': the one compound is (<forward>;<backward>)OVERLAP_F_B",
    ),
    "junk in a compound": (
        GOOD.replace("0F1", "(0F1;0x0)OVERLAP_F_B"),
        "row 1, column 2 is '(0F1;0x0)OVERLAP_F_B': write stage",
    ),
    "empty compound": (
        GOOD.replace("0F1", "()OVERLAP_F_B"),
        "row 1, column 2 is '()OVERLAP_F_B': write stage",
    ),
    "unknown stage": (
        GOOD.replace("1W0", "7W0"),
        "row 2, column 5 is 7W0: the problem has 2 stages, numbered from 0 (1 more)",
    ),
    "unknown microbatch": (
        GOOD.replace("1W0", "1W2"),
        "row 2, column 5 is 1W2: the problem has 2 microbatches, numbered from 0 (1 more)",
    ),
    "kind not offered": (
        GOOD.replace("0I1,0W1", "0B1"),
        "row 1, column 5 is 0B1: the costs of stage 0 offer only F, I, W; give the stage costs for it",
    ),
    "doubled": (
        GOOD.replace("1W0,", "1W0,1W0,"),
        "row 2, column 6 is 1W0: it is in row 2, column 5 already; keep one",
    ),
    "missing": (GOOD.replace(",1W1", ""), "no cell runs 1W1: add it to row 2"),
    "missing forward": (GOOD.replace("0F1,", ""), "no cell runs 0F1: add it to row 1"),
    "missing backward": (GOOD.replace(",1I1", "").replace(",1W1", ""), "no cell runs 1I1: add it to row 2"),
    "stage of another rank": (
        GOOD.replace(",0W1", "").replace("1W1", "1W1,0W1"),
        "row 2, column 7 is 0W1: the problem places stage 0 on rank 0, which is row 1; "
        "move it there, or give the problem this placement, or auto",
    ),
    "rows swapped": (
        "\n".join(reversed(GOOD.split())) + "\n",
        "row 1, column 1 is 1F0: the problem places stage 1 on rank 1, which is row 2; "
        "move it there, or give the problem this placement, or auto (1 more)",
    ),
    "row missing": (
        GOOD.split()[0],
        "the file has 1 row and the problem 2 ranks: give one row per rank, without blank lines (4 more)",
    ),
    "blank line at the end": (
        GOOD + "\n",
        "the file has 3 rows and the problem 2 ranks: give one row per rank, without blank lines",
    ),
    "empty": ("", "the file has 0 rows and the problem 2 ranks"),
    "idle row": (GOOD.split()[0] + "\n,,\n", "no cell runs 1F0: add it to row 2 (4 more)"),
    "byte order mark": (
        "\ufeff" + GOOD,
        "the file starts with a byte order mark: save it as UTF-8 without one",
    ),
    "cell beyond any length": (
        "0" * 200_000,
        "row 1 is no CSV (field larger than field limit (131072)): give cells between commas",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_told_with_its_place(name):
    text, sentence = FAULTS[name]
    with pytest.raises(InputError) as caught:
        from_torch_csv(text, two_by_two(), "plan.csv")
    assert str(caught.value).startswith("plan.csv: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert lint_torch_csv(text, good_schedule())


def test_backward_both_divided_and_not():
    text = V.replace("3B1", "3B1,3B0")
    with pytest.raises(
        InputError, match=r"^row 1, column 8 is 3B0: 3I0 of the same backward is in row 1, column 4;"
    ):
        from_torch_csv(text, V_PROBLEM)


def test_half_a_divided_backward():
    with pytest.raises(InputError, match=r"^no cell runs 3W0: add it to row 1$"):
        from_torch_csv(V.replace("3W0,", ""), V_PROBLEM)
    with pytest.raises(InputError, match=r"^no cell runs 0B1: add it to row 1$"):
        from_torch_csv(V.replace("0B1,", ""), V_PROBLEM)


def test_stage_in_two_rows_under_auto():
    auto = V_PROBLEM.with_placement(place(PlacementKind.AUTO, 2, 4))
    text = V.replace(",0W0", "").replace("2W0", "2W0,0W0")
    with pytest.raises(
        InputError, match=r"^row 2, column 11 is 0W0: stage 0 is in row 1 already; keep a stage in"
    ):
        from_torch_csv(text, auto)


# The linter of what is written: everything above, and to the letter.


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD.replace("0F1", ",0F1"), "row 1, column 2 is blank: write no idle cells"),
        (GOOD.replace("0F1", " 0F1"), "the file is not laid out plainly"),
        (GOOD.replace("0F1", '"0F1"'), "the file is not laid out plainly"),
        (GOOD.replace("\n", "\r\n"), "the file is not laid out plainly"),
        (GOOD[:-1], "the file is not laid out plainly"),
        (GOOD.replace("0F0,0F1", "(0F0;0F1)OVERLAP_F_B"), "the file is not laid out plainly"),
        (GOOD.replace("1W0,1W1", "1W1,1W0"), "row 2, column 5 is 1W1: the schedule runs 1W0 there"),
    ],
)
def test_lint_is_to_the_letter(text, sentence):
    faults = lint_torch_csv(text, good_schedule())
    assert any(sentence in fault for fault in faults), faults


def test_lint_wants_the_last_stage_in_order():
    """The same schedule, its microbatches named the other way round: PyTorch would not find a loss."""
    other_names = "0F1,0F0,0I1,0W1,0I0,0W0\n1F1,1I1,1F0,1I0,1W1,1W0\n"
    assert lint_torch_csv(other_names, good_schedule()) == (
        "stage 1 runs its forwards out of order: number microbatches as it runs their forwards",
    )
    orders = from_torch_csv(other_names, two_by_two())
    assert to_torch_csv(schedule_orders(two_by_two(), orders)) == GOOD


@given(drawn=problems_with_orders())
def test_lint_passes_what_is_written_and_nothing_else(drawn):
    problem, orders = drawn
    schedule = schedule_orders(problem, orders)
    text = to_torch_csv(schedule)
    assert lint_torch_csv(text, schedule) == ()
    first = torch_action(schedule.ranks[0][0].op)
    assert lint_torch_csv(text.replace(",", ",,", 1) if "," in text else text + "\n", schedule)
    assert lint_torch_csv(text[len(first) :], schedule)
