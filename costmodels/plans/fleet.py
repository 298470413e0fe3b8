"""The cluster a plan is for, and its file (``pipesynth.cluster``)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

from costmodels.cluster import GPUS_PER_NODE, Cluster
from costmodels.config_fields import ConfigFields
from costmodels.hardware import Gpu, Link, find_gpu, find_link
from costmodels.roofline import Efficiencies
from synth.document.refusal import Refusal, path_step, shown
from synth.document.text import parse_strictly
from synth.errors import InputError
from synth.files import read_text
from synth.memory import parse_size

CLUSTER_FORMAT = "pipesynth.cluster"
MOST_GPUS = 16384
LARGEST_CLUSTER_BYTES = 2**20
KEYS = {
    *("format", "version", "name", "source", "gpu", "gpus", "gpus_per_node", "memory_limit"),
    *("inside", "between", "transfer_latency_seconds", "efficiencies"),
}
INSIDE_KEYS = {"bytes_per_second", "latency_seconds"}
BETWEEN_KEYS = {*INSIDE_KEYS, "shared_by"}
LEAST_BYTES_PER_S, MOST_BYTES_PER_S = 1, 1e18
MOST_LATENCY_S = 3600
LEAST_EFFICIENCY = 1e-6
"""Beyond these, times are those of no cluster, and no count of ticks."""
WANTED = f'a file {{"format": "{CLUSTER_FORMAT}", …}}, or a count and a GPU such as 64xh100'


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """So many GPUs of one kind in nodes.

    Parameters
    ----------
    cluster
        The kind of GPU, its limit, the GPUs of a node, the links, and what a runtime adds to a transfer.
    num_gpus
        In all.
    shared_network
        Whether the GPUs of a node share one network port, rather than each having its own.
    name
        What it is called.
    """

    cluster: Cluster
    num_gpus: int
    shared_network: bool = False
    name: str = ""

    @property
    def gpus_per_node(self) -> int:
        """Of the fullest node: where there are fewer in all, one node has them."""
        return min(self.cluster.gpus_per_node, self.num_gpus)

    def link(self, flows: int) -> Link:
        """What connects two GPUs when so many leave their node at once; with 0, two of one node."""
        if not flows:
            return self.cluster.gpu.nvlink
        network = self.cluster.between_nodes
        return replace(network, bytes_per_s=network.bytes_per_s / flows) if self.shared_network else network

    def transfer_link(self, flows: int) -> Link:
        """The same for pipeline ranks, with the latency given for them."""
        link, latency_s = self.link(flows), self.cluster.rank_latency_s
        return link if latency_s is None else replace(link, latency_s=latency_s)


def read_fleet(given: str) -> Fleet:
    """Read a cluster: a file, or a count and a GPU of the catalogue such as ``64xh100``.

    Raises
    ------
    InputError
        Naming what is wrong, with the JSON path in a file.
    """
    short = re.fullmatch(r"(\d+)x([\w-]+)", given)
    if short and not os.path.exists(given):
        count = int(short[1])
        if not 1 <= count <= MOST_GPUS:
            raise InputError(f"a cluster of {count} GPUs is given: give 1 to {MOST_GPUS}")
        gpu = find_gpu(short[2])
        return Fleet(cluster=Cluster(gpu=gpu, gpus_per_node=GPUS_PER_NODE), num_gpus=count, name=given)
    refuse = Refusal(given)
    tree = parse_strictly(
        read_text(given, most_bytes=LARGEST_CLUSTER_BYTES, wanted=WANTED), refuse, CLUSTER_FORMAT
    )
    if not isinstance(tree, dict):
        refuse("$", shown(tree), f"give {WANTED}")
    return _fleet(ConfigFields(tree, refuse))


def _fleet(fields: ConfigFields) -> Fleet:
    _check_keys(fields.tree, KEYS, "$", fields.refuse)
    if fields.tree.get("format") != CLUSTER_FORMAT:
        fields.refuse("$.format", shown(fields.tree.get("format")), f'give "{CLUSTER_FORMAT}"')
    fields.count("version", most=1)
    gpu, network, shared = _gpu(fields), None, False
    if "inside" in fields.tree:
        gpu = replace(gpu, nvlink=_link(fields, "inside", INSIDE_KEYS))
    if "between" in fields.tree:
        network = _link(fields, "between", BETWEEN_KEYS)
        shared = _is_shared(fields)
    cluster = Cluster(
        gpu=gpu,
        gpus_per_node=fields.count("gpus_per_node", GPUS_PER_NODE, most=MOST_GPUS),
        efficiencies=_efficiencies(fields),
        network=network,
        rank_latency_s=_transfer_latency_s(fields),
        limit_bytes=_limit_bytes(fields),
    )
    gpus = fields.count("gpus", most=MOST_GPUS)
    return Fleet(
        cluster=cluster, num_gpus=gpus, shared_network=shared, name=_text(fields, "name") or "cluster"
    )


def _gpu(fields: ConfigFields) -> Gpu:
    name = _text(fields, "gpu")
    if name is None:
        fields.refuse("$.gpu", "missing", "give the name of a GPU of the catalogue")
    return find_gpu(name)


def _text(fields: ConfigFields, key: str) -> str | None:
    value = fields.tree.get(key)
    if value is not None and not isinstance(value, str):
        fields.refuse(f"$.{key}", shown(value), "give a string")
    return value


def _transfer_latency_s(fields: ConfigFields) -> float | None:
    key = "transfer_latency_seconds"
    if key not in fields.tree:
        return None
    return _number(fields, fields.tree, "", key, 0, MOST_LATENCY_S)


def _limit_bytes(fields: ConfigFields) -> int | None:
    value = fields.tree.get("memory_limit")
    if value is None:
        return None
    if isinstance(value, str):
        return parse_size(value)
    return fields.count("memory_limit", most=2**50)


def _link(fields: ConfigFields, key: str, known: set[str]) -> Link:
    given = fields.tree[key]
    if isinstance(given, str):
        return find_link(given)
    if not isinstance(given, dict):
        rule = "give a link of the catalogue, or its bytes_per_second and latency_seconds"
        fields.refuse(f"$.{key}", shown(given), rule)
    _check_keys(given, known, f"$.{key}", fields.refuse)
    return Link(
        name=key,
        bytes_per_s=_number(fields, given, key, "bytes_per_second", LEAST_BYTES_PER_S, MOST_BYTES_PER_S),
        latency_s=_number(fields, given, key, "latency_seconds", 0, MOST_LATENCY_S),
        source="the cluster's file",
    )


def _number(
    fields: ConfigFields, tree: dict[str, Any], of: str, key: str, least: float, most: float
) -> float:
    value: Any = tree.get(key)
    if type(value) not in (int, float) or not least <= value <= most:
        rule = f"give a number from {least:g} to {most:g}"
        at = f"$.{of}.{key}" if of else f"$.{key}"
        fields.refuse(at, "missing" if value is None else shown(value), rule)
    return float(value)


def _is_shared(fields: ConfigFields) -> bool:
    given = fields.tree["between"]
    value = given.get("shared_by", "rank") if isinstance(given, dict) else "rank"
    if value not in ("rank", "node"):
        rule = 'give "rank" where every GPU has a port of its own, "node" where a node has one'
        fields.refuse("$.between.shared_by", shown(value), rule)
    return bool(value == "node")


def _efficiencies(fields: ConfigFields) -> Efficiencies:
    given = fields.tree.get("efficiencies", {})
    known = set(Efficiencies.__dataclass_fields__)
    if not isinstance(given, dict):
        fields.refuse("$.efficiencies", shown(given), f"give shares of {', '.join(sorted(known))}")
    _check_keys(given, known, "$.efficiencies", fields.refuse)
    for name in given:
        _number(fields, given, "efficiencies", name, LEAST_EFFICIENCY, 1)
    return Efficiencies(**given)


def _check_keys(tree: dict[str, Any], known: set[str], at: str, refuse: Refusal) -> None:
    for key in tree:
        if key not in known:
            refuse(f"{at}{path_step(key)}", shown(tree[key]), f"give one of {', '.join(sorted(known))}")
