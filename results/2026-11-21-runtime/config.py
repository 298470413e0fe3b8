"""What is run: the model, the schedules, and how often."""

from __future__ import annotations

from synth import PlacementKind

RANKS, MICROBATCHES = 2, 8
HIDDEN, HEADS, LAYERS, VOCABULARY = 256, 8, 8, 512
ROWS, POSITIONS = 4, 128
WARM_UP_STEPS, STEPS = 2, 12
ROUNDS = 1
"""Every schedule runs so often, taking turns; more of them are added by raising this and running again."""

SCHEDULES = (
    ("1f1b", 1, PlacementKind.LOOP),
    ("zb-h1", 1, PlacementKind.LOOP),
    ("v-half", 2, PlacementKind.V),
    ("synthesized", 1, PlacementKind.LOOP),
    ("synthesized-v", 2, PlacementKind.V),
)
"""Name, chunks per rank, placement."""

SEARCH_SECONDS, SEED = 10.0, 0
