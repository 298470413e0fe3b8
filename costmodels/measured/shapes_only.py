"""What the ops of stages do, counted without doing it: FLOPs and bytes moved, under fake tensors.

FLOPs are those of torch's own counter (``torch.utils.flop_counter``), bytes moved those of every op's
arguments and results; a roofline turns them into seconds. Both are counted below autograd, op by op, as they
would run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from costmodels.measured.profiles import Split
from costmodels.measured.spreads import spread_of
from costmodels.measured.stage_runs import StageRun
from costmodels.measured.timing import OpTimes
from costmodels.operations import Work
from costmodels.roofline import Machine
from costmodels.training import Precision
from synth.errors import InputError
from synth.ops import OpKind

_ATEN = torch.ops.aten
_PRECISIONS = {
    torch.bfloat16: Precision.BF16,
    torch.float16: Precision.FP16,
    torch.float32: Precision.FP32,
}
_COUNTED_AS: Mapping[Any, Any] = {
    # The CPU's fused attention, which fake tensors take, does what the others do.
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _ATEN._scaled_dot_product_flash_attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: (
        _ATEN._scaled_dot_product_flash_attention_backward
    ),
}
_MOVE_NOTHING = ("_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_ATTENTION = ("_scaled_dot_product", "_flash_attention", "_efficient_attention")


class WorkCounter(TorchDispatchMode):
    """Notes the work of every op that runs while it is active, in :attr:`works`."""

    def __init__(self) -> None:
        super().__init__()
        self.works: list[Work] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if _moves(func, made):
            flops = _flops(func, args, kwargs, made)
            fused = func._overloadpacket.__name__.startswith(_ATTENTION)
            self.works.append(
                Work(
                    matmul_flops=0 if fused else flops,
                    attention_flops=flops if fused else 0,
                    moved_bytes=_tensor_bytes((args, kwargs, made)),
                )
            )
        return made


class ConvertibleWeights(TorchDispatchMode):
    """Lets modules of fake weights be converted, as by ``.bfloat16()``, which weak references to them forbid.

    Fake tensor modes remember the tensors they make by such references; only real tensors need the memory.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self._remembered = fake.fake_tensor_converter.tensor_memo

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self._remembered.clear()
        return made


def _moves(func: Any, made: Any) -> bool:
    """Whether an op touches memory: it makes tensors, none of them a view or without content."""
    if func.is_view or func._overloadpacket.__name__ in _MOVE_NOTHING:
        return False
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(made))


def _flops(func: Any, args: Any, kwargs: Any, made: Any) -> int:
    """By torch's formula for the op, 0 where it has none; a causal mask halves fused attention."""
    packet = func._overloadpacket
    formula = flop_registry.get(_COUNTED_AS.get(packet, packet))
    if formula is None:
        return 0
    flops = int(formula(*args, **kwargs, out_val=made))
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    return flops // 2 if given.get("is_causal") else flops


def _tensor_bytes(tree: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def estimate_ops(runs: Sequence[StageRun], split: Split, machine: Machine) -> list[OpTimes]:
    """What the ops of all stages would take on a machine, by its roofline."""
    return [
        {
            kind: spread_of([machine.seconds(works)], str(kind))
            for kind, works in stage_works(run, split).items()
        }
        for run in runs
    ]


def stage_works(run: StageRun, split: Split) -> dict[OpKind, list[Work]]:
    """The work of every op of a stage, behind a round that makes the gradients of its weights."""
    for _, op in run.ops(split):
        op()
    return {kind: _count(op) for kind, op in run.ops(split)}


def _count(op: Callable[[], None]) -> list[Work]:
    counter = WorkCounter()
    with counter:
        op()
    return counter.works


def precision_of(runs: Sequence[StageRun]) -> Precision:
    """The precision of most weights.

    Raises
    ------
    InputError
        When they are of a type that GPUs have no peak for.
    """
    sizes: dict[torch.dtype, int] = {}
    for run in runs:
        for weight in run.parameters:
            sizes[weight.dtype] = sizes.get(weight.dtype, 0) + weight.numel()
    dtype = max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)
    if dtype not in _PRECISIONS:
        name = str(dtype).removeprefix("torch.")
        raise InputError(
            f"the weights are {name}, for which no GPU has a peak: make them bfloat16 or float32"
        )
    return _PRECISIONS[dtype]
