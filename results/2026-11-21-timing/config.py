"""What is timed: (ranks, chunks per rank, microbatches), three kinds of op each."""

SIZES = ((4, 2, 16), (8, 2, 64), (16, 2, 128), (32, 2, 256), (64, 2, 1024))
REPEATS = 5
TORCH_LIMIT_SECONDS = 240
"""PyTorch's simulator is stopped after this long and counts as not finished."""
