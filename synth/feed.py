"""How a stage is fed, where the stages of a problem are no plain chain.

Directions and slices are stages of their own: two pipelines that run against each other are two chains, each
for its microbatches; a microbatch cut into sequence slices passes a grid of stages, one per slice::

    two directions, two stages     one direction, two stages, two slices
    0 → 1    microbatches 0, 1     0 → 2    slice 0
    2 → 3    microbatches 2, 3     ↓   ↓
                                   1 → 3    slice 1
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What a stage waits for and what it carries.

    Parameters
    ----------
    inputs
        The stages, of lower numbers, whose F of the same microbatch its F waits for; its backward is what
        theirs wait for. Of an input that does not carry a microbatch it does not wait for that one.
    microbatches
        Which it carries, ascending, at least one.
    model_stage
        The stage of the model that it runs: stages of one model stage hold the same weights.
    slice
        Which sequence slice of its microbatches it computes, from 0.
    """

    inputs: tuple[int, ...]
    microbatches: tuple[int, ...]
    model_stage: int
    slice: int = 0
