"""Synthetic rows from known weights: y = x · weights + bias + noise.

Knows how rows are drawn, not what is learned from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lntx.base.progress import report_progress
from lntx.config.schema import Data
from lntx.data.dataset import block_rows, write_dataset

STREAM_ROWS = 2**20
"""Rows of a column that share one random stream: every process that generates this range gets the same rows."""

_NOISE_STREAM = 2**32 - 1


def feature_names(num_features: int) -> tuple[str, ...]:
    """Return the names of synthetic features: x, or x1, x2, …"""
    return ("x",) if num_features == 1 else tuple(f"x{j}" for j in range(1, num_features + 1))


def generate_dataset(data: Data, path: Path, *, first: int = 0, stop: int | None = None) -> str:
    """Write the synthetic rows that `data` describes, or those in first..stop (exclusive), to a Parquet file.

    Returns: the digest of the file.
    """
    weights = data.true_weights
    assert weights is not None
    features = feature_names(len(weights))
    is_integer = data.distribution == "integers"
    repetitive = set(features) if is_integer else set()
    if is_integer and len(features) == 1 and data.noise == 0:
        repetitive.add("y")
    dtype = np.dtype(_integer_dtype(data)) if is_integer else np.dtype(np.float64)
    blocks = generate_blocks(data, first=first, stop=stop)
    _, sha256 = write_dataset(
        path,
        _columns(blocks, features, data.num_rows, first),
        features=features,
        target="y",
        types={**dict.fromkeys(features, dtype), "y": np.dtype(np.float64)},
        repetitive=frozenset(repetitive),
    )
    return sha256


def _columns(
    blocks: Iterator[tuple[np.ndarray, np.ndarray]], features: tuple[str, ...], num_rows: int, row: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield blocks as mappings from column names to values. row: number of rows before the first block."""
    for x, y in blocks:
        yield {**dict(zip(features, x.T, strict=True)), "y": y}
        row += len(y)
        report_progress(row, num_rows, "rows")


def generate_blocks(data: Data, *, first: int = 0, stop: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw the rows that `data` describes, block by block; or those in first..stop (exclusive), where `first` is a
    multiple of the block size.

    Each column of each 2^20 rows has a separate PCG64 stream, spawned from the seed, so that the rows do not depend on
    the division into parts; a larger number of rows leaves the earlier rows unchanged.

    Yields: x, shape (n, num_features), column-major, in the stored type, and y, float64, shape (n,).
    """
    weights = data.true_weights
    assert weights is not None
    num_features = len(weights)
    size = block_rows(num_features + 1)
    end = data.num_rows if stop is None else min(stop, data.num_rows)
    assert first % size == 0
    for stream in range(first // STREAM_ROWS, -(-end // STREAM_ROWS)):
        columns = [_stream(data.seed, stream, j) for j in range(num_features)]
        noise = _stream(data.seed, stream, _NOISE_STREAM)
        begin, last = stream * STREAM_ROWS, min((stream + 1) * STREAM_ROWS, end)
        for start in range(begin, last, size):
            count = min(size, last - start)
            # A stream is always drawn from its beginning; blocks before `first` are discarded.
            x_columns = [_draw(data, generator, count) for generator in columns]
            y = _target(data, weights, x_columns, noise, count)
            if start >= first:
                x = np.empty((count, num_features), dtype=x_columns[0].dtype, order="F")
                for j, column in enumerate(x_columns):
                    x[:, j] = column
                yield x, y


def _stream(seed: int, stream: int, column: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream, column))))


def _draw(data: Data, generator: np.random.Generator, count: int) -> np.ndarray:
    if data.distribution == "integers":
        return generator.integers(int(data.low), int(data.high), count, dtype=_integer_dtype(data), endpoint=True)
    if data.distribution == "uniform":
        return generator.uniform(data.low, data.high, count)
    return generator.normal((data.low + data.high) / 2, (data.high - data.low) / 6, count)


def _target(
    data: Data, weights: tuple[float, ...], columns: list[np.ndarray], noise: np.random.Generator, count: int
) -> np.ndarray:
    # Term by term, without BLAS: the same bits on every machine.
    y, term = np.full(count, data.bias), np.empty(count)
    for weight, column in zip(weights, columns, strict=True):
        y += np.multiply(column, weight, out=term, dtype=np.float64)
    if data.noise:
        y += noise.normal(0.0, data.noise, count)
    return y


def _integer_dtype(data: Data) -> Any:
    for dtype in (np.int8, np.int16, np.int32):
        limits = np.iinfo(dtype)
        if limits.min <= data.low and data.high <= limits.max:
            return dtype
    return np.int64
