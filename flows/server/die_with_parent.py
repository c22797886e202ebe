"""Run a module as a process that ends with its parent: `python -m flows.server.die_with_parent MODULE …`.

On Linux the process gets SIGTERM even if its parent is killed by SIGKILL and cannot clean up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1

if __name__ == "__main__":
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        # The parent ended before the signal was set.
        sys.exit(1)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
