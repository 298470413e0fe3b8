"""What is run: the model, the schedules, and how often."""

from __future__ import annotations

from synth import PlacementKind

RANKS, MICROBATCHES = 2, 8
HIDDEN, HEADS, LAYERS, VOCABULARY = 256, 8, 4, 512
ROWS, POSITIONS = 2, 128
WARM_UP, PAIRS = 2, 60
"""Turns in which every runtime takes one step; the first are not counted."""
PROFILE_STEPS = 9
"""Of them the one of median length is the profile."""

PLACEMENTS = {1: PlacementKind.LOOP, 2: PlacementKind.V}
"""By chunks per rank; each has a profile round of its own."""
SCHEDULES = (("1f1b", 1), ("zb-h1", 1), ("v-half", 2), ("synthesized", 1), ("synthesized-v", 2))
"""Name, and chunks per rank."""

SEARCH_SECONDS, SEED = 8.0, 0
LARGEST_DIFFERENCE = 1e-5
"""Of a gradient from that of PyTorch's runtime, relative to the largest number in it."""

LOOP_MODELS: dict[str, tuple[str, ...]] = {
    "as in the README": (),
    "of this study": tuple(
        f"--hidden {HIDDEN} --heads {HEADS} --layers {LAYERS} --vocabulary {VOCABULARY} "
        f"--microbatch-size {ROWS} --positions {POSITIONS}".split()
    ),
}
LOOP_FIRST = ("1f1b", "zb-h1")
"""What runs first: 1F1B does not measure B and W, nor ZB-H1 BW; of those the first plan has estimates."""
LOOP_PLANS, LOOP_ROUNDS = 2, 3
