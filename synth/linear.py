"""Linear programmes with integer data, bounded from below in exact arithmetic."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf

import highspy
import numpy as np
from numpy.typing import ArrayLike, NDArray

from synth.polling import call_and_watch

Ints = NDArray[np.int64]

PRICE_BITS = 40
"""Prices are rounded to so many binary places before they are multiplied out."""


METHODS = ("ipm", "pdlp")
"""Interior points are the fastest by far on counters, and now and then fail; first-order steps never do."""

UNSOLVED = (highspy.HighsModelStatus.kSolveError, highspy.HighsModelStatus.kNotset)
"""The answers of HiGHS that come without prices."""


class LinearProgram:
    """Minimise the first column over columns from 0 to their uppers, with every row at least its constant.

    Parameters
    ----------
    unit
        What the first column is roughly a multiple of; the solver sees it divided by this.
    """

    def __init__(self, unit: int) -> None:
        self._unit = unit
        self._uppers: list[Ints] = [np.zeros(1, dtype=np.int64)]  # the first column's is not used: it is free
        self._at_least: list[Ints] = []
        self._terms: list[tuple[Ints, Ints, Ints]] = []
        self.num_columns, self.num_rows = 1, 0

    def add_columns(self, uppers: ArrayLike) -> Ints:
        """Add columns, one for each upper bound, and return their numbers in the same shape."""
        shaped = np.asarray(uppers, dtype=np.int64)
        self._uppers.append(shaped.ravel())
        self.num_columns += shaped.size
        return np.arange(self.num_columns - shaped.size, self.num_columns).reshape(shaped.shape)

    def add_rows(self, at_least: ArrayLike) -> Ints:
        """Add rows, one for each constant, and return their numbers."""
        constants = np.asarray(at_least, dtype=np.int64)
        self._at_least.append(constants)
        self.num_rows += len(constants)
        return np.arange(self.num_rows - len(constants), self.num_rows)

    def add_terms(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        """Add values times columns to rows; the three are broadcast against each other."""
        in_rows, of_columns, by = (
            np.asarray(part, dtype=np.int64).ravel() for part in np.broadcast_arrays(rows, columns, values)
        )
        self._terms.append((in_rows, of_columns, by))

    def lower_bound(self, time_limit_s: float, on_wait: Callable[[], None] = lambda: None) -> int:
        """What no solution can be below: exact, however well the solver did.

        Any prices y ≥ 0 of the rows bound the first column x₀: for every solution x₀ ≥ Σ y·constant + the
        least of (cost - Σ y·row)·x over all columns from 0 to their uppers (weak duality).

        Parameters
        ----------
        time_limit_s
            For the solver; what it has by then is used.
        on_wait
            Called about ten times a second; what it raises stops the solver.
        """
        rows, columns, values = self._merged()
        constants, uppers = np.concatenate(self._at_least), np.concatenate(self._uppers)
        largest = np.ones(self.num_rows)
        np.maximum.at(largest, rows, np.where(columns > 0, np.abs(values), 1).astype(np.float64))
        scaled = values / largest[rows]
        scaled[columns == 0] *= self._unit
        stoppable = _Stoppable()
        prices = call_and_watch(
            lambda: _prices(rows, columns, scaled, constants / largest, uppers, time_limit_s, stoppable),
            on_wait,
            stoppable.stop,
        )
        exact = np.array(
            [int(price) for price in np.maximum(prices, 0) * (self._unit / largest) * 2.0**PRICE_BITS],
            dtype=object,
        )
        return self._priced(rows, columns, values.astype(object), constants, uppers, exact)

    def _merged(self) -> tuple[Ints, Ints, Ints]:
        """All terms by row and column, those of the same place added."""
        rows, columns, values = (np.concatenate(part) for part in zip(*self._terms, strict=True))
        places, which = np.unique(rows * self.num_columns + columns, return_inverse=True)
        sums = np.zeros(len(places), dtype=np.int64)
        np.add.at(sums, which, values)
        kept = sums != 0
        return places[kept] // self.num_columns, places[kept] % self.num_columns, sums[kept]

    def _priced(
        self,
        rows: Ints,
        columns: Ints,
        values: NDArray[np.object_],
        constants: Ints,
        uppers: Ints,
        prices: NDArray[np.object_],
    ) -> int:
        """The bound that integer prices prove, in units of 2**-PRICE_BITS, rounded up to an integer."""
        one = 1 << PRICE_BITS
        on_first = columns == 0
        charged = int(sum(values[on_first] * prices[rows[on_first]]))
        if charged > one:  # the first column is free, so its price must not exceed its cost
            prices = prices * one // charged
        reduced = np.zeros(self.num_columns, dtype=object)
        np.subtract.at(reduced, columns, values * prices[rows])
        lost = sum(int(cost) * int(upper) for cost, upper in zip(reduced, uppers, strict=True) if cost < 0)
        return max(0, -(-(int(prices @ constants.astype(object)) + lost) // one))


class _Stoppable:
    """Runs solvers one after the other until it is told from another thread to stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._solver: highspy.Highs | None = None
        self._is_stopped = False

    def run(self, solver: highspy.Highs) -> bool:
        """Run a solver; False where it was not to run any more."""
        solver.HandleUserInterrupt = True
        with self._lock:
            if self._is_stopped:
                return False
            self._solver = solver
        solver.run()
        return not self._is_stopped

    def stop(self) -> None:
        """End the solver that runs, and run none from now on."""
        with self._lock:
            self._is_stopped = True
            if self._solver is not None:
                self._solver.cancelSolve()


def _prices(
    rows: Ints,
    columns: Ints,
    values: NDArray[np.float64],
    at_least: NDArray[np.float64],
    uppers: Ints,
    time_limit_s: float,
    stoppable: _Stoppable,
) -> NDArray[np.float64]:
    """The rows' dual values at a solver's answer: zeros where none has one in time."""
    programme = highspy.HighsLp()
    programme.num_col_, programme.num_row_ = len(uppers), len(at_least)
    programme.col_cost_ = np.eye(1, len(uppers))[0]
    programme.col_lower_ = np.zeros(len(uppers))
    programme.col_upper_ = np.concatenate([[inf], uppers[1:].astype(np.float64)])
    programme.row_lower_ = at_least
    programme.row_upper_ = np.full(len(at_least), inf)
    programme.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    programme.a_matrix_.start_ = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(at_least)))])
    programme.a_matrix_.index_, programme.a_matrix_.value_ = columns, values
    deadline = time.monotonic() + time_limit_s
    for method in METHODS:
        solver = highspy.Highs()
        left = deadline - time.monotonic()
        # Without crossover to a vertex, duals that presolve took apart come back together wrong.
        options = {"solver": method, "run_crossover": "on", "threads": 1, "time_limit": max(0.01, left)}
        for name, value in {"output_flag": False, **options}.items():
            solver.setOptionValue(name, value)
        solver.passModel(programme)
        if not stoppable.run(solver):
            break
        prices = np.array(solver.getSolution().row_dual, dtype=np.float64)
        solved = solver.getModelStatus() not in UNSOLVED
        if solved and len(prices) == len(at_least) and np.isfinite(prices).all():
            return prices
    return np.zeros(len(at_least))
