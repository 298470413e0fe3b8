"""The operations of the feed-forward part: dense, or a mixture of experts."""

from __future__ import annotations

from costmodels.model_shape import Experts, FeedForward
from costmodels.operations import (
    FULL_PRECISION_BYTES,
    Operation,
    Work,
    enter_tensor_parallel,
    leave_tensor_parallel,
    linear,
    pointwise,
)
from costmodels.training import Training


def feed_forward_operations(inner: FeedForward | Experts, hidden: int, training: Training) -> list[Operation]:
    """The feed-forward part from the normed hidden state to what is added to the residual stream."""
    if isinstance(inner, Experts):
        return _experts(inner, hidden, training)
    return [
        enter_tensor_parallel(training, hidden),
        *_dense(inner, hidden, training, input_bytes=training.hidden_bytes_per_width * hidden),
        leave_tensor_parallel(training, hidden),
    ]


def _dense(inner: FeedForward, hidden: int, training: Training, *, input_bytes: int) -> list[Operation]:
    """Up, the non-linearity, down: 18sbh kept for GPT's width of 4h, 19sbh with the dropout mask behind."""
    up = inner.up_width // training.tensor_parallel
    width = inner.width // training.tensor_parallel
    return [
        linear(
            "up", training, hidden, up, stored_input_bytes=input_bytes, parameters=(hidden + inner.bias) * up
        ),
        _activation(inner, training.tokens, width, training),
        linear(
            "down",
            training,
            width,
            hidden,
            stored_gradient_bytes=training.hidden_bytes_per_width * hidden,
            parameters=(width + inner.bias) * hidden,
        ),
    ]


def _activation(inner: FeedForward, tokens: int, width: int, training: Training) -> Operation:
    """The non-linearity keeps its input; gated, both factors, because it is fused with their product."""
    size = tokens * width * training.number_bytes
    factors = 2 if inner.gated else 1
    return pointwise("activation", (factors + 1) * size, (2 * factors + 1) * size, kept_bytes=factors * size)


def _experts(inner: Experts, hidden: int, training: Training) -> list[Operation]:
    """Router, all-to-all there, the experts' linear layers, all-to-all back; then what is shared.

    Tokens are taken to spread evenly over the experts. Every GPU holds one of ``expert_parallel`` shares of
    the experts, and of each of them one of ``tensor_parallel`` shares.
    """
    t, number = training.tensor_parallel, training.number_bytes
    rows = training.tokens * inner.per_token
    row_bytes = training.outside_tokens * inner.per_token * hidden * number
    experts = inner.count // training.expert_parallel
    # No more experts are read than rows there are.
    read = min(experts, rows)
    width, up = inner.expert.width // t, inner.expert.up_width // t
    per_expert = inner.expert.parameters(hidden) // t
    operations = [
        _router(inner, hidden, training),
        _all_to_all("dispatch", hidden, inner, training),
        linear(
            "experts up",
            training,
            hidden,
            up,
            tokens=rows,
            stored_input_bytes=row_bytes,
            experts=read,
            parameters=experts * per_expert,
        ),
        _activation(inner.expert, rows, width, training),
        linear(
            "experts down",
            training,
            width,
            hidden,
            tokens=rows,
            stored_gradient_bytes=row_bytes,
            experts=read,
            parameters=0,
        ),
        _all_to_all("combine", hidden, inner, training),
        # The weights of the sum get gradients, which take the experts' outputs.
        pointwise("weighted sum", row_bytes, 2 * row_bytes, kept_bytes=row_bytes),
    ]
    if inner.shared:
        # The router keeps the same input already.
        operations += _dense(inner.shared, hidden, training, input_bytes=0)
    return [
        enter_tensor_parallel(training, hidden),
        *operations,
        leave_tensor_parallel(training, hidden),
    ]


def _router(inner: Experts, hidden: int, training: Training) -> Operation:
    """The projection to one logit per expert, whole on every GPU; logits are kept in full precision."""
    tokens = training.outside_tokens
    logits = tokens * inner.count * FULL_PRECISION_BYTES
    return linear(
        "router",
        training,
        hidden,
        inner.count,
        tokens=tokens,
        stored_input_bytes=training.hidden_bytes_per_width * hidden,
        stored_gradient_bytes=logits,
    )


def _all_to_all(name: str, hidden: int, inner: Experts, training: Training) -> Operation:
    """Rows to the GPUs of their experts, or back: all but one of ``expert_parallel`` shares leave the GPU."""
    e = training.expert_parallel
    row_bytes = training.outside_tokens * inner.per_token * hidden * training.number_bytes
    moved = Work(moved_bytes=2 * row_bytes, expert_bytes=row_bytes * (e - 1) // e)
    return Operation(name=name, forward=moved, input_gradient=moved)
