"""What every row says of where it was measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version


def provenance() -> dict[str, object]:
    """Versions, machine and date."""
    return {
        "torch": version("torch"),
        "pipesynth": version("pipesynth"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
