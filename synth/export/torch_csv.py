"""PyTorch's own runtime: orders as the CSV that ``_PipelineScheduleRuntime._load_csv`` executes, and back.

Written is the format ``compute_only``, which reads the same from PyTorch 2.9 to 2.15; PyTorch adds the
communication itself and derives the rank of every stage from the rows, so any placement can be expressed.

PyTorch collects the last stage's losses in a list and looks them up by microbatch, so that stage must run its
forwards in increasing order of microbatch. Costs do not depend on the microbatch: with its microbatches
renamed throughout, a schedule has the same times and memory. So exports are renamed where that is needed.
"""

from __future__ import annotations

from itertools import zip_longest

from synth.cells import find_faults, orders_in, orders_of, placed_as_run
from synth.errors import BackendError, DeadlockError, WaitingRank
from synth.export.chains import check_chain
from synth.export.torch_cells import read_cells
from synth.export.torch_names import torch_action
from synth.ops import Op, OpKind, RankOrders
from synth.problem import Problem
from synth.schedule import Schedule
from synth.timing import schedule_orders

TARGET = "torch-csv"


def to_torch_csv(schedule: Schedule) -> str:
    """The compute-only CSV of a schedule: a row per rank, its actions in order.

    The times of the schedule are left out: PyTorch starts every action as soon as its inputs are there.

    Raises
    ------
    InputError
        When the problem has directions or slices.
    InvalidOrdersError
        When the schedule does not hold exactly its problem's ops, or its ranks wait for one another.
    BackendError
        When the linter finds fault with the text, which is a bug of ours.
    """
    check_chain(schedule.problem, TARGET)
    schedule_orders(schedule.problem, schedule.orders)
    text = _render(_exported_orders(schedule))
    if faults := lint_torch_csv(text, schedule):
        raise BackendError(f"the exported CSV is wrong: {faults[0]}")
    return text


def lint_torch_csv(text: str, schedule: Schedule) -> tuple[str, ...]:
    """Everything in which a CSV is not, to the letter, the export of a schedule that holds its problem's ops.

    Stricter than reading: no blank cells, no spaces, no compound actions, the last stage's forwards in
    increasing order of microbatch, every rank's actions in the schedule's order (microbatches renamed).

    Returns
    -------
    A sentence per fault, with its row and column; none for a faultless file.
    """
    problem = schedule.problem
    cells = read_cells(text)
    faults = find_faults(cells, problem)
    faults += [f"row {row}, column {column} is blank: write no idle cells" for row, column in cells.blank]
    if not faults:
        orders = orders_of(cells.placed, problem.num_ranks)
        faults += _differences(orders, schedule)
        if not faults and text != _render(orders):
            faults.append(
                "the file is not laid out plainly: write single actions between commas, without spaces or "
                "quotes, and end every row with a line feed"
            )
    return tuple(faults)


def from_torch_csv(text: str, problem: Problem, source: str = "") -> RankOrders:
    """Read the orders of a compute-only CSV.

    Blank cells are idle, and a compound ``OVERLAP_F_B`` is its parts one after the other, as PyTorch runs it.
    Orders that deadlock are refused only where they are given times, by :func:`schedule_from_torch_csv`.

    Parameters
    ----------
    text
        The CSV.
    problem
        Whose orders they are. Where it leaves its placement open (``auto``), any will do.
    source
        Where the text came from, for messages.

    Raises
    ------
    InputError
        Naming row and column of the first fault, and how many more there are, or when the problem has
        directions or slices.
    """
    check_chain(problem, TARGET)
    return orders_in(read_cells(text), problem, source)


def schedule_from_torch_csv(text: str, problem: Problem, source: str = "") -> Schedule:
    """Read the orders of a compute-only CSV and give them their earliest times on a problem's costs.

    Where the problem's placement is ``auto``, every stage is on the rank whose row runs it.

    Raises
    ------
    InputError
        As :func:`from_torch_csv`.
    DeadlockError
        When the ranks wait for one another, in PyTorch's letters.
    """
    orders = from_torch_csv(text, problem, source)
    try:
        return schedule_orders(placed_as_run(problem, orders), orders)
    except DeadlockError as error:
        raise DeadlockError([_in_torch_letters(waiting) for waiting in error.waiting]) from None


def rename_microbatches(orders: RankOrders, last_stage: int) -> RankOrders:
    """The same orders, microbatches numbered as the last stage runs their forwards."""
    forwards = [op for order in orders for op in order if op.kind is OpKind.F and op.stage == last_stage]
    name = {op.microbatch: number for number, op in enumerate(forwards)}
    return tuple(tuple(op._replace(microbatch=name[op.microbatch]) for op in order) for order in orders)


def _in_torch_letters(waiting: WaitingRank) -> WaitingRank:
    def name(op: str) -> str:
        return torch_action(Op.parse(op))

    return WaitingRank(waiting.rank, name(waiting.next_op), tuple(map(name, waiting.waits_for)))


def _exported_orders(schedule: Schedule) -> RankOrders:
    return rename_microbatches(schedule.orders, schedule.problem.num_stages - 1)


def _render(orders: RankOrders) -> str:
    return "".join(",".join(map(torch_action, order)) + "\n" for order in orders)


def _differences(orders: RankOrders, schedule: Schedule) -> list[str]:
    """Where orders leave those of the schedule: the first cell of every row that does."""
    last = schedule.problem.num_stages - 1
    if rename_microbatches(orders, last) != orders:
        return [f"stage {last} runs its forwards out of order: number microbatches as it runs their forwards"]
    faults = []
    for row, (found, due) in enumerate(zip(orders, _exported_orders(schedule), strict=True), start=1):
        for column, (one, other) in enumerate(zip_longest(found, due), start=1):
            if one != other:
                given = "missing" if one is None else torch_action(one)
                instead = "nothing" if other is None else torch_action(other)
                faults.append(f"row {row}, column {column} is {given}: the schedule runs {instead} there")
                break
    return faults
