"""Faults of the exported files: written wrongly, altered afterwards, or with content that must not be there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lntx.canary.cases import Case
from lntx.canary.faults.planting import Fault, flipped, once_stored
from lntx.model import LNTXLinearModel
from lntx.proof.faults import replaced

_Model = LNTXLinearModel
_Plant = Callable[[Case], contextlib.AbstractContextManager[None]]


def _of_another_model(change: Callable[[_Model], _Model]) -> _Plant:
    """Write every format from a changed model."""

    def plant(_case: Case) -> contextlib.AbstractContextManager[None]:
        import lntx.export.export

        def make(formats: Any) -> Any:
            return {
                name: dataclasses.replace(one, write=lambda model, one=one: one.write(change(model)))
                for name, one in formats.items()
            }

        return replaced(lntx.export.export, "FORMATS", make)

    return plant


def _like(
    model: _Model, *, weights: torch.Tensor | None = None, bias: torch.Tensor | None = None, dtype: Any = None
) -> _Model:
    linear = model.linear
    made = LNTXLinearModel(
        linear.weight.shape[1], bias=linear.bias is not None, dtype=linear.weight.dtype if dtype is None else dtype
    )
    with torch.no_grad():
        made.linear.weight.copy_(linear.weight if weights is None else weights)
        if made.linear.bias is not None:
            made.linear.bias.copy_(linear.bias if bias is None else bias)
    return made


def _wrong_weight(model: _Model) -> _Model:
    weights = model.linear.weight.detach().clone()
    weights[0, -1] *= 1 + 1e-6
    return _like(model, weights=weights)


def _wrong_bias(model: _Model) -> _Model:
    return _like(model, bias=model.linear.bias.detach() + 1e-6)


def _other_dtype(model: _Model) -> _Model:
    is_double = model.linear.weight.dtype == torch.float64
    return _like(model, dtype=torch.float32 if is_double else torch.float64)


def _other_run(model: _Model) -> _Model:
    generator = torch.Generator().manual_seed(1)
    shape, dtype = model.linear.weight.shape, model.linear.weight.dtype
    return _like(model, weights=torch.empty(shape, dtype=dtype).uniform_(-1, 1, generator=generator))


def _transposed(_case: Case) -> contextlib.AbstractContextManager[None]:
    import safetensors.torch

    def make(save: Callable[..., bytes]) -> Callable[..., bytes]:
        def transposing(tensors: dict[str, torch.Tensor], *args: Any, **options: Any) -> bytes:
            turned = {name: t.T.contiguous() if t.ndim == 2 else t for name, t in tensors.items()}
            return save(turned, *args, **options)

        return transposing

    import lntx.export.export

    def within(formats: Any) -> Any:
        def write(model: _Model) -> bytes:
            with replaced(safetensors.torch, "save", make):
                content: bytes = formats["safetensors"].write(model)
            return content

        return {**formats, "safetensors": dataclasses.replace(formats["safetensors"], write=write)}

    # Only in the export: the weights that training stores stay right.
    return replaced(lntx.export.export, "FORMATS", within)


def _rows_inside(case: Case) -> contextlib.AbstractContextManager[None]:
    """Trace the program with two training rows, which are a view of the array of all rows."""

    def make(export: Callable[..., Any]) -> Callable[..., Any]:
        def leaking(model: Any, args: tuple[torch.Tensor, ...], *more: Any, **options: Any) -> Any:
            from lntx.data.synthetic import generate_blocks

            x, _ = next(generate_blocks(case.pipeline.data))
            rows = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)).to(args[0].dtype)
            return export(model, (rows[:2],), *more, **options)

        return leaking

    return replaced(torch.export, "export", make)


def _altered(stage: Any) -> _Plant:
    """Flip a bit of the weights in the stored safetensors file."""

    def plant(_case: Case) -> contextlib.AbstractContextManager[None]:
        def tamper(files: dict[str, Path]) -> None:
            path = files["model.safetensors"]
            content = path.read_bytes()
            # Layout: length of the header, header, numbers.
            start = 8 + int.from_bytes(content[:8], "little")
            value = float(np.frombuffer(content[start : start + 8], np.float64)[0])
            path.write_bytes(content[:start] + np.float64(flipped(value, 0)).tobytes() + content[start + 8 :])

        return once_stored(stage, tamper)

    return plant


def _other_card(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Write more digits into the card than the evaluation found."""
    import lntx.export.export

    def make(card: Callable[..., Any]) -> Callable[..., Any]:
        def boasting(**fields: Any) -> Any:
            evaluation = fields["evaluation"].model_copy(update={"digits": 99.0})
            return card(**{**fields, "evaluation": evaluation})

        return boasting

    return replaced(lntx.export.export, "Card", make)


@contextlib.contextmanager
def _stale_export(case: Case) -> Iterator[None]:
    """Put the files of an earlier run in place of the fresh ones."""

    def tamper(files: dict[str, Path]) -> None:
        from lntx.export.formats import FORMATS

        generator = torch.Generator().manual_seed(2)
        dtype = getattr(torch, case.pipeline.train.dtype)
        count = len(case.pipeline.data.true_weights or ())
        earlier = LNTXLinearModel(count, bias=case.pipeline.learns_bias, dtype=dtype, generator=generator)
        for name in case.pipeline.export.formats:
            files[f"model.{name}"].write_bytes(FORMATS[name].write(earlier))

    with once_stored("export", tamper):
        yield


def _export(name: str, what: str, planted: _Plant, limit: str | None = None) -> Fault:
    return Fault(name=name, what=what, blame="export", limit=limit, planted=planted)


EXPORTED = (
    _export(
        "wrong-weight",
        "a weight is exported a part in a million too large",
        _of_another_model(_wrong_weight),
        "none in safetensors; 4 eps of a prediction in the other formats",
    ),
    _export(
        "wrong-bias",
        "the bias is exported too large by 1e-6",
        _of_another_model(_wrong_bias),
        "none in safetensors; 4 eps of a prediction in the other formats",
    ),
    _export("wrong-dtype", "the files are in another dtype", _of_another_model(_other_dtype)),
    _export("another-run", "the files are those of another run's weights", _of_another_model(_other_run)),
    _export("transposed", "the weights are written with their shape transposed", _transposed, "a single weight"),
    _export(
        "rows-inside",
        "the exported program holds rows of the training",
        _rows_inside,
        "two numbers that lie side by side",
    ),
    _export("wrong-card", "the model's card tells other figures than were found", _other_card),
    _export("altered-export", "the last bit of a weight flips in the exported file", _altered("export")),
    _export("altered-weights", "the last bit of a weight flips in the file that training stores", _altered("train")),
    _export("stale-export", "the files of an earlier run lie in place of the fresh ones", _stale_export),
)
"""Faults that must be blamed on the export."""
