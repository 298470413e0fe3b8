"""Random numbers inside of an op are those of its seed, and none is taken from those outside."""

import traceback

import pytest
import torch

from runtime.randomness import seeded

CPU = torch.device("cpu")


def test_numbers_depend_on_the_four_alone():
    def draw(*numbers):
        with seeded(*numbers, CPU):
            return torch.rand(5)

    first = draw(1, 2, 3, 4)
    torch.rand(7)
    assert torch.equal(draw(1, 2, 3, 4), first)
    others = [draw(0, 2, 3, 4), draw(1, 0, 3, 4), draw(1, 2, 0, 4), draw(1, 2, 3, 0)]
    assert not any(torch.equal(other, first) for other in others)


def test_numbers_outside_go_on_also_behind_an_error():
    torch.manual_seed(5)
    expected = torch.rand(6)
    torch.manual_seed(5)
    with seeded(1, 2, 3, 4, CPU):
        torch.rand(9)
    found = torch.rand(3)
    with pytest.raises(ValueError, match="probability"), seeded(1, 2, 3, 4, CPU):
        torch.nn.functional.dropout(torch.rand(1), p=2)
    assert torch.equal(torch.cat([found, torch.rand(3)]), expected)


def test_seeding_takes_no_call_stack(monkeypatch):
    """As torch.manual_seed does for devices that have not started: a millisecond an op."""
    monkeypatch.setattr(traceback, "format_stack", lambda *_: pytest.fail("a call stack is taken"))
    with seeded(1, 2, 3, 4, CPU):
        torch.rand(1)
