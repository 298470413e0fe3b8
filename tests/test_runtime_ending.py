"""A process that is told to end says why, wherever it sits."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from synth.baselines import baseline_orders
from synth.certificate import Certificate, Provenance
from synth.document import ScheduleDocument, write_schedule
from synth.problem import uniform_problem
from synth.timing import schedule_orders
from tests.builders import EITHER

WAITS_IN_C = """
    import sys
    from datetime import timedelta
    from torch import distributed as dist
    from runtime.ending import Ending

    class Watch:
        failure = {failure}
        def tell(self, what):
            print(what, flush=True)

    ending = Ending(3, 1, within_s=0.2)
    ending.watch = Watch()
    {before}
    print("waits", flush=True)
    try:
        dist.HashStore().wait(["never"], timedelta(seconds={seconds}))
    except dist.DistStoreError:
        sys.exit(0)
"""


def told(*, failure=None, before="", seconds=60, by=signal.SIGTERM):
    """What a process prints that is told to end while it waits outside of Python; and how it ended."""
    code = textwrap.dedent(WAITS_IN_C.format(failure=repr(failure), before=before, seconds=seconds))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waits\n"
    process.send_signal(by)
    out, err = process.communicate(timeout=50)
    return process.returncode, out, err


def test_it_says_which_rank_failed_though_the_main_thread_is_stuck():
    code, out, err = told(failure="rank 1 failed in F3 of step 2: the layer is broken")
    assert (code, out, err) == (1, "", "rank 3: rank 1 failed in F3 of step 2: the layer is broken\n")


def test_it_says_that_it_was_told_to_end_where_nothing_failed_and_tells_the_others():
    code, out, err = told()
    assert (code, out) == (1, "rank 3 was told to end by SIGTERM\n")
    assert err.startswith("rank 3: told to end by SIGTERM, as torchrun does once another rank has failed")


def test_an_interrupt_is_heard_though_the_main_thread_is_stuck():
    expected = (130, "rank 3 was interrupted\n", "rank 3: interrupted\n")
    assert told(by=signal.SIGINT) == expected


def test_it_is_silent_where_the_process_has_said_why():
    assert told(before="ending.over()", seconds=1) == (0, "", "")


KILLS_ITSELF = """
    import os, signal
    from runtime import train
    from runtime.executor import PipelineRunner

    if os.environ["RANK"] == "1":
        step = PipelineRunner.step
        def killed(self, *data):
            if self.completed_steps == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, *data)
        PipelineRunner.step = killed
    train.run()
"""


def test_every_rank_left_speaks_when_one_is_killed_under_torchrun(tmp_path):
    problem = uniform_problem(3, 4, EITHER, transfer_ticks=1)
    made = schedule_orders(problem, baseline_orders("zb-h1", problem))
    claim = Certificate(objective=problem.objective, value=made.value, lower_bound=0, bound_from="")
    origin = Provenance(method="zb-h1", created="2026-01-01", tool_version="0")
    path, script = tmp_path / "schedule.json", tmp_path / "killed.py"
    path.write_text(write_schedule(ScheduleDocument.of(made, claim, origin)))
    script.write_text(textwrap.dedent(KILLS_ITSELF))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "3", str(script), "--schedule", str(path)]
    paths = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        command, env=os.environ | paths, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode != 0
    said = dict(re.findall(r"^rank (\d): (.*)$", done.stderr, re.MULTILINE))
    assert set(said) == {"0", "2"}, done.stderr
    assert all("rank 1" in text for text in said.values()), said
