"""The work of each stage of a case with the libraries alone: whether this build can do it. Compares nothing."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lntx.base.stages import Stage
from lntx.config.schema import Pipeline
from lntx.export.formats import FORMATS
from lntx.training.fit import find_device, threads
from lntx.training.model import LNTXLinearModel

_NUM_ROWS = 100


def run_plainly(stage: Stage, config: Pipeline) -> None:
    """Do on a few rows what a stage does, as a script without lntx would. Raises what the libraries raise."""
    num_features = len(config.data.true_weights or (1.0,))
    draw = np.random.default_rng(config.data.seed)
    x, y = draw.normal(size=(_NUM_ROWS, num_features)), draw.normal(size=(_NUM_ROWS, 1))
    dtype: torch.dtype = getattr(torch, config.train.dtype)
    if stage == "generate":
        file = io.BytesIO()
        pq.write_table(pa.table({"y": y[:, 0]}), file)
        pq.read_table(pa.BufferReader(file.getvalue())).column("y").to_numpy()
    elif stage == "train":
        device = find_device(config.train)
        rows, targets = (torch.from_numpy(values).to(device, dtype) for values in (x, y))
        with threads(config.train.num_threads):
            model = torch.nn.Linear(num_features, 1, bias=config.learns_bias, dtype=dtype, device=device)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=config.train.momentum)
            for _ in range(2):
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(model(rows), targets).backward()
                optimizer.step()
    elif stage == "evaluate":
        np.linalg.lstsq(x, y, rcond=None)
    else:
        for name in config.export.formats:
            content = FORMATS[name].write(LNTXLinearModel(num_features, bias=config.learns_bias, dtype=dtype))
            predict = FORMATS[name].load(content, Path(f"model.{name}"), (hashlib.sha256(content).hexdigest(),))
            predict(x.astype(config.train.dtype))
