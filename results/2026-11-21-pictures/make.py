"""Draw the README's picture and a gallery, each from schedule documents that are kept beside it.

python results/2026-11-21-pictures/make.py            synthesizes, writes the documents and draws
python results/2026-11-21-pictures/make.py --redraw   draws from the documents as they are
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

from config import PICTURES, SEED, WORKERS, Drawn
from PIL import Image

from synth import (
    Certificate,
    ScheduleDocument,
    baseline_orders,
    read_schedule,
    schedule_orders,
    synthesize,
    verify_schedule,
    write_schedule,
)
from synth.bounds import best_bound
from synth.certificate import Provenance
from synth.export import Shown, export
from synth.problem import Problem
from synth.schedule import Schedule

HERE = Path(__file__).parent
DOCUMENTS = HERE / "documents"
COLOURS = 64
"""Of a PNG: the shades of eight colours and of grey, and a third of the bytes that all colours would take."""


def make_documents() -> None:
    """Write the document of every schedule in every picture."""
    DOCUMENTS.mkdir(exist_ok=True)
    for drawn in (drawn for picture in PICTURES.values() for drawn in picture):
        document = baseline_document(drawn) if drawn.baseline else synthesized_document(drawn)
        (DOCUMENTS / f"{drawn.file}.json").write_text(write_schedule(document))
        print(drawn.file, document.certificate.value, document.certificate.lower_bound, flush=True)


def baseline_document(drawn: Drawn) -> ScheduleDocument:
    """A published schedule with the best bound on its problem that takes no search."""
    schedule = schedule_orders(drawn.problem, baseline_orders(drawn.baseline, drawn.problem))
    bound = best_bound(drawn.problem)
    certificate = Certificate(
        objective=drawn.problem.objective,
        value=schedule.value,
        lower_bound=min(bound.ticks, schedule.value),
        bound_from=bound.argument,
    )
    created = datetime.now(UTC).isoformat(timespec="seconds")
    provenance = Provenance(method=drawn.baseline, created=created, tool_version=version("pipesynth"))
    return ScheduleDocument.of(schedule, certificate, provenance)


def synthesized_document(drawn: Drawn) -> ScheduleDocument:
    """What the search finds in the picture's seconds."""
    result = synthesize(drawn.problem, time_limit=drawn.seconds, workers=WORKERS, seed=SEED)
    return ScheduleDocument.of(result.schedule, result.certificate, result.provenance)


def draw() -> None:
    """Draw every picture from its documents."""
    for name, picture in PICTURES.items():
        documents = [read_schedule((DOCUMENTS / f"{drawn.file}.json").read_text()) for drawn in picture]
        bounds: dict[Problem, Certificate] = {}
        for document in documents:
            check(document)
            known = bounds.setdefault(document.schedule.problem, document.certificate)
            if document.certificate.lower_bound > known.lower_bound:
                bounds[document.schedule.problem] = document.certificate
        shown = [
            Shown(
                title=drawn.title,
                schedule=document.schedule,
                certificate=certified(document.schedule, bounds),
            )
            for drawn, document in zip(picture, documents, strict=True)
        ]
        (HERE / f"{name}.svg").write_bytes(export("svg", shown))
        (HERE / f"{name}.png").write_bytes(with_few_colours(export("png", shown)))


def certified(schedule: Schedule, bounds: dict[Problem, Certificate]) -> Certificate:
    """A schedule's value beside the best bound that any schedule of the picture has for its problem."""
    best = bounds[schedule.problem]
    return Certificate(
        objective=best.objective,
        value=schedule.value,
        lower_bound=best.lower_bound,
        bound_from=best.bound_from,
    )


def check(document: ScheduleDocument) -> None:
    """Make sure that a schedule keeps every rule and is what its document says."""
    violations = verify_schedule(
        document.schedule, metrics=document.metrics, certificate=document.certificate
    )
    if violations:
        raise SystemExit(f"{document.provenance.method}: {violations[0]}")


def with_few_colours(png: bytes) -> bytes:
    """The same picture with a palette."""
    file = BytesIO()
    image = Image.open(BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    begun = time.perf_counter()
    if "--redraw" not in sys.argv[1:]:
        make_documents()
    draw()
    print(f"{time.perf_counter() - begun:.0f} s")
