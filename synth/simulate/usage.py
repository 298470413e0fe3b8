"""What the channels of a network did during a replay: how busy they were, and who waited for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synth.simulate.replaying import Delivery, Simulation


@dataclass(frozen=True, slots=True)
class ChannelUse:
    """How much one channel carried.

    Parameters
    ----------
    channel
        Its name.
    transfers
        How many transfers and all-reduces went over it.
    busy_ticks, busy_share
        How long it was held, and as a share of the makespan.
    waited_ticks
        How long transfers waited that began at the moment in which this channel came free.
    """

    channel: str
    transfers: int
    busy_ticks: int
    busy_share: float
    waited_ticks: int


def channel_uses(simulation: Simulation) -> tuple[ChannelUse, ...]:
    """Every channel that carried something, the most contended first: by time waited, then by time busy."""
    carried: dict[str, list[Delivery]] = {}
    for delivery in simulation.deliveries:
        for channel in delivery.route.channels:
            carried.setdefault(channel, []).append(delivery)
    makespan = simulation.metrics.makespan
    uses = [_use(channel, deliveries, makespan) for channel, deliveries in carried.items()]
    return tuple(sorted(uses, key=lambda use: (-use.waited_ticks, -use.busy_ticks, use.channel)))


def _use(channel: str, deliveries: Sequence[Delivery], makespan: int) -> ChannelUse:
    busy = waited = 0
    free = None
    for delivery in sorted(deliveries, key=lambda delivery: (delivery.start, delivery.end)):
        busy += delivery.route.ticks
        if delivery.start == free:
            waited += delivery.start - delivery.ready
        free = delivery.end
    return ChannelUse(channel, len(deliveries), busy, busy / makespan, waited)
