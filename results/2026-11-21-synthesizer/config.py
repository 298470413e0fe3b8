"""What is run: named problems, their time limits, and the published or asked bubble to set beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from synth import Objective, PlacementKind, Problem, load_instance
from synth.chunks import cut_every_way, cut_stages
from synth.memory import parse_limit
from synth.problem import OpCost, StageCosts, uniform_problem

WORKERS, SEED = 2, 0

ZB_ROWS = [
    f"zb-{model}-m{microbatches}"
    for model, counts in (
        ("1.5b", (24, 32, 64)),
        ("6.2b", (24, 32, 64)),
        ("14.6b", (48, 64, 128)),
        ("28.3b", (96, 128, 256)),
    )
    for microbatches in counts
]
ZB_1P = (0.1585, 0.1242, 0.0674, 0.1323, 0.1045, 0.0554, 0.1397, 0.1088, 0.0576, 0.1421, 0.1106, 0.0594)
ZB_2P = (0.0433, 0.0039, 0.0026, 0.0029, 0.0022, 0.0010, 0.0066, 0.0054, 0.0028, 0.0038, 0.0029, 0.0018)
"""ZB-1p and ZB-2p in the zero-bubble paper's Table 5 (arXiv 2401.10241), in the order of ``ZB_ROWS``."""

V_TIMES = {"1.5b": ((18522, 18086, 9337), 1202), "6.2b": ((29718, 29444, 19927), 1054)}
"""Ticks of half a microsecond of F, B, W of half a rank's share, and of one transfer (Table 9 there)."""

V_PUBLISHED = {
    "1.5b": {8: 0.2993, 10: 0.1695, 12: 0.1398, 14: 0.1056, 16: 0.0703},
    "6.2b": {8: 0.2410, 10: 0.1448, 12: 0.1132, 14: 0.0772, 16: 0.0403},
}
"""The released adaptive search of arXiv 2405.15362 on these times; at 16 chunk activations ZB-V."""

UNIT_PUBLISHED = {
    4: {4: 11, 5: 8, 6: 5, 7: 3, 8: 0},
    6: {6: 17, 7: 14, 8: 11, 9: 8, 10: 5, 11: 3, 12: 0},
    8: {8: 23, 9: 20, 10: 17, 11: 14, 12: 11, 13: 8, 14: 5, 15: 3, 16: 0},
}
"""Idle slots of the same search in unit times, by ranks and chunk activations, under ``rank_span``."""


@dataclass(frozen=True, slots=True)
class Run:
    """One synthesis: a group and a name, how to state the problem, seconds, and a bubble to compare with."""

    group: str
    name: str
    state: Callable[[], tuple[Problem, ...]]
    seconds: float
    published: float | None = None


def limited(name: str, limit: str, objective: Objective) -> tuple[Problem, ...]:
    """A shipped instance under a limit."""
    problem = replace(load_instance(name), objective=objective)
    return (problem.with_memory_limit(parse_limit(limit, problem)),)


def v_shaped(
    ticks: tuple[int, int, int], transfer: int, p: int, m: int, k: int, objective: Objective
) -> tuple[Problem, ...]:
    """Two chunks per rank in a V whose activations are freed at W only, the limit in chunk activations."""
    stage = StageCosts(
        F=OpCost(ticks=ticks[0], alloc_bytes=1),
        B=OpCost(ticks=ticks[1]),
        W=OpCost(ticks=ticks[2], free_bytes=1),
    )
    problem = uniform_problem(
        p,
        m,
        stage,
        transfer_ticks=transfer,
        chunks=2,
        kind=PlacementKind.V,
        objective=objective,
        memory_limit_bytes=k,
    )
    return (problem,)


def one_chunk(ticks: tuple[int, int, int], transfer: int, limit: str) -> tuple[Problem, ...]:
    """Four ranks, eight microbatches, one chunk: memory +2 at F, -1 at B, -1 at W."""
    stage = StageCosts(
        F=OpCost(ticks=ticks[0], alloc_bytes=2),
        B=OpCost(ticks=ticks[1], free_bytes=1),
        W=OpCost(ticks=ticks[2], free_bytes=1),
    )
    problem = uniform_problem(4, 8, stage, transfer_ticks=transfer, objective=Objective.RANK_SPAN)
    return (problem.with_memory_limit(parse_limit(limit, problem)),)


def any_cut(p: int, m: int, limit: str, objective: Objective) -> tuple[Problem, ...]:
    """The 1.5B times with one, two or four chunks per rank, under every named and free placement."""
    stage = StageCosts(
        F=OpCost(ticks=18522, alloc_bytes=2),
        B=OpCost(ticks=18086, free_bytes=1),
        W=OpCost(ticks=9337, free_bytes=1),
    )
    problem = uniform_problem(p, m, stage, transfer_ticks=601, objective=objective)
    problem = problem.with_memory_limit(parse_limit(limit, problem))
    return cut_every_way(problem, PlacementKind.AUTO).problems


def two_chunks(name: str, limit: str, objective: Objective) -> tuple[Problem, ...]:
    """A shipped instance cut in two, in a V."""
    (problem,) = limited(name, limit, objective)
    return (cut_stages(problem, 2, PlacementKind.V).problem,)


SPAN, WHOLE = Objective.RANK_SPAN, Objective.MAKESPAN
UNEVEN = "zb-8stage-uneven"

RUNS = [
    *(
        Run("1x", name, partial(limited, name, "1x", SPAN), 60.0, bubble)
        for name, bubble in zip(ZB_ROWS, ZB_1P, strict=True)
    ),
    *(
        Run("2x", name, partial(limited, name, "2x", SPAN), 30.0, bubble)
        for name, bubble in zip(ZB_ROWS, ZB_2P, strict=True)
    ),
    *(
        Run(
            f"V {model}",
            f"k={k}",
            partial(v_shaped, ticks, lag, 8, 24, k, SPAN),
            120.0 if k == 8 else 60.0,
            bubble,
        )
        for model, (ticks, lag) in V_TIMES.items()
        for k, bubble in V_PUBLISHED[model].items()
    ),
    Run("V 1.5b, p=16", "m=48 k=16", partial(v_shaped, *V_TIMES["1.5b"], 16, 48, 16, SPAN), 120.0),
    *(
        Run("V 1.5b, long", f"k={k}", partial(v_shaped, *V_TIMES["1.5b"], 8, 24, k, SPAN), 300.0, bubble)
        for k, bubble in V_PUBLISHED["1.5b"].items()
    ),
    *(
        Run(
            f"V unit {objective}",
            f"p={p} k={k}",
            partial(v_shaped, (1, 1, 1), 0, p, 2 * p, k, objective),
            60.0,
            round(idle / (12 * p + idle), 4) if objective is SPAN else None,
        )
        for p, frontier in UNIT_PUBLISHED.items()
        for k, idle in frontier.items()
        for objective in (SPAN, WHOLE)
    ),
    Run("one chunk", "unit 0.5x", partial(one_chunk, (1000, 1000, 1000), 0, "0.5x"), 30.0, 1 - 24000 / 41000),
    Run(
        "one chunk", "unit 0.75x", partial(one_chunk, (1000, 1000, 1000), 0, "0.75x"), 30.0, 1 - 24000 / 31000
    ),
    Run(
        "one chunk",
        "1.5b 0.75x",
        partial(one_chunk, (18522, 18086, 9337), 601, "0.75x"),
        60.0,
        1 - 8 * 45945 / 532205,
    ),
    Run("any cut", "p=8 m=24 0.5x", partial(any_cut, 8, 24, "0.5x", SPAN), 120.0, 0.2993),
    *(Run("m = p", f"p={p}", partial(any_cut, p, p, "1x", WHOLE), 60.0) for p in (4, 8, 16)),
    Run("uneven", "own limits", lambda: (replace(load_instance(UNEVEN), objective=WHOLE),), 60.0),
    Run(
        "uneven",
        "6200",
        lambda: (replace(load_instance(UNEVEN), objective=WHOLE).with_memory_limit(6200),),
        60.0,
    ),
    *(
        Run("large", f"28.3b m=256 {limit}", partial(limited, "zb-28.3b-m256", limit, WHOLE), 60.0)
        for limit in ("0.5x", "0.75x", "1x")
    ),
    *(
        Run("large", f"28.3b m=256 V {limit}", partial(two_chunks, "zb-28.3b-m256", limit, WHOLE), 60.0)
        for limit in ("0.5x", "0.75x", "1x")
    ),
    Run(
        "large",
        "p=64 m=512 V k=128",
        partial(v_shaped, (10402, 10248, 7698), 920, 64, 512, 128, WHOLE),
        60.0,
    ),
]
