"""What is run: the model, the schedules, and how often."""

from __future__ import annotations

from synth import PlacementKind

RANKS, MICROBATCHES = 2, 8
HIDDEN, HEADS, LAYERS, VOCABULARY = 256, 8, 8, 512
ROWS, POSITIONS = 4, 128
WARM_UP_STEPS, STEPS = 3, 25
ROUNDS = 3
"""Every schedule runs so often, taking turns, so that a change of the machine's load meets all of them."""

SCHEDULES = (
    ("1f1b", 1, PlacementKind.LOOP),
    ("zb-h1", 1, PlacementKind.LOOP),
    ("v-half", 2, PlacementKind.V),
    ("synthesized", 1, PlacementKind.LOOP),
    ("synthesized-v", 2, PlacementKind.V),
)
"""Name, chunks per rank, placement."""

SEARCH_SECONDS, SEED = 20.0, 0
