"""`lntx.prove` on five models that it was not made for: what is checked, alarms; and its cost, as a Markdown page.

Run: python -m benchmarks.proof_models. Writes benchmarks/results/proof_models.md. The cost is that of one step of a
transformer of 4 layers, 256 wide, on 8 sequences of 128 tokens, in medians of five interleaved rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import lntx
from benchmarks.machine import described

PAGE = Path(__file__).parent / "results" / "proof_models.md"
GOAL = 4.0

Model = tuple[str, nn.Module, Callable[[], Tensor], Callable[[Tensor], Tensor]]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        self.first, self.second = nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.Conv2d(32, 32, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(32), nn.BatchNorm2d(32)])
        self.beside, self.pool, self.head = nn.Conv2d(16, 32, 1, 2), nn.AdaptiveAvgPool2d(1), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        inner = self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))
        found: Tensor = self.head(self.pool(torch.relu(inner + self.beside(x))).flatten(1))
        return found


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.layers = kind(16, 24, 2, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.layers(x)[0][:, -1])
        return found


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(functional.softplus(self.norm(self.first(x))).mean((2, 3)))
        return found


def models() -> Iterator[Model]:
    classes = torch.arange(4)
    yield (
        "ResNet block",
        Residual(),
        lambda: torch.randn(4, 3, 32, 32),
        lambda out: functional.cross_entropy(out, classes),
    )
    encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
    yield "nn.TransformerEncoderLayer", encoder, lambda: torch.randn(3, 11, 32), lambda out: out.square().mean()
    for kind in (nn.LSTM, nn.GRU):
        yield (
            f"nn.{kind.__name__}, two layers",
            Recurrent(kind),
            lambda: torch.randn(4, 9, 16),
            lambda out: functional.cross_entropy(out, classes),
        )
    yield (
        "group norm, Huber loss",
        Grouped(),
        lambda: torch.randn(4, 3, 8, 8),
        lambda out: functional.huber_loss(out, torch.full_like(out, 0.1)),
    )


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mixed, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, time_, width = x.shape
        parts = self.mixed(self.norms[0](x)).view(batch, time_, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.joined(attended.transpose(1, 2).reshape(batch, time_, width))
        found: Tensor = x + self.inner(self.norms[1](x))
        return found


def cost(rounds: int = 5) -> tuple[float, float]:
    """Seconds of a plain step, and how many times as long a checked one takes: medians."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(1000, 256), *[Block(256, 8) for _ in range(4)], nn.Linear(256, 1000))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(0, 1000, (8, 128))

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(tokens).view(-1, 1000), tokens.view(-1)).backward()
        optimizer.step()

    step()
    plain, times = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        plain.append(time.perf_counter() - started)
        started = time.perf_counter()
        with lntx.prove(sample=16) as proof:
            step()
        times.append((time.perf_counter() - started) / plain[-1])
        assert proof.passed, proof.reason
    return statistics.median(plain), statistics.median(times)


def main() -> None:
    lines = ["| model | format | operators | multiply-adds | verdict | not checked |", "|---|---|---|---|---|---|"]
    for mode in ("float32", "bfloat16", "autocast bfloat16"):
        dtype = torch.bfloat16 if mode == "bfloat16" else torch.float32
        torch.manual_seed(0)
        for name, model, inputs, loss in models():
            optimizer = torch.optim.AdamW(model.to(dtype).parameters(), lr=1e-3)
            batch = inputs().to(dtype)
            with lntx.prove(sample=16, seed=0) as proof:
                for _ in range(2):
                    optimizer.zero_grad()
                    with torch.autocast("cpu", enabled=mode.startswith("autocast")):
                        out = model(batch)
                    loss(out.float()).backward()
                    optimizer.step()
            missed = ", ".join(f"{one.operator}: {one.why}" for one in proof.unchecked.values()) or "–"
            shares = f"{100 * proof.checked_calls:.1f} % | {100 * proof.checked_products:.1f} %"
            lines.append(f"| {name} | {mode} | {shares} | {'pass' if proof.passed else proof.reason} | {missed} |")
    seconds, times = cost()
    said = [
        "# `lntx.prove` on other models",
        described(),
        "Two steps of each; shares of the operators that compute, and of multiply-adds, that were checked.",
        "\n".join(lines),
        f"A step of a transformer (4 layers, 256 wide, 1,024 tokens, float32, AdamW) takes {seconds:.2f} s, and "
        f"{times:.1f} times as long when it is checked with 16 elements per operator; the goal is {GOAL:g}.",
    ]
    PAGE.parent.mkdir(exist_ok=True)
    text = "\n\n".join(said) + "\n"
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
