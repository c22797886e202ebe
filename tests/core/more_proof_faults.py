"""More faults of a training step than users can plant: one for each formula, and for what a program leaves out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from lntx.canary.operators.faults import (
    ATTENTION,
    CONVOLUTIONS,
    GRU,
    LAYER_NORM,
    LSTM,
    RMS_NORM,
    SIZES,
    Change,
    ProofFault,
    flip_bit,
    replaced,
    scaled_scores,
    with_arguments,
    with_result,
    with_settings,
    wrong_kernel,
)
from lntx.canary.operators.nets import Net
from lntx.proof.result import Proof


def _without_last_key(arguments: dict[str, Any], out: Any, size: float) -> Any:
    op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    rest = [arguments[name][:, :, :-1] for name in ("key", "value")]
    found = op(arguments["query"][:, :, :-1], *rest, 0.0, True)[0]
    whole = op(arguments["query"], *(arguments[name] for name in ("key", "value")), 0.0, True)
    first = whole[0].clone()
    # The first rows see one key less.
    first[:, :, 1:] = found if found.shape == first[:, :, 1:].shape else first[:, :, 1:]
    return first, whole[1]


def _weight_bit(net: Net, size: float) -> AbstractContextManager[Any]:
    """Flip a bit of a weight between two steps, where no operator is seen."""

    def make(original: Any) -> Any:
        def step(self: Any) -> None:
            # The schedule's own start calls it too.
            if self.last_epoch >= 0:
                with _disable_current_modes():
                    flip_bit(self.optimizer.param_groups[0]["params"][0], int(size))
            original(self)

        return step

    return replaced(torch.optim.lr_scheduler.CosineAnnealingLR, "step", make)


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
def _frozen(net: Net, size: float) -> Iterator[None]:
    [*net.module.parameters()][-1].requires_grad_(False)
    yield


def _hooked(change: Callable[[Any], Any]) -> Callable[[Net, float], Any]:
    """Change what the first module of a decoder returns."""

    @contextlib.contextmanager
    def planted(net: Net, size: float) -> Iterator[None]:
        net.module.get_submodule("first").register_forward_hook(lambda _module, _inputs, out: change(out))
        yield

    return planted


@contextlib.contextmanager
def _counting(net: Net, size: float) -> Iterator[None]:
    module: Any = net.module.get_submodule("first")
    module.count = 0

    def count(module: Any, _inputs: Any, out: Any) -> Any:
        module.count += 1
        return out * (1 + 0.01 * module.count)

    module.register_forward_hook(count)
    yield


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


def _moved(arguments: dict[str, Any], out: torch.Tensor, size: float) -> torch.Tensor:
    arguments["running_mean"].mul_(1 + size)
    return out


@torch.no_grad()
def _adam_without_correction(optimizer: torch.optim.Optimizer, size: float) -> None:
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                state.setdefault(name, torch.zeros_like(parameter))
            state["step"] = state.get("step", torch.tensor(0.0)) + 1
            grad = (
                parameter.grad
                if isinstance(optimizer, torch.optim.AdamW)
                else parameter.grad + group["weight_decay"] * parameter
            )
            if isinstance(optimizer, torch.optim.AdamW):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            state["exp_avg"].lerp_(grad, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            # Without 1 - beta1^t and 1 - beta2^t.
            parameter.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-group["lr"])


def with_step(make: Callable[[torch.optim.Optimizer, float], None]) -> Callable[[Net, float], Any]:
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


def with_output(place: int, make: Callable[[dict[str, Any], torch.Tensor, float], torch.Tensor]) -> Change:
    """Change one of several outputs."""

    def change(func: Any, arguments: dict[str, Any], out: Any, size: float) -> Any:
        return tuple(make(arguments, output, size) if k == place else output for k, output in enumerate(out))

    return change


def scaled(arguments: dict[str, Any], out: torch.Tensor, size: float) -> torch.Tensor:
    """Return the output, off by a factor 1 + size."""
    return out * (1 + size)


def is_caught(fault: ProofFault, proof: Proof) -> bool:
    """Return whether a proof blames the right operator, step or storage first."""
    return bool(proof.wrong) and fault.is_blamed(proof.wrong[0].operator)


MORE_FAULTS = (
    wrong_kernel(
        "gelu-gradient", "off by a factor 1 + size", "gelu_backward", LAYER_NORM, with_result(scaled), sizes=SIZES
    ),
    wrong_kernel(
        "log-softmax",
        "off by so much",
        "_log_softmax",
        LAYER_NORM,
        with_result(lambda arguments, out, size: out + size),
        sizes=SIZES,
    ),
    wrong_kernel(
        "batch-norm-momentum",
        "the running statistics use another momentum",
        "native_batch_norm",
        CONVOLUTIONS,
        with_output(1, _moved),
        sizes=SIZES,
    ),
    ProofFault(
        name="adam-correction",
        what="the step leaves out the correction of the moments",
        blame="step",
        net=LAYER_NORM,
        optimizer=torch.optim.AdamW,
        planted=with_step(_adam_without_correction),
    ),
    wrong_kernel(
        "attention-mask", "the causal mask is off by one", ATTENTION, LAYER_NORM, with_result(_without_last_key)
    ),
    wrong_kernel(
        "attention-gradient-scale",
        "the gradient of the scores has another scale",
        f"{ATTENTION}_backward",
        LAYER_NORM,
        with_arguments(scale=scaled_scores),
        sizes=SIZES,
    ),
    wrong_kernel(
        "layer-norm-gradient-row",
        "the gradient of the weight leaves out a row",
        "native_layer_norm_backward",
        LAYER_NORM,
        with_arguments(grad_out=_all_but_last("grad_out")),
    ),
    wrong_kernel(
        "product-row-bfloat16",
        "the last row is computed in bfloat16",
        "addmm",
        LAYER_NORM,
        with_result(lambda arguments, out, size: torch.cat([out[:-1], out[-1:].bfloat16().float()])),
    ),
    wrong_kernel(
        "product-bfloat16",
        "inputs are rounded to bfloat16",
        "mm",
        LAYER_NORM,
        with_arguments(
            self=lambda arguments, size: arguments["self"].bfloat16().float(),
            mat2=lambda arguments, size: arguments["mat2"].bfloat16().float(),
        ),
    ),
    wrong_kernel(
        "product-last-term",
        "the last term of each sum is left out",
        "mm",
        LAYER_NORM,
        with_arguments(
            self=lambda arguments, size: arguments["self"][:, :-1], mat2=lambda arguments, size: arguments["mat2"][:-1]
        ),
    ),
    wrong_kernel(
        "product-bfloat16-accumulator",
        "the sum is kept in bfloat16",
        "mm",
        LAYER_NORM,
        with_result(
            lambda arguments, out, size: sum(
                (
                    (arguments["self"][:, k : k + 1] * arguments["mat2"][k : k + 1]).bfloat16()
                    for k in range(arguments["mat2"].shape[0])
                ),
                torch.zeros_like(out),
            )
        ),
        mode="bfloat16",
    ),
    wrong_kernel(
        "sum-last-row", "the last row is left out", "sum", LAYER_NORM, with_arguments(self=_all_but_last("self"))
    ),
    wrong_kernel(
        "gelu-tanh",
        "the approximation by tanh is used",
        "gelu",
        LAYER_NORM,
        with_arguments(approximate=lambda arguments, size: "tanh"),
    ),
    wrong_kernel("silu", "off by a factor 1 + size", "silu", RMS_NORM, with_result(scaled), sizes=SIZES),
    wrong_kernel(
        "silu-gradient",
        "the term with the slope of the gate is left out",
        "silu_backward",
        RMS_NORM,
        with_result(lambda arguments, out, size: arguments["grad_output"] * torch.sigmoid(arguments["self"])),
    ),
    wrong_kernel("rsqrt", "off by a factor 1 + size", "rsqrt", RMS_NORM, with_result(scaled), sizes=SIZES),
    wrong_kernel(
        "mean",
        "divides by one element more",
        "mean",
        RMS_NORM,
        with_result(
            lambda arguments, out, size: out * (arguments["self"].shape[-1] / (arguments["self"].shape[-1] + 1.0))
        ),
    ),
    wrong_kernel(
        "softmax-gradient",
        "the sum of the gradients is left out",
        "_log_softmax_backward_data",
        LAYER_NORM,
        with_result(lambda arguments, out, size: arguments["grad_output"] - arguments["output"].exp()),
    ),
    wrong_kernel(
        "loss-smoothed",
        "the kernel smooths the labels by so much",
        "nll_loss_forward",
        LAYER_NORM,
        with_output(0, lambda arguments, out, size: (1 - size) * out - size * arguments["self"].mean()),
        sizes=SIZES,
    ),
    wrong_kernel(
        "loss-gradient",
        "divides by one row more",
        "nll_loss_backward",
        LAYER_NORM,
        with_result(lambda arguments, out, size: out * (len(arguments["target"]) / (len(arguments["target"]) + 1.0))),
    ),
    wrong_kernel(
        "embedding-repeats",
        "a token that comes twice counts once",
        "embedding_dense_backward",
        LAYER_NORM,
        with_result(_no_repeats),
    ),
    wrong_kernel(
        "embedding-row",
        "one row is that of another token",
        "embedding",
        LAYER_NORM,
        with_result(lambda arguments, out, size: out.roll(1, 1)),
    ),
    wrong_kernel(
        "copy-last",
        "the last element is not copied",
        "clone",
        LAYER_NORM,
        with_result(lambda arguments, out, size: torch.cat([out.reshape(-1)[:-1], out.new_zeros(1)]).view(out.shape)),
    ),
    wrong_kernel(
        "cast-truncates",
        "bits are cut off instead of rounded",
        "_to_copy",
        LAYER_NORM,
        with_result(
            lambda arguments, out, size: (
                out
                if out.dtype != torch.bfloat16 or arguments["self"].dtype != torch.float32
                else (arguments["self"].contiguous().view(torch.int32) & -65536).view(torch.float32).bfloat16()
            )
        ),
        mode="autocast bfloat16",
    ),
    wrong_kernel(
        "convolution-padding",
        "the padding is one value more to the left",
        "convolution",
        CONVOLUTIONS,
        with_result(lambda arguments, out, size: out.roll(1, -1)),
    ),
    wrong_kernel(
        "convolution-gradient-sample",
        "the gradient of the weight leaves out a sample",
        "convolution_backward",
        CONVOLUTIONS,
        with_arguments(grad_output=_all_but_last("grad_output")),
    ),
    wrong_kernel(
        "group-norm",
        "off by one per cent",
        "native_group_norm",
        CONVOLUTIONS,
        with_output(0, lambda arguments, out, size: out * 0.99),
    ),
    wrong_kernel(
        "max-pool-index",
        "the index is one too large",
        "max_pool2d_with_indices",
        CONVOLUTIONS,
        with_output(1, _next_index),
    ),
    wrong_kernel(
        "average-pool",
        "pads are not counted",
        "avg_pool2d",
        CONVOLUTIONS,
        with_arguments(count_include_pad=lambda arguments, size: False),
    ),
    wrong_kernel(
        "relu-gradient",
        "passes where the input is negative",
        "threshold_backward",
        CONVOLUTIONS,
        with_arguments(threshold=lambda arguments, size: -1.0),
    ),
    wrong_kernel(
        "lstm-bias",
        "one bias is off by a factor 1 + size",
        "mkldnn_rnn_layer",
        LSTM,
        with_arguments(weight2=_bias_twice),
        sizes=SIZES,
    ),
    wrong_kernel(
        "lstm-gradient-step",
        "the last step gives no gradient",
        "mkldnn_rnn_layer_backward",
        LSTM,
        with_arguments(grad_output=_all_but_last("grad_output")),
    ),
    wrong_kernel("sigmoid", "off by a factor 1 + size", "sigmoid", GRU, with_result(scaled), sizes=SIZES),
    wrong_kernel("tanh", "off by a factor 1 + size", "tanh", GRU, with_result(scaled), sizes=SIZES),
    ProofFault(
        name="memory-weight",
        what="a bit of a weight flips between two steps",
        blame="memory",
        net=LAYER_NORM,
        sizes=(30.0, 23.0, 10.0, 1.0, 0.0),
        planted=_weight_bit,
    ),
    ProofFault(
        name="sgd-dampening",
        what="the first gradient is damped by so much",
        blame="step",
        net=CONVOLUTIONS,
        optimizer=torch.optim.SGD,
        sizes=SIZES,
        planted=with_step(_momentum_damped),
    ),
    ProofFault(
        name="weight-decay",
        what="the optimiser uses another weight decay",
        blame="settings",
        net=LAYER_NORM,
        sizes=SIZES,
        planted=with_settings(weight_decay=lambda value, size: value * (1 + size)),
    ),
    ProofFault(
        name="schedule-late",
        what="the learning rate does not follow its schedule",
        blame="schedule",
        net=LAYER_NORM,
        planted=_schedule_late,
    ),
    ProofFault(
        name="clip-norm",
        what="gradients are clipped to another norm",
        blame="clip_grad_norm",
        net=LAYER_NORM,
        sizes=SIZES,
        planted=_clipped_to_another_norm,
    ),
    ProofFault(
        name="eps-of-module",
        what="a module uses another eps",
        blame="native_layer_norm",
        net=LAYER_NORM,
        sizes=SIZES,
        planted=_eps_of_module,
    ),
    ProofFault(
        name="dropout-of-module",
        what="a module drops another share",
        blame="bernoulli",
        net=LAYER_NORM,
        sizes=SIZES,
        planted=_dropout_of_module,
    ),
    ProofFault(
        name="zero-grad",
        what="gradients are not emptied before a step",
        blame="zero_grad",
        net=LAYER_NORM,
        planted=_zero_grad_left_out,
    ),
    ProofFault(
        name="state-lost",
        what="the optimiser forgets its state between two steps",
        blame="step",
        net=LAYER_NORM,
        optimizer=torch.optim.AdamW,
        planted=_state_lost,
    ),
    ProofFault(name="frozen", what="a bias is not trained", blame="settings", net=LAYER_NORM, planted=_frozen),
    ProofFault(
        name="rows-joined",
        what="a module adds a part of the mean over the batch",
        blame="program",
        net=LAYER_NORM,
        planted=_hooked(lambda out: out + 0.1 * out.mean(0, keepdim=True)),
    ),
    ProofFault(
        name="positions-joined",
        what="a module adds a part of the last position to all",
        blame="program",
        net=RMS_NORM,
        planted=_hooked(lambda out: out + 0.1 * out[:, -1:]),
    ),
    ProofFault(
        name="state-not-saved",
        what="a module counts its calls, and saves no count",
        blame="program",
        net=RMS_NORM,
        planted=_counting,
    ),
)
