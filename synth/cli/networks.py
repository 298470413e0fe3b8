"""The network that a command's arguments describe."""

from __future__ import annotations

import argparse
from dataclasses import replace

from synth.cli.arguments import add_name_argument, size, whole_number
from synth.document import read_topology
from synth.errors import InputError
from synth.files import read_text
from synth.problem import Links, Problem
from synth.simulate import Network, network_over, planned_network
from synth.topology import AllReduce, Topology, TransferBytes

_NEED_A_TOPOLOGY = ("transfer_bytes", "all_reduce_bytes", "replicas")


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """What transfers go over and what they take."""
    add = parser.add_argument
    add_name_argument(parser, "--links", list(Links), help_text="overrides the problem's links")
    add("--topology", metavar="FILE", help="a topology document: its links, instead of the problem's ticks")
    add("--transfer-bytes", type=size, metavar="X", help="of every activation and gradient, e.g. 32MiB")
    add("--all-reduce-bytes", type=size, metavar="X", help="weight gradients of every stage, e.g. 2GiB")
    add("--replicas", type=whole_number(1), metavar="R", help="pipelines that all-reduce weight gradients")
    add("--no-overlap", action="store_true", help="a rank cannot compute while it sends or receives")


def load_topology(options: argparse.Namespace) -> Topology | None:
    """The topology that a command names, if it names one, with the sizes that its arguments give.

    Raises
    ------
    InputError
        When an argument needs a topology and none is given, or one excludes it.
    """
    if options.topology is None:
        for name in _NEED_A_TOPOLOGY:
            if getattr(options, name) is not None:
                flag = name.replace("_", "-")
                raise InputError(f"--{flag} is given without --topology: name a topology document")
        return None
    if options.links is not None:
        raise InputError("--links and --topology are both given: give one or the other")
    text = read_text(options.topology, wanted="a topology document")
    return _with_sizes(options, read_topology(text, options.topology))


def network_of(options: argparse.Namespace, topology: Topology | None, problem: Problem) -> Network:
    """The network: over the topology, sizes included, or as the problem states it."""
    overlaps = not options.no_overlap
    if topology is None:
        return planned_network(problem, links=options.links, overlaps=overlaps)
    return network_over(topology, problem, overlaps=overlaps)


def _with_sizes(options: argparse.Namespace, topology: Topology) -> Topology:
    """The topology with the sizes that the arguments give instead of its own."""
    given = options.transfer_bytes
    sizes = topology.transfer_bytes if given is None else TransferBytes(activation=given, gradient=given)
    return replace(topology, transfer_bytes=sizes, all_reduce=_all_reduce(options, topology))


def _all_reduce(options: argparse.Namespace, topology: Topology) -> AllReduce | None:
    """The all-reduce given, completed by the topology's."""
    replicas, size_bytes = options.replicas, options.all_reduce_bytes
    if topology.all_reduce is not None:
        replicas = topology.all_reduce.replicas if replicas is None else replicas
        size_bytes = topology.all_reduce.weight_gradient_bytes if size_bytes is None else size_bytes
    if replicas is None and size_bytes is None:
        return None
    if replicas is None or size_bytes is None:
        missing = "--replicas" if replicas is None else "--all-reduce-bytes"
        raise InputError(
            f"an all-reduce is asked for without {missing}: give it, or all_reduce in the topology"
        )
    return AllReduce(replicas=replicas, weight_gradient_bytes=size_bytes)
