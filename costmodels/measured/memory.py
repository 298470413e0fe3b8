"""What a stage holds after each of its ops, and what it holds throughout."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor

from costmodels.measured.profiles import Split, StageBytes
from costmodels.measured.saved_tensors import saved_bytes
from costmodels.measured.stage_runs import StageRun
from costmodels.optimizer_state import StaticBytes
from runtime.allocators import Allocator, Change
from synth.ops import OpKind


def stage_bytes(run: StageRun, split: Split, allocator: Allocator, optimizer_copies: int) -> StageBytes:
    """Run every op of a stage once under an allocator's eyes.

    The weights have their gradients already: those are static. The input is a copy made inside F, the
    gradient of the output one made inside the backward, as if both were just received.

    Parameters
    ----------
    run, split
        The stage, which has run before, and how its backward is divided.
    allocator
        Who watches.
    optimizer_copies
        Tensors of a weight's size that the optimizer keeps.
    """
    changes: dict[OpKind, Change] = {}
    held = held_after_b = 0
    with _garbage_of_others_kept():
        for kind, work in run.ops(split):
            change = allocator.watch(_without_garbage(work))
            held += change.net
            if kind is OpKind.B:
                held_after_b = held
            changes[kind] = change
    return StageBytes(
        static=static_bytes(run, optimizer_copies),
        saved_after_f=saved_bytes(run),
        held_after_b=held_after_b,
        net={kind: changes[kind].net for kind in split.kinds},
        workspace={kind: changes[kind].highest - max(0, changes[kind].net) for kind in split.kinds},
    )


@contextmanager
def _garbage_of_others_kept() -> Iterator[None]:
    """What was there before is not looked through: it neither disturbs the count nor takes time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _without_garbage(work: Callable[[], None]) -> Callable[[], None]:
    """The work, and behind it the end of what only cycles of references hold: chance would free it later."""

    def collected() -> None:
        work()
        gc.collect()

    return collected


def static_bytes(run: StageRun, optimizer_copies: int) -> StaticBytes:
    """Weights with buffers, gradients of what is trained, and what the optimizer keeps of it.

    ``torch.optim.AdamW`` keeps two moments in the type of the weight.
    """
    trained = _size(weight for weight in run.parameters if weight.requires_grad)
    return StaticBytes(
        weights=_size(run.parameters) + _size(run.stage.module.buffers()),
        gradients=trained,
        optimizer=optimizer_copies * trained,
    )


def _size(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, of those that share a storage once."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())
