"""What is run: models, batches, and how often."""

from __future__ import annotations

from runtime.llama import LlamaConfig

LEARNING = {"ranks": 4, "microbatches": 4, "rows": 4, "positions": 16, "steps": 200, "seeds": 2}
"""The loss study: the fewest microbatches that double buffering takes, so the most late per token."""
LEARNING_MODEL = LlamaConfig(vocabulary=32, hidden=32, heads=4, layers=4)
LEARNING_RATE = 3e-3

SPEED = {"ranks": 2, "rows": 4, "positions": 64, "batches": 6, "rounds": 5}
"""The throughput study: so many batches in a row, policies taking turns, so often."""
SPEED_MICROBATCHES = (2, 4)
SPEED_MODEL = LlamaConfig(vocabulary=256, hidden=128, heads=4, layers=8)
