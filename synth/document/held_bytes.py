"""What ranks held in a measured step: from the wire to the domain and back."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from synth.document.refusal import Refusal
from synth.document.wire import HeldBytesWire, TimelineWire
from synth.measured import HeldBytes


def held_bytes_from_wire(wire: TimelineWire, refuse: Refusal) -> tuple[HeldBytes, ...] | None:
    """What every rank held; a rank left out, an op left out, or a most that is none is refused."""
    if not isinstance(wire.held_bytes, tuple):
        return None
    if wire.peak_memory_bytes is None:
        refuse("$.peak_memory_bytes", "null", "give the peak of every rank beside held_bytes, or neither")
    if len(wire.held_bytes) != len(wire.ranks):
        given, needed = len(wire.held_bytes), len(wire.ranks)
        refuse("$.held_bytes", f"{given} long", f"give {needed} entries, one per rank")
    return tuple(
        _rank(f"$.held_bytes[{rank}]", held, len(wire.ranks[rank]), refuse)
        for rank, held in enumerate(wire.held_bytes)
    )


def held_bytes_to_wire(held: tuple[HeldBytes, ...] | None) -> tuple[HeldBytesWire, ...] | UnsetType:
    """The same as written, left out where nobody looked."""
    if held is None:
        return UNSET
    return tuple(
        HeldBytesWire(start_bytes=one.start_bytes, most_bytes=one.most_bytes, after_bytes=one.after_bytes)
        for one in held
    )


def _rank(path: str, wire: HeldBytesWire, num_ops: int, refuse: Refusal) -> HeldBytes:
    for key, values in (("most_bytes", wire.most_bytes), ("after_bytes", wire.after_bytes)):
        if len(values) != num_ops:
            refuse(f"{path}.{key}", f"{len(values)} long", f"give {num_ops} entries, one per op of the rank")
    before = wire.start_bytes
    for n, (most, after) in enumerate(zip(wire.most_bytes, wire.after_bytes, strict=True)):
        if most < max(before, after):
            rule = f"give at least {max(before, after)}, what is held before and behind the op"
            refuse(f"{path}.most_bytes[{n}]", str(most), rule)
        before = after
    return HeldBytes(start_bytes=wire.start_bytes, most_bytes=wire.most_bytes, after_bytes=wire.after_bytes)
