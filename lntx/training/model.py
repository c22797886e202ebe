"""The model: one linear layer, and its weights as bytes. Independent of data, training and files."""

from __future__ import annotations

import math
from collections.abc import Iterable

import safetensors.torch
import torch
from torch import nn


class LNTXLinearModel(nn.Module):
    """y = x · weights (+ bias): `nn.Linear` with one output.

    num_features: number of columns of x. bias: whether the model has a bias. dtype: torch.float64 or torch.float32.
    generator: source of the initial weights, drawn as nn.Linear draws them, uniform in ±1/sqrt(num_features);
    if None, every weight starts at 0. The global random state is neither used nor changed.
    """

    def __init__(
        self,
        num_features: int = 1,
        *,
        bias: bool = False,
        dtype: torch.dtype = torch.float64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        # skip_init: nn.Linear would draw its weights from the global random state.
        blank: nn.Linear = nn.utils.skip_init(nn.Linear, num_features, 1, bias=bias, dtype=dtype)
        self.linear = blank
        if generator is not None:
            draw_start(self.linear.parameters(), num_features, generator)
        else:
            for parameter in self.linear.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict y, shape (num_rows, 1), from x, shape (num_rows, num_features)."""
        y: torch.Tensor = self.linear(x)
        return y

    @property
    def weights(self) -> tuple[float, ...]:
        """The learned weights, each as the float64 of the same value."""
        return tuple(self.linear.weight.detach().double().cpu().reshape(-1).tolist())

    @property
    def bias(self) -> float | None:
        """The learned bias as the float64 of the same value; None if the model has no bias."""
        return None if self.linear.bias is None else float(self.linear.bias.detach().double().cpu())


def draw_start(parameters: Iterable[torch.Tensor], num_features: int, generator: torch.Generator) -> None:
    """Draw the initial weights and, last, the bias, in place."""
    bound = 1 / math.sqrt(num_features)
    for parameter in parameters:
        nn.init.uniform_(parameter, -bound, bound, generator=generator)


def dump_weights(model: LNTXLinearModel) -> bytes:
    """Return the weights, and nothing else, as safetensors bytes: equal weights give equal bytes."""
    data: bytes = safetensors.torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    return data
