"""Start the command line: `lntx`, or `python -m lntx`.

`flows` is a name that other projects use too. The one that was installed beside this package is taken, whatever comes
first on the path: a folder of that name in the working directory, or in PYTHONPATH.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

_HOME = str(Path(__file__).resolve().parents[1])


def main() -> Any:
    """Run the command line, and exit."""
    spec = importlib.machinery.PathFinder.find_spec("flows")
    if spec is None or spec.origin is None or Path(spec.origin).resolve().parents[1] != Path(_HOME):
        sys.path.insert(0, _HOME)
        # For the processes that the command starts.
        paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        os.environ["PYTHONPATH"] = os.pathsep.join([_HOME, *paths])
    # By its name: this package knows nothing of flows but that it is there.
    return importlib.import_module("flows.cli").main()


if __name__ == "__main__":
    main()
