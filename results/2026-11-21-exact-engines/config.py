"""What is solved: (ranks, microbatches, chunks per rank, memory against 1F1B's, objective), F = B = W = 1."""

SIZES = [(p, m, chunks) for chunks in (1, 2) for m in (4, 8, 12) for p in (2, 3, 4)]
RUNS = [(p, m, chunks, memory, "makespan") for p, m, chunks in SIZES for memory in (1.0, 0.75, 0.5)] + [
    (p, 8, chunks, memory, "rank_span") for chunks in (1, 2) for p in (2, 3, 4) for memory in (1.0, 0.5)
]
ENGINES = ("cp-sat", "milp")
TIME_LIMIT_S = 15.0
SEED = 0
