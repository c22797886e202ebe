"""`check_program`: whether a training step is the right program, where every operator of it may be right.

Each check compares the step with itself: its gradient with differences of its loss, a row with the same row beside
others, a step with the step after saving and loading. It works on copies; model and optimiser stay as they were.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from lntx.base.errors import BadInput
from lntx.base.text import align
from lntx.proof.doubles import Doubles, Widths

if TYPE_CHECKING:
    import pandas as pd

Loss = Callable[[nn.Module, Any], torch.Tensor]

GRADIENT = "the gradient is that of the loss"
MOVES = "every parameter moves, and nothing else"
"""Names of checks."""

# Relative differences that rounding makes between a gradient and that of a float64 copy, by the bytes of the narrowest
# format, and what they may be relative to the largest gradient of all, where the true gradient is 0.
_ROUNDING = {8: (1e-8, 1e-10), 4: (1e-3, 1e-5), 2: (0.25, 2e-2), 1: (0.25, 2e-2)}
_SMOOTH = 1e-3
_TRIES = 3
_DROPPED = 2**16
_SHIFT = 3
_SIGMAS = 6.0
_SEEDS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of a program."""

    name: str
    """What must hold."""

    passed: bool | None
    """Whether it does; None if it could not be checked."""

    what: str
    """What is wrong and where, or why it could not be checked; empty if it holds."""

    seconds: float
    """What it cost."""

    required: bool = False
    """Whether the program fails if it could not be checked."""


@dataclass(frozen=True, kw_only=True)
class ProgramProof:
    """The result of `check_program`."""

    checks: tuple[Check, ...]
    """Each check, in the order in which they ran."""

    seconds_of_step: float
    """Seconds of one forward and backward pass."""

    @property
    def passed(self) -> bool:
        """Whether no check failed, and the gradient, causal, mask and positions could be checked."""
        return all(check.passed or (check.passed is None and not check.required) for check in self.checks)

    @property
    def reason(self) -> str | None:
        """What is wrong first; None if nothing is."""
        wrong = [check for check in self.checks if check.passed is False] or [
            check for check in self.checks if check.passed is None and check.required
        ]
        return f"{wrong[0].name}: {wrong[0].what}" if wrong else None

    @property
    def rows(self) -> pd.DataFrame:
        """One row per check: name, passed, what, seconds."""
        import pandas as pd

        return pd.DataFrame([vars(check) for check in self.checks])

    def __str__(self) -> str:
        """The table, the cost, and the verdict."""
        words = {True: "yes", False: "NO", None: "not checked"}
        lines = align(
            [("check", "holds", ""), *((check.name, words[check.passed], check.what) for check in self.checks)]
        )
        cost = sum(check.seconds for check in self.checks) / max(self.seconds_of_step, 1e-9)
        verdict = f"PASS  {len(self.checks)} checks" if self.passed else f"FAIL  {self.reason}"
        return "\n".join([*lines, f"cost: {cost:.0f} times a step", verdict])


class _Broken(Exception):
    """What must hold does not. The message says what and where."""


class _NotChecked(Exception):
    """Nothing can be said. The message says why."""


def check_program(
    model: nn.Module,
    batch: Any,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    causal: bool = False,
    mask: str | None = None,
    positions: str | None = None,
) -> ProgramProof:
    """Check a training step as a program.

    batch: tensors, or tuples, lists and dictionaries of them, with as many rows in their first axis. loss: called with
    the model and the batch, returns the loss, a tensor without axes. optimizer: of the model's parameters. causal: the
    outputs at a position must not depend on later positions (the second axis). mask: name of the tensor in the batch
    that is 1 where a position counts: outputs there must not depend on the others. positions: name of the tensor in the
    batch with the numbers of the positions, of a model that is to see their differences alone: outputs must not change
    when all of them grow by as much.

    Raises: BadInput: the loss is no finite number, or the batch has no tensor.
    """
    with torch.random.fork_rng(devices=[]):
        return _checked(_Program(model, batch, loss, optimizer), causal=causal, mask=mask, positions=positions)


def _checked(program: _Program, *, causal: bool, mask: str | None, positions: str | None) -> ProgramProof:
    checks: list[tuple[str, Callable[[], None]]] = [
        (GRADIENT, program.gradient),
        ("every parameter gets a gradient", program.gradients_arrive),
        ("every parameter is in one group of the optimiser", program.groups),
        (MOVES, program.moves),
        ("tied weights stay tied", program.ties),
        ("running statistics move", program.statistics),
        ("rows do not depend on each other", program.rows_apart),
        ("dropout keeps the mean", program.dropout),
        ("evaluation gives the same bits twice", program.evaluation),
        ("a step after saving and loading is the same", program.resumed),
    ]
    if causal:
        checks.append(("outputs do not depend on later positions", program.causal))
    if mask is not None:
        checks.append(("outputs do not depend on padding", lambda: program.padding(mask)))
    if positions is not None:
        checks.append(("outputs depend on differences of positions alone", lambda: program.shifted(positions)))
    required = {checks[0][0], *(name for name, _ in checks[10:])}
    results = tuple(dataclasses.replace(_run(name, check), required=name in required) for name, check in checks)
    return ProgramProof(checks=results, seconds_of_step=program.seconds)


def _run(name: str, check: Callable[[], None]) -> Check:
    start, what = time.perf_counter(), ""
    outcome: bool | None = True
    try:
        check()
    except _Broken as error:
        outcome, what = False, str(error)
    except _NotChecked as error:
        outcome, what = None, str(error)
    except Exception as error:
        outcome, what = None, f"it raised {type(error).__name__}: {error}"
    return Check(name=name, passed=outcome, what=what, seconds=time.perf_counter() - start)


class _Program:
    """A training step, its gradient, and copies of it."""

    def __init__(self, model: nn.Module, batch: Any, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.batch, self.loss, self.optimizer = model, batch, loss, optimizer
        self.tensors = _tensors(batch)
        if not self.tensors:
            raise BadInput("the batch holds no tensor")
        self.num_rows = self.tensors[0].shape[0] if self.tensors[0].dim() else 0
        self.names = {id(p): name for name, p in model.named_parameters()}
        # Before anything runs: a model may keep what cannot be copied, such as its last loss.
        self._start = copy.deepcopy((model, optimizer))
        start = time.perf_counter()
        with _restored(model), Widths() as widths:
            _seed()
            model.zero_grad(set_to_none=True)
            value = loss(model, batch)
            if not isinstance(value, torch.Tensor) or value.numel() != 1 or not torch.isfinite(value):
                raise BadInput("the loss must be one finite number, a tensor without axes")
            value.backward()
            self.grads = {
                name: None if p.grad is None else p.grad.detach().to_dense().double().clone()
                for name, p in model.named_parameters()
                if p.requires_grad
            }
        self.seconds = time.perf_counter() - start
        self.relative, self.absolute = _ROUNDING[min(widths.widths, default=4)]

    def copies(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return a copy of the model, and of the optimiser on its parameters."""
        model, optimizer = copy.deepcopy(self._start)
        return model, optimizer

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
        """Take one step."""
        _seed(seed)
        optimizer.zero_grad()
        self.loss(model, self.batch).backward()
        optimizer.step()

    # --- the gradient

    def gradient(self) -> None:
        """Compare the gradient with that of a float64 copy, and that with differences of its loss."""
        double = self.copies()[0].double()
        batch = pytree.tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, self.batch)
        parameters = {name: p for name, p in double.named_parameters() if p.requires_grad}

        def value() -> torch.Tensor:
            _seed()
            with Doubles():
                return self.loss(double, batch)

        double.zero_grad(set_to_none=True)
        start = value()
        with Doubles():
            start.backward()
        grads = {
            name: torch.zeros_like(p) if p.grad is None else p.grad.to_dense().detach().clone()
            for name, p in parameters.items()
        }
        # Their gradient is 0 by design.
        padding = {
            f"{name}.weight": module.padding_idx
            for name, module in double.named_modules()
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None
        }
        largest = max((float(grad.norm()) for grad in grads.values()), default=0.0)
        draw = torch.Generator().manual_seed(0)
        wrong, unclear = dict[str, str](), list[str]()
        with torch.no_grad():
            for name, parameter in parameters.items():
                at_start, frozen = float(start.detach()), padding.get(name)
                slope = self._slope(parameter, grads[name], value, draw, at_start, frozen)
                if slope is None:
                    unclear.append(name)
                    continue
                by_gradient, by_difference, allowed = slope
                if abs(by_gradient - by_difference) > allowed + 1e-9 * largest:
                    wrong[name] = (
                        f"along a random direction of it the loss has the slope {by_difference:.6g}, and its gradient "
                        f"says {by_gradient:.6g}"
                    )
        self._refuse(wrong)
        for name, grad in grads.items():
            own = self.grads.get(name)
            own = torch.zeros_like(grad) if own is None else own
            distance = float((own.to(grad.device) - grad).norm())
            if distance > self.relative * float(grad.norm()) + self.absolute * largest:
                wrong[name] = (
                    f"its gradient has the length {float(own.norm()):.6g}, that of a float64 copy "
                    f"{float(grad.norm()):.6g}; they are {distance:.3g} apart: look for hooks, and for what depends "
                    "on the format"
                )
        self._refuse(wrong)
        if unclear:
            raise _NotChecked(f"the loss is not smooth along {', '.join(unclear[:5])}")

    def _refuse(self, wrong: dict[str, str]) -> None:
        """Name the last of the parameters whose gradients are wrong: what is wrong there spreads to those before it."""
        if wrong:
            name = [*wrong][-1]
            others = f" (and {len(wrong) - 1} parameters before it)" if len(wrong) > 1 else ""
            raise _Broken(f"{name}, {self._module(name)}{others}: {wrong[name]}")

    def _slope(
        self,
        parameter: torch.Tensor,
        grad: torch.Tensor,
        value: Callable[[], torch.Tensor],
        draw: torch.Generator,
        at_start: float,
        padding: int | None,
    ) -> tuple[float, float, float] | None:
        """Return the slope by the gradient, by central differences with one step of Richardson's extrapolation, and how
        far they may be apart; None if the differences do not settle.
        """
        scale = max(float(parameter.norm()), math.sqrt(parameter.numel()) * 1e-2)
        for k in range(_TRIES):
            direction = torch.randn(parameter.shape, generator=draw, dtype=torch.float64).to(parameter.device)
            if padding is not None:
                direction[padding] = 0
            direction *= scale / max(float(direction.norm()), 1e-300)
            reach = 10.0 ** (-4 - k)
            coarse, bend = self._difference(parameter, direction, value, reach, at_start)
            fine, bend_inside = self._difference(parameter, direction, value, reach / 2, at_start)
            slope = (4 * fine - coarse) / 3
            noise = 1e-14 * abs(at_start) / reach
            if bend_inside > 0.75 * bend and bend_inside > _SMOOTH * abs(slope) + 1e3 * noise:
                # One slope on each side, however near: a kink, such as that of a ReLU.
                continue
            error = abs(fine - coarse) + 10 * noise
            by_gradient = float((grad * direction).sum())
            if abs(by_gradient - slope) <= 10 * error + 1e-6 * abs(slope) and error <= max(
                _SMOOTH * abs(slope), 1e3 * noise
            ):
                return by_gradient, slope, math.inf
            if error <= _SMOOTH * abs(slope):
                return by_gradient, slope, 10 * error + 1e-6 * abs(slope)
        return None

    def _difference(
        self,
        parameter: torch.Tensor,
        direction: torch.Tensor,
        value: Callable[[], torch.Tensor],
        reach: float,
        at_start: float,
    ) -> tuple[float, float]:
        """Return the central difference, and how far the slopes on both sides are apart."""
        start = parameter.clone()
        values = []
        for sign in (1, -1):
            parameter.copy_(start + sign * reach * direction)
            values.append(float(value()))
        parameter.copy_(start)
        return (values[0] - values[1]) / (2 * reach), abs(values[0] + values[1] - 2 * at_start) / reach

    def _module(self, name: str) -> str:
        path = name.rpartition(".")[0]
        return f"{path or 'the model'}: {type(self.model.get_submodule(path)).__name__}"

    # --- parameters and the optimiser

    def gradients_arrive(self) -> None:
        """Look for parameters without a gradient."""
        missing = [name for name, grad in self.grads.items() if grad is None]
        if missing:
            raise _Broken(f"{', '.join(missing[:5])} ({self._module(missing[0])}) gets no gradient")

    def groups(self) -> None:
        """Look for parameters that the optimiser does not hold once."""
        ids = [id(p) for group in self.optimizer.param_groups for p in group["params"]]
        for p in self.model.parameters():
            if p.requires_grad and ids.count(id(p)) != 1:
                raise _Broken(f"{self.names[id(p)]} is in {ids.count(id(p))} groups of the optimiser")
        strange = [p for group in self.optimizer.param_groups for p in group["params"] if id(p) not in self.names]
        if strange:
            raise _Broken(
                f"the optimiser holds a parameter of the shape {tuple(strange[0].shape)} that the model has not"
            )

    def moves(self) -> None:
        """Take a step, and look at what moved."""
        model, optimizer = self.copies()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.step(model, optimizer)
        rates = {id(p): group.get("lr", 1.0) for group in optimizer.param_groups for p in group["params"]}
        for name, p in model.named_parameters():
            moved = not torch.equal(p.detach(), before[name])
            grad = self.grads.get(name)
            if moved and not p.requires_grad:
                raise _Broken(f"{name} ({self._module(name)}) needs no gradient, and a step moves it")
            if not moved and grad is not None and grad.abs().max() > 0 and rates.get(id(p), 0) > 0:
                raise _Broken(
                    f"{name} ({self._module(name)}) has a gradient, and a step does not move it: is it in the step, "
                    "or is the update below the rounding of its format?"
                )

    def ties(self) -> None:
        """Step, save and load, and see whether weights that are one are one."""
        groups: dict[int, list[str]] = {}
        for name, p in self.model.named_parameters(remove_duplicate=False):
            groups.setdefault(id(p), []).append(name)
        tied = [names for names in groups.values() if len(names) > 1]
        model, optimizer = self.copies()
        self.step(model, optimizer)
        loaded = self.copies()[0]
        loaded.load_state_dict(_through_a_file(model.state_dict()))
        for names in tied:
            for what, one in (("a step", model), ("saving and loading", loaded)):
                first, *others = (one.get_parameter(name) for name in names)
                if any(first is not other for other in others):
                    raise _Broken(f"{', '.join(names)} are one weight, and are several after {what}")

    def statistics(self) -> None:
        """Look for running statistics that stand still."""
        model, _ = self.copies()
        norms = [
            (name, module, module.running_mean.clone())
            for name, module in model.named_modules()
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None
        ]
        with torch.no_grad():
            _seed()
            self.loss(model, self.batch)
        for name, module, before in norms:
            # One that is frozen is in evaluation.
            if module.training and module.running_mean is not None and torch.equal(module.running_mean, before):
                raise _Broken(f"the running mean of {name} does not move in training")

    # --- rows, positions, modes

    def rows_apart(self) -> None:
        """Exchange the first row, and look at the outputs of the others."""
        if self.num_rows < 3:
            raise _NotChecked("it needs three rows or more")
        for row in (0, self.num_rows - 1):
            others = [k for k in range(self.num_rows) if k != row]

            def exchanged(tensor: torch.Tensor) -> torch.Tensor:
                if not tensor.dim() or tensor.shape[0] != self.num_rows:
                    return tensor
                changed = tensor.clone()
                changed[row] = tensor[1]  # noqa: B023 (called at once)
                return changed

            batch = pytree.tree_map_only(torch.Tensor, exchanged, self.batch)
            place = self._first_difference(self.batch, batch, lambda output: output[others])  # noqa: B023
            if place is not None and place[1]:
                raise _NotChecked(f"{place[0]} joins rows in evaluation too")
            if place is not None:
                raise _Broken(f"in {place[0]} the outputs of a row change with another row")

    def causal(self) -> None:
        """Change the later half of the positions, and look at the outputs of the others."""
        length = max((t.shape[1] for t in self.tensors if t.dim() > 1), default=0)
        if length < 3:
            raise _NotChecked("it needs a second axis of three positions or more")
        for cut in (1, length // 2, length - 1):

            def later(tensor: torch.Tensor) -> torch.Tensor:
                if tensor.dim() < 2 or tensor.shape[1] != length or tensor.dtype == torch.bool:
                    return tensor
                return torch.cat([tensor[:, :cut], _other(tensor)[:, cut:]], 1)  # noqa: B023 (called at once)

            changed = pytree.tree_map_only(torch.Tensor, later, self.batch)
            if all(map(torch.equal, self.tensors, _tensors(changed))):
                raise _NotChecked("all positions hold the same values")
            place = self._first_difference(self.batch, changed, lambda output: output[:, :cut], length=length)  # noqa: B023
            if place is not None:
                raise _Broken(f"in {place[0]} the outputs before position {cut} change with later positions")

    def padding(self, mask: str) -> None:
        """Change what the mask leaves out, and look at the outputs of the rest."""
        counts = self._named(mask).clone().bool()
        length = counts.shape[1]
        counts[:, -max(length // 4, 1) :] = False
        base = {**self.batch, mask: counts.to(self.batch[mask].dtype)}

        def padded(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.dim() < 2 or tensor.shape[:2] != counts.shape or tensor is base[mask]:
                return tensor
            where = counts.reshape(*counts.shape, *[1] * (tensor.dim() - 2))
            return torch.where(where, tensor, _other(tensor))

        changed = pytree.tree_map_only(torch.Tensor, padded, base)
        place = self._first_difference(base, changed, lambda output: output[counts], length=length, at_the_end=True)
        if place is not None:
            raise _Broken(f"in {place[0]} outputs that count change with padding")

    def shifted(self, positions: str) -> None:
        """Add the same to all positions, and look at the outputs."""
        moved = {**self.batch, positions: self._named(positions) + _SHIFT}
        place = self._first_difference(self.batch, moved, lambda output: output, at_the_end=True)
        if place is not None:
            raise _Broken(f"in {place[0]} the outputs change when all positions grow by {_SHIFT}")

    def _named(self, name: str) -> torch.Tensor:
        """Return a tensor of the batch by its name."""
        if not isinstance(self.batch, dict) or not isinstance(self.batch.get(name), torch.Tensor):
            raise _NotChecked(f"the batch has no tensor called {name!r}")
        tensor: torch.Tensor = self.batch[name]
        return tensor

    def _first_difference(
        self,
        one: Any,
        other: Any,
        chosen: Callable[[torch.Tensor], torch.Tensor],
        *,
        length: int | None = None,
        at_the_end: bool = False,
    ) -> tuple[str, bool] | None:
        """Return the first module whose chosen outputs differ between two batches, and whether it is a batch norm; None
        if those of the whole model agree.
        """
        records = []
        for batch in (one, other):
            model, _ = self.copies()
            model.eval()
            with torch.no_grad(), _recorded(model) as record:
                _seed()
                self.loss(model, batch)
            records.append(record)
        first: tuple[str, bool] | None = None
        whole, compared = None, False
        for (name, module, before), (_, _, after) in zip(*records, strict=False):
            fits = before.dim() and before.shape[0] == self.num_rows and before.shape == after.shape
            if not fits or (length is not None and (before.dim() < 2 or before.shape[1] != length)):
                continue
            compared |= name == ""
            if not _close(chosen(before), chosen(after)):
                label = f"{name or 'the model'} ({type(module).__name__})"
                first = first or (label, isinstance(module, nn.modules.batchnorm._NormBase))
                whole = whole or (name == "" and first)
        if not compared:
            raise _NotChecked("the model returns no tensor with the rows and positions of the batch")
        return (first if not at_the_end else whole or None) if whole else None

    def dropout(self) -> None:
        """Send ones through each dropout."""
        for name, module in self.model.named_modules():
            p = getattr(module, "p", None)
            kind = type(module).__name__.lower()
            # Alpha dropout keeps a mean of 0.
            if "dropout" not in kind or "alpha" in kind or not isinstance(p, float) or not 0 < p < 1:
                continue
            layer = copy.deepcopy(module).train()
            _seed()
            with torch.no_grad():
                out = layer(
                    torch.ones(_DROPPED // 64, 64, 1, 1) if "2d" in type(module).__name__ else torch.ones(_DROPPED)
                )
            if abs(float(out.mean()) - 1) > _SIGMAS * math.sqrt(p / (1 - p) / _DROPPED):
                raise _Broken(f"{name} ({type(module).__name__}, p {p}) turns a mean of 1 into {float(out.mean()):.4g}")

    def evaluation(self) -> None:
        """Evaluate twice, from different seeds."""
        records, values = [], []
        model, _ = self.copies()
        model.eval()
        for seed in _SEEDS:
            with torch.no_grad(), _recorded(model) as record:
                _seed(seed)
                values.append(self.loss(model, self.batch))
            records.append(record)
        if torch.equal(*values):
            return
        pairs = zip(*records, strict=False)
        name = next((name for (name, _, a), (_, _, b) in pairs if not torch.equal(a, b)), "the loss")
        raise _Broken(f"{name or 'the model'} gives other numbers when the model is evaluated again")

    def resumed(self) -> None:
        """Take two steps at once, and with saving and loading in between."""
        straight, optimizer = self.copies()
        self.step(straight, optimizer, 1)
        saved = _through_a_file({"model": straight.state_dict(), "optimizer": optimizer.state_dict()})
        self.step(straight, optimizer, 2)
        model, other = self.copies()
        model.load_state_dict(saved["model"])
        other.load_state_dict(saved["optimizer"])
        self.step(model, other, 2)
        for (name, one), (_, two) in zip(straight.state_dict().items(), model.state_dict().items(), strict=True):
            if isinstance(one, torch.Tensor) and not torch.equal(one.nan_to_num(), two.nan_to_num()):
                raise _Broken(f"{name} differs: something that a step needs is not in the saved state")


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Put everything of a model back afterwards: numbers, gradients, buffers and attributes."""
    state = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    grads = [(p, p.grad) for p in model.parameters()]
    plain = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in state:
                tensor.copy_(value)
        for p, grad in grads:
            p.grad = grad
        for module, attributes, buffers in plain:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[tuple[str, nn.Module, torch.Tensor]]]:
    """Record the first tensor that each module returns, in the order of the calls; the whole model is called ''."""
    record: list[tuple[str, nn.Module, torch.Tensor]] = []

    def hook(name: str) -> Callable[..., None]:
        def note(module: nn.Module, _inputs: Any, outputs: Any) -> None:
            tensors = [value for value in pytree.tree_leaves(outputs) if isinstance(value, torch.Tensor)]
            record.extend((name, module, tensor.detach().clone()) for tensor in tensors[:1])

        return note

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _close(first: torch.Tensor, second: torch.Tensor) -> bool:
    # The same operations on the same numbers: at most blocks of products differ.
    relative = 1e-5 if first.element_size() >= 4 or not first.is_floating_point() else 4 * torch.finfo(first.dtype).eps
    first, second = first.double().nan_to_num(), second.double().nan_to_num()
    largest = float(first.abs().max()) if first.numel() else 0.0
    return first.shape == second.shape and bool(((first - second).abs() <= relative * largest).all())


def _other(tensor: torch.Tensor) -> torch.Tensor:
    """Return other values of the same kind: those of another row and position."""
    return tensor.roll(1, 0).roll(1, 1)


def _tensors(batch: Any) -> list[torch.Tensor]:
    return [value for value in pytree.tree_leaves(batch) if isinstance(value, torch.Tensor)]


def _through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _seed(seed: int = 0) -> None:
    torch.manual_seed(seed)
