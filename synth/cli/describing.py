"""Options that describe a model, how numbers are kept, and what share of its peaks a GPU reaches."""

from __future__ import annotations

import argparse
from enum import StrEnum

from costmodels.architectures import MOST_BLOCKS, read_model
from costmodels.config_fields import LARGEST_SIZE
from costmodels.described import Style, describe_model
from costmodels.model_shape import ModelShape
from costmodels.roofline import Efficiencies
from costmodels.training import AttentionKernel, Precision
from synth.cli.arguments import add_name_argument, whole_number
from synth.errors import InputError

NEEDED = ("layers", "hidden", "heads", "vocab")
DESCRIBED = (*NEEDED, "style", "kv_heads", "intermediate")
"""Options that stand for a CONFIG, and which of them must be given."""


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, or a model described by a few numbers."""
    parser.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG",
        help="a model's config.json (Hugging Face), - for standard input",
    )
    _add_description_arguments(parser.add_argument_group("instead of CONFIG"))
    add_name_argument(
        parser, "--style", list(Style), help_text=f"blocks of a model without CONFIG (default {Style.LLAMA})"
    )


def _add_description_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--layers", type=whole_number(1, MOST_BLOCKS), metavar="L", help="transformer blocks")
    for flag, what in (
        ("--hidden", "hidden size"),
        ("--heads", "attention heads"),
        ("--vocab", "vocabulary"),
    ):
        add(flag, type=whole_number(1, LARGEST_SIZE), metavar="N", help=what)
    add("--kv-heads", type=whole_number(1, LARGEST_SIZE), metavar="N", help="key heads (default all heads)")
    add("--intermediate", type=whole_number(1, LARGEST_SIZE), metavar="N", help="feed-forward width")


def add_named_arguments(parser: argparse.ArgumentParser) -> None:
    """Attention and precision."""
    named: tuple[tuple[str, type[StrEnum], StrEnum, str], ...] = (
        ("attention", AttentionKernel, AttentionKernel.FLASH, "kernel"),
        ("dtype", Precision, Precision.BF16, "of weights and activations"),
    )
    for name, names, default, what in named:
        add_name_argument(parser, f"--{name}", list(names), help_text=f"{what} (default {default})")
        parser.set_defaults(**{name: default})
    add = parser.add_argument
    add(
        "--gradient-bytes",
        type=int,
        choices=(2, 4),
        default=4,
        help="of one accumulated gradient (default %(default)s)",
    )


def add_efficiency_argument(parser: argparse.ArgumentParser) -> None:
    """Shares of peaks."""
    add = parser.add_argument
    add(
        "--efficiency",
        action="append",
        default=[],
        metavar="NAME=SHARE",
        help=f"share of a peak that is reached (default {Efficiencies()})",
    )


def given_model(options: argparse.Namespace) -> ModelShape:
    """The model that CONFIG or the numbers describe."""
    given = [name for name in DESCRIBED if getattr(options, name) is not None]
    if options.config is not None:
        if given:
            flag = given[0].replace("_", "-")
            raise InputError(f"CONFIG and --{flag} are both given: give one or the other")
        return read_model(options.config)
    missing = [name for name in NEEDED if name not in given]
    if missing:
        raise InputError(f"neither CONFIG nor --{missing[0]} is given: give a config.json, or {_flags()}")
    return describe_model(
        options.style or Style.LLAMA,
        layers=options.layers,
        hidden=options.hidden,
        heads=options.heads,
        vocabulary=options.vocab,
        positions=options.seq,
        kv_heads=options.kv_heads,
        width=options.intermediate,
    )


def _flags() -> str:
    return " ".join(f"--{name}" for name in NEEDED)


def efficiencies(given: list[str]) -> Efficiencies:
    """Shares of peaks as typed, the others as they usually are."""
    known = Efficiencies.__dataclass_fields__
    shares = {}
    for text in given:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            name = ""
        if name not in known:
            raise InputError(
                f"--efficiency {text} is given: give NAME=SHARE with a name of {', '.join(known)}"
            )
    return Efficiencies(**shares)
