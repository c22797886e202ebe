"""Ask exported files for predictions in a process that has never seen the model.

`python -m lntx.readback` imports what the formats need, then answers each request in a fork of itself: a fresh
process without the seconds of a fresh import. Judges nothing: the exporter compares.
"""

from __future__ import annotations

import atexit
import functools
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from lntx.errors import LntxError

_STARTING = threading.Lock()


class UnreadableExport(LntxError):
    """An exported file cannot be loaded, or does not answer."""


class Helper:
    """A running helper process; `ask` may be called any number of times."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C is for the parent, which ends the helper.
        self._process = subprocess.Popen(
            # -P: the working directory may hold a module that is named like one of the library's.
            [sys.executable, "-P", "-m", "lntx.readback"],
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

    def ask(self, model: Path, rows: list[Path], answers: list[Path]) -> None:
        """Predict each file of rows with the model, into a file of answers (both .npy).

        Raises: UnreadableExport: the file could not be loaded or asked. LntxError: the helper died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Absolute: the helper stays where it was started when this process changes its folder.
        request = {
            "model": str(model.absolute()),
            "rows": [str(path.absolute()) for path in rows],
            "answers": [str(path.absolute()) for path in answers],
        }
        # Threads share the helper: question and answer stay together.
        with self._asking:
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except BrokenPipeError:
                line = ""
        if not line:
            raise LntxError(f"the process that reads exports back ended with status {self._process.wait()}")
        error = json.loads(line)["error"]
        if error is not None:
            raise UnreadableExport(error)

    def close(self) -> None:
        """End the process."""
        # It holds nothing worth a clean end, and may still be importing.
        self._process.terminate()
        self._process.wait()
        atexit.unregister(self.close)


@functools.cache
def _started() -> list[Helper]:
    return []


def helper() -> Helper:
    """The helper of this process, started at the first call: call early, and its imports overlap other work."""
    running = _started()
    with _STARTING:
        if not running or not running[0].is_alive:
            running[:] = [Helper()]
        return running[0]


def _serve() -> None:
    # Answers have a pipe of their own: what a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            error = _answer(request)
            with os.fdopen(write, "w") as pipe:
                json.dump({"error": error}, pipe)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        print(said or json.dumps({"error": f"reading it ended with status {status}"}), file=answers, flush=True)


def _warm_up() -> None:
    """Import what reading needs before the forks, by reading something: half of it is imported on first use.

    Not onnxruntime: it starts threads, which a fork would not have.
    """
    import safetensors.torch  # noqa: F401
    import torch

    from lntx import prediction  # noqa: F401

    example = torch.zeros(2, 1)
    rows = torch.export.Dim("num_rows", min=1)
    program = torch.export.export(torch.nn.ReLU(), (example,), dynamic_shapes=({0: rows},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    torch.export.load(buffer)


def _answer(request: dict[str, object]) -> str | None:
    """Answer one request; what went wrong, in one line, or none."""
    import numpy as np

    from lntx.prediction import load_predictor

    try:
        predict = load_predictor(str(request["model"]))
        for rows, answers in zip(request["rows"], request["answers"], strict=True):  # type: ignore[call-overload]
            np.save(answers, predict(np.load(rows)))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


if __name__ == "__main__":
    _serve()
