"""What can go wrong while a schedule runs.

::

    SynthError
    └── PipelineError       a step cannot be finished
        ├── PeerError       because another rank failed; the message is that rank's
        ├── StalledError    because something waited for did not come in time
        └── LossError       because the loss is not finite

Wrong input, known before the first step, is an ``InputError`` as everywhere.
"""

from synth.errors import SynthError


class PipelineError(SynthError):
    """A step cannot be finished; the processes have to be started again, from a checkpoint."""


class PeerError(PipelineError):
    """Another rank failed first."""


class StalledError(PipelineError):
    """Something waited for did not come in time."""


class LossError(PipelineError):
    """The loss is not finite."""
