"""Transfers that cannot even begin: the reason is the failure elsewhere, where one is known."""

from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist

from runtime.communication import Message
from runtime.errors import PeerError, PipelineError
from runtime.shapes import TensorSpec
from runtime.transport import Transport
from synth.ops import Op, OpKind

SPEC = TensorSpec.of(torch.zeros(2))
FORWARD = Message(number=0, producer=Op(OpKind.F, 0, 0), consumer=Op(OpKind.F, 1, 0), sender=0, receiver=1)


class KnownFailure:
    def heard_within(self, _):
        raise PeerError("rank 0 failed in step 0: the layer is broken")


class NothingKnown:
    def heard_within(self, _):
        pass


@pytest.fixture
def broken(monkeypatch):
    """A connection that its other end has closed."""

    def reset(*_, **__):
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(dist, "irecv", reset)
    monkeypatch.setattr(dist, "isend", reset)


def transport(watch):
    world = SimpleNamespace(
        device=torch.device("cpu"), process_of=int, directions={}, pipeline=None, is_staged=False
    )
    return Transport(world, watch, {1: SPEC}, timeout_s=1)


@pytest.mark.parametrize(
    ("watch", "error", "says"),
    [
        (KnownFailure(), PeerError, "rank 0 failed in step 0: the layer is broken"),
        (NothingKnown(), PipelineError, "the connection broke"),
    ],
)
@pytest.mark.parametrize("begin", ["post", "send"])
def test_a_transfer_that_cannot_begin_says_why(broken, watch, error, says, begin):
    ours = transport(watch)
    start = {"post": lambda: ours.post(FORWARD), "send": lambda: ours.send(FORWARD, torch.zeros(2))}
    with pytest.raises(error, match=says):
        start[begin]()
    ours.close()
