"""The commands: each reads, calls one public function, and prints; ``run`` returns the exit code."""

from types import ModuleType

from synth.cli.commands import (
    baseline,
    bound,
    compare,
    explain,
    export,
    frontier,
    import_orders,
    instances,
    levels,
    model,
    plan,
    profile,
    simulate,
    synthesize,
    verify,
)

COMMANDS: dict[str, ModuleType] = {
    "synthesize": synthesize,
    "instances": instances,
    "model": model,
    "plan": plan,
    "profile": profile,
    "baseline": baseline,
    "compare": compare,
    "levels": levels,
    "frontier": frontier,
    "bound": bound,
    "import": import_orders,
    "verify": verify,
    "simulate": simulate,
    "explain": explain,
    "export": export,
}
"""By name, each with ``add_arguments(parser)`` and ``run(options)``, whose docstring is its help."""
