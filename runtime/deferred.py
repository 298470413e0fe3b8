"""Layers that put off their weight gradients: the deferred form of a divided backward.

In a B op every such layer computes the gradient of its input as usual and leaves the rest to a queue; the W
op runs the queue. Nothing is computed twice, it is exact under activation checkpointing (the recomputed
input is what the queue holds), and a first stage divides like any other. What it costs in memory: each
layer's input and the gradient of its output stay until W. The idea is that of the zero-bubble paper
(arXiv 2401.10241) and of Megatron-LM's ``delay_wgrad_compute``.

A microbatch whose backward is not divided runs torch's own layers, which are quicker.

Gradients are bit for bit those of torch's own layers; under autocast norms differ from them by rounding, for
they keep their result in the parameter's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WeightWork = Callable[[], None]
"""Adds one layer's weight gradients for one microbatch to ``.grad``."""


class WeightQueue:
    """Where the layers of one stage leave their weight work while a B op runs."""

    def __init__(self) -> None:
        self._open: list[WeightWork] | None = None
        self.serves = True
        """Whether what runs now belongs to a microbatch whose backward is divided; set before each op."""

    @property
    def is_open(self) -> bool:
        """Whether work is to be left here rather than done at once."""
        return self._open is not None

    def put(self, work: WeightWork) -> None:
        """Leave work for the W op."""
        assert self._open is not None, "the queue is closed"
        self._open.append(work)

    @contextmanager
    def collecting(self) -> Iterator[list[WeightWork]]:
        """Collect the work of the backward that runs inside, in the order in which it comes up."""
        self._open = []
        try:
            yield self._open
        finally:
            self._open = None


def accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    """Add to a parameter's gradient; where there is none yet it becomes that, so nothing else may hold it."""
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad.add_(gradient)


class _Deferring:
    """What the layers have in common: the queue.

    Without one, or while it does not serve, nothing is put off and they are torch's own, which are quicker.
    """

    queue: WeightQueue | None = None

    @property
    def defers(self) -> bool:
        """Whether weight gradients of what runs now can wait."""
        return self.queue is not None and self.queue.serves


class DeferredLinear(nn.Linear, _Deferring):
    """``nn.Linear`` whose weight and bias gradients can wait."""

    def forward(self, input: Tensor) -> Tensor:
        """Map features (…, in) to (…, out)."""
        return _apply(_LinearFunction, input, self) if self.defers else super().forward(input)


class DeferredEmbedding(nn.Embedding, _Deferring):
    """``nn.Embedding`` whose table's gradient can wait."""

    def forward(self, input: Tensor) -> Tensor:
        """Map indices (…) to rows (…, embedding)."""
        return _apply(_EmbeddingFunction, input, self) if self.defers else super().forward(input)


class DeferredLayerNorm(nn.LayerNorm, _Deferring):
    """``nn.LayerNorm`` whose weight and bias gradients can wait."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last dimensions."""
        if self.weight is None or not self.defers:
            return super().forward(input)
        return _apply(_LayerNormFunction, input, self)


class DeferredRMSNorm(nn.RMSNorm, _Deferring):
    """``nn.RMSNorm`` whose weight gradient can wait."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimensions."""
        if self.weight is None or not self.defers:
            return super().forward(x)
        normed = functional.rms_norm(x, self.normalized_shape, None, self.eps)
        return _apply(_ScaleFunction, normed, self)


_DEFERRED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: DeferredLinear,
    nn.Embedding: DeferredEmbedding,
    nn.LayerNorm: DeferredLayerNorm,
    nn.RMSNorm: DeferredRMSNorm,
}


def defer_weights(module: nn.Module) -> nn.Module:
    """Turn a module's Linear, Embedding, LayerNorm and RMSNorm layers into the deferring ones, in place.

    Parameters, buffers, hooks and names stay as they are. Subclasses of those layers are left alone, and so
    are embeddings with a ``max_norm``, sparse gradients or scaling by frequency; the gradients of whatever is
    left alone come up in the B op.
    """
    for layer in module.modules():
        plain = isinstance(layer, nn.Embedding) and (
            layer.max_norm is not None or layer.sparse or layer.scale_grad_by_freq
        )
        if type(layer) in _DEFERRED and not plain:
            layer.__class__ = _DEFERRED[type(layer)]
    return module


def attach_queue(module: nn.Module) -> WeightQueue | None:
    """Give all deferring layers of a stage one queue, the one they have if any; None without such layers."""
    layers = [layer for layer in module.modules() if isinstance(layer, _Deferring)]
    if not layers:
        return None
    queue = layers[0].queue or WeightQueue()
    for layer in layers:
        layer.queue = queue
    return queue


def _apply(function: type[torch.autograd.Function], x: Tensor, layer: Any) -> Tensor:
    result: Tensor = function.apply(x, layer.weight, getattr(layer, "bias", None), layer)
    return result


_Gradients = tuple[Tensor | None, Tensor | None]
"""Of a layer's weight and of its bias."""


def _divide(
    ctx: Any, input_gradient: Tensor | None, weight_gradients: Callable[[], _Gradients]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    """What a layer's backward returns: with its queue open no weight gradients, which then wait there."""
    layer = ctx.layer
    if not layer.queue.is_open:
        return input_gradient, *weight_gradients(), None

    def work() -> None:
        parameters = layer.weight, getattr(layer, "bias", None)
        for parameter, gradient in zip(parameters, weight_gradients(), strict=True):
            if gradient is not None and parameter.requires_grad:
                accumulate(parameter, gradient)

    layer.queue.put(work)
    return input_gradient, None, None, None


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in a dtype; where it has that, torch need not be asked, which is quicker."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: DeferredLinear) -> Tensor:
        out = functional.linear(x, weight, bias)
        ctx.layer, ctx.input_dtype = layer, x.dtype
        # Under autocast the product is taken in the dtype of the output, so that is what backward needs.
        ctx.save_for_backward(_as(x, out.dtype), weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved, weight = ctx.saved_tensors
        x = saved.detach()
        needs_input, _, needs_bias, _ = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])

        def weight_gradients() -> _Gradients:
            product = rows.t() @ x.reshape(-1, x.shape[-1])
            return _as(product, weight.dtype), _as(rows.sum(0), weight.dtype) if needs_bias else None

        input_gradient = None
        if needs_input:
            input_gradient = _as((rows @ _as(weight, grad.dtype)).view(x.shape), ctx.input_dtype)
        return _divide(ctx, input_gradient, weight_gradients)


class _EmbeddingFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indices: Tensor, weight: Tensor, _: None, layer: DeferredEmbedding) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(indices)
        return functional.embedding(indices, weight, layer.padding_idx)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (indices,) = ctx.saved_tensors
        layer = ctx.layer

        def weight_gradients() -> _Gradients:
            padding = -1 if layer.padding_idx is None else layer.padding_idx
            rows = layer.num_embeddings
            return torch.ops.aten.embedding_dense_backward(grad, indices, rows, padding, False), None

        return _divide(ctx, None, weight_gradients)


class _LayerNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: DeferredLayerNorm) -> Tensor:
        ctx.layer, ctx.input_dtype = layer, x.dtype
        x = x.to(weight.dtype)
        out, mean, rstd = torch.native_layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, mean, rstd, weight, bias = (None if t is None else t.detach() for t in ctx.saved_tensors)
        needs_input, needs_weight, needs_bias, _ = ctx.needs_input_grad

        def gradients(*wanted: bool) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
            found: tuple[Tensor | None, Tensor | None, Tensor | None]
            found = torch.ops.aten.native_layer_norm_backward(
                grad, x, ctx.layer.normalized_shape, mean, rstd, weight, bias, wanted
            )
            return found

        def weight_gradients() -> _Gradients:
            return gradients(False, needs_weight, needs_bias)[1:]

        input_gradient = gradients(True, False, False)[0] if needs_input else None
        return _divide(
            ctx, None if input_gradient is None else input_gradient.to(ctx.input_dtype), weight_gradients
        )


class _ScaleFunction(torch.autograd.Function):
    """The product of normed features and a weight, which is all of an RMSNorm that has a parameter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, _: None, layer: DeferredRMSNorm) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved, weight = ctx.saved_tensors
        x = saved.detach()

        def weight_gradients() -> _Gradients:
            return _as((grad * x).sum_to_size(weight.shape), weight.dtype), None

        input_gradient = _as(grad * weight, x.dtype) if ctx.needs_input_grad[0] else None
        return _divide(ctx, input_gradient, weight_gradients)
