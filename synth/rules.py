"""The rules a schedule obeys: one name and one sentence each, for the verifier, the models and the tests."""

from __future__ import annotations

from enum import StrEnum


class Rule(StrEnum):
    """A rule's name, with its one-line :attr:`meaning`.

    >>> print(Rule.FORWARD_CHAIN, "-", Rule.FORWARD_CHAIN.meaning)
    forward_chain - F of a stage starts no earlier than F of the stage before it ends.
    """

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Rule:
        """Make the member ``name`` and keep its meaning beside it."""
        rule = str.__new__(cls, name)
        rule._value_ = name
        rule.meaning = meaning
        return rule

    ONE_LIST_PER_RANK = "one_list_per_rank", "There is one list of ops for every rank."
    EVERY_OP_ONCE = (
        "every_op_once",
        "Every stage runs F once for every microbatch, and once either BW or B and W, as it offers.",
    )
    OP_ON_ITS_RANK = "op_on_its_rank", "An op runs on the rank that holds its stage."
    OP_DURATION = "op_duration", "An op lasts exactly the ticks its stage states."
    LISTED_IN_ORDER = "listed_in_order", "A rank's ops are listed in the order in which they start."
    NO_OVERLAP_ON_RANK = "no_overlap_on_rank", "A rank runs one op at a time."
    FORWARD_CHAIN = "forward_chain", "F of a stage starts no earlier than F of the stage before it ends."
    BACKWARD_CHAIN = (
        "backward_chain",
        "B or BW of a stage starts no earlier than B or BW of the stage after it ends.",
    )
    BACKWARD_AFTER_FORWARD = (
        "backward_after_forward",
        "B or BW of a stage starts no earlier than F of the same stage ends.",
    )
    WEIGHT_AFTER_BACKWARD = (
        "weight_after_backward",
        "W of a stage starts no earlier than B of the same stage ends.",
    )
    REDUCE_AFTER_WEIGHTS = (
        "reduce_after_weights",
        "R of a stage starts no earlier than the last W or BW of the stage and of its replicas ends.",
    )
    TRANSFER_TIME = (
        "transfer_time",
        "Between different ranks, the transfer time of the rank pair passes before the consumer starts.",
    )
    EXCLUSIVE_LINK = (
        "exclusive_link",
        "Under exclusive links, an ordered rank pair carries one transfer at a time, in the order in which "
        "the sending rank ends their producers.",
    )
    MEMORY_LIMIT = (
        "memory_limit",
        "Static bytes plus what ops hold stay within the rank's limit at every moment.",
    )
    STATED_METRICS = "stated_metrics", "The stated metrics are those of the ops."
    STATED_CERTIFICATE = (
        "stated_certificate",
        "The certificate states the problem's objective, its value, and a lower bound from 0 to that value.",
    )
