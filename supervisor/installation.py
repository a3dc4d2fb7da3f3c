"""Whether this installation is whole: PyPI's Supervisor has a package of the same name as ours."""

from __future__ import annotations

import os
import sys


def version() -> str:
    """Ours; "unknown" where the other distribution has overwritten it."""
    return getattr(sys.modules[__package__], "__version__", "unknown")


def refuse_shared_folder() -> None:
    """Raise RuntimeError when the distribution `supervisor` is installed in the folder that ours runs from.

    Both bring a package `supervisor`; whichever came last has overwritten the other's files. (A look at the folder,
    not `importlib.metadata`: that costs more than all else that `unitctl status` does.)
    """
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in {here, *(path for path in sys.path if path.endswith("site-packages"))}:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            lowered = name.lower()
            if lowered.startswith("supervisor-") and lowered.endswith((".dist-info", ".egg-info")):
                raise RuntimeError(
                    f"cannot run: {folder} also holds PyPI's {name.rpartition('.')[0]}, which overwrites files of the "
                    "same names; install unitd into a virtual environment of its own"
                )
