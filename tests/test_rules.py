"""The rules: every one has a name in snake case and one sentence."""

import re

import pytest

from synth.rules import Rule


@pytest.mark.parametrize("rule", Rule)
def test_name_and_meaning(rule):
    assert rule.value == rule.name.lower() == str(rule)
    assert re.fullmatch(r"[A-Z].*[^.]\.", rule.meaning)
    assert Rule(rule.value) is rule


def test_meanings_differ():
    assert len({rule.meaning for rule in Rule}) == len(Rule)
