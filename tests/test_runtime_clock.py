"""What notes when ops run."""

import torch

from runtime.clock import make_recorder
from synth.ops import Op


def test_times_stay_until_the_next_op():
    recorder = make_recorder(torch.device("cpu"))
    first, second, third = map(Op.parse, ("0F0", "0BW0", "0F1"))
    assert recorder.times() == []
    for op in (first, second):
        recorder.begin(op)
        recorder.end()
    told = recorder.times()
    assert [op for op, _, _ in told] == [first, second]
    assert recorder.times() == told
    recorder.begin(third)
    recorder.end()
    assert [op for op, _, _ in recorder.times()] == [third]
