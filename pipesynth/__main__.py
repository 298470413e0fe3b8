"""``python -m pipesynth`` is ``pipesynth``."""

import sys

from pipesynth import main

sys.exit(main())
