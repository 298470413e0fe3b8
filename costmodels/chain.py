"""The layers of a model as a cut into stages sees them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The layers to cut.

    Parameters
    ----------
    costs
        Time of each layer, any unit.
    static_bytes, kept_bytes
        What each holds throughout, and what its forward leaves behind for the backward of one microbatch.
    extra_bytes
        What its backward holds besides, computed again or passing, until it is through the layer.
    may_cut_before
        Whether a cut may fall before each layer; the first does not matter.
    blocks
        Which layers count for :attr:`CutRules.first_blocks` and ``last_blocks``.
    """

    costs: tuple[int, ...]
    static_bytes: tuple[int, ...]
    kept_bytes: tuple[int, ...]
    extra_bytes: tuple[int, ...]
    may_cut_before: tuple[bool, ...]
    blocks: tuple[bool, ...]

    def backward_peak_bytes(self, first: int, last: int) -> int:
        """The most that one microbatch's activations take in a stage of layers ``first`` to ``last - 1``.

        The backward walks from the last layer to the first: what later layers kept is gone when it computes
        a layer again.
        """
        kept = highest = 0
        for layer in range(first, last):
            kept += self.kept_bytes[layer]
            highest = max(highest, kept + self.extra_bytes[layer])
        return highest
