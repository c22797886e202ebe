"""Where a program is: the module of the model and the line, and in the backward pass those of the forward call."""

from __future__ import annotations

import bisect
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

# Frames of these files are not the program.
_NOT_THE_PROGRAM = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
_LNTX = str(Path(__file__).parents[1])
_MOST = 1_000_000


class Where(NamedTuple):
    """A place in the program."""

    module: str | None = None
    """Path of the module in the model, such as layers.3.attn; of a step, the parameter. The model itself is ""."""

    file: str | None = None
    """File of the line that was running; None in a thread of torch's own."""

    line: int | None = None
    """Number of that line."""

    def __str__(self) -> str:
        """The place for a message; empty if nothing is known."""
        line = "" if self.file is None else f"{Path(self.file).name}, line {self.line}"
        return ", ".join(filter(None, (self.module, line)))


class Whereabouts:
    """Follows the modules whose forward pass runs, from `begin` to `end`."""

    def __init__(self) -> None:
        # Modules run in several threads at once.
        self._threads = threading.local()
        self._names: dict[int, str] = {}
        self._parameters: dict[int, str] = {}
        # What is named stays: the id of an object that is gone can be that of another.
        self._named: list[torch.nn.Module] = []
        # The sequence numbers of autograd's nodes grow: each forward call ends a range of them.
        self._ends: list[int] = []
        self._places: list[Where] = []
        self._hooks: list[Any] = []

    @property
    def _running(self) -> list[torch.nn.Module]:
        """The modules of this thread whose forward pass runs, the outermost first."""
        if not hasattr(self._threads, "running"):
            self._threads.running = []
        running: list[torch.nn.Module] = self._threads.running
        return running

    def begin(self) -> None:
        """Begin to follow."""
        self._threads = threading.local()
        self._names, self._parameters, self._named, self._ends, self._places = {}, {}, [], [], []
        self._hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]

    def end(self) -> None:
        """Stop following."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._named = [], []

    @property
    def is_following(self) -> bool:
        """Whether it was begun and not ended."""
        return bool(self._hooks)

    def note(self) -> None:
        """Remember where a forward call is made: the nodes of autograd since the call before are its own."""
        number = torch._C._autograd._get_sequence_nr()
        if not self._ends or number > self._ends[-1]:
            self._ends.append(number)
            self._places.append(self._now())
            if len(self._ends) > _MOST:
                del self._ends[: _MOST // 2], self._places[: _MOST // 2]

    def now(self) -> Where:
        """Return where the program is; in a backward pass, where the forward call was made."""
        node = torch._C._current_autograd_node()
        if node is None or self._running:
            return self._now()
        k = bisect.bisect_right(self._ends, node._sequence_nr())
        return self._places[k] if k < len(self._places) else self._now()

    def parameter(self, parameter: torch.Tensor) -> str | None:
        """Return the name of a parameter of the model that ran last; None if it has none."""
        return self._parameters.get(id(parameter))

    def _now(self) -> Where:
        module = self._names.get(id(self._running[-1])) if self._running else None
        return Where(module, *line_of_program())

    def _enter(self, module: torch.nn.Module, _arguments: Any) -> None:
        # A part of a model that runs alone, as in a checkpoint, keeps its name; a model may have other parts by now.
        if not self._running and not self._names.get(id(module)):
            self._named += [part for part in module.modules() if id(part) not in self._names]
            self._names |= {id(part): name for name, part in module.named_modules()}
            self._parameters |= {id(parameter): name for name, parameter in module.named_parameters()}
        self._running.append(module)

    def _leave(self, module: torch.nn.Module, _arguments: Any, _result: Any) -> None:
        while self._running and self._running.pop() is not module:
            # A forward pass that failed leaves its modules behind.
            pass


def line_of_program() -> tuple[str | None, int | None]:
    """Return the file and line of the innermost frame outside torch; None where lntx is the program."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_NOT_THE_PROGRAM):
            return (None, None) if name.startswith(_LNTX) else (name, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None, None
