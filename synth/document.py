"""The two JSON documents, ``pipesynth.problem`` and ``pipesynth.schedule`` (FORMATS.md).

A document is read in three steps, each of which refuses with the JSON path, the value found there and what
would be accepted: text to JSON, JSON to the wire types of this module, wire types to the domain.
``python -m synth.document`` regenerates the JSON Schemas from the wire types.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType, inspect

from synth.certificate import Certificate, Provenance, Status
from synth.errors import DocumentError, InvalidProblemError
from synth.files import decode_text, write_whole
from synth.ops import Op, OpKind, TimedOp
from synth.placement import Placement, PlacementKind, place
from synth.problem import Links, Objective, OpCost, Problem, StageCosts, uniform_transfers
from synth.schedule import Metrics, Schedule, measure

PROBLEM_FORMAT = "pipesynth.problem"
SCHEDULE_FORMAT = "pipesynth.schedule"
VERSION: Final = 1
"""The version written, and the newest one read."""

SMALLEST_REFUSED = 2**62
"""No integer of a document may reach this in size: sums must stay within 64 bits."""
_MOST_DIGITS = len(str(SMALLEST_REFUSED))
_SHOWN_CHARACTERS = 60
_LINE_WIDTH = 110


# Wire types. A description is what an error message says would be accepted.

Count = Annotated[int, Meta(ge=1, description="an integer ≥ 1")]
Amount = Annotated[int, Meta(ge=0, description="an integer ≥ 0")]
Tick = Annotated[int, Meta(description="an integer number of ticks")]
Number = Annotated[float, Meta(description="a finite number")]
Text = Annotated[str, Meta(description="a string")]
Amounts = Annotated[tuple[Amount, ...], Meta(description="a list of integers ≥ 0, one per rank")]
ObjectiveName = Annotated[Objective, Meta(description='"makespan" or "rank_span"')]
NamedKind = Literal["loop", "v", "wave", "auto"]


class Wire(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An object of a document, as written."""


class OpCostWire(Wire, frozen=True, kw_only=True):
    """What one op takes."""

    ticks: Count
    alloc_bytes: Amount = 0
    free_bytes: Amount = 0


class StageWire(Wire, frozen=True, kw_only=True):
    """A stage: F, and B with W, or BW, or all of them."""

    F: OpCostWire
    B: OpCostWire | None = None
    W: OpCostWire | None = None
    BW: OpCostWire | None = None
    static_bytes: Amount = 0
    layers: Annotated[tuple[Text, ...] | UnsetType, Meta(description="a list of layer names")] = UNSET


class PlacementWire(Wire, frozen=True, kw_only=True):
    """A map from stages to ranks, or the name of one."""

    stage_to_rank: (
        Annotated[tuple[Amount, ...], Meta(description="a list of ranks, one per stage")] | UnsetType
    ) = UNSET
    kind: Annotated[NamedKind, Meta(description='"loop", "v", "wave" or "auto"')] | UnsetType = UNSET


class TransfersWire(Wire, frozen=True, kw_only=True):
    """The ticks of a transfer, for every pair of different ranks or for each."""

    ticks: Amount | UnsetType = UNSET
    ticks_by_rank_pair: (
        Annotated[tuple[Amounts, ...], Meta(description="a square matrix of integers ≥ 0, [from][to]")]
        | UnsetType
    ) = UNSET
    links: Annotated[Links, Meta(description='"free" or "exclusive"')] = Links.FREE


def _exactly_one(*keys: str) -> Meta:
    """The schema's way to say what :func:`_only_one_of` checks."""
    return Meta(extra_json_schema={"oneOf": [{"required": [key]} for key in keys]})


class ProblemWire(Wire, frozen=True, kw_only=True):
    """A ``pipesynth.problem`` document."""

    format: Literal["pipesynth.problem"]
    version: Literal[1]
    name: Text = ""
    source: Text = ""
    tick_seconds: Annotated[float, Meta(gt=0, description="a finite number of seconds above 0")] = 1e-6
    num_ranks: Count
    num_microbatches: Count
    placement: Annotated[PlacementWire, _exactly_one("stage_to_rank", "kind")]
    stages: Annotated[
        tuple[StageWire, ...], Meta(min_length=1, description="a list with one entry per stage, at least one")
    ]
    transfers: Annotated[TransfersWire, _exactly_one("ticks", "ticks_by_rank_pair")] = TransfersWire(ticks=0)
    memory_limit_bytes: Annotated[
        Amount | Amounts | None,
        Meta(description="an integer ≥ 0 for every rank, a list with one per rank, or null for no limit"),
    ] = None
    objective: ObjectiveName = Objective.MAKESPAN


class TimedOpWire(Wire, frozen=True, kw_only=True):
    """An op with its planned start and end in ticks."""

    op: Annotated[OpKind, Meta(description='"F", "B", "W" or "BW"')]
    stage: Amount
    microbatch: Amount
    start: Tick
    end: Tick


class MetricsWire(Wire, frozen=True, kw_only=True):
    """What the schedule achieves: ticks, and bytes per rank."""

    makespan: Amount
    rank_span: Amount
    work: Amount
    bubble_ratio: Number
    peak_memory_bytes: Amounts


class CertificateWire(Wire, frozen=True, kw_only=True):
    """A value, a lower bound, and the argument for the bound."""

    objective: ObjectiveName
    value: Count
    lower_bound: Amount
    gap: Number
    status: Annotated[Status, Meta(description='"optimal", "feasible", "infeasible" or "unknown"')]
    bound_from: Text


class ProvenanceWire(Wire, frozen=True, kw_only=True):
    """How the schedule was made."""

    tool: Text
    tool_version: Text
    method: Text
    solver: Text = ""
    solver_version: Text = ""
    seed: Amount = 0
    workers: Count = 1
    wall_seconds: Annotated[float, Meta(ge=0, description="a finite number of seconds ≥ 0")] = 0.0
    created: Text


Ranks = Annotated[
    tuple[Annotated[tuple[TimedOpWire, ...], Meta(description="a list of timed ops")], ...],
    Meta(description="a list with one list of timed ops per rank"),
]


class ScheduleWire(Wire, frozen=True, kw_only=True):
    """A ``pipesynth.schedule`` document."""

    format: Literal["pipesynth.schedule"]
    version: Literal[1]
    problem: ProblemWire
    ranks: Ranks
    metrics: MetricsWire
    certificate: CertificateWire
    provenance: ProvenanceWire


AnyWire = TypeVar("AnyWire", bound=Wire)


# Reading and writing.


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDocument:
    """A schedule and what its document claims of it; the claims are the verifier's to check.

    Parameters
    ----------
    schedule
        The problem and the timed ops.
    metrics
        What the document says the schedule achieves.
    certificate
        The value and the bound.
    stated_gap, stated_status
        As the document states them; the certificate computes its own.
    provenance
        How the schedule was made.
    """

    schedule: Schedule
    metrics: Metrics
    certificate: Certificate
    stated_gap: float
    stated_status: Status
    provenance: Provenance

    @classmethod
    def of(cls, schedule: Schedule, certificate: Certificate, provenance: Provenance) -> ScheduleDocument:
        """The document that states what the schedule's own numbers are."""
        return cls(
            schedule=schedule,
            metrics=measure(schedule),
            certificate=certificate,
            stated_gap=certificate.gap,
            stated_status=certificate.status,
            provenance=provenance,
        )


def read_problem(text: str | bytes, source: str = "") -> Problem:
    """Read a problem document.

    Parameters
    ----------
    text
        The document.
    source
        Where it came from, for messages.

    Raises
    ------
    DocumentError
        In one sentence: the JSON path, the value found there, and what would be accepted.
    """
    refuse = _Refusal(source)
    tree = _parse(text, refuse)
    _check_header(tree, PROBLEM_FORMAT, "$", refuse)
    return _problem(_convert(tree, ProblemWire, refuse), "$", refuse)


def write_problem(problem: Problem) -> str:
    """Write a problem document; reading it gives an equal problem."""
    return _layout(msgspec.to_builtins(_problem_wire(problem, problem.placement)))


def read_schedule(text: str | bytes, source: str = "") -> ScheduleDocument:
    """Read a schedule document, whose schedule and claims may still be wrong: that is the verifier's to say.

    Parameters
    ----------
    text
        The document.
    source
        Where it came from, for messages.

    Raises
    ------
    DocumentError
        In one sentence: the JSON path, the value found there, and what would be accepted.
    """
    refuse = _Refusal(source)
    tree = _parse(text, refuse)
    _check_header(tree, SCHEDULE_FORMAT, "$", refuse)
    if isinstance(tree.get("problem"), dict):
        _check_header(tree["problem"], PROBLEM_FORMAT, "$.problem", refuse)
    wire = _convert(tree, ScheduleWire, refuse)
    if wire.problem.placement.kind == "auto":
        refuse("$.problem.placement.kind", '"auto"', "give the stage_to_rank the schedule was made for")
    problem = _problem(wire.problem, "$.problem", refuse)
    problem = problem.with_placement(Placement.explicit(problem.stage_to_rank))
    _check_one_per_rank("$.ranks", len(wire.ranks), problem, refuse)
    peaks = wire.metrics.peak_memory_bytes
    _check_one_per_rank("$.metrics.peak_memory_bytes", len(peaks), problem, refuse)
    return ScheduleDocument(
        schedule=Schedule(problem, tuple(tuple(map(_timed_op, rank)) for rank in wire.ranks)),
        metrics=Metrics(**msgspec.structs.asdict(wire.metrics)),
        certificate=_certificate(wire.certificate),
        stated_gap=wire.certificate.gap,
        stated_status=wire.certificate.status,
        provenance=Provenance(**msgspec.structs.asdict(wire.provenance)),
    )


def write_schedule(document: ScheduleDocument) -> str:
    """Write a schedule document, its problem's placement resolved to ``stage_to_rank``."""
    schedule, metrics, claim = document.schedule, document.metrics, document.certificate
    explicit = Placement.explicit(schedule.problem.stage_to_rank)
    wire = ScheduleWire(
        format="pipesynth.schedule",
        version=VERSION,
        problem=_problem_wire(schedule.problem, explicit),
        ranks=tuple(tuple(map(_timed_op_wire, rank)) for rank in schedule.ranks),
        metrics=msgspec.convert(metrics, MetricsWire, from_attributes=True),
        certificate=CertificateWire(
            objective=claim.objective,
            value=claim.value,
            lower_bound=claim.lower_bound,
            gap=document.stated_gap,
            status=document.stated_status,
            bound_from=claim.bound_from,
        ),
        provenance=msgspec.convert(document.provenance, ProvenanceWire, from_attributes=True),
    )
    return _layout(msgspec.to_builtins(wire))


def generate_schemas() -> dict[str, str]:
    """The JSON Schemas of both documents: file name to text."""
    return {
        f"{kind}.schema.json": json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(wire)},
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
        for kind, wire in (("problem", ProblemWire), ("schedule", ScheduleWire))
    }


# Refusing.


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Raises the error of one document."""

    source: str

    def __call__(self, path: str, given: str, rule: str) -> NoReturn:
        raise DocumentError(path, given, rule, self.source)


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the decoded JSON for a value that we refuse, until its path is known."""

    given: str
    rule: str


# Text to JSON.

_RULES_OF_JSON = {
    "Expecting value": "a value is due there, such as a number or a string in double quotes",
    "Expecting property name enclosed in double quotes": "a key in double quotes is due there",
    "Expecting ',' delimiter": "a comma or a closing bracket is due there",
    "Expecting ':' delimiter": "a colon is due there",
    "Extra data": "the document is complete before that; remove what follows",
    "Unterminated string starting at": "close the string that starts there",
    "Invalid control character at": "write a line break in a string as \\n, a tab as \\t",
}
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MAYBE_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")


def _parse(text: str | bytes, refuse: _Refusal) -> Any:
    """Decode JSON more strictly than the standard library does."""
    if isinstance(text, bytes):
        text = decode_text(text, refuse.source)
    if not text.strip():
        refuse("$", "empty", f'give a JSON object, {{"format": "{PROBLEM_FORMAT}", …}}')
    if text.startswith("\ufeff"):
        refuse("$", "preceded by a byte order mark", "save it as UTF-8 without one")
    hooks = _Hooks(refused=[])
    try:
        tree = json.loads(
            text,
            object_pairs_hook=hooks.object,
            parse_constant=hooks.constant,
            parse_int=hooks.integer,
            parse_float=hooks.float,
        )
    except json.JSONDecodeError as error:
        given = f"not JSON at line {error.lineno}, column {error.colno}"
        refuse("$", given, _RULES_OF_JSON.get(error.msg, error.msg[:1].lower() + error.msg[1:]))
    except RecursionError:
        refuse("$", "nested too deeply to read", "no document of ours is nested more than seven deep")
    if hooks.refused or _MAYBE_SURROGATE.search(text):
        for path, found in _refused_values(tree):
            refuse(path, found.given, found.rule)
    return tree


@dataclass(frozen=True, slots=True)
class _Hooks:
    """What the JSON decoder calls; what it must not accept is marked, because it does not know its path."""

    refused: list[_Refused]

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    found[key] = self._refuse("given twice", "give every key once")
                seen.add(key)
        return found

    def constant(self, literal: str) -> _Refused:
        return self._refuse(literal, "give a finite number")

    def integer(self, literal: str) -> int | _Refused:
        # The digits are counted first: converting very many of them takes very long.
        if len(literal) <= _MOST_DIGITS + 1 and abs(value := int(literal)) < SMALLEST_REFUSED:
            return value
        return self._refuse(_shortened(literal), "give an integer below 2**62 in size, in larger units")

    def float(self, literal: str) -> float | _Refused:
        value = float(literal)
        if math.isfinite(value):
            return value
        return self._refuse(_shortened(literal), "give a finite number")

    def _refuse(self, given: str, rule: str) -> _Refused:
        self.refused.append(_Refused(given, rule))
        return self.refused[-1]


def _refused_values(tree: Any) -> Iterator[tuple[str, _Refused]]:
    """The values refused by the hooks, and strings that are no text, with their paths, in document order."""
    stack: list[tuple[str, Any]] = [("$", tree)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, _Refused):
            yield path, node
        elif isinstance(node, str) and _SURROGATE.search(node):
            yield path, _Refused(_shown(node), "give text without half a surrogate pair")
        elif isinstance(node, dict):
            stack += reversed([(path + _key(key), value) for key, value in node.items()])
            stack += [(path + _key(key), key) for key in node if _SURROGATE.search(key)]
        elif isinstance(node, list):
            stack += reversed([(f"{path}[{index}]", value) for index, value in enumerate(node)])


def _check_header(tree: Any, expected: str, path: str, refuse: _Refusal) -> None:
    """Refuse another format or a newer version before looking at anything else."""
    if not isinstance(tree, dict):
        refuse(path, _shown(tree), f'give an object, {{"format": "{expected}", …}}')
    accepted: tuple[tuple[str, str | int], ...] = (("format", expected), ("version", VERSION))
    for key, value in accepted:
        if key not in tree:
            refuse(f"{path}.{key}", "missing", f"give {_shown(value)}")
        found = tree[key]
        if key == "version" and type(found) is int and found > VERSION:
            refuse(
                f"{path}.version",
                _shown(found),
                f"version {found} is newer than this reader, which knows {VERSION}; update pipesynth",
            )
        if type(found) is not type(value) or found != value:
            refuse(f"{path}.{key}", _shown(found), f"give {_shown(value)}")


# JSON to wire types.

_WHERE = re.compile(r"at `(\$[\w.\[\]]*)`\Z")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


def _convert(tree: Any, wire: type[AnyWire], refuse: _Refusal) -> AnyWire:
    try:
        return msgspec.convert(tree, wire, strict=True)
    except msgspec.ValidationError as error:
        _explain(str(error), tree, wire, refuse)


def _explain(message: str, tree: Any, wire: type[Wire], refuse: _Refusal) -> NoReturn:
    """Say in our words what msgspec found: the path is its, the value and the rule are looked up there."""
    match = _WHERE.search(message)
    path = match[1] if match else "$"
    if message.startswith("Object contains unknown field"):
        # An unknown key may hold anything, even what looks like a path: find the object with one.
        path, node, type_ = next(_objects_with_unknown_keys(tree, inspect.type_info(wire)))
        fields = _fields(type_)
        key = next(key for key in node if key not in fields)
        refuse(path + _key(key), "not a known key", _near_keys(key, fields))
    node, type_ = tree, inspect.type_info(wire)
    for key, index in _STEP.findall(path):
        step = key or int(index)
        node, type_ = node[step], _type_below(type_, step)
    if message.startswith("Object missing required field"):
        fields = _fields(type_)
        key = next(key for key, field in fields.items() if field.required and key not in node)
        refuse(f"{path}.{key}", "missing", f"give {_accepted(fields[key].type)}")
    refuse(path, _shown(node), f"give {_accepted(type_)}")


def _objects_with_unknown_keys(
    node: Any, type_: inspect.Type, path: str = "$"
) -> Iterator[tuple[str, dict[str, Any], inspect.Type]]:
    fields = _fields(type_)
    if isinstance(node, dict) and fields:
        if not node.keys() <= fields.keys():
            yield path, node, type_
        for key in filter(fields.__contains__, node):
            yield from _objects_with_unknown_keys(node[key], fields[key].type, f"{path}.{key}")
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _objects_with_unknown_keys(item, _type_below(type_, index), f"{path}[{index}]")


def _alternatives(type_: inspect.Type) -> Iterator[inspect.Type]:
    """The types a type may be, without descriptions."""
    match type_:
        case inspect.Metadata():
            yield from _alternatives(type_.type)
        case inspect.UnionType():
            for alternative in type_.types:
                yield from _alternatives(alternative)
        case _:
            yield type_


def _fields(type_: inspect.Type) -> dict[str, inspect.Field]:
    """The fields of the object a type may be, none where it may be no object."""
    structs = (t for t in _alternatives(type_) if isinstance(t, inspect.StructType))
    return {field.name: field for struct in structs for field in struct.fields}


def _type_below(type_: inspect.Type, step: str | int) -> inspect.Type:
    """The type of one field or of the list items."""
    if isinstance(step, str):
        return _fields(type_)[step].type
    lists = (t for t in _alternatives(type_) if isinstance(t, inspect.VarTupleType))
    return next((t.item_type for t in lists), inspect.AnyType())


def _accepted(type_: inspect.Type) -> str:
    """What a type accepts, in words: its description, or the keys of the object it may be."""
    described = type_.extra_json_schema if isinstance(type_, inspect.Metadata) else None
    if described and "description" in described:
        return str(described["description"])
    if isinstance(type_, inspect.LiteralType):
        return " or ".join(map(_shown, type_.values))
    null = ", or null" if any(isinstance(t, inspect.NoneType) for t in _alternatives(type_)) else ""
    return f"an object with {_listed(list(_fields(type_)))}{null}"


def _near_keys(key: str, fields: dict[str, inspect.Field]) -> str:
    near = difflib.get_close_matches(key, fields, n=1)
    meant = f"perhaps {near[0]} is meant" if near else "remove it"
    return f"{meant}; the keys here are {_listed(list(fields))}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _key(key: str) -> str:
    """One key as a step of a JSON path."""
    return f".{key}" if key.isidentifier() and key.isascii() else f"[{_shown(key)}]"


def _shown(value: Any) -> str:
    """A JSON value as it should be shown: one line of printable characters, shortened."""
    shown = ""
    # The encoder yields piece by piece, so a huge or deep value costs no more than what is shown of it.
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        shown += piece
        if len(shown) > _SHOWN_CHARACTERS:
            break
    return _shortened(shown)


def _shortened(text: str) -> str:
    start = text[: _SHOWN_CHARACTERS + 1]
    printable = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in start)
    return printable if len(printable) <= _SHOWN_CHARACTERS else printable[: _SHOWN_CHARACTERS - 1] + "…"


# Wire types to the domain and back.


def _problem(wire: ProblemWire, path: str, refuse: _Refusal) -> Problem:
    _only_one_of(wire.placement, f"{path}.placement", ("stage_to_rank", "kind"), refuse)
    _only_one_of(wire.transfers, f"{path}.transfers", ("ticks", "ticks_by_rank_pair"), refuse)
    if wire.num_ranks > len(wire.stages):
        # Said before anything of the size num_ranks times num_ranks is built.
        rule = f"every rank holds a stage; give at most {len(wire.stages)}, or more stages"
        refuse(f"{path}.num_ranks", str(wire.num_ranks), rule)
    try:
        return Problem(
            num_ranks=wire.num_ranks,
            num_microbatches=wire.num_microbatches,
            placement=_placement(wire),
            stages=tuple(map(_stage_costs, wire.stages)),
            transfer_ticks=_transfer_ticks(wire),
            links=wire.transfers.links,
            memory_limit_bytes=_memory_limit_bytes(wire),
            objective=wire.objective,
            tick_seconds=wire.tick_seconds,
            name=wire.name,
            source=wire.source,
        )
    except InvalidProblemError as error:
        refuse(f"{path}.{error.where}", _shortened(str(error.given)), error.rule)


def _only_one_of(wire: Wire, path: str, keys: tuple[str, str], refuse: _Refusal) -> None:
    given = [key for key in keys if getattr(wire, key) is not UNSET]
    if len(given) != 1:
        found = " and ".join(given) if given else f"without {' and '.join(keys)}"
        refuse(path, f"given {found}" if given else found, f"give {' or '.join(keys)}, exactly one of them")


def _placement(wire: ProblemWire) -> Placement:
    stage_to_rank, kind = wire.placement.stage_to_rank, wire.placement.kind
    if isinstance(stage_to_rank, tuple):
        return Placement.explicit(stage_to_rank)
    return place(PlacementKind(str(kind)), wire.num_ranks, len(wire.stages))


def _placement_wire(problem: Problem, placement: Placement) -> PlacementWire:
    kind = placement.kind
    if kind is not PlacementKind.MAP:
        named = place(kind, problem.num_ranks, problem.num_stages)
        # The loop stands in until the solver has chosen, so under auto the map says nothing.
        if kind is PlacementKind.AUTO or named.stage_to_rank == placement.stage_to_rank:
            return msgspec.convert({"kind": kind.value}, PlacementWire)
    return PlacementWire(stage_to_rank=placement.stage_to_rank)


def _transfer_ticks(wire: ProblemWire) -> tuple[tuple[int, ...], ...]:
    if isinstance(wire.transfers.ticks, int):
        return uniform_transfers(wire.num_ranks, wire.transfers.ticks)
    assert isinstance(wire.transfers.ticks_by_rank_pair, tuple), "exactly one is given"
    return wire.transfers.ticks_by_rank_pair


def _transfers_wire(problem: Problem) -> TransfersWire:
    matrix = problem.transfer_ticks
    ticks = matrix[0][-1] if problem.num_ranks > 1 else 0
    if matrix == uniform_transfers(problem.num_ranks, ticks):
        return TransfersWire(ticks=ticks, links=problem.links)
    return TransfersWire(ticks_by_rank_pair=matrix, links=problem.links)


def _memory_limit_bytes(wire: ProblemWire) -> tuple[int, ...] | None:
    limit = wire.memory_limit_bytes
    return (limit,) * wire.num_ranks if isinstance(limit, int) else limit


def _memory_limit_wire(problem: Problem) -> int | tuple[int, ...] | None:
    limits = problem.memory_limit_bytes
    return limits[0] if limits is not None and len(set(limits)) == 1 else limits


def _op_cost(wire: OpCostWire) -> OpCost:
    return OpCost(ticks=wire.ticks, alloc_bytes=wire.alloc_bytes, free_bytes=wire.free_bytes)


def _stage_costs(wire: StageWire) -> StageCosts:
    return StageCosts(
        F=_op_cost(wire.F),
        B=None if wire.B is None else _op_cost(wire.B),
        W=None if wire.W is None else _op_cost(wire.W),
        BW=None if wire.BW is None else _op_cost(wire.BW),
        static_bytes=wire.static_bytes,
        layers=wire.layers if isinstance(wire.layers, tuple) else (),
    )


def _stage_wire(costs: StageCosts) -> StageWire:
    wire = msgspec.convert(costs, StageWire, from_attributes=True)
    return wire if costs.layers else msgspec.structs.replace(wire, layers=UNSET)


def _problem_wire(problem: Problem, placement: Placement) -> ProblemWire:
    return ProblemWire(
        format="pipesynth.problem",
        version=VERSION,
        name=problem.name,
        source=problem.source,
        tick_seconds=problem.tick_seconds,
        num_ranks=problem.num_ranks,
        num_microbatches=problem.num_microbatches,
        placement=_placement_wire(problem, placement),
        stages=tuple(map(_stage_wire, problem.stages)),
        transfers=_transfers_wire(problem),
        memory_limit_bytes=_memory_limit_wire(problem),
        objective=problem.objective,
    )


def _timed_op(wire: TimedOpWire) -> TimedOp:
    return TimedOp(Op(wire.op, wire.stage, wire.microbatch), wire.start, wire.end)


def _timed_op_wire(timed: TimedOp) -> TimedOpWire:
    kind, stage, microbatch = timed.op
    return TimedOpWire(op=kind, stage=stage, microbatch=microbatch, start=timed.start, end=timed.end)


def _certificate(wire: CertificateWire) -> Certificate:
    return Certificate(
        objective=wire.objective,
        value=wire.value,
        lower_bound=wire.lower_bound,
        bound_from=wire.bound_from,
    )


def _check_one_per_rank(path: str, length: int, problem: Problem, refuse: _Refusal) -> None:
    if length != problem.num_ranks:
        refuse(path, f"{length} long", f"give {problem.num_ranks} entries, one per rank")


# JSON to text.


def _layout(tree: dict[str, Any]) -> str:
    """Indented JSON in which what fits on a line, and every list of numbers, is on one."""
    return _broken(tree, "") + "\n"


def _broken(value: Any, indent: str) -> str:
    """A container with one line or more for each of its items."""
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{inner}{_flat(key)}: {_fitted(item, inner, len(key) + 4)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _fitted(item, inner, 0) for item in value) + f"\n{indent}]"


def _fitted(value: Any, indent: str, taken: int) -> str:
    """A value on one line where that fits behind the indent and what is taken."""
    if not isinstance(value, dict | tuple | list) or not value:
        return _flat(value)
    if not isinstance(value, dict) and all(isinstance(item, int | float) for item in value):
        return _flat(value)
    room = _LINE_WIDTH - len(indent) - taken
    if len(value) <= room and len(flat := _flat(value)) <= room:
        return flat
    return _broken(value, indent)


def _flat(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


if __name__ == "__main__":
    for file_name, schema in generate_schemas().items():
        write_whole(str(Path(__file__).parent / "schemas" / file_name), schema)
