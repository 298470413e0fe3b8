"""Tables of ops: what readers of different formats share."""

import pytest
from builders import EITHER, two_by_two

from synth.cells import Cells, PlacedOp, find_faults, orders_in, placed_as_run, read_rows, shown
from synth.errors import InputError
from synth.ops import Op, OpKind
from synth.placement import PlacementKind, place

LETTERS = {OpKind.F: "f", OpKind.B: "b", OpKind.W: "w", OpKind.BW: "x"}
"""A format with letters of its own."""


def cells_of(*rows, faults=()):
    placed = tuple(
        PlacedOp(Op.parse(word), row, column)
        for row, words in enumerate(rows, start=1)
        for column, word in enumerate(words.split(), start=1)
    )
    return Cells(placed=placed, faults=faults, blank=(), num_rows=len(rows), letters=LETTERS)


ONE_EACH = two_by_two(EITHER, num_microbatches=1)


def test_orders_are_the_rows():
    cells = cells_of("0F0 0B0 0W0", "1F0 1BW0")
    assert [" ".join(map(str, row)) for row in orders_in(cells, ONE_EACH, "")] == ["0F0 0B0 0W0", "1F0 1BW0"]


def test_faults_speak_the_letters_of_the_format():
    cells = cells_of("0F0 0BW0 0B0 0F0", "1F0 0W0 1B7")
    assert find_faults(cells, ONE_EACH) == [
        "row 2, column 3 is 1b7: the problem has 1 microbatch, numbered from 0",
        "row 2, column 2 is 0w0: the problem places stage 0 on rank 0, which is row 1; move it there, or "
        "give the problem this placement, or auto",
        "row 1, column 4 is 0f0: it is in row 1, column 1 already; keep one",
        "row 1, column 2 is 0x0: 0b0 of the same backward is in row 1, column 3; divide it or not",
        "row 1, column 2 is 0x0: 0w0 of the same backward is in row 2, column 2; divide it or not",
        "no cell runs 1x0: add it to row 2",
    ]


def test_first_fault_is_told_and_the_others_counted():
    cells = cells_of("0F0", "1F0 1F0")
    with pytest.raises(InputError, match=r"^plan: row 2, column 2 is 1f0: .* keep one \(2 more\)$"):
        orders_in(cells, ONE_EACH, "plan")


def test_nothing_is_missing_where_a_cell_could_not_be_read():
    cells = cells_of("0F0", "1F0 1BW0", faults=("row 1, column 2 is odd",))
    assert find_faults(cells, ONE_EACH) == ["row 1, column 2 is odd"]


def test_open_placement_is_that_of_the_rows():
    problem = two_by_two(EITHER, num_microbatches=1, stage_to_rank=(0, 1, 0, 1))
    orders = orders_in(
        cells_of("0F0 3F0 3BW0 0BW0", "1F0 2F0 2BW0 1BW0"),
        auto := problem.with_placement(place(PlacementKind.AUTO, 2, 4)),
        "",
    )
    assert placed_as_run(auto, orders).stage_to_rank == (0, 1, 1, 0)
    assert placed_as_run(problem, orders) is problem


def test_rows_are_stripped_words():
    assert read_rows(' a ,b,,"c"\n\nd\n') == ([["a", "b", "", "c"], [], ["d"]], "")
    assert read_rows("\ufeffa")[1].startswith("the file starts with a byte order mark")
    assert "is no CSV (field larger than" in read_rows("a" * 200_000)[1]


def test_long_words_are_cut():
    assert (shown("x" * 24), shown("x" * 25)) == (repr("x" * 24), repr("x" * 24 + "…"))
