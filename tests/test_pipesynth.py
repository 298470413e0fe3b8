"""The entry to the commands: an interrupt while modules are still imported is a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

INTERRUPTS_ITSELF = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
"""A package that is interrupted while it is imported."""


def run(code, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("entry", ["main", "main_synthesize"])
def test_interrupt_during_imports(tmp_path, entry):
    (tmp_path / "synth").mkdir()
    (tmp_path / "synth" / "__init__.py").write_text(INTERRUPTS_ITSELF)
    done = run(f"import pipesynth; raise SystemExit(pipesynth.{entry}())", tmp_path)
    assert done.returncode == 130
    assert done.stderr == "pipesynth: interrupted before there was anything to show\n"
    assert done.stdout == ""


def test_afterwards_interrupts_are_exceptions_again():
    code = """if True:
        import signal, sys, pipesynth
        sys.argv = ["pipesynth", "instances"]
        assert pipesynth.main() == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    """
    done = run(code, ROOT)
    assert done.returncode == 0, done.stderr
    assert "zb-1.5b-m24" in done.stdout


def test_module_is_the_command():
    words = [sys.executable, "-m", "pipesynth", "--version"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("pipesynth ")
