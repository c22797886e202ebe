"""A fresh process for work that must not use the memory of this process.

`python -m lntx.export.worker` imports the required libraries, then answers each request in a fork of itself: a fresh
process without the seconds of a fresh import. Requests call functions of other modules.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import subprocess
import sys
import threading
from typing import Any

from lntx.base.errors import LntxError

# A name instead of an import, which would be circular.
_WARM_UP = "lntx.export.readback:warm_up"

_STARTING = threading.Lock()


class Refused(LntxError):
    """The function called in the fresh process raised an exception."""


class FreshProcess:
    """A running helper process; `call` may be used any number of times, from any thread."""

    def __init__(self) -> None:
        # A separate session: Ctrl-C must reach only the parent, which stops the helper.
        self._process = subprocess.Popen(
            # -P: a module in the working directory may have the name of a library module.
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
        """Whether the process is still running."""
        return self._process.poll() is None

    def call(self, function: str, **arguments: Any) -> None:
        """Call a function, named `module:function`, with JSON values, in a fork of the process.

        Raises: Refused: the function raised an exception. LntxError: the process ended unexpectedly.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Threads share the helper: the lock keeps each request together with its answer.
        with self._asking:
            try:
                self._process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except BrokenPipeError:
                line = ""
            except BaseException:
                # Interrupted: the pending answer would be taken for the answer to the next request.
                self.close()
                raise
        if not line:
            raise LntxError(f"the process that reads exports back ended with status {self._process.wait()}")
        error = json.loads(line)["error"]
        if error is not None:
            raise Refused(error)

    def close(self) -> None:
        """Stop the process."""
        # Terminate at once: it has no state to save, and may still be importing.
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            # A question that it never read is flushed into a broken pipe.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        atexit.unregister(self.close)


@functools.cache
def _started() -> list[FreshProcess]:
    return []


def fresh_process() -> FreshProcess:
    """Return the helper of this process; the first call starts it. Call early: its imports then overlap other work."""
    running = _started()
    with _STARTING:
        if running and not running[0].is_alive:
            running.pop().close()
        if not running:
            running.append(FreshProcess())
        return running[0]


def _serve() -> None:
    # Answers use a separate pipe: output that libraries print goes to stderr.
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
            message = pipe.read()
        _, status = os.waitpid(child, 0)
        print(message or json.dumps({"error": f"reading it ended with status {status}"}), file=answers, flush=True)


def _call(function: str, arguments: dict[str, Any]) -> str | None:
    """Call a function; return None, or the exception in one line."""
    module, name = function.split(":")
    try:
        getattr(importlib.import_module(module), name)(**arguments)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


if __name__ == "__main__":
    _serve()
