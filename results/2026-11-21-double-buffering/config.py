"""What is run: models, batches, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.llama import LlamaConfig

LEARNING = {"ranks": 4, "microbatches": 4, "rows": 4, "positions": 16, "steps": 200, "seeds": 2}
"""The loss study: the fewest microbatches that double buffering takes on so many ranks."""
LEARNING_MODEL = LlamaConfig(vocabulary=32, hidden=32, heads=4, layers=4)
LEARNING_RATE = 3e-3


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A throughput study: so many batches in a row, policies taking turns, so often.

    ``forward_s`` is what a stage's forward waits beside computing, its backward twice that.
    """

    name: str
    ranks: int
    microbatches: tuple[int, ...]
    rows: int
    positions: int
    batches: int
    rounds: int
    forward_s: float
    model: LlamaConfig


SPEEDS = (
    Speed(
        name="waiting",
        ranks=4,
        microbatches=(4, 8),
        rows=1,
        positions=8,
        batches=6,
        rounds=5,
        forward_s=0.03,
        model=LlamaConfig(vocabulary=32, hidden=32, heads=4, layers=4),
    ),
    Speed(
        name="computing",
        ranks=2,
        microbatches=(2, 4),
        rows=4,
        positions=64,
        batches=6,
        rounds=5,
        forward_s=0.0,
        model=LlamaConfig(vocabulary=256, hidden=128, heads=4, layers=8),
    ),
)
