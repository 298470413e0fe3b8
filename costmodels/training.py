"""How a model is trained: microbatches, precision, recomputation and how a stage is spread over GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from costmodels.model_shape import Experts, ModelShape
from synth.errors import InputError


class AttentionKernel(StrEnum):
    """How attention is computed."""

    FLASH = "flash"
    """Fused, skipping what causality masks; keeps a number per row, not the scores (arXiv 2205.14135)."""
    CORE = "core"
    """Two matrix products with a softmax between them, over the whole square; keeps the scores."""


class Recompute(StrEnum):
    """What the backward computes again instead of keeping it (arXiv 2205.05198, section 5)."""

    NONE = "none"
    SELECTIVE = "selective"
    """The scores of ``core`` attention."""
    FULL = "full"
    """Every block, from its input."""


class Precision(StrEnum):
    """The type of weights and activations."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"

    @property
    def bytes(self) -> int:
        """Bytes of one number."""
        return 4 if self is Precision.FP32 else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One way to train a model.

    Parameters
    ----------
    microbatch_size, sequence_length
        Sequences in a microbatch, tokens in a sequence.
    tensor_parallel
        GPUs that share every layer of a stage; a pipeline rank is so many GPUs.
    sequence_parallel
        Whether they also share the tokens between tensor-parallel regions (arXiv 2205.05198, section 4.2.2).
    expert_parallel
        Groups of GPUs that share the experts of a stage; part of the data-parallel ones.
    data_parallel, zero_stage
        Replicas of the pipeline, and what they share: 0 nothing, 1 the optimizer state, 2 gradients too.
    precision, gradient_bytes
        Of weights and activations; bytes of one accumulated gradient.
    attention, recompute
        The kernel, and what the backward computes again.
    weight_versions
        Versions of the weights alive at once: 2 where they are double-buffered (arXiv 2006.09503).
    gradient_buffers
        Accumulators of the gradients: 2 where the sum of one batch's over the replicas runs beside the
        backwards of the next, which add to another.
    """

    microbatch_size: int
    sequence_length: int
    tensor_parallel: int = 1
    sequence_parallel: bool = False
    expert_parallel: int = 1
    data_parallel: int = 1
    zero_stage: int = 0
    precision: Precision = Precision.BF16
    gradient_bytes: int = 4
    attention: AttentionKernel = AttentionKernel.FLASH
    recompute: Recompute = Recompute.NONE
    weight_versions: int = 1
    gradient_buffers: int = 1

    def __post_init__(self) -> None:
        t, s = self.tensor_parallel, self.sequence_length
        if self.sequence_parallel and s % t:
            raise InputError(
                f"a sequence of {s} tokens is given with sequence parallelism over {t} GPUs, which share it "
                f"evenly: give a multiple of {t}, or leave sequence parallelism out"
            )
        if self.recompute is Recompute.SELECTIVE and self.attention is AttentionKernel.FLASH:
            raise InputError(
                "--recompute selective is given with --attention flash, which keeps no scores to compute "
                "again: leave it out, or give --recompute full"
            )
        if self.zero_stage and self.data_parallel == 1:
            raise InputError(
                f"--zero {self.zero_stage} is given with --dp 1, and one replica has none to share with: "
                "leave it out, or give more replicas"
            )
        if self.gradient_bytes < self.number_bytes:
            raise InputError(
                f"--gradient-bytes {self.gradient_bytes} is given with --dtype {self.precision}, which "
                f"takes {self.number_bytes}: give --gradient-bytes {self.number_bytes}"
            )
        if self.data_parallel % self.expert_parallel:
            raise InputError(
                f"--ep {self.expert_parallel} is given with --dp {self.data_parallel}, over whose replicas "
                f"experts are spread: give a divisor of {self.data_parallel}, or more replicas"
            )

    def __str__(self) -> str:
        words = [
            f"microbatch {self.microbatch_size} of {self.sequence_length} tokens",
            f"{self.precision} with gradients of {self.gradient_bytes} bytes",
            f"{self.attention} attention",
            f"{'no' if self.recompute is Recompute.NONE else self.recompute} recomputation",
            f"tensor parallel {self.tensor_parallel}" + ", sequence parallel" * self.sequence_parallel,
            f"expert parallel {self.expert_parallel}",
            f"data parallel {self.data_parallel}" + (f", ZeRO-{self.zero_stage}" if self.zero_stage else ""),
            *([f"{self.weight_versions} versions of the weights"] if self.weight_versions > 1 else []),
            *([f"{self.gradient_buffers} buffers of gradients"] if self.gradient_buffers > 1 else []),
        ]
        return ", ".join(words)

    @property
    def tokens(self) -> int:
        """Tokens in a microbatch: s·b."""
        return self.microbatch_size * self.sequence_length

    @property
    def outside_tokens(self) -> int:
        """Tokens that one GPU keeps between the tensor-parallel regions."""
        return self.tokens // self.tensor_parallel if self.sequence_parallel else self.tokens

    @property
    def number_bytes(self) -> int:
        """Bytes of one activation or weight."""
        return self.precision.bytes

    @property
    def hidden_bytes_per_width(self) -> int:
        """Bytes that one GPU keeps, between the tensor-parallel regions, of one entry of every token."""
        return self.outside_tokens * self.number_bytes


def check_divides(model: ModelShape, training: Training) -> None:
    """Make sure that the GPUs of a stage can share the model evenly.

    Raises
    ------
    InputError
        Naming the size that the tensor- or expert-parallel degree does not divide.
    """
    s = training.sequence_length
    if 0 < model.learned_positions < s:
        raise InputError(
            f"--seq {s} is given, and {model.name} knows {model.learned_positions} positions: "
            f"give at most {model.learned_positions}"
        )
    has_experts = False
    for block in dict.fromkeys(model.blocks):
        inner = block.feed_forward
        widths = [inner.width] if not isinstance(inner, Experts) else [inner.expert.width]
        _check_tensor_parallel(training.tensor_parallel, block.attention.heads, "attention heads")
        _check_tensor_parallel(training.tensor_parallel, block.attention.kv_heads, "key heads")
        for width in widths:
            _check_tensor_parallel(training.tensor_parallel, width, "entries of the feed-forward width")
        if isinstance(inner, Experts):
            has_experts = True
            if inner.count % training.expert_parallel:
                raise InputError(
                    f"--ep {training.expert_parallel} is given, and {model.name} has {inner.count} experts: "
                    f"give a divisor of {inner.count}"
                )
    if training.expert_parallel > 1 and not has_experts:
        raise InputError(
            f"--ep {training.expert_parallel} is given, and {model.name} has no experts: leave it out"
        )


def _check_tensor_parallel(degree: int, size: int, what: str) -> None:
    if size % degree:
        raise InputError(f"--tp {degree} is given with {size} {what}: give a divisor of {size}")
