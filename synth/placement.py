"""Placements: the map from stages to ranks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from synth.errors import InvalidProblemError


class PlacementKind(StrEnum):
    """How a placement is named in a problem document."""

    MAP = "map"
    """An explicit ``stage_to_rank``."""
    LOOP = "loop"
    V = "v"
    WAVE = "wave"
    AUTO = "auto"
    """The solver chooses; until it has, stage s is on rank s mod p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A map from stages to ranks and the name it was given by.

    Parameters
    ----------
    kind
        The name; ``MAP`` for an explicit map.
    stage_to_rank
        The rank of every stage, length ``num_stages``.
    """

    kind: PlacementKind
    stage_to_rank: tuple[int, ...]

    @classmethod
    def explicit(cls, stage_to_rank: tuple[int, ...] | list[int]) -> Placement:
        """An explicit map."""
        return cls(kind=PlacementKind.MAP, stage_to_rank=tuple(stage_to_rank))


def place(kind: PlacementKind, num_ranks: int, num_stages: int) -> Placement:
    """Place stages by name.

    ``loop`` puts stage s on rank s mod p; ``v`` goes down the ranks and back up once; ``wave`` goes down
    and up any number of times. Four ranks, eight stages::

        loop  0 1 2 3 0 1 2 3
        v     0 1 2 3 3 2 1 0
        wave  0 1 2 3 3 2 1 0   (with twelve: … 0 1 2 3)

    Parameters
    ----------
    kind
        Any kind but ``MAP``.
    num_ranks, num_stages
        Counts; stages must be a multiple of the ranks, twice the ranks for ``v``, and for ``auto`` as many as
        the ranks or more.

    Raises
    ------
    InvalidProblemError
        When the counts do not fit the kind.
    """
    if kind is PlacementKind.V and num_stages != 2 * num_ranks:
        raise InvalidProblemError(
            "stages",
            f"{num_stages} long with {num_ranks} ranks",
            f"v placement needs exactly two stages per rank; use {2 * num_ranks}, or wave for more",
        )
    if kind is PlacementKind.AUTO and num_stages < num_ranks:
        raise InvalidProblemError(
            "stages",
            f"{num_stages} long with {num_ranks} ranks",
            f"every rank holds a stage; use {num_ranks} stages or more",
        )
    if num_stages % num_ranks and kind is not PlacementKind.AUTO:
        below = num_stages - num_stages % num_ranks
        near = [n for n in (below, below + num_ranks) if n]
        raise InvalidProblemError(
            "stages",
            f"{num_stages} long with {num_ranks} ranks",
            f"{kind} placement needs a multiple of the ranks; use {' or '.join(map(str, near))}, "
            'or give {"stage_to_rank": [...]}',
        )
    turns = kind in (PlacementKind.V, PlacementKind.WAVE)
    ranks = []
    for stage in range(num_stages):
        chunk, position = divmod(stage, num_ranks)
        ranks.append(num_ranks - 1 - position if turns and chunk % 2 else position)
    return Placement(kind=kind, stage_to_rank=tuple(ranks))
