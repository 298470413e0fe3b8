"""Pipeline-parallel training schedules: state a problem, get the best schedule found and its proven gap.

Problems
    :class:`Problem`, :class:`StageCosts`, :class:`OpCost`, :class:`Objective`, :class:`Links`,
    :class:`Placement`, :class:`PlacementKind`, :func:`place`, :func:`uniform_problem`,
    :func:`uniform_transfers`, :func:`load_instance`, :func:`instance_names`
Schedules
    :func:`synthesize`, :class:`Result`, :class:`Robustness`, :class:`Progress`, :func:`baseline_orders`,
    :func:`baseline_schedule`,
    :func:`schedule_orders`, :class:`Schedule`, :class:`Op`, :class:`OpKind`, :class:`TimedOp`
Judging
    :func:`measure`, :class:`Metrics`, :func:`verify_schedule`, :class:`Violation`, :func:`lower_bounds`,
    :class:`Bound`, :class:`Certificate`, :class:`Status`, :func:`replay`
Networks
    :class:`Topology`, :func:`network_over`, :class:`Network`, :func:`replay_over`, :class:`Simulation`
Documents
    :func:`read_problem`, :func:`write_problem`, :func:`read_schedule`, :func:`write_schedule`,
    :class:`ScheduleDocument`, :func:`read_topology`
Errors
    :class:`SynthError`, :class:`InputError`, :class:`InfeasibleError`

A name is imported from its module when it is first used (PEP 562): a training node that reads documents needs
no solver.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synth.baselines import baseline_orders, baseline_schedule
    from synth.bounds import Bound, lower_bounds
    from synth.certificate import Certificate, Status
    from synth.document import (
        ScheduleDocument,
        read_problem,
        read_schedule,
        read_topology,
        write_problem,
        write_schedule,
    )
    from synth.errors import InfeasibleError, InputError, SynthError
    from synth.instances import instance_names, load_instance
    from synth.ops import Op, OpKind, TimedOp
    from synth.placement import Placement, PlacementKind, place
    from synth.problem import (
        Links,
        Objective,
        OpCost,
        Problem,
        StageCosts,
        uniform_problem,
        uniform_transfers,
    )
    from synth.schedule import Metrics, Schedule, measure
    from synth.search.robust import Robustness
    from synth.search.synthesizer import Progress, Result, synthesize
    from synth.simulate import Network, Simulation, network_over, replay, replay_over
    from synth.timing import schedule_orders
    from synth.topology import Topology
    from synth.verify import Violation, verify_schedule

_HOMES = {
    "synth.baselines": ("baseline_orders", "baseline_schedule"),
    "synth.bounds": ("Bound", "lower_bounds"),
    "synth.certificate": ("Certificate", "Status"),
    "synth.document": (
        "ScheduleDocument",
        "read_problem",
        "read_schedule",
        "read_topology",
        "write_problem",
        "write_schedule",
    ),
    "synth.errors": ("InfeasibleError", "InputError", "SynthError"),
    "synth.instances": ("instance_names", "load_instance"),
    "synth.ops": ("Op", "OpKind", "TimedOp"),
    "synth.placement": ("Placement", "PlacementKind", "place"),
    "synth.problem": (
        "Links",
        "Objective",
        "OpCost",
        "Problem",
        "StageCosts",
        "uniform_problem",
        "uniform_transfers",
    ),
    "synth.schedule": ("Metrics", "Schedule", "measure"),
    "synth.search.robust": ("Robustness",),
    "synth.search.synthesizer": ("Progress", "Result", "synthesize"),
    "synth.simulate": ("Network", "Simulation", "network_over", "replay", "replay_over"),
    "synth.timing": ("schedule_orders",),
    "synth.topology": ("Topology",),
    "synth.verify": ("Violation", "verify_schedule"),
}

__all__ = [
    "Bound",
    "Certificate",
    "InfeasibleError",
    "InputError",
    "Links",
    "Metrics",
    "Network",
    "Objective",
    "Op",
    "OpCost",
    "OpKind",
    "Placement",
    "PlacementKind",
    "Problem",
    "Progress",
    "Result",
    "Robustness",
    "Schedule",
    "ScheduleDocument",
    "Simulation",
    "StageCosts",
    "Status",
    "SynthError",
    "TimedOp",
    "Topology",
    "Violation",
    "baseline_orders",
    "baseline_schedule",
    "instance_names",
    "load_instance",
    "lower_bounds",
    "measure",
    "network_over",
    "place",
    "read_problem",
    "read_schedule",
    "read_topology",
    "replay",
    "replay_over",
    "schedule_orders",
    "synthesize",
    "uniform_problem",
    "uniform_transfers",
    "verify_schedule",
    "write_problem",
    "write_schedule",
]


def __getattr__(name: str) -> object:
    """Import an exported name from the module that defines it."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The exported names, before they are imported too."""
    return sorted({*globals(), *__all__})
