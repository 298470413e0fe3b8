"""The simulator: orders replayed event by event, over the problem's own transfers or over a network.

It makes the same times as the longest path of :mod:`synth.timing` by other means, and the tests hold the two
against each other. Events are taken in a total order, so the same input always gives the same schedule.

``network`` says what transfers take and hold, ``lowering`` numbers everything, ``synth.compiled.event_loop``
runs, ``replaying`` and ``jitter`` ask for one replay or many, and ``usage`` says what the channels did.
"""

from synth.simulate.jitter import LARGEST_SIGMA, JitterResult, replay_with_jitter
from synth.simulate.network import Network, Route, network_over, planned_network
from synth.simulate.replaying import (
    Delivery,
    Simulation,
    replay,
    replay_over,
    simulate_orders,
    simulate_over,
)
from synth.simulate.usage import ChannelUse, channel_uses

__all__ = [
    "LARGEST_SIGMA",
    "ChannelUse",
    "Delivery",
    "JitterResult",
    "Network",
    "Route",
    "Simulation",
    "channel_uses",
    "network_over",
    "planned_network",
    "replay",
    "replay_over",
    "replay_with_jitter",
    "simulate_orders",
    "simulate_over",
]
