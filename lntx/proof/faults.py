"""Faults to plant in a training step: kernels that are wrong, bits that flip, programs that use a wrong formula.

They test the proof itself. Most change what one operator returns, as a wrong kernel would; each is planted in one
network and format, and names what must be blamed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from lntx.config.loading import unknown
from lntx.errors import BadInput
from lntx.proof.nets import Net, build, prove_net
from lntx.proof.result import Proof
from lntx.proof.schema import named, plain_name

Change = Callable[[Any, dict[str, Any], Any, float], Any]
"""Gets an operator, its arguments by name, what it returned and a size; returns what it shall return."""


@dataclass(frozen=True, kw_only=True)
class ProofFault:
    """One way in which a training step can be wrong."""

    name: str
    """Its name."""

    what: str
    """What goes wrong, as a clause."""

    blame: str
    """The operator, step or storage that must be blamed."""

    net: str
    """Network that it is planted in."""

    mode: str = "float32"
    """Formats of that network."""

    optimizer: type[torch.optim.Optimizer] | None = None
    """Kind of optimiser that it needs; None for any."""

    sizes: tuple[float, ...] = ()
    """Sizes to try, from large to small; none for a fault without a size."""

    planted: Callable[[Net, float], AbstractContextManager[Any]]
    """Returns a context manager that plants it in a network, with a size."""


class _Altered(TorchDispatchMode):
    """Changes what an operator returns."""

    def __init__(self, operator: str, change: Change, size: float, *, call: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operator, self._change, self._size, self._call = operator, change, size, call
        self._seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if plain_name(func._schema.name.split("::")[1]) != self._operator:
            return out
        self._seen += 1
        if self._call is not None and self._seen != self._call:
            return out
        return self._change(func, named(func, args, kwargs or {}), out, self._size)


def _kernel(operator: str, change: Change, *, call: int | None = None) -> Callable[[Net, float], _Altered]:
    return lambda net, size: _Altered(operator, change, size, call=call)


def _with(**changed: Callable[[dict[str, Any], float], Any]) -> Change:
    """Call the operator again with other arguments."""

    def change(func: Any, arguments: dict[str, Any], out: Any, size: float) -> Any:
        given = {**arguments, **{name: make(arguments, size) for name, make in changed.items()}}
        names = [one.name for one in func._schema.arguments if not one.kwarg_only]
        others = {one.name: given[one.name] for one in func._schema.arguments if one.kwarg_only and one.name in given}
        return func(*[given[name] for name in names if name in given], **others)

    return change


def _result(make: Callable[[dict[str, Any], Any, float], Any]) -> Change:
    return lambda func, arguments, out, size: make(arguments, out, size)


def _slot(place: int, make: Callable[[dict[str, Any], torch.Tensor, float], torch.Tensor]) -> Change:
    """Change one of several outputs."""

    def change(func: Any, arguments: dict[str, Any], out: Any, size: float) -> Any:
        return tuple(make(arguments, one, size) if k == place else one for k, one in enumerate(out))

    return change


def _last_off(out: torch.Tensor, size: float) -> torch.Tensor:
    """Move the last element by so many units in the last place."""
    found = out.clone()
    last = found.reshape(-1)[-1:]
    eps = torch.finfo(out.dtype).eps
    found.view(-1)[-1:] = last + last.abs() * eps * size
    return found


def _coarse(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    words = tensor.contiguous().view(torch.int32)
    drop = 23 - bits
    return ((words + (1 << (drop - 1))) & ~((1 << drop) - 1)).view(torch.float32)


def _scale_of(arguments: dict[str, Any], size: float) -> float:
    return float(arguments.get("scale") or 1 / math.sqrt(arguments["query"].shape[-1])) * (1 + size)


def _without_last_key(arguments: dict[str, Any], out: Any, size: float) -> Any:
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    rest = [arguments[name][:, :, :-1] for name in ("key", "value")]
    found = op(arguments["query"][:, :, :-1], *rest, 0.0, True)[0]
    whole = op(arguments["query"], *(arguments[name] for name in ("key", "value")), 0.0, True)
    first = whole[0].clone()
    # The first rows see one key less.
    first[:, :, 1:] = found if found.shape == first[:, :, 1:].shape else first[:, :, 1:]
    return first, whole[1]


def _in_place(operator_call: int) -> Callable[[Net, float], AbstractContextManager[Any]]:
    """Flip a bit of what a product returned, before the next operator reads it."""

    def planted(net: Net, size: float) -> AbstractContextManager[Any]:
        return _Flip(operator_call, int(size))

    return planted


class _Flip(TorchDispatchMode):
    """Flips one bit of an output after the operator that follows it has begun: no operator wrote it."""

    def __init__(self, call: int, bit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left, self._bit = call, bit
        self._target: torch.Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = plain_name(func._schema.name.split("::")[1])
        if self._target is not None and not func.is_view:
            _flip(self._target, self._bit)
            self._target = None
        if name in ("addmm", "mm"):
            self._left -= 1
            if self._left == 0:
                self._target = out
        return out


def _flip(tensor: torch.Tensor, bit: int) -> None:
    words = tensor.detach().untyped_storage()
    whole = torch.empty(0, dtype=torch.uint8).set_(words)
    whole[bit // 8] ^= 1 << (bit % 8)


def _weight_bit(net: Net, size: float) -> AbstractContextManager[Any]:
    """Flip a bit of a weight between two steps, where no operator is seen."""

    def make(original: Any) -> Any:
        def step(self: Any) -> None:
            # The schedule's own start calls it too.
            if self.last_epoch >= 0:
                with _disable_current_modes():
                    _flip(self.optimizer.param_groups[0]["params"][0], int(size))
            original(self)

        return step

    return replaced(torch.optim.lr_scheduler.CosineAnnealingLR, "step", make)


def _settings(**changed: Callable[[Any, float], Any]) -> Callable[[Net, float], AbstractContextManager[Any]]:
    """Change settings of the optimiser from the start, and let it use them."""

    @contextlib.contextmanager
    def planted(net: Net, size: float) -> Iterator[None]:
        for group in net.optimizer.param_groups:
            for name, make in changed.items():
                group[name] = make(group[name], size)
        yield

    return planted


@contextlib.contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an attribute for the duration of a block. make: maps the original to its replacement."""
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _step_formula(make: Callable[[torch.optim.Optimizer, float], None]) -> Callable[[Net, float], Any]:
    """Replace a step of the optimiser by a formula of right operators that is wrong as a whole."""

    @contextlib.contextmanager
    def planted(net: Net, size: float) -> Iterator[None]:
        kind = type(net.optimizer)

        def wrong(original: Any) -> Any:
            def step(self: torch.optim.Optimizer, closure: Any = None) -> None:
                make(self, size)

            return torch.optim.Optimizer.profile_hook_step(step)

        with replaced(kind, "step", wrong):
            yield

    return planted


@torch.no_grad()
def _adam_without_correction(optimizer: torch.optim.Optimizer, size: float) -> None:
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for one in group["params"]:
            state = optimizer.state[one]
            for name in ("exp_avg", "exp_avg_sq"):
                state.setdefault(name, torch.zeros_like(one))
            state["step"] = state.get("step", torch.tensor(0.0)) + 1
            grad = one.grad if isinstance(optimizer, torch.optim.AdamW) else one.grad + group["weight_decay"] * one
            if isinstance(optimizer, torch.optim.AdamW):
                one.mul_(1 - group["lr"] * group["weight_decay"])
            state["exp_avg"].lerp_(grad, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            # Without 1 - beta1^t and 1 - beta2^t.
            one.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-group["lr"])


@torch.no_grad()
def _momentum_damped(optimizer: torch.optim.Optimizer, size: float) -> None:
    for group in optimizer.param_groups:
        for one in group["params"]:
            state = optimizer.state[one]
            grad = one.grad + group["weight_decay"] * one
            buffer = state.get("momentum_buffer")
            # The first gradient is damped, too, by so much.
            state["momentum_buffer"] = grad * (1 - size) if buffer is None else buffer * group["momentum"] + grad
            one.sub_(group["lr"] * (grad + group["momentum"] * state["momentum_buffer"]))


def _smoothed(net: Net, size: float) -> AbstractContextManager[Any]:
    def make(original: Any) -> Any:
        def loss(scores: Any, targets: Any, *, label_smoothing: float) -> Any:
            return original(scores, targets, label_smoothing=label_smoothing + size)

        return loss

    return replaced(functional, "cross_entropy", make)


def _clipped_to_another_norm(net: Net, size: float) -> AbstractContextManager[Any]:
    def make(original: Any) -> Any:
        return lambda parameters, max_norm: original(parameters, max_norm * (1 + size))

    return replaced(torch.nn.utils, "clip_grad_norm_", make)


def _schedule_late(net: Net, size: float) -> AbstractContextManager[Any]:
    return replaced(torch.optim.lr_scheduler.CosineAnnealingLR, "step", lambda original: lambda self: None)


def _zero_grad_left_out(net: Net, size: float) -> AbstractContextManager[Any]:
    return replaced(torch.optim.Optimizer, "zero_grad", lambda original: lambda self: None)


def _state_lost(net: Net, size: float) -> AbstractContextManager[Any]:
    def make(original: Any) -> Any:
        def zero_grad(self: torch.optim.Optimizer) -> None:
            self.state.clear()
            original(self)

        return zero_grad

    return replaced(torch.optim.Optimizer, "zero_grad", make)


@contextlib.contextmanager
def _gradient_scaled(net: Net, size: float) -> Iterator[None]:
    handle = next(iter(net.module.parameters())).register_hook(lambda grad: grad * (1 + size))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _frozen(net: Net, size: float) -> Iterator[None]:
    [*net.module.parameters()][-1].requires_grad_(False)
    yield


def _dropout_left_out(net: Net, size: float) -> AbstractContextManager[Any]:
    return replaced(functional, "dropout", lambda original: lambda given, *args, **options: given)


@contextlib.contextmanager
def _eps_of_module(net: Net, size: float) -> Iterator[None]:
    for module in net.module.modules():
        if hasattr(module, "eps"):
            module.eps = module.eps * (1 + size)  # type: ignore[assignment, operator]
    yield


@contextlib.contextmanager
def _dropout_of_module(net: Net, size: float) -> Iterator[None]:
    for module in net.module.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = module.p * (1 + size)
    yield


def _all_but_last(name: str) -> Callable[[dict[str, Any], float], Any]:
    """Zero the last row of an argument."""

    def make(arguments: dict[str, Any], size: float) -> Any:
        found = arguments[name].clone()
        found[-1] = 0
        return found

    return make


def _bias_twice(arguments: dict[str, Any], size: float) -> Any:
    return arguments["weight2"] * (1 + size)


def _no_repeats(arguments: dict[str, Any], out: torch.Tensor, size: float) -> torch.Tensor:
    found = torch.zeros_like(out)
    found[arguments["indices"].reshape(-1)] = arguments["grad_output"].reshape(-1, out.shape[1])
    return found


def _next_index(arguments: dict[str, Any], out: torch.Tensor, size: float) -> torch.Tensor:
    return (out + 1).clamp_(max=arguments["self"].shape[-1] * arguments["self"].shape[-2] - 1)


_PER_MILLE = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
_ULPS = (65536.0, 4096.0, 1024.0, 256.0, 64.0, 16.0, 8.0, 4.0, 2.0, 1.0)
_LN, _RMS, _CONV, _LSTM, _GRU = "decoder, layer norm", "decoder, RMS norm", "convolutions", "LSTM", "GRU"
_SDPA = "_scaled_dot_product_flash_attention_for_cpu"


def _factor(arguments: dict[str, Any], out: torch.Tensor, size: float) -> torch.Tensor:
    return out * (1 + size)


def _kernels() -> Iterator[ProofFault]:
    def fault(name: str, what: str, blame: str, net: str, change: Change, **more: Any) -> ProofFault:
        call = more.pop("call", None)
        return ProofFault(name=name, what=what, blame=blame, net=net, planted=_kernel(blame, change, call=call), **more)

    yield fault(
        "attention-scale", "the scale of the scores is off by a factor 1 + size", _SDPA, _LN,
        _with(scale=_scale_of), sizes=_PER_MILLE,
    )  # fmt: skip
    yield fault("attention-mask", "the causal mask is off by one", _SDPA, _LN, _result(_without_last_key))
    yield fault(
        "attention-gradient-scale", "the gradient of the scores has another scale", f"{_SDPA}_backward", _LN,
        _with(scale=_scale_of), sizes=_PER_MILLE,
    )  # fmt: skip
    yield fault(
        "layer-norm-eps", "the kernel adds eps times 1 - size", "native_layer_norm", _LN,
        _with(eps=lambda arguments, size: arguments["eps"] * (1 - size)), sizes=_PER_MILLE,
    )  # fmt: skip
    yield fault(
        "layer-norm-gradient-row", "the gradient of the weight leaves out a row", "native_layer_norm_backward", _LN,
        _with(grad_out=_all_but_last("grad_out")),
    )  # fmt: skip
    yield fault(
        "product-element", "the last element is off by so many units in the last place", "addmm", _LN,
        _result(lambda arguments, out, size: _last_off(out, size)), sizes=_ULPS,
    )  # fmt: skip
    yield fault(
        "product-row-bfloat16", "the last row is computed in bfloat16", "addmm", _LN,
        _result(lambda arguments, out, size: torch.cat([out[:-1], out[-1:].bfloat16().float()])),
    )  # fmt: skip
    yield fault(
        "product-tf32", "inputs are rounded to TF32", "mm", _LN,
        _with(
            self=lambda arguments, size: _coarse(arguments["self"], 10),
            mat2=lambda arguments, size: _coarse(arguments["mat2"], 10),
        ),
    )  # fmt: skip
    yield fault(
        "product-bfloat16", "inputs are rounded to bfloat16", "mm", _LN,
        _with(
            self=lambda arguments, size: arguments["self"].bfloat16().float(),
            mat2=lambda arguments, size: arguments["mat2"].bfloat16().float(),
        ),
    )  # fmt: skip
    yield fault(
        "product-last-term", "the last term of each sum is left out", "mm", _LN,
        _with(
            self=lambda arguments, size: arguments["self"][:, :-1], mat2=lambda arguments, size: arguments["mat2"][:-1]
        ),
    )  # fmt: skip
    yield fault(
        "product-bfloat16-accumulator", "the sum is kept in bfloat16", "mm", _LN,
        _result(
            lambda arguments, out, size: sum(
                (
                    (arguments["self"][:, k : k + 1] * arguments["mat2"][k : k + 1]).bfloat16()
                    for k in range(arguments["mat2"].shape[0])
                ),
                torch.zeros_like(out),
            )
        ),
        mode="bfloat16",
    )  # fmt: skip
    yield fault(
        "sum-last-row", "the last row is left out", "sum", _LN,
        _with(self=_all_but_last("self")),
    )  # fmt: skip
    yield fault(
        "gelu-tanh", "the approximation by tanh is used", "gelu", _LN,
        _with(approximate=lambda arguments, size: "tanh"),
    )  # fmt: skip
    yield fault("gelu-gradient", "off by a factor 1 + size", "gelu_backward", _LN, _result(_factor), sizes=_PER_MILLE)
    yield fault("silu", "off by a factor 1 + size", "silu", _RMS, _result(_factor), sizes=_PER_MILLE)
    yield fault(
        "silu-gradient", "the term with the slope of the gate is left out", "silu_backward", _RMS,
        _result(lambda arguments, out, size: arguments["grad_output"] * torch.sigmoid(arguments["self"])),
    )  # fmt: skip
    yield fault("rsqrt", "off by a factor 1 + size", "rsqrt", _RMS, _result(_factor), sizes=_PER_MILLE)
    yield fault("mean", "divides by one element more", "mean", _RMS, _result(
        lambda arguments, out, size: out * (arguments["self"].shape[-1] / (arguments["self"].shape[-1] + 1.0))
    ))  # fmt: skip
    yield fault(
        "log-softmax", "off by so much", "_log_softmax", _LN,
        _result(lambda arguments, out, size: out + size), sizes=_PER_MILLE,
    )  # fmt: skip
    yield fault(
        "softmax-gradient", "the sum of the gradients is left out", "_log_softmax_backward_data", _LN,
        _result(lambda arguments, out, size: arguments["grad_output"] - arguments["output"].exp()),
    )  # fmt: skip
    yield fault(
        "loss-smoothed", "the kernel smooths the labels by so much", "nll_loss_forward", _LN,
        _slot(0, lambda arguments, out, size: (1 - size) * out - size * arguments["self"].mean()), sizes=_PER_MILLE,
    )  # fmt: skip
    yield fault(
        "loss-gradient", "divides by one row more", "nll_loss_backward", _LN,
        _result(lambda arguments, out, size: out * (len(arguments["target"]) / (len(arguments["target"]) + 1.0))),
    )  # fmt: skip
    yield fault(
        "embedding-repeats", "a token that comes twice counts once", "embedding_dense_backward", _LN,
        _result(_no_repeats),
    )  # fmt: skip
    yield fault(
        "embedding-row", "one row is that of another token", "embedding", _LN,
        _result(lambda arguments, out, size: out.roll(1, 1)),
    )  # fmt: skip
    yield fault(
        "copy-last", "the last element is not copied", "clone", _LN,
        _result(lambda arguments, out, size: torch.cat([out.reshape(-1)[:-1], out.new_zeros(1)]).view(out.shape)),
    )  # fmt: skip
    yield fault(
        "cast-truncates", "bits are cut off instead of rounded", "_to_copy", _LN,
        _result(
            lambda arguments, out, size: out
            if out.dtype != torch.bfloat16 or arguments["self"].dtype != torch.float32
            else (arguments["self"].contiguous().view(torch.int32) & -65536).view(torch.float32).bfloat16()
        ),
        mode="autocast bfloat16",
    )  # fmt: skip
    yield fault(
        "convolution-padding", "the padding is one value more to the left", "convolution", _CONV,
        _result(lambda arguments, out, size: out.roll(1, -1)),
    )  # fmt: skip
    yield fault(
        "convolution-gradient-sample", "the gradient of the weight leaves out a sample", "convolution_backward", _CONV,
        _with(grad_output=_all_but_last("grad_output")),
    )  # fmt: skip
    yield fault(
        "batch-norm-momentum", "the running statistics use another momentum", "native_batch_norm", _CONV,
        _slot(1, _moved), sizes=_PER_MILLE,
    )  # fmt: skip
    yield fault(
        "group-norm", "off by one per cent", "native_group_norm", _CONV,
        _slot(0, lambda arguments, out, size: out * 0.99),
    )  # fmt: skip
    yield fault("max-pool-index", "the index is one too large", "max_pool2d_with_indices", _CONV, _slot(1, _next_index))
    yield fault(
        "average-pool", "pads are not counted", "avg_pool2d", _CONV,
        _with(count_include_pad=lambda arguments, size: False),
    )  # fmt: skip
    yield fault(
        "relu-gradient", "passes where the input is negative", "threshold_backward", _CONV,
        _with(threshold=lambda arguments, size: -1.0),
    )  # fmt: skip
    yield fault(
        "lstm-bias", "one bias is off by a factor 1 + size", "mkldnn_rnn_layer", _LSTM,
        _with(weight2=_bias_twice), sizes=_PER_MILLE,
    )  # fmt: skip
    yield fault(
        "lstm-gradient-step", "the last step gives no gradient", "mkldnn_rnn_layer_backward", _LSTM,
        _with(grad_output=_all_but_last("grad_output")),
    )  # fmt: skip
    yield fault("sigmoid", "off by a factor 1 + size", "sigmoid", _GRU, _result(_factor), sizes=_PER_MILLE)
    yield fault("tanh", "off by a factor 1 + size", "tanh", _GRU, _result(_factor), sizes=_PER_MILLE)


def _moved(arguments: dict[str, Any], out: torch.Tensor, size: float) -> torch.Tensor:
    arguments["running_mean"].mul_(1 + size)
    return out


def _programs() -> Iterator[ProofFault]:
    yield ProofFault(
        name="memory-activation", what="a bit of a stored activation flips between two operators", blame="memory",
        net=_LN, sizes=(30.0, 23.0, 10.0, 1.0, 0.0), planted=_in_place(2),
    )  # fmt: skip
    yield ProofFault(
        name="memory-weight", what="a bit of a weight flips between two steps", blame="memory", net=_LN,
        sizes=(30.0, 23.0, 10.0, 1.0, 0.0), planted=_weight_bit,
    )  # fmt: skip
    yield ProofFault(
        name="adam-correction", what="the step leaves out the correction of the moments", blame="step", net=_LN,
        optimizer=torch.optim.AdamW, planted=_step_formula(_adam_without_correction),
    )  # fmt: skip
    yield ProofFault(
        name="sgd-dampening", what="the first gradient is damped by so much", blame="step", net=_CONV,
        optimizer=torch.optim.SGD, sizes=_PER_MILLE, planted=_step_formula(_momentum_damped),
    )  # fmt: skip
    yield ProofFault(
        name="weight-decay", what="the optimiser uses another weight decay", blame="settings", net=_LN,
        sizes=_PER_MILLE, planted=_settings(weight_decay=lambda value, size: value * (1 + size)),
    )  # fmt: skip
    yield ProofFault(
        name="betas", what="the optimiser uses another beta2", blame="settings", net=_LN, sizes=_PER_MILLE,
        optimizer=torch.optim.AdamW, planted=_settings(betas=lambda value, size: (value[0], value[1] * (1 - size))),
    )  # fmt: skip
    yield ProofFault(
        name="learning-rate", what="the optimiser uses another learning rate", blame="schedule", net=_LN,
        sizes=(*_PER_MILLE, 1e-9, 1e-11), planted=_settings(lr=lambda value, size: value * (1 + size)),
    )  # fmt: skip
    yield ProofFault(
        name="schedule-late", what="the learning rate does not follow its schedule", blame="schedule", net=_LN,
        planted=_schedule_late,
    )  # fmt: skip
    yield ProofFault(
        name="clip-norm", what="gradients are clipped to another norm", blame="clip_grad_norm", net=_LN,
        sizes=_PER_MILLE, planted=_clipped_to_another_norm,
    )  # fmt: skip
    yield ProofFault(
        name="label-smoothing", what="the program smooths labels by so much more", blame="loss", net=_LN,
        sizes=_PER_MILLE, planted=_smoothed,
    )  # fmt: skip
    yield ProofFault(
        name="eps-of-module", what="a module uses another eps", blame="native_layer_norm", net=_LN, sizes=_PER_MILLE,
        planted=_eps_of_module,
    )  # fmt: skip
    yield ProofFault(
        name="dropout-of-module", what="a module drops another share", blame="bernoulli", net=_LN, sizes=_PER_MILLE,
        planted=_dropout_of_module,
    )  # fmt: skip


def _left_out() -> Iterator[ProofFault]:
    yield ProofFault(
        name="zero-grad", what="gradients are not emptied before a step", blame="zero_grad", net=_LN,
        planted=_zero_grad_left_out,
    )  # fmt: skip
    yield ProofFault(
        name="state-lost", what="the optimiser forgets its state between two steps", blame="step", net=_LN,
        optimizer=torch.optim.AdamW, planted=_state_lost,
    )  # fmt: skip
    yield ProofFault(
        name="gradient-scaled", what="a hook scales the gradient of a weight", blame="gradient", net=_LN,
        sizes=(1.0, *_PER_MILLE), planted=_gradient_scaled,
    )  # fmt: skip
    yield ProofFault(
        name="frozen", what="a bias is not trained", blame="settings", net=_LN, planted=_frozen,
    )  # fmt: skip
    yield ProofFault(
        name="dropout-left-out", what="nothing is dropped", blame="bernoulli", net=_LN, planted=_dropout_left_out,
    )  # fmt: skip


PROOF_FAULTS: Mapping[str, ProofFault] = {fault.name: fault for fault in (*_kernels(), *_programs(), *_left_out())}
"""All faults by name."""


def find_proof_fault(name: str) -> ProofFault:
    """Return the fault of that name.

    Raises: BadInput: there is no such fault.
    """
    if name not in PROOF_FAULTS:
        raise BadInput(f"{unknown('fault', name, PROOF_FAULTS)} (--deep --inject list names all)")
    return PROOF_FAULTS[name]


def prove_with(fault: ProofFault, *, seed: int, size: float | None = None) -> Proof:
    """Plant a fault in its network, take some steps and check them. size: of the fault; its largest by default."""
    net = _net_for(fault, seed)
    used = size if size is not None else (fault.sizes[0] if fault.sizes else 0.0)
    with fault.planted(net, used):
        return prove_net(net, seed=seed)


def _net_for(fault: ProofFault, seed: int) -> Net:
    """Return the first network after a seed with the optimiser that a fault needs."""
    while True:
        net = build(fault.net, fault.mode, seed)
        if fault.optimizer is None or type(net.optimizer) is fault.optimizer:
            return net
        seed += 1


def is_caught(fault: ProofFault, proof: Proof) -> bool:
    """Return whether a proof blames the right operator, step or storage first."""
    if not proof.wrong:
        return False
    first = proof.wrong[0].operator
    return first.endswith(".step") if fault.blame == "step" else first == fault.blame
