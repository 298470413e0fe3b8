"""The example by documents of directions, slices and storage: as by a chain, resumed by one another."""

import re

import pytest

from runtime.train import main
from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument, read_timeline, write_schedule
from synth.measured_costs import measured_problem
from synth.memory import serial_orders
from synth.problem import uniform_problem
from synth.schedule import peak_memory_bytes
from synth.timing import schedule_orders
from tests.builders import EITHER
from tests.flow_builders import SUMMED, Evicted, drawn, evicting, flow, sliced
from tests.runtime_cases import train
from tests.test_runtime_train import FEW, free_port

CHAIN = uniform_problem(2, 4, EITHER, transfer_ticks=1)
SCHEDULES = {
    "chain": schedule_orders(CHAIN, serial_orders(CHAIN)),
    "directions": drawn(flow([(0, 1), (1, 0)], [2, 2], stage=SUMMED)),
    "slices": drawn(sliced(2, 4, 3)),
    "storage": drawn(evicting(2, 4, {0: Evicted((1, 3), 1), 1: Evicted((0, 1, 2), 0)})),
    "slices of directions": drawn(flow([(0, 1), (1, 0)], [1, 3], num_slices=2)),
}


@pytest.fixture
def documents(tmp_path):
    """Every schedule as a file."""
    paths = {}
    for name, made in SCHEDULES.items():
        claim = Certificate(objective=made.problem.objective, value=made.value, lower_bound=0, bound_from="")
        origin = Provenance(method=name, created="2026-01-01", tool_version="0")
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(write_schedule(ScheduleDocument.of(made, claim, origin)))
    return paths


def run(pool, count, path, *arguments):
    """The losses of a run, each in print once."""
    answers = pool.run(count, train, free_port(), ["--schedule", str(path), *arguments, *FEW])
    assert [code for code, _, _ in answers] == [0] * count, answers
    lines = re.findall(r"step (\d+)  loss ([\d.]+)", "".join(out for _, out, _ in answers))
    assert len(dict(lines)) == len(lines)
    return [float(loss) for _, loss in lines]


def test_flows_train_as_a_chain_does_and_resume_one_another(pool, documents, tmp_path):
    """A checkpoint is by stage of the model, whoever holds it."""
    whole = run(pool, 2, documents["chain"], "--steps", str(2 * len(SCHEDULES)))
    folder, found = str(tmp_path / "checkpoints"), []
    for n, name in enumerate(SCHEDULES):
        more = ["--steps", "2", "--checkpoints", folder] + (["--resume", folder] if n else [])
        if name == "slices":
            more += ["--slice-positions", "7,5,4"]
        found += run(pool, 2, documents[name], *more)
    assert found == pytest.approx(whole, abs=2e-5), "single precision"


def test_directions_of_two_replicas_train(pool, documents):
    """Twice the batch, on four processes."""
    chain = run(pool, 4, documents["chain"], "--steps", "3")
    assert run(pool, 4, documents["slices of directions"], "--steps", "3") == pytest.approx(chain, abs=2e-5)


def test_timeline_of_directions_has_their_sums(pool, documents, tmp_path):
    path = tmp_path / "timeline.json"
    run(pool, 2, documents["directions"], "--steps", "1", "--timeline", str(path))
    assert read_timeline(path.read_text()).orders == SCHEDULES["directions"].orders


WAYS = {
    "chain, recomputed": ("chain", "--recompute"),
    "directions": ("directions", "--division", "native"),
    "slices": ("slices", "--slice-positions", "7,5,4"),
    "slices of directions": ("slices of directions", "--bfloat16"),
}


@pytest.mark.parametrize("way", WAYS)
def test_orders_come_to_their_peaks_again(pool, documents, tmp_path, way):
    """Directions, slices, ways of dividing and keeping: but for gradients that come behind the peak."""
    name, *options = WAYS[way]
    path = tmp_path / "timeline.json"
    run(pool, 2, documents[name], "--steps", "2", "--timeline", str(path), *options)
    timeline = read_timeline(path.read_text())
    measured = measured_problem(timeline)
    peaks = peak_memory_bytes(measured, timeline.orders)
    for peak, held in zip(peaks, timeline.peak_memory_bytes, strict=True):
        assert held <= peak < 1.1 * held
    assert min(measured.static_bytes_by_rank) > 100_000, "weights, gradients and moments of AdamW"


def test_slice_positions_are_numbers(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--schedule", "any.json", "--slice-positions", "7,x"])
    assert ended.value.code == 2
    assert "'7,x' is no list of numbers: write them as in 16,8,8" in capsys.readouterr().err


def test_wrong_slice_positions_are_refused_before_a_step(pool, documents):
    arguments = ["--schedule", str(documents["slices"]), "--slice-positions", "8,9,1", *FEW]
    answers = pool.run(2, train, free_port(), arguments)
    assert {code for code, _, _ in answers} <= {1, 2}
    assert all("cannot be cut into slices of 8, 9, 1 positions" in err for _, _, err in answers)
