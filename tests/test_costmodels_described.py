"""Models from a few numbers."""

import pytest

from costmodels.described import Style, describe_model
from costmodels.model_shape import GroupedAttention
from synth.errors import InputError


def test_gpt_has_12h2_and_13h_for_each_layer():
    """12Lh²(1 + 13/(12h) + (v + s)/(12Lh)) (arXiv 2104.04473, equation 2), and the last norm's 2h."""
    layers, h, v, s = 4, 512, 1024, 256
    model = describe_model(Style.GPT, layers=layers, hidden=h, heads=8, vocabulary=v, positions=s)
    assert model.parameters == layers * (12 * h * h + 13 * h) + (v + s) * h + 2 * h


def test_llama_by_numbers_is_llama_2_7b():
    """6,738,415,616 weights, with a feed-forward width of 11008."""
    model = describe_model(Style.LLAMA, layers=32, hidden=4096, heads=32, vocabulary=32000, positions=4096)
    assert model.parameters == 6_738_415_616
    assert model.blocks[0].feed_forward.width == 11008


def test_what_is_given_counts():
    model = describe_model(
        Style.LLAMA, layers=32, hidden=4096, heads=32, vocabulary=128256, positions=1, kv_heads=8, width=14336
    )
    assert model.parameters == 8_030_261_248
    assert isinstance(model.blocks[0].attention, GroupedAttention)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="7 heads are given with a hidden size of 512: give a divisor of it"):
        describe_model(Style.GPT, layers=1, hidden=512, heads=7, vocabulary=8, positions=8)
