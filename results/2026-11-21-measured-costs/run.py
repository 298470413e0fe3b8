"""Set measured costs of small transformers beside the analytic ones: times, bytes, both divisions.

Writes ``times-DEVICE.csv``, ``bytes-DEVICE.csv`` and ``machine-DEVICE.json``, and prints them.

    python results/2026-11-21-measured-costs/run.py
    python results/2026-11-21-measured-costs/run.py --device cuda --gpu h100
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path

import pandas as pd
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from config import CUT, Setting, setting  # noqa: E402

from costmodels.described import Style, describe_model  # noqa: E402
from costmodels.hardware import Gpu, find_gpu, find_link  # noqa: E402
from costmodels.layers import Layer, model_layers  # noqa: E402
from costmodels.measured.profiles import Profile, Split  # noqa: E402
from costmodels.measured.profiling import Cutting, RealBench, ShapesBench, profile_model  # noqa: E402
from costmodels.measured.timing import Repetitions  # noqa: E402
from costmodels.optimizer_state import static_bytes  # noqa: E402
from costmodels.roofline import Efficiencies, Machine  # noqa: E402
from costmodels.stages import stage_passes  # noqa: E402
from costmodels.training import Precision, Training  # noqa: E402
from synth.ops import OpKind  # noqa: E402

F, B, W, BW = OpKind
PRECISIONS = {torch.float32: Precision.FP32, torch.bfloat16: Precision.BF16}
CUTTING = Cutting(stage_to_rank=(0, 1, 2, 3), counts=CUT)
FLOAT, INDEX = 4, 8
"""Bytes of what statistics and tokens are kept in."""
FITTED_ON = 1
"""The stage, a single block, whose F + B + W sets the one efficiency."""


def analytic_stages(style: Style, s: Setting) -> tuple[list[tuple[Layer, ...]], Training]:
    """The same model and the same cut in the analytic cost model."""
    training = Training(
        microbatch_size=s.rows,
        sequence_length=s.positions,
        precision=PRECISIONS[s.dtype],
        gradient_bytes=s.dtype.itemsize,
    )
    width = s.width if style is Style.LLAMA else None
    model = describe_model(
        style,
        layers=s.blocks,
        hidden=s.hidden,
        heads=s.heads,
        vocabulary=s.vocabulary,
        positions=s.positions,
        width=width,
    )
    model = replace(model, hidden_dropout=False, attention_dropout=False)
    layers = model_layers(model, training)
    counts = (*CUT[:-1], CUT[-1] + 1)  # the loss is a layer of its own there
    return [layers[a:b] for a, b in pairwise(accumulate(counts, initial=0))], training


def best_of(work, repeats: int) -> float:
    """Seconds of the median run, behind one that does not count."""
    taken = []
    for _ in range(repeats + 1):
        before = time.perf_counter()
        work()
        taken.append(time.perf_counter() - before)
    return statistics.median(taken[1:])


def this_cpu(threads: int) -> Gpu:
    """The CPU as a roofline takes it: a large product and a large copy set its peaks."""
    torch.set_num_threads(threads)
    a, large = torch.randn(1024, 1024), torch.zeros(2**26)
    target = torch.empty_like(large)
    link = find_link("pcie4")
    peak = 2 * 1024**3 / best_of(lambda: a @ a, 9)
    speed = 2 * 4 * 2**26 / best_of(lambda: target.copy_(large), 5)
    return Gpu(
        name="this CPU",
        memory_bytes=2**34,
        half_flops_per_s=peak,
        full_flops_per_s=peak,
        memory_bytes_per_s=speed,
        nvlink=link,
        network=link,
        source=f"product of 1024 x 1024: {peak / 1e9:.0f} GFLOP/s, copy of 256 MiB: {speed / 1e9:.1f} GB/s",
    )


def machine_of(gpu: Gpu, training: Training, share: float) -> Machine:
    """A machine whose every resource reaches the same share of its peak."""
    return Machine(
        gpu=gpu,
        precision=training.precision,
        efficiencies=Efficiencies(matmul=share, attention=share, memory=share, link=share),
        tensor_link=gpu.nvlink,
        expert_link=gpu.nvlink,
    )


def times(name: str, profiles: dict[Split, Profile], analytic, training: Training, gpu: Gpu):
    """Rows of measured and analytic times, and the efficiency that one stage sets."""
    whole = machine_of(gpu, training, 1.0)
    block = profiles[Split.DEFERRED].stages[FITTED_ON].times
    measured_s = sum(block[kind].median_s for kind in (F, B, W))
    at_peak = stage_passes(analytic[FITTED_ON], whole)
    share = (at_peak.F.seconds + at_peak.BW.seconds) / measured_s
    rows = []
    for split, profile in profiles.items():
        for number, (stage, layers) in enumerate(zip(profile.stages, analytic, strict=True)):
            passes = stage_passes(layers, whole)
            for kind, spread in stage.times.items():
                predicted_s = getattr(passes, kind.value).seconds / share
                rows.append(
                    {
                        "model": name,
                        "split": split.value,
                        "stage": number,
                        "op": kind.value,
                        "measured_ms": round(1e3 * spread.median_s, 3),
                        "low_quartile_ms": round(1e3 * spread.low_s, 3),
                        "high_quartile_ms": round(1e3 * spread.high_s, 3),
                        "repeats": spread.count,
                        "analytic_ms": round(1e3 * predicted_s, 3),
                        "measured_over_F": round(spread.median_s / stage.times[F].median_s, 3),
                        "analytic_over_F": round(predicted_s * share / passes.F.seconds, 3),
                    }
                )
    return rows, share


def known_differences(name: str, split: Split, stage: int, s: Setting) -> dict[str, int]:
    """Bytes that torch's layers hold beside the analytic model's, each by its reason, on a CPU."""
    token, number = s.rows * s.positions, s.dtype.itemsize
    is_gpt, is_first, is_last = name == "gpt", stage == 0, stage == len(CUT) - 1
    hidden, norms = token * s.hidden * number, 3 if is_last else 2
    inner = token * s.width * number
    row_number = norms * token * FLOAT
    if is_gpt:
        f = 2 * row_number  # mean and deviation of every row, for each norm
        f += is_first * s.positions * INDEX  # which position is which
        outputs = 9 * hidden
    else:
        f = norms * hidden + row_number  # norms keep what they scale, and one number for every row
        f += 3 * hidden + 4 * s.positions * (s.hidden // s.heads // 2) * number  # rotated copies, and tables
        f += inner  # the gate behind its non-linearity, not fused with the product
        outputs = 5 * hidden + 2 * inner
    differences = {"held after F": f + is_last * FLOAT}  # how many targets count
    differences["saved by F"] = f + is_last * (
        FLOAT + token * INDEX
    )  # and the targets, which were there before
    if split is Split.DEFERRED:
        b = 2 * norms * hidden  # norms wait too: for what they scale, and the gradient of their output
        b += 0 if is_first else hidden  # the runtime keeps the gradient of the stage's input until W
        if is_gpt:
            b += 2 * row_number + is_first * s.positions * (INDEX + s.hidden * number)
        else:
            b += 0 if is_first else hidden  # and the input, which no layer needs any more
    else:
        # Nothing is freed, and what arrives at linear layers and norms comes on top; first stages wait whole.
        b = differences["held after F"] + kept_until_b(name, stage, s)
        b += hidden if is_first else outputs + norms * hidden
        b += is_last * (token * s.vocabulary * number + FLOAT)  # of the logits, and of the loss
    return {**differences, "held after B": b}


def kept_until_b(name: str, stage: int, s: Setting) -> int:
    """What the analytic model has after F, less what it has after B."""
    layers = analytic_stages(Style(name), s)[0][stage]
    return sum(layer.kept_bytes - layer.held_for_w_bytes for layer in layers)


def byte_rows(name: str, profiles: dict[str, Profile], analytic, training: Training):
    """Rows of measured, shape-only and analytic bytes."""
    rows = []
    for (split, how), profile in profiles.items():
        for number, (stage, layers) in enumerate(zip(profile.stages, analytic, strict=True)):
            memory = stage.memory
            static = sum(static_bytes(layer, training).total for layer in layers)
            figures = {
                "static": (memory.static.total, static),
                "saved by F": (memory.saved_after_f, sum(layer.kept_bytes for layer in layers)),
                "held after F": (memory.held_after_f, sum(layer.kept_bytes for layer in layers)),
            }
            if split is not Split.NONE:
                figures["held after B"] = memory.held_after_b, sum(layer.held_for_w_bytes for layer in layers)
            figures["workspace"] = memory.highest_workspace, None
            known = known_differences(name, split, number, setting())
            for what, (found, predicted) in figures.items():
                rows.append(
                    {
                        "model": name,
                        "split": split.value,
                        "by": how,
                        "stage": number,
                        "what": what,
                        "measured_bytes": found,
                        "analytic_bytes": predicted,
                        "ratio": None if not predicted else round(found / predicted, 4),
                        "unexplained_bytes": None
                        if predicted is None
                        else found - predicted - known.get(what, 0),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--gpu", help="of the catalogue, with --device cuda")
    options = parser.parse_args()
    os.environ["MEASURED_COSTS_DEVICE"] = options.device
    s = setting()
    gpu = find_gpu(options.gpu) if options.device == "cuda" else this_cpu(s.threads or 1)
    real = RealBench(
        torch.device(options.device), Repetitions(warm_up=s.warm_up, repeats=s.repeats), s.threads
    )
    time_rows, bytes_rows, shares = [], [], {}
    for style in Style:
        analytic, training = analytic_stages(style, s)
        found = dict(zip(Split, profile_model(f"models:{style}", CUTTING, list(Split), real), strict=True))
        shapes = profile_model(f"models:{style}", CUTTING, list(Split), ShapesBench(gpu))
        by = {(split, "allocator"): profile for split, profile in found.items()}
        by |= {(split, "shapes alone"): profile for split, profile in zip(Split, shapes, strict=True)}
        rows, shares[style.value] = times(style.value, found, analytic, training, gpu)
        time_rows += rows
        bytes_rows += byte_rows(style.value, by, analytic, training)
    tables = {"times": pd.DataFrame(time_rows), "bytes": pd.DataFrame(bytes_rows)}
    for name, table in tables.items():
        table.to_csv(HERE / f"{name}-{options.device}.csv", index=False)
        print(table.to_string(index=False))
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": platform.machine(),
        "device": real.how()[0],
        "peaks": gpu.source,
        "setting": {key: str(value) for key, value in vars(s).items()},
        "efficiency_fitted_on_one_block": {name: round(share, 4) for name, share in shares.items()},
    }
    (HERE / f"machine-{options.device}.json").write_text(json.dumps(about, indent=2) + "\n")
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
