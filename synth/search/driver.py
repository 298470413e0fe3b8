"""The search for one placement: starts of every kind, a bound, and annealing while there is time."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from synth.memory import serial_orders
from synth.problem import Problem
from synth.search.constructing import construct, constructions, tune
from synth.search.improving import anneal, deepen, deepen_further, offer_blocks
from synth.search.solving import climb_milp, count, prove, settle, solve_whole
from synth.search.standing import SearchOver, Standing


class Solver(StrEnum):
    """What improves the constructed schedules (FORMATS.md, ``--solver``)."""

    CPSAT = "cpsat"
    """CP-SAT and annealing."""
    MILP = "milp"
    """The counter formulation through PuLP and HiGHS."""


STEPS: dict[Solver, tuple[Callable[[Standing], None], ...]] = {
    Solver.CPSAT: (
        tune,
        prove,
        solve_whole,
        anneal,
        offer_blocks,
        deepen,
        count,
        settle,
        deepen_further,
    ),
    Solver.MILP: (climb_milp,),
}
"""What follows once all that is built from nothing has been offered."""

FLOW_STEPS = (tune, solve_whole, anneal)
"""What of it a flow takes that is no plain chain: the rest counts on stages that feed one another in turn."""


class Search(Standing):
    """The search for one placement: takes its steps until time or ideas run out.

    Parameters
    ----------
    problem, deadline, workers, seed, report
        As of :class:`Standing`.
    solver
        What improves the constructed schedules.
    """

    def __init__(
        self,
        problem: Problem,
        deadline: float,
        workers: int,
        seed: int,
        report: Callable[[str, int | None, int], None],
        solver: Solver = Solver.CPSAT,
    ) -> None:
        super().__init__(problem, deadline, workers, seed, report)
        self.solver = solver
        self._to_build = constructions(problem)
        self._left = list(STEPS[solver] if problem.is_chain else FLOW_STEPS)

    @property
    def is_built(self) -> bool:
        """Whether all that is built from nothing has been."""
        return not self._to_build

    @property
    def is_over(self) -> bool:
        """Whether no step is left to take."""
        return self.is_built and not self._left

    def look(self, deadline: float) -> None:
        """Offer only what is built from nothing, one schedule at least, until a deadline, if any fits.

        :meth:`run` goes on from there.
        """
        self.begun, self.deadline = time.monotonic(), deadline
        self._carry_out(self._construct)

    def run(self, deadline: float | None = None, rival: int | None = None) -> None:
        """Search until the bound is met, time is up, the rounds are over, or an interrupt comes.

        May be called again, and goes on with what was left. There may be no schedule in the end.

        Parameters
        ----------
        deadline
            When to end, instead of the deadline given before.
        rival
            The best value of another placement: a bound that meets it ends the search too, and so does time
            that is up before there is a schedule.
        """
        if deadline is not None:
            self.begun, self.deadline = time.monotonic(), deadline
        self.rival = rival
        self._carry_out(self._construct, self._step)

    def _construct(self) -> None:
        construct(self, self._to_build)
        self._fall_back()

    def _fall_back(self) -> None:
        """Take one microbatch at a time where nothing else fits."""
        if self.best is None:
            self.offer(serial_orders(self.problem), "one microbatch at a time")

    def _step(self) -> None:
        """Take the steps that are left; one that time or a rival ends will be taken up again."""
        while self._left:
            self._left[0](self)
            self._left.pop(0)

    def _carry_out(self, *parts: Callable[[], None]) -> None:
        try:
            for part in parts:
                part()
        except SearchOver:
            pass
        except KeyboardInterrupt:
            self.interrupted = True
            self._fall_back()
