"""A model's weights as safetensors bytes. Knows nothing of the files they go to."""

from __future__ import annotations

import safetensors.torch

from lntx.model import LNTXLinearModel


def dump_weights(model: LNTXLinearModel) -> bytes:
    """The weights, and nothing else: equal weights give equal bytes."""
    data: bytes = safetensors.torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    return data
