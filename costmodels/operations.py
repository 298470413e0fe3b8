"""What a layer is made of: operations with their work and what they keep for the backward.

Symbols of arXiv 2205.05198: s sequence length, b microbatch size, h hidden size, a heads, t tensor-parallel
degree. Everything here is one GPU's share.
"""

from __future__ import annotations

from dataclasses import dataclass

from costmodels.training import Training

MASK_BYTES = 1
"""Bytes of one entry of a dropout mask."""
FULL_PRECISION_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one pass of an operation does on one GPU.

    Parameters
    ----------
    matmul_flops, attention_flops
        Floating-point operations of matrix products, of a fused attention kernel.
    moved_bytes
        Read from and written to the GPU's memory.
    tensor_bytes, expert_bytes
        Sent by each GPU to its tensor-parallel, expert-parallel peers.
    """

    matmul_flops: int = 0
    attention_flops: int = 0
    moved_bytes: int = 0
    tensor_bytes: int = 0
    expert_bytes: int = 0

    @property
    def flops(self) -> int:
        """All floating-point operations."""
        return self.matmul_flops + self.attention_flops


NOTHING = Work()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a layer: its three passes and what it keeps between them.

    Parameters
    ----------
    name
        For people.
    forward, input_gradient, weight_gradient
        The work of its part of F, B and W.
    parameters, expert_parameters
        Weights on this GPU: those that every data-parallel replica has, and those of experts.
    kept_until_b_bytes
        Kept from F for the input gradient alone.
    kept_until_w_bytes
        Kept from F for the weight gradient: the input of a linear layer.
    gradient_bytes
        Kept from B for the weight gradient: the gradient of a linear layer's output.
    is_score
        Whether selective recomputation computes it again instead of keeping anything of it.
    transient_bytes
        Held only while it runs, in F and in B, beside what is kept.
    """

    name: str
    forward: Work
    input_gradient: Work
    weight_gradient: Work = NOTHING
    parameters: int = 0
    expert_parameters: int = 0
    kept_until_b_bytes: int = 0
    kept_until_w_bytes: int = 0
    gradient_bytes: int = 0
    is_score: bool = False
    transient_bytes: int = 0


def linear(
    name: str,
    training: Training,
    inputs: int,
    outputs: int,
    *,
    tokens: int | None = None,
    stored_input_bytes: int | None = None,
    stored_gradient_bytes: int | None = None,
    parameters: int | None = None,
    experts: int = 0,
) -> Operation:
    """A linear layer: three matrix products of 2·tokens·inputs·outputs operations, one for each of F, B, W.

    W needs the input and the gradient of the output: that is what stays between B and W, 32sbh for the four
    linear layers of a GPT block (arXiv 2401.10241, Table 1).

    Parameters
    ----------
    name, training
        For people; how many tokens, of what type.
    inputs, outputs
        Widths on this GPU.
    tokens
        Rows of the product, those of a microbatch by default.
    stored_input_bytes, stored_gradient_bytes
        What this GPU keeps of the input and of the output's gradient, by default all of both. Sequence
        parallelism keeps a share and gathers the rest again (arXiv 2205.05198, section 4.2.2), beside other
        work: that gather takes no time here.
    parameters
        Weights on this GPU, by default one matrix.
    experts
        How many matrices share the tokens, where they are those of experts.
    """
    rows = training.tokens if tokens is None else tokens
    number = training.number_bytes
    matrices = inputs * outputs * max(1, experts)
    held = matrices if parameters is None else parameters
    read, written = rows * inputs * number, rows * outputs * number
    product = Work(matmul_flops=2 * rows * inputs * outputs, moved_bytes=read + written + matrices * number)
    accumulated = 2 * matrices * training.gradient_bytes
    return Operation(
        name=name,
        forward=product,
        input_gradient=product,
        weight_gradient=Work(matmul_flops=product.matmul_flops, moved_bytes=read + written + accumulated),
        parameters=0 if experts else held,
        expert_parameters=held if experts else 0,
        kept_until_w_bytes=read if stored_input_bytes is None else stored_input_bytes,
        gradient_bytes=written if stored_gradient_bytes is None else stored_gradient_bytes,
    )


def pointwise(
    name: str,
    forward_bytes: int,
    backward_bytes: int,
    *,
    kept_bytes: int = 0,
    parameters: int = 0,
    is_score: bool = False,
    transient_bytes: int = 0,
) -> Operation:
    """An operation that does little with every number it moves: its time is that of memory.

    Its weights, where it has any, get their gradients in B: they are few.
    """
    return Operation(
        name=name,
        forward=Work(moved_bytes=forward_bytes),
        input_gradient=Work(moved_bytes=backward_bytes),
        parameters=parameters,
        kept_until_b_bytes=kept_bytes,
        is_score=is_score,
        transient_bytes=transient_bytes,
    )


def norm(
    name: str, training: Training, width: int, parameters: int, *, tokens: int | None = None
) -> Operation:
    """A layer or RMS norm: keeps its input, 2sbh (arXiv 2205.05198, section 4.1)."""
    rows = training.outside_tokens if tokens is None else tokens
    size = rows * width * training.number_bytes
    return pointwise(name, 2 * size, 3 * size, kept_bytes=size, parameters=parameters)


def residual(name: str, training: Training, hidden: int, *, dropout: bool) -> Operation:
    """The sum with the residual stream, behind dropout where there is any: its mask is kept, sbh.

    B adds the gradient of the branch to that of the stream.
    """
    size = training.hidden_bytes_per_width * hidden
    mask = training.outside_tokens * hidden * MASK_BYTES if dropout else 0
    return pointwise(name, 3 * size + mask, 3 * size + mask, kept_bytes=mask)


def enter_tensor_parallel(training: Training, hidden: int) -> Operation:
    """Before a tensor-parallel region: B sums the input's gradient over its GPUs.

    With sequence parallelism F gathers and B scatters the sum: as many bytes in all, half of them in F.
    """
    whole = _all_reduce_bytes(training, hidden)
    forward = whole // 2 if training.sequence_parallel else 0
    return Operation(
        name="enter tensor-parallel region",
        forward=Work(tensor_bytes=forward),
        input_gradient=Work(tensor_bytes=whole - forward),
    )


def leave_tensor_parallel(training: Training, hidden: int) -> Operation:
    """Behind a tensor-parallel region: F sums the output over its GPUs; the mirror image of entering."""
    entering = enter_tensor_parallel(training, hidden)
    return Operation(
        name="leave tensor-parallel region",
        forward=entering.input_gradient,
        input_gradient=entering.forward,
    )


def _all_reduce_bytes(training: Training, width: int) -> int:
    """What a ring all-reduce of every token's entries has each GPU send: 2·(t-1)/t of them."""
    t = training.tensor_parallel
    return 2 * (t - 1) * training.tokens * width * training.number_bytes // t
