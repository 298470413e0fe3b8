"""What is run: (instance, memory limit, chunks, seconds), under rank_span, two workers, seed 0."""

ROWS = [
    f"zb-{model}-m{microbatches}"
    for model, counts in (
        ("1.5b", (24, 32, 64)),
        ("6.2b", (24, 32, 64)),
        ("14.6b", (48, 64, 128)),
        ("28.3b", (96, 128, 256)),
    )
    for microbatches in counts
]
RUNS = (
    [(name, "1x", 1, 60.0) for name in ROWS]
    + [(name, "2x", 1, 40.0) for name in ROWS]
    + [("zb-1.5b-m24", limit, 2, 40.0) for limit in ("0.5x", "0.625x", "0.75x", "0.875x", "1x")]
)
WORKERS, SEED = 2, 0

PUBLISHED = {
    "1x": (0.1585, 0.1242, 0.0674, 0.1323, 0.1045, 0.0554, 0.1397, 0.1088, 0.0576, 0.1421, 0.1106, 0.0594),
    "2x": (0.0433, 0.0039, 0.0026, 0.0029, 0.0022, 0.0010, 0.0066, 0.0054, 0.0028, 0.0038, 0.0029, 0.0018),
}
"""ZB-1p and ZB-2p in the zero-bubble paper's Table 5 (arXiv 2401.10241), in the order of ``ROWS``."""
