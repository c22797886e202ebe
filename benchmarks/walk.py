"""Count what a reader of one command walks through. Run: python benchmarks/walk.py canary --local

Counts the modules of lntx and flows that run, their functions, and the changes of file: how often a function is called
from a function in another file, each pair of functions once.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
_OURS = (f"{ROOT}/lntx/", f"{ROOT}/flows/")


def main() -> None:
    calls: set[tuple[CodeType, CodeType]] = set()
    functions: set[CodeType] = set()

    def on_event(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(_OURS):
            return
        functions.add(code)
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(_OURS):
            caller = caller.f_back
        if caller is not None:
            calls.add((caller.f_code, code))

    threading.setprofile(on_event)
    sys.setprofile(on_event)
    from flows.cli.entry import run_command

    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        run_command(sys.argv[1:])
    sys.setprofile(None)
    named = {code for code in functions if not code.co_name.startswith("<")}
    changes = sum(caller.co_filename != code.co_filename for caller, code in calls)
    files = {code.co_filename for code in named}
    print(f"{len(files)} files, {len(named)} functions, {changes:,} calls into another file")


if __name__ == "__main__":
    main()
