"""The arrows between modules run one way, and each backend is imported in its own corner only."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("errors", "rules", "polling", "compiled"),
    ("ops", "placement", "files", "feed"),
    ("problem", "colours", "topology"),
    ("flows", "drafts"),
    ("graph", "schedule", "certificate", "building_block", "cells", "chunks", "instances", "stage_names"),
    ("measured",),
    (
        "timing",
        "timeline",
        "verify",
        "simulate",
        "document",
        "grid",
        "strips",
        "flow_memory",
        "measured_bytes",
    ),
    ("baselines", "measured_costs", "slot_table"),
    ("comparison", "formulas", "memory", "cpsat", "linear"),
    ("free_maps", "levels"),
    ("bounds",),
    ("exact",),
    ("search",),
    ("explain",),
    ("report",),
    ("frontier", "planner"),
    ("export",),
    ("cli",),
)
"""The modules of ``synth``, lowest first: each imports from earlier rows only, and its own parts."""

ROW = {module: row for row, modules in enumerate(LAYERS) for module in modules}

COST_MODEL_LAYERS = (
    ("chain", "model_shape", "config_fields", "quantise"),
    ("training", "architectures", "described", "shared_memory"),
    ("operations", "hardware", "partition"),
    ("attention", "feed_forward", "roofline"),
    ("layers", "cluster"),
    ("optimizer_state", "stages"),
    ("planning",),
    ("fitting",),
    ("plans",),
    ("measured",),
)
"""The modules of ``costmodels``, lowest first."""

MEASURED_LAYERS = (
    ("spreads", "factories", "storage_ledger", "link_costs"),
    ("profiles", "traces", "links"),
    ("stage_runs", "profiled_problem"),
    ("saved_tensors", "timing"),
    ("memory", "shapes_only"),
    ("profiling",),
)
"""The modules of ``costmodels.measured``, lowest first."""

WITHOUT_TORCH = ("spreads", "link_costs", "profiles", "traces", "profiled_problem")
"""Modules of ``costmodels.measured`` that planning may use."""

COST_MODELS_SEE = {
    *("errors", "ops", "placement", "files", "problem", "schedule", "chunks", "document", "baselines"),
    *("memory", "cpsat", "drafts"),
    *("measured_costs", "export", "measured"),
}
"""What of ``synth`` cost models may know: problems and what 1F1B holds, never a search or a bound."""

CORNERS = {
    "highspy": ("synth/linear.py", "synth/exact/highs.py"),
    "ortools": (
        "synth/cpsat.py",
        "synth/free_maps.py",
        "synth/bounds/alone.py",
        "synth/bounds/one_stage.py",
        "synth/exact/whole_horizon.py",
        "synth/search/blocks.py",
        "costmodels/shared_memory.py",
    ),
    "pulp": ("synth/exact/counters.py", "synth/exact/highs.py"),
    "matplotlib": ("synth/export/figure/", "synth/frontier/picture.py"),
    "numba": ("synth/compiled/",),
    "msgspec": ("synth/document/",),
    "ray": ("synth/planner/ray_executor.py",),
    "rich": ("synth/report.py", "synth/strips.py", "synth/cli/"),
    "torch": ("runtime/", "costmodels/measured/"),
}
"""Where a library may be imported."""

VERIFIER_SEES = {"certificate", "errors", "feed", "ops", "placement", "problem", "rules", "schedule"}
"""Nothing that makes schedules or times: the verifier must be able to disagree with it."""


def sources(*packages):
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path):
    """The full names of the modules that a file imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relative to itself"
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [part if is_module(part) else node.module for part in parts]
    return tuple(names)


def is_module(name):
    place = ROOT.joinpath(*name.split("."))
    return (place / "__init__.py").exists() or place.with_suffix(".py").exists()


def module_of(path):
    """The name in :data:`LAYERS` for a file of ``synth``."""
    return path.relative_to(ROOT / "synth").parts[0].removesuffix(".py")


def imported_modules(path):
    """The names in :data:`LAYERS` that a file imports."""
    parts = [name.split(".") for name in imports(path)]
    return {names[1] for names in parts if names[0] == "synth" and len(names) > 1}


MODULES = [path for path in sources("synth") if path != ROOT / "synth" / "__init__.py"]


def test_every_module_has_its_row():
    assert {module_of(path) for path in MODULES} <= set(ROW)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    own = module_of(path)
    above = {name for name in imported_modules(path) - {own} if ROW[name] >= ROW[own]}
    assert not above
    assert "synth" not in imports(path) or own == "cli", "import from the module that defines the name"


COST_MODELS = [path for path in sources("costmodels") if path.name != "__init__.py"]
COST_ROW = {module: row for row, modules in enumerate(COST_MODEL_LAYERS) for module in modules}


def costs_module_of(path):
    """The name in :data:`COST_MODEL_LAYERS` for a file of ``costmodels``."""
    return path.relative_to(ROOT / "costmodels").parts[0].removesuffix(".py")


def imported_below(path, *package):
    """What a file imports of a package, by the names right below it."""
    parts = [name.split(".") for name in imports(path)]
    depth = len(package)
    return {names[depth] for names in parts if tuple(names[:depth]) == package and len(names) > depth}


@pytest.mark.parametrize("path", COST_MODELS, ids=name_of)
def test_imports_of_cost_models_point_down(path):
    own, below = costs_module_of(path), imported_below(path, "costmodels")
    assert not {module for module in below - {own} if COST_ROW[module] >= COST_ROW[own]}


MEASURED = [path for path in COST_MODELS if costs_module_of(path) == "measured"]


@pytest.mark.parametrize("path", MEASURED, ids=name_of)
def test_imports_of_the_measured_part_point_down(path):
    row = {module: row for row, modules in enumerate(MEASURED_LAYERS) for module in modules}
    below = imported_below(path, "costmodels", "measured")
    assert not {module for module in below if row[module] >= row[path.stem]}


def test_only_the_measured_part_knows_the_runtime():
    users = {costs_module_of(path) for path in COST_MODELS if imported_below(path, "runtime")}
    assert users == {"measured"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_measurements_are_handled_without_torch(module):
    code = f"import sys; sys.modules['torch'] = None; import costmodels.measured.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cost_models_know_no_solver():
    assert set().union(*map(imported_modules, COST_MODELS)) <= COST_MODELS_SEE


def test_only_commands_know_cost_models():
    users = [path for path in MODULES if any(name.startswith("costmodels") for name in imports(path))]
    assert {module_of(path) for path in users} == {"cli"}


@pytest.mark.parametrize("library", CORNERS)
def test_library_stays_in_its_corner(library):
    users = {
        name_of(path)
        for path in sources("synth", "costmodels", "runtime")
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert all(user.startswith(CORNERS[library]) for user in users), users


def test_no_file_imports_itself_by_a_detour():
    """Also inside a package, where the rows say nothing."""
    by_name = {name_of(path).removesuffix(".py").replace("/", "."): path for path in MODULES}
    by_name |= {n.removesuffix(".__init__"): p for n, p in by_name.items() if n.endswith(".__init__")}
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, [*under_way, name]
        if name in done:
            return
        under_way.append(name)
        for imported in imports(by_name[name]):
            if imported in by_name and imported != name:
                visit(imported)
        done.add(under_way.pop())

    for name in sorted(by_name):
        visit(name)


def test_verifier_sees_no_maker_of_schedules():
    seen, ahead = set(), {"verify"}
    while ahead:
        module = ahead.pop()
        seen.add(module)
        files = [path for path in MODULES if module_of(path) == module]
        ahead |= set().union(*map(imported_modules, files)) - seen
    assert seen - {"verify"} <= VERIFIER_SEES


RUNTIME_SEES = {"document", "errors", "files", "measured", "ops", "problem", "schedule"}
"""Documents and what they hold: a training node has no solver."""


@pytest.mark.parametrize("path", sources("runtime"), ids=name_of)
def test_runtime_sees_documents_only(path):
    assert imported_modules(path) <= RUNTIME_SEES


def test_documents_are_read_without_solvers():
    code = """if True:
        import sys
        for name in ("ortools", "pulp", "numba", "highspy", "matplotlib", "rich"):
            sys.modules[name] = None
        import synth.document, synth.measured, runtime.train
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_planner_works_without_torch():
    code = """if True:
        import sys
        sys.modules["torch"] = None
        import synth, synth.cli, costmodels
        problem = synth.load_instance("zb-1.5b-m24")
        orders = synth.baseline_orders("1f1b", problem)
        assert not synth.verify_schedule(synth.schedule_orders(problem, orders))
        assert sys.modules["torch"] is None
        assert not [name for name in sys.modules if name.startswith("torch.")]
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
