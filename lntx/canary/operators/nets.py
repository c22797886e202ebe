"""Five small networks with all that training uses, drawn from a seed, and a step of each that is checked whole.

Attention is sharp and some norms see a small variance: errors of a scale or of an eps are large there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import FORMATS, Bounded, magnitude
from lntx.proof.operators.rows import judge_numbers
from lntx.proof.program import GRADIENT, MOVES, ProgramProof, check_program
from lntx.proof.prove import Expected, prove
from lntx.proof.result import Proof

MODES: Mapping[str, tuple[torch.dtype, torch.dtype | None]] = {
    "float64": (torch.float64, None),
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "float16": (torch.float16, None),
    "autocast bfloat16": (torch.float32, torch.bfloat16),
    "autocast float16": (torch.float32, torch.float16),
}
"""Formats: of the parameters, and of autocast."""

STEPS = 2
"""Steps of each network: the second one uses what the optimiser kept."""

_SHARP, _SMALL = 4.0, 0.01
_MAX_NORM, _BASE_RATE, _STEPS_OF_SCHEDULE = 0.5, 1e-2, 10


Recipe = tuple[nn.Module, Callable[[], tuple[Tensor, Tensor]], Expected]
"""A network, what makes its inputs and targets, and what its operators must be called with."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) γ, in operators of its own."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis. x: shape (..., width)."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Decoder(nn.Module):
    """A transformer of one block: causal attention, and a feed-forward part that is plain or gated."""

    def __init__(self, *, vocabulary: int, width: int, heads: int, is_gated: bool, dropout: float) -> None:
        super().__init__()
        norm: Callable[[int], nn.Module] = RMSNorm if is_gated else nn.LayerNorm
        self.heads = heads
        self.embedding = nn.Embedding(vocabulary, width)
        self.first, self.second = norm(width), norm(width)
        self.mixed = nn.Linear(width, 3 * width, bias=not is_gated)
        self.joined = nn.Linear(width, width, bias=not is_gated)
        self.up = nn.Linear(width, 2 * width, bias=not is_gated)
        self.gate = nn.Linear(width, 2 * width, bias=False) if is_gated else None
        self.down = nn.Linear(2 * width, width, bias=not is_gated)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)
        with torch.no_grad():
            self.mixed.weight[: 2 * width] *= _SHARP
            self.embedding.weight *= _SMALL

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next token, shape (batch, time, vocabulary). tokens: shape (batch, time)."""
        x = self.embedding(tokens)
        batch, time, width = x.shape
        parts = self.mixed(self.first(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.joined(attended.transpose(1, 2).reshape(batch, time, width)))
        inner = self.up(self.second(x))
        inner = functional.gelu(inner) if self.gate is None else functional.silu(self.gate(self.second(x))) * inner
        scores: Tensor = self.head(x + self.down(inner))
        return scores


class Images(nn.Module):
    """Convolutions with groups and strides, batch norm, and pools that overlap."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=2)
        self.group_norm = nn.GroupNorm(2, 2 * channels)
        self.head = nn.Linear(2 * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, shape (batch, classes). images: shape (batch, 3, height, width)."""
        x = functional.max_pool2d(functional.relu(self.norm(self.first(images))), 3, 2, 1)
        x = functional.avg_pool2d(functional.softplus(self.group_norm(self.second(x))), 2, 1, 1)
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class Sequences(nn.Module):
    """A recurrent layer, LSTM or GRU, and a linear one on its last state."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], *, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.recurrent = kind(features, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, series: Tensor) -> Tensor:
        """Return scores, shape (batch, classes). series: shape (time, batch, features)."""
        scores: Tensor = self.head(self.recurrent(series)[0][-1])
        return scores


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network with its data and its optimiser."""

    name: str
    """Its name."""

    mode: str
    """Formats of parameters and operators, a key of MODES."""

    module: nn.Module
    """The network."""

    inputs: Tensor
    """One batch."""

    targets: Tensor
    """Its classes, shape (n,)."""

    smoothing: float
    """Label smoothing of the loss."""

    optimizer: torch.optim.Optimizer
    """What takes the steps."""

    settings: Mapping[str, Any]
    """What the optimiser was built with."""

    expected: Expected
    """What operators must be called with."""

    called: frozenset[str]
    """Operators that must be called, by the name without namespace and overload."""


def _decoder(draw: np.random.Generator, *, is_gated: bool) -> Recipe:
    heads = int(draw.choice([2, 3]))
    width = heads * int(draw.choice([4, 8, 5]))
    vocabulary, batch, time = int(draw.choice([16, 31])), int(draw.choice([2, 3])), int(draw.choice([7, 8, 13]))
    dropout = 0.25
    module = Decoder(vocabulary=vocabulary, width=width, heads=heads, is_gated=is_gated, dropout=dropout)

    def data() -> tuple[Tensor, Tensor]:
        tokens = torch.from_numpy(draw.integers(0, vocabulary, (batch, time + 1)))
        return tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

    expected: Expected = {
        "native_layer_norm": {"eps": frozenset([1e-5])},
        "gelu": {"approximate": frozenset(["none"])},
        "bernoulli": {"p": frozenset([1 - dropout])},
        "native_dropout": {"p": frozenset([dropout])},
        "_scaled_dot_product_flash_attention_for_cpu": {
            "scale": frozenset([None, 1 / math.sqrt(width // heads)]),
            "is_causal": frozenset([True]),
        },
    }
    return module, data, expected


def _images(draw: np.random.Generator) -> Recipe:
    channels, classes, batch = 2 * int(draw.choice([2, 3])), int(draw.choice([4, 7])), int(draw.choice([2, 4, 5]))
    height, width = int(draw.choice([8, 11])), int(draw.choice([9, 16]))

    def data() -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(draw.normal(size=(batch, 3, height, width)))
        return images, torch.from_numpy(draw.integers(0, classes, batch))

    expected: Expected = {
        "native_batch_norm": {"eps": frozenset([1e-5]), "momentum": frozenset([0.1]), "training": frozenset([True])},
        "native_group_norm": {"eps": frozenset([1e-5])},
    }
    return Images(channels=channels, classes=classes), data, expected


def _sequences(draw: np.random.Generator, kind: type[nn.LSTM | nn.GRU]) -> Recipe:
    features, hidden, classes = int(draw.choice([3, 4])), int(draw.choice([5, 8])), int(draw.choice([3, 4]))
    batch, time = int(draw.choice([2, 3])), int(draw.choice([4, 5]))

    def data() -> tuple[Tensor, Tensor]:
        series = torch.from_numpy(draw.normal(size=(time, batch, features)))
        return series, torch.from_numpy(draw.integers(0, classes, batch))

    return Sequences(kind, features=features, hidden=hidden, classes=classes), data, {}


NETS: Mapping[str, Callable[[np.random.Generator], Recipe]] = {
    "decoder, layer norm": lambda draw: _decoder(draw, is_gated=False),
    "decoder, RMS norm": lambda draw: _decoder(draw, is_gated=True),
    "convolutions": _images,
    "LSTM": lambda draw: _sequences(draw, nn.LSTM),
    "GRU": lambda draw: _sequences(draw, nn.GRU),
}
"""What makes each network, by its name."""


_ATTENTION = frozenset({"_scaled_dot_product_flash_attention_for_cpu", "bernoulli"})
_CALLED: Mapping[str, frozenset[str]] = {
    "decoder, layer norm": _ATTENTION | {"native_layer_norm", "gelu", "embedding"},
    "decoder, RMS norm": _ATTENTION | {"rsqrt", "silu", "embedding"},
    "convolutions": frozenset(
        {"convolution", "native_batch_norm", "native_group_norm", "relu", "max_pool2d_with_indices", "avg_pool2d"}
    ),
    "LSTM": frozenset(),
    "GRU": frozenset(),
}


def pairs() -> list[tuple[str, str]]:
    """Return each network in each format: pairs of keys of NETS and MODES. A build may not run all of them."""
    return [(net, mode) for net in NETS for mode in MODES]


def build(name: str, mode: str, seed: int, device: str = "cpu") -> Net:
    """Return a network of random size, weights and data. seed: of all of these. device: cpu or cuda."""
    draw = np.random.default_rng(seed)
    dtype, _ = MODES[mode]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        module, data, expected = NETS[name](draw)
        inputs, targets = data()
    if dtype == torch.float16 and isinstance(module, Decoder):
        # The gradient of a norm has the third power of 1/deviation, which must not overflow.
        with torch.no_grad():
            module.embedding.weight *= 10
    module = module.to(device=device, dtype=dtype)
    inputs = (inputs.to(dtype) if inputs.is_floating_point() else inputs).to(device)
    optimizer, settings = _optimizer(draw, module, dtype)
    return Net(
        name=name,
        mode=mode,
        module=module,
        inputs=inputs,
        targets=targets.to(device),
        smoothing=float(draw.choice([0.0, 0.1])),
        optimizer=optimizer,
        settings=settings,
        expected=expected,
        # On a GPU, other operators do the same.
        called=_CALLED[name] if device == "cpu" else frozenset(),
    )


def soften(net: Net) -> None:
    """Take sharp attention and small variance out of a decoder."""
    if isinstance(net.module, Decoder):
        width = net.module.joined.weight.shape[0]
        with torch.no_grad():
            net.module.mixed.weight[: 2 * width] /= _SHARP
            net.module.embedding.weight /= _SMALL


def _optimizer(
    draw: np.random.Generator, module: nn.Module, dtype: torch.dtype
) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    form = [{"foreach": False}, {"foreach": True}, {"fused": True}][int(draw.integers(3))]
    if draw.integers(2):
        if dtype in (torch.bfloat16, torch.float16) and "fused" in form:
            # In torch 2.13 on the CPU, fused SGD of these formats does not change its parameters: docs/findings.md.
            form = {"foreach": True}
        settings: dict[str, Any] = {"lr": _BASE_RATE, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
        return torch.optim.SGD(module.parameters(), **settings, **form), settings
    kind = (torch.optim.AdamW, torch.optim.Adam)[int(draw.integers(2))]
    # In float16 the usual eps of 1e-8 is 0.
    more: Any = form
    settings = {"lr": _BASE_RATE, "betas": (0.9, 0.999), "eps": 1e-3 if dtype == torch.float16 else 1e-8}
    settings["weight_decay"] = 0.01
    return kind(module.parameters(), **settings, **more), settings


def prove_net(net: Net, *, sample: int = 16, seed: int | None = None) -> Proof:
    """Take some steps of a network, and check all that they compute."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(net.optimizer, _STEPS_OF_SCHEDULE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if seed is None else seed % 2**63)
        with prove(sample=sample, seed=seed, expected=net.expected) as proof:
            for step in range(STEPS):
                _compare_settings(proof, net, step)
                _step(proof, net)
                schedule.step()
        for operator in sorted(net.called - proof.operators):
            proof.blame("forward", operator, "", f"{operator} was never called, and the network is built with it")
        for check in () if proof.wrong else check_net(net).checks:
            # In 16 bits a step may be below the rounding of a parameter.
            is_coarse = check.name == MOVES and MODES[net.mode][0] in (torch.bfloat16, torch.float16)
            if check.passed is False and not is_coarse:
                part = "gradient" if check.name == GRADIENT else "program"
                proof.blame("backward", part, net.mode, f"{check.name}: {check.what}")
    return proof


def check_net(net: Net) -> ProgramProof:
    """Check the training step of a network as a program."""
    has_time_first = isinstance(net.module, Sequences)
    inputs = net.inputs.transpose(0, 1).contiguous() if has_time_first else net.inputs

    def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        rows = batch[0].transpose(0, 1) if has_time_first else batch[0]
        return loss_of(dataclasses.replace(net, module=module, inputs=rows, targets=batch[1]))[0]

    is_causal = isinstance(net.module, Decoder)
    return check_program(net.module, (inputs, net.targets), loss, net.optimizer, causal=is_causal)


def train_plainly(net: Net) -> None:
    """Take the same steps as `prove_net`, and check nothing."""
    with torch.random.fork_rng(devices=[]):
        for _ in range(STEPS):
            net.optimizer.zero_grad()
            loss_of(net)[0].backward()
            nn.utils.clip_grad_norm_(net.module.parameters(), _MAX_NORM)
            net.optimizer.step()


def _step(proof: Proof, net: Net) -> None:
    net.optimizer.zero_grad()
    names = [
        name for name, weight in net.module.named_parameters() if weight.grad is not None and bool(weight.grad.any())
    ]
    if names:
        proof.blame("backward", "zero_grad", "", f"the gradient of {names[0]} is not empty before the step")
    loss, scores = loss_of(net)
    loss.backward()
    without = [name for name, weight in net.module.named_parameters() if weight.grad is None]
    if without:
        proof.blame("backward", "gradient", "", f"{without[0]} got no gradient")
    parameters = [weight for weight in net.module.parameters() if weight.grad is not None]
    before = [_kept(weight.grad) for weight in parameters]
    nn.utils.clip_grad_norm_(net.module.parameters(), _MAX_NORM)
    with _disable_current_modes(), np.errstate(all="ignore"):
        _compare(proof, "forward", "loss", loss, _loss(scores, net.targets, net.smoothing))
        for parameter, expected in zip(parameters, _clipped(before), strict=True):
            assert parameter.grad is not None
            _compare(proof, "optimizer", "clip_grad_norm", parameter.grad, expected)
    net.optimizer.step()


def loss_of(net: Net) -> tuple[Tensor, Tensor]:
    """Return the loss of the batch, and the scores, shape (n, classes)."""
    _, autocast = MODES[net.mode]
    with torch.autocast(net.inputs.device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        scores = net.module(net.inputs)
        scores = scores.reshape(-1, scores.shape[-1])
        return functional.cross_entropy(scores, net.targets, label_smoothing=net.smoothing), scores


def _kept(grad: Tensor | None) -> Tensor:
    assert grad is not None
    with _disable_current_modes():
        return grad.detach().clone()


def _compare_settings(proof: Proof, net: Net, step: int) -> None:
    """Compare what the optimiser uses with what it was built with, and its rate with the schedule's."""
    trained = {id(parameter) for group in net.optimizer.param_groups for parameter in group["params"]}
    frozen = [
        name
        for name, parameter in net.module.named_parameters()
        if id(parameter) not in trained or not parameter.requires_grad
    ]
    if frozen:
        proof.blame("optimizer", "settings", "", f"step {step + 1} does not train {frozen[0]}")
    rate = _BASE_RATE * (1 + math.cos(math.pi * step / _STEPS_OF_SCHEDULE)) / 2
    for group in net.optimizer.param_groups:
        for name, expected in {**net.settings, "lr": rate}.items():
            is_right = math.isclose(group[name], expected, rel_tol=1e-12) if name == "lr" else group[name] == expected
            if not is_right:
                message = f"step {step + 1} uses {name} {group[name]}, not {expected}"
                proof.blame("optimizer", "schedule" if name == "lr" else "settings", "", message)


def _numbers(tensor: Tensor) -> Bounded:
    """Return a tensor as exact numbers, for arithmetic in its own format or a finer one."""
    call = Call("", {}, [tensor])
    call.own_format = tensor.dtype not in (torch.bfloat16, torch.float16)
    call.as_balls = tensor.dtype == torch.float64
    return call.read(tensor)


def _loss(scores: Tensor, targets: Tensor, smoothing: float) -> Bounded:
    """Return the cross entropy: of each row, (1 - s) times - log p of its class, and s times the mean over classes."""
    rows = _numbers(scores).in_format(FORMATS[scores.dtype])
    every = np.arange(rows.shape[0])
    top = rows[every, np.argmax(_numbers(scores.double()).value.astype(float), axis=-1)].reshape(-1, 1)
    shifted = rows - top
    total = shifted.exp().sum().log().reshape(-1, 1)
    # Kernels subtract the maximum and the logarithm at once, or one after the other.
    logs = (shifted - total).widened(rows.format.u * (magnitude(top.value) + total.size))
    plain = -logs[every, targets.cpu().numpy()].mean(0)
    if not smoothing:
        return plain
    return plain * (1.0 - smoothing) + (-logs.sum()).mean(0) * (smoothing / rows.shape[1])


def _clipped(grads: list[Tensor]) -> Iterator[Bounded]:
    """Yield gradients times min(1, max_norm / (norm + 1e-6)), the norm over all of them."""
    kind = FORMATS[grads[0].dtype]
    numbers = [_numbers(norm).reshape(-1) for norm in grads]
    norms = [(norm * norm).sum().sqrt().rounded(kind) for norm in numbers]
    joined = norms[0].like(
        np.concatenate([norm.value for norm in norms]), np.concatenate([norm.error for norm in norms])
    )
    total = (joined * joined).sum().sqrt().rounded(kind)
    factor = (_MAX_NORM / (total + 1e-6).rounded(kind)).rounded(kind)
    if float(total.size[0]) < _MAX_NORM:
        factor = factor.constant(1.0)
    for norm in numbers:
        yield norm * factor


def _compare(proof: Proof, phase: Any, name: str, result: Tensor, expected: Bounded) -> None:
    call = Call(name, {}, [result])
    try:
        judged = judge_numbers(call, [("0", np.arange(result.numel()), expected.reshape(-1))])
    except NotImplementedError as error:
        proof.miss(name, str(error))
    else:
        proof.add(phase, name, str(result.dtype).removeprefix("torch."), judged)
