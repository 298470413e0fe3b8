"""Where microbatches are cut into sequence slices."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from runtime.shapes import TensorSpec
from synth.errors import InputError


class Cuts:
    """Where the sequence is cut.

    Parameters
    ----------
    num_slices
        Into how many slices; with one nothing is cut.
    microbatch
        What a microbatch is like; its second dimension is cut.
    positions
        How many each slice has; by default as equal as can be, the earlier ones one more.

    Raises
    ------
    InputError
        When there are no such positions.
    """

    def __init__(self, num_slices: int, microbatch: TensorSpec, positions: Sequence[int] | None) -> None:
        self._lengths: list[int] = []
        if num_slices == 1:
            if positions is not None:
                raise InputError(
                    f"slices of {_listed(positions)} positions are given for a schedule without slices: "
                    "leave them out, or take a schedule with slices"
                )
            return
        total = microbatch.shape[1] if len(microbatch.shape) > 1 else 0
        share, more = divmod(total, num_slices)
        equal = [share + (number < more) for number in range(num_slices)]
        self._lengths = equal if positions is None else list(positions)
        if len(self._lengths) != num_slices or sum(self._lengths) != total or min(self._lengths) < 1:
            given = f"slices of {_listed(self._lengths)} positions"
            raise InputError(
                f"a microbatch, {microbatch}, cannot be cut into {given}: its second dimension is cut, "
                f"for the {num_slices} slices of the schedule: give {num_slices} numbers ≥ 1 that sum up to "
                f"{total}"
            )

    @property
    def num_positions(self) -> int | None:
        """How many positions a microbatch has, None where nothing is cut."""
        return sum(self._lengths) if self._lengths else None

    def part(self, whole: Tensor, number: int) -> Tensor:
        """One slice of a microbatch."""
        return whole.split(self._lengths, dim=1)[number] if self._lengths else whole

    def spec(self, whole: TensorSpec, number: int) -> TensorSpec:
        """What a slice of a microbatch is like."""
        if not self._lengths:
            return whole
        return TensorSpec((whole.shape[0], self._lengths[number], *whole.shape[2:]), whole.dtype)

    def share(self, number: int) -> float:
        """Which part of a microbatch's positions, and so of its mean loss, a slice is."""
        return self._lengths[number] / sum(self._lengths) if self._lengths else 1.0


def _listed(positions: Sequence[int]) -> str:
    return ", ".join(map(str, positions))
