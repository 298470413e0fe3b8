"""A model as the layers that a pipeline cuts: embedding, blocks, last norm, head and loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from costmodels.attention import attention_operations
from costmodels.feed_forward import feed_forward_operations
from costmodels.model_shape import Block, ModelShape
from costmodels.operations import (
    FULL_PRECISION_BYTES,
    MASK_BYTES,
    Operation,
    Work,
    enter_tensor_parallel,
    leave_tensor_parallel,
    linear,
    norm,
    pointwise,
    residual,
)
from costmodels.training import Recompute, Training, check_divides
from synth.ops import OpKind

TOKEN_ID_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A part of the model that is never cut, on one GPU.

    Parameters
    ----------
    name
        For people.
    modules
        The model's modules in it, by their names in Hugging Face; none for the loss.
    operations
        In the order of the forward.
    input_bytes
        What it takes from the layer before: all that full recomputation keeps of a block.
    recompute
        What its backward computes again.
    is_block
        Whether it is one of the model's blocks.
    stays_with_previous
        Whether no cut may fall before it.
    """

    name: str
    modules: tuple[str, ...]
    operations: tuple[Operation, ...]
    input_bytes: int = 0
    recompute: Recompute = Recompute.NONE
    is_block: bool = False
    stays_with_previous: bool = False

    @property
    def parameters(self) -> int:
        """Weights on this GPU but for those of experts."""
        return sum(operation.parameters for operation in self.operations)

    @property
    def expert_parameters(self) -> int:
        """Weights of experts on this GPU."""
        return sum(operation.expert_parameters for operation in self.operations)

    @property
    def kept_bytes(self) -> int:
        """What F leaves behind for the backward."""
        if self.recompute is Recompute.FULL:
            return self.input_bytes
        again = self.recompute is Recompute.SELECTIVE
        return _kept(operation for operation in self.operations if not (again and operation.is_score))

    @property
    def recomputed_bytes(self) -> int:
        """What the backward computes again, and holds beside what was kept until it is through the layer."""
        return _kept(self.operations) - self.kept_bytes

    @property
    def transient_bytes(self) -> int:
        """What it holds only while it runs: its largest gradient, or the scores of ``core`` attention."""
        return max(max(o.gradient_bytes, o.transient_bytes) for o in self.operations)

    @property
    def backward_extra_bytes(self) -> int:
        """What its backward holds, until it is through the layer, beside what was kept.

        What a block holds only while it runs is left to the memory reserve, as in the papers' steps.
        """
        return self.recomputed_bytes + (0 if self.is_block else self.transient_bytes)

    @property
    def held_for_w_bytes(self) -> int:
        """What B leaves behind for W: inputs of linear layers, and the gradients of their outputs."""
        return sum(o.kept_until_w_bytes + o.gradient_bytes for o in self.operations)

    def works(self, kind: OpKind) -> list[Work]:
        """What one pass of every operation does, F, B or W; recomputation is part of B."""
        match kind:
            case OpKind.F:
                return [operation.forward for operation in self.operations]
            case OpKind.B:
                again = [operation.forward for operation in self._recomputed()]
                return again + [operation.input_gradient for operation in self.operations]
            case OpKind.W:
                return [operation.weight_gradient for operation in self.operations]
            case OpKind.BW:
                return self.works(OpKind.B) + self.works(OpKind.W)
            case OpKind.R:
                return []

    def flops(self, kind: OpKind) -> int:
        """Floating-point operations of one pass."""
        return sum(work.flops for work in self.works(kind))

    def _recomputed(self) -> list[Operation]:
        if self.recompute is Recompute.NONE:
            return []
        everything = self.recompute is Recompute.FULL
        return [operation for operation in self.operations if everything or operation.is_score]


def model_layers(model: ModelShape, training: Training) -> tuple[Layer, ...]:
    """The layers of a model in order, as one GPU of each stage has them.

    Raises
    ------
    InputError
        When the GPUs of a stage cannot share the model evenly.
    """
    check_divides(model, training)
    # Blocks of one shape cost the same: deep models have few shapes.
    shapes = {block: _block_operations(block, model, training) for block in dict.fromkeys(model.blocks)}
    blocks = [
        Layer(
            name=f"block {index}",
            modules=(model.modules.block.format(index),),
            operations=shapes[block],
            input_bytes=training.hidden_bytes_per_width * model.hidden,
            recompute=training.recompute,
            is_block=True,
        )
        for index, block in enumerate(model.blocks)
    ]
    return (_embedding(model, training), *blocks, *_last_layers(model, training))


def _kept(operations: Iterable[Operation]) -> int:
    return sum(o.kept_until_b_bytes + o.kept_until_w_bytes for o in operations)


def _block_operations(block: Block, model: ModelShape, training: Training) -> tuple[Operation, ...]:
    """Two halves, each behind a norm: sbh(34 + 5as/h) kept for GPT (arXiv 2205.05198, equation 1)."""
    hidden, gains = model.hidden, model.norm_parameters
    return (
        norm("attention norm", training, hidden, gains),
        *attention_operations(block.attention, hidden, training, dropout=model.attention_dropout),
        residual("attention residual", training, hidden, dropout=model.hidden_dropout),
        norm("feed-forward norm", training, hidden, gains),
        *feed_forward_operations(block.feed_forward, hidden, training),
        residual("feed-forward residual", training, hidden, dropout=model.hidden_dropout),
    )


def _vocabulary_share(model: ModelShape, training: Training) -> int:
    """Rows of the vocabulary on this GPU: it is filled up to a multiple of the tensor-parallel degree."""
    return -(-model.vocabulary // training.tensor_parallel)


def _embedding(model: ModelShape, training: Training) -> Layer:
    """The look-up, whose weight gradient adds rows up; it has no input to give a gradient to."""
    size = training.tokens * model.hidden * training.number_bytes
    added = training.tokens * model.hidden * 2 * training.gradient_bytes
    mask = training.outside_tokens * model.hidden * MASK_BYTES if model.hidden_dropout else 0
    lookup = Operation(
        name="look-up",
        forward=Work(moved_bytes=2 * size),
        input_gradient=Work(),
        weight_gradient=Work(moved_bytes=size + added),
        parameters=(_vocabulary_share(model, training) + model.learned_positions) * model.hidden,
        kept_until_w_bytes=training.tokens * TOKEN_ID_BYTES,
        kept_until_b_bytes=mask,
        gradient_bytes=training.hidden_bytes_per_width * model.hidden,
    )
    return Layer(
        name="embedding",
        modules=model.modules.embeddings,
        operations=(lookup, leave_tensor_parallel(training, model.hidden)),
    )


def _last_layers(model: ModelShape, training: Training) -> tuple[Layer, Layer, Layer]:
    """Norm, head and loss: 2sbh, 2sbh and 4sbv kept (arXiv 2205.05198, section 4.3).

    The loss stays with the head, whose logits would be far larger to send than a hidden state. A tied head
    has a copy of the embedding's weights, as it needs on another rank.
    """
    hidden, share = model.hidden, _vocabulary_share(model, training)
    logits = training.tokens * share
    # F reads the logits and writes and reads their full-precision softmax; B turns that into the gradient.
    forward = logits * (training.number_bytes + 2 * FULL_PRECISION_BYTES)
    backward = logits * (training.number_bytes + FULL_PRECISION_BYTES)
    projection = linear(
        "projection",
        training,
        hidden,
        share,
        stored_input_bytes=training.hidden_bytes_per_width * hidden,
    )
    # Beside the softmax there are the logits in F, their gradient in B.
    loss = pointwise(
        "cross entropy",
        forward,
        backward,
        kept_bytes=logits * FULL_PRECISION_BYTES,
        transient_bytes=logits * training.number_bytes,
    )
    gains = norm("last norm", training, hidden, model.norm_parameters)
    return (
        Layer(name="norm", modules=(model.modules.norm,), operations=(gains,)),
        Layer(
            name="head",
            modules=(model.modules.head,),
            operations=(enter_tensor_parallel(training, hidden), projection),
        ),
        Layer(name="loss", modules=(), operations=(loss,), stays_with_previous=True),
    )
