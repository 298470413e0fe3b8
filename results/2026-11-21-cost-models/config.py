"""What is compared: published figures with their sources, and how the published models were trained."""

from __future__ import annotations

VOCABULARY = 50304
"""GPT-2's 50257 filled up to a multiple of 128, as Megatron-LM does; the papers do not say."""

CALIBRATED_ON = "zb-6.2b-p8-m24"
"""The one profile that sets the one efficiency: memory, from F + B + W together."""

GPU, GPUS_PER_NODE = "a100-80", 8
"""arXiv 2401.10241, section 5.1: up to 32 A100 80 GB on 4 nodes, RoCE between them."""

PEAK_1F1B_GB = {"1.5B": 30, "6.2B": 39, "14.6B": 32, "28.3B": 43}
"""Measured peak memory of 1F1B, arXiv 2401.10241, Table 4: one figure for all numbers of microbatches."""

UNIFORM_MB = {"F_alloc": 3720, "B_free": 2048, "W_free": 1672}
"""The uniform instance in the authors' released auto_schedule.py (8 ranks, 6.2B): looks like megabytes."""

RECOMPUTE_SAVINGS = {
    # arXiv 2205.05198, section 5: 5as/h is 80 and 64, so selective recomputation saves 70 % and 65 %.
    "GPT-3 175B": (12288, 96, 2048, 0.70),
    "MT-NLG 530B": (20480, 128, 2048, 0.65),
}

EXAMPLE = (
    *("--gpu", "h100", "--pp", "8", "--tp", "8", "--microbatch", "1", "--seq", "8192"),
    *("--microbatches", "64", "--chunks", "2"),
)
"""The README's example: Llama-3-70B on 64 H100."""

EXAMPLE_SEARCH = ("--time-limit", "30", "--seed", "0", "--workers", "2")

PARAMETERS = {
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v3": 671_026_419_200,
    "gpt-neox-20b": 20_554_567_680,
    "gpt2": 124_439_808,
    "llama-3-70b": 70_553_706_496,
    "llama-3-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2-7b": 7_615_616_512,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-8b": 8_190_735_360,
}
"""What the published checkpoints hold (their model cards or weight files)."""
