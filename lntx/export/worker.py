"""A fresh process for work that must not see what this one has in memory.

`python -m lntx.export.worker` imports what the work needs, then answers each request in a fork of itself: a fresh
process without the seconds of a fresh import. Knows how to ask; what is asked is a function of another module.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import subprocess
import sys
import threading
from typing import Any

from lntx.errors import LntxError

# By name, because it imports what imports this.
_WARM_UP = "lntx.export.readback:warm_up"

_STARTING = threading.Lock()


class Refused(LntxError):
    """The function that was called in the fresh process raised something."""


class FreshProcess:
    """A running helper process; `call` may be used any number of times, from any thread."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C is for the parent, which ends the helper.
        self._process = subprocess.Popen(
            # -P: the working directory may hold a module that is named like one of the library's.
            [sys.executable, "-P", "-m", "lntx.export.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._asking = threading.Lock()
        atexit.register(self.close)

    @property
    def is_alive(self) -> bool:
        """Whether the process can still be asked."""
        return self._process.poll() is None

    def call(self, function: str, **arguments: Any) -> None:
        """Call a function, named `module:function`, with JSON values, in a fork of the process.

        Raises: Refused: it raised something. LntxError: the process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Threads share the helper: question and answer stay together.
        with self._asking:
            try:
                self._process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except BrokenPipeError:
                line = ""
            except BaseException:
                # Interrupted: its answer would be taken for that of the next question.
                self.close()
                raise
        if not line:
            raise LntxError(f"the process that reads exports back ended with status {self._process.wait()}")
        error = json.loads(line)["error"]
        if error is not None:
            raise Refused(error)

    def close(self) -> None:
        """End the process."""
        # It holds nothing worth a clean end, and may still be importing.
        self._process.terminate()
        self._process.wait()
        atexit.unregister(self.close)


@functools.cache
def _started() -> list[FreshProcess]:
    return []


def fresh_process() -> FreshProcess:
    """The helper of this process, started at the first call: call early, and its imports overlap other work."""
    running = _started()
    with _STARTING:
        if not running or not running[0].is_alive:
            running[:] = [FreshProcess()]
        return running[0]


def _serve() -> None:
    # Answers have a pipe of their own: what a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    failed = _call(_WARM_UP, {})
    assert failed is None, failed
    for line in sys.stdin:
        request = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            error = _call(**request)
            with os.fdopen(write, "w") as pipe:
                json.dump({"error": error}, pipe)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        print(said or json.dumps({"error": f"reading it ended with status {status}"}), file=answers, flush=True)


def _call(function: str, arguments: dict[str, Any]) -> str | None:
    """Call a function; what went wrong, in one line, or none."""
    module, name = function.split(":")
    try:
        getattr(importlib.import_module(module), name)(**arguments)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


if __name__ == "__main__":
    _serve()
