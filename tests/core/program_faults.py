"""Training steps that are wrong although each operator is right, and five that are right. Used by test_program."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

ROWS, LENGTH, WORDS, WIDTH = 4, 8, 11, 8


class Block(nn.Module):
    """A block of a decoder. Faults are methods of subclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def mask(self, size: int) -> Tensor:
        return torch.ones(size, size, dtype=torch.bool).tril()

    def attend(self, x: Tensor, keep: Tensor | None) -> Tensor:
        q, k, v = self.attention(x).chunk(3, -1)
        mask = self.mask(x.shape[1]) if keep is None else self.mask(x.shape[1]) & keep.bool()[:, None]
        scores = (q @ k.transpose(-1, -2) / math.sqrt(WIDTH)).masked_fill(~mask, -1e9)
        return self.out(torch.softmax(scores, -1) @ v)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attend(self.norm(x), keep))
        return x + self.dropout(self.down(F.gelu(self.up(x))))


class Decoder(nn.Module):
    """Two blocks, with the embedding tied to the output."""

    block: Callable[[], nn.Module] = Block
    tied = True

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Parameter(0.1 * torch.randn(LENGTH, WIDTH))
        self.blocks = nn.ModuleList([type(self).block() for _ in range(2)])
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        if self.tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, keep)
        return self.head(x)


class Conv(nn.Module):
    """A convolution with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.dropout, self.head = nn.Dropout2d(0.2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(F.gelu(self.norm(self.conv(x)))).mean((2, 3)))


class MLP(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 12), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class Recurrent(nn.Module):
    """An LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 7, batch_first=True), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


class Encoder(nn.Module):
    """torch's own encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, dropout=0.1, activation=F.gelu)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x))


def tokens() -> dict[str, Tensor]:
    draw = torch.randint(WORDS, (ROWS, LENGTH + 1))
    return {"tokens": draw[:, :-1], "labels": draw[:, 1:]}


def padded() -> dict[str, Tensor]:
    keep = torch.ones(ROWS, LENGTH, dtype=torch.long)
    keep[1, 5:] = 0
    return {**tokens(), "keep": keep}


def loss_of_tokens(model: nn.Module, batch: Any) -> Tensor:
    logits = model(batch["tokens"], batch.get("keep"))
    return F.cross_entropy(logits.reshape(-1, WORDS).float(), batch["labels"].reshape(-1))


def classes(model: nn.Module, batch: Any) -> Tensor:
    out = model(batch[0])
    return F.cross_entropy(out.reshape(-1, out.shape[-1]).float(), batch[1].reshape(-1))


def squares(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0]).float(), batch[1])


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A training step; with a fault, the name of the check that is to catch it, and a word of its reason."""

    name: str
    model: Callable[[], nn.Module] = Decoder
    batch: Callable[[], Any] = tokens
    loss: Callable[[nn.Module, Any], Tensor] = loss_of_tokens
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adam
    options: dict[str, Any]
    check: str = ""
    where: str = ""


RIGHT = (
    Program(name="decoder", options={"causal": True}),
    Program(name="decoder with padding", batch=padded, options={"causal": True, "mask": "keep"}),
    Program(name="convolution", model=Conv, loss=classes, options={},
            batch=lambda: (torch.randn(6, 3, 5, 5), torch.randint(4, (6,)))),
    Program(name="MLP", model=MLP, loss=squares, options={},
            batch=lambda: (torch.randn(9, 6), torch.randn(9, 1)),
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)),
    Program(name="LSTM", model=Recurrent, loss=classes, options={"causal": True},
            batch=lambda: (torch.randn(4, 6, 5), torch.randint(4, (4, 6)))),
    Program(name="encoder", model=Encoder, loss=classes, options={},
            batch=lambda: (torch.randn(4, 6, WIDTH), torch.randint(4, (4, 6)))),
)  # fmt: skip
"""Programs that are right."""


class _WrongGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        # The derivative of x times the distribution, without that of the distribution.
        return grads[0] * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


class _Swapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, a, b)
        return x * a + b

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, a, _ = ctx.saved_tensors
        axes = tuple(range(x.dim() - 1))
        return grads[0] * a, grads[0].sum(axes), (grads[0] * x).sum(axes)


def _block(**methods: Any) -> Callable[[], nn.Module]:
    kind = type("Block", (Block,), methods)

    def make() -> nn.Module:
        return type("Decoder", (Decoder,), {"block": kind})()

    return make


def _changed(change: Callable[[Any], None], base: Callable[[], nn.Module] = Decoder) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = base()
        change(model)
        return model

    return make


def _forward(function: Callable[..., Tensor]) -> Callable[[], nn.Module]:
    return type("Decoder", (Decoder,), {"forward": function})


def _wrong_backward(self: Any, x: Tensor, keep: Any = None) -> Tensor:
    x = x + self.dropout(self.attend(self.norm(x), keep))
    return x + self.dropout(self.down(_WrongGelu.apply(self.up(x))))


def _detached(self: Any, x: Tensor, keep: Any = None) -> Tensor:
    x = x + self.dropout(self.attend(self.norm(x), keep))
    return x + self.dropout(self.down(F.gelu(self.up(x)).detach()))


class _SwappedNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        plain = F.layer_norm(x, x.shape[-1:])
        out: Tensor = _Swapped.apply(plain, self.weight, self.bias)
        return out


def _unscaled(x: Tensor) -> Tensor:
    return x


class _Dropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training) * (1 - self.p) if self.training else x


class _AlwaysDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, True)


class _OverRows(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0, keepdim=True))


def _mixed(self: Any, tokens: Tensor, keep: Any = None) -> Tensor:
    x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
    for block in self.blocks:
        x = block(x, keep)
    # Rows and positions are exchanged and put back as if they were not.
    return self.head(x.transpose(0, 1).reshape(x.shape))


class _Warm(nn.Module):
    """Its scale grows with the calls, which no state holds."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * min(1.0, 0.1 * self.calls)


class _Hidden(nn.Module):
    """A running scale in a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * x.detach().abs().mean()
        return x / self.scale


class _Forgetful(torch.optim.SGD):
    """Its momentum is not in the saved state."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


def _stale(model: nn.Module) -> torch.optim.Optimizer:
    import copy

    return torch.optim.AdamW(copy.deepcopy(model).parameters(), lr=1e-3)


def _half(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for name, p in model.named_parameters() if "positions" not in name], lr=1e-3)


def _twice(model: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [model.positions]})
    return optimizer


class _Skips(torch.optim.AdamW):
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        first = self.param_groups[0]["params"][1]
        kept = first.detach().clone()
        super().step(closure)
        with torch.no_grad():
            first.copy_(kept)


class _MovesFrozen(torch.optim.AdamW):
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.mul_(0.999)


def _half_trained(model: nn.Module, batch: Any) -> Tensor:
    with torch.no_grad():
        logits = model(batch["tokens"])
    logits = logits + model.head.weight.sum() * 0  # type: ignore[union-attr, operator]
    return F.cross_entropy(logits.reshape(-1, WORDS), batch["labels"].reshape(-1))


def _scaled(model: nn.Module, batch: Any) -> Tensor:
    value = loss_of_tokens(model, batch)
    # What is reported is not what is differentiated.
    return value.detach() + 2 * (value - value.detach())


def _rounded(model: nn.Module, batch: Any) -> Tensor:
    return loss_of_tokens(model, batch)


def _hook(model: Any) -> None:
    model.positions.register_hook(lambda grad: grad / 2)


def _module_hook(model: Any) -> None:
    model.blocks[1].down.register_full_backward_hook(lambda _module, grads, _out: (grads[0] * 0.5,))


def _norms(kind: type[nn.Module]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for block in model.blocks:
            block.norm = kind(WIDTH) if kind in (_SwappedNorm, _OverRows) else nn.Sequential(block.norm, kind())

    return change


def _dropouts(kind: type[nn.Module]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.blocks[1].dropout = kind(0.1)  # type: ignore[call-arg]

    return change


def _frozen(model: Any) -> None:
    model.positions.requires_grad_(False)


class _Assigns(Decoder):
    """Loads as code does that saves memory: each name gets a tensor of its own."""

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state, strict, assign=True)


def _unused(model: Any) -> None:
    model.extra = nn.Linear(3, 3)


def _still(model: Any) -> None:
    model.norm.momentum = 0.0


GRADIENT = "the gradient is that of the loss"
MOVES = "every parameter moves, and nothing else"
GROUPS = "every parameter is in one group of the optimiser"
LATER = "outputs do not depend on later positions"
ROWS_APART = "rows do not depend on each other"
RESUMED = "a step after saving and loading is the same"

FAULTS = (
    Program(name="a wrong custom backward", model=_block(forward=_wrong_backward), options={}, check=GRADIENT,
            where="blocks"),
    Program(name="a detached branch", model=_block(forward=_detached), options={}, check=GRADIENT, where="up"),
    Program(name="exchanged gradients", model=_changed(_norms(_SwappedNorm)), options={}, check=GRADIENT, where="norm"),
    Program(name="a hook that scales", model=_changed(_hook), options={}, check=GRADIENT, where="positions"),
    Program(name="a hook of a module", model=_changed(_module_hook), options={}, check=GRADIENT, where="blocks"),
    Program(name="a loss that is scaled for backward", loss=_scaled, options={}, check=GRADIENT, where="blocks.1"),
    Program(name="no_grad around the model", loss=_half_trained, options={}, check=GRADIENT, where="blocks.1"),
    Program(name="a layer that is not used", model=_changed(_unused), options={},
            check="every parameter gets a gradient", where="extra"),
    Program(name="an optimiser of a copy", optimizer=_stale, options={}, check=GROUPS, where="positions"),
    Program(name="a parameter that is left out", optimizer=_half, options={}, check=GROUPS, where="positions"),
    Program(name="a parameter in two groups", optimizer=_twice, options={}, check=GROUPS, where="positions"),
    Program(name="an update that is lost", optimizer=lambda model: _Skips(model.parameters(), lr=1e-3), options={},
            check=MOVES, where="embedding"),
    Program(name="a rate of nothing in bfloat16", model=lambda: MLP().bfloat16(),
            loss=lambda model, batch: F.mse_loss(model(batch[0].to(next(model.parameters()).dtype)), batch[1].to(
                next(model.parameters()).dtype)),
            batch=lambda: (torch.randn(9, 6), torch.randn(9, 1)),
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-7), options={}, check=MOVES, where="one"),
    Program(name="a frozen parameter that decays", model=_changed(_frozen),
            optimizer=lambda model: _MovesFrozen(model.parameters(), lr=1e-3), options={}, check=MOVES,
            where="positions"),
    Program(name="tied weights that part", model=_Assigns, options={}, check="tied weights stay tied",
            where="head"),
    Program(name="running statistics that stand still", model=_changed(_still, Conv), loss=classes, options={},
            batch=lambda: (torch.randn(6, 3, 5, 5), torch.randint(4, (6,))), check="running statistics move",
            where="norm"),
    Program(name="a norm over rows", model=_changed(_norms(_OverRows)), options={}, check=ROWS_APART, where="norm"),
    Program(name="rows and positions exchanged", model=_forward(_mixed), options={}, check=ROWS_APART, where="head"),
    Program(name="a mask off by one", model=_block(mask=lambda _self, size: torch.ones(
        size, size, dtype=torch.bool).tril(1)), options={"causal": True}, check=LATER, where="blocks.0"),
    Program(name="no mask", model=_block(mask=lambda _self, size: torch.ones(size, size, dtype=torch.bool)),
            options={"causal": True}, check=LATER, where="blocks.0"),
    Program(name="padding that is attended to", batch=padded, options={"mask": "keep"},
            loss=lambda model, batch: loss_of_tokens(model, {**batch, "keep": None}),
            model=_block(mask=lambda _self, size: torch.ones(size, size, dtype=torch.bool)),
            check="outputs do not depend on padding", where="blocks.0"),
    Program(name="dropout without rescale", model=_changed(_dropouts(_Dropout)), options={},
            check="dropout keeps the mean", where="blocks.1"),
    Program(name="dropout in evaluation", model=_changed(_dropouts(_AlwaysDropout)), options={},
            check="evaluation gives the same bits twice", where="blocks.1.dropout"),
    Program(name="a count that is not saved", model=_changed(_norms(_Warm)), options={}, check=RESUMED,
            where="not in the saved state"),
    Program(name="a buffer that is not saved", model=_changed(_norms(_Hidden)), options={}, check=RESUMED,
            where="not in the saved state"),
    Program(name="momentum that is not saved", options={}, check=RESUMED, where="not in the saved state",
            optimizer=lambda model: _Forgetful(model.parameters(), lr=0.1, momentum=0.9)),
)  # fmt: skip
"""Programs with one fault each."""
