"""``python -m synth.cli`` is ``pipesynth``."""

import sys

from synth.cli import main

sys.exit(main())
