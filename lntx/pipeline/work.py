"""The work of each stage: compute files in a folder from the results of its input stages.

A stage's imports happen when it runs, so that reading the table of stages does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lntx.base.errors import BadInput
from lntx.base.stages import Stage
from lntx.base.text import for_message
from lntx.evaluation.verdict import Evaluation
from lntx.pipeline.outcome import Outcome, Request, parse_stored
from lntx.store.key import Identity
from lntx.store.staging import RESUME
from lntx.store.store import Store


def compute_generate(
    request: Request, _store: Store, _inputs: Mapping[Stage, Outcome], folder: Path, identity: Identity
) -> Mapping[str, str] | None:
    """Generate the rows, or import them from the user's file. Returns: the digest of each file, by name."""
    data = request.pipeline.data
    if data.path is None:
        from lntx.data.shards import generate_parts

        return generate_parts(data, folder, folder.parent / RESUME)
    from lntx.data.importing import import_table
    from lntx.data.tables import look_at

    source = look_at(data.path)
    if source.sha256 != identity.config["data.sha256"]:
        raise BadInput(f"{for_message(data.path)} changed while it was read: run again when it is complete")
    return {
        "dataset.parquet": import_table(data, source, folder / "dataset.parquet", bias=request.pipeline.learns_bias)
    }


def compute_train(
    request: Request, store: Store, inputs: Mapping[Stage, Outcome], folder: Path, _identity: Identity
) -> None:
    """Train the model; write the model, its history and its figures."""
    from lntx.data.dataset import open_dataset
    from lntx.training.fit import fit
    from lntx.training.model import dump_weights
    from lntx.training.result import write_history

    dataset = open_dataset(*_rows(store, inputs))
    try:
        model, figures, history = fit(
            dataset,
            request.pipeline.train,
            bias=request.pipeline.learns_bias,
            checkpoint=folder.parent / RESUME / "checkpoint",
        )
    except BadInput as error:
        data = request.pipeline.data
        if data.path is None or data.polynomial is not None:
            # Generated columns and powers cannot be left out.
            error.advice.clear()
        raise
    (folder / "model.safetensors").write_bytes(dump_weights(model))
    write_history(history, folder / "history.parquet")
    (folder / "fit.json").write_text(figures.model_dump_json(indent=1), encoding="utf-8")


def compute_evaluate(
    request: Request, store: Store, inputs: Mapping[Stage, Outcome], folder: Path, _identity: Identity
) -> None:
    """Evaluate the trained model; write the evaluation."""
    from lntx.data.dataset import open_dataset
    from lntx.evaluation.evaluate import evaluate

    evaluation = evaluate(
        open_dataset(*_rows(store, inputs)),
        sha256=inputs["generate"].stored.files[0].sha256,
        data=request.pipeline.data,
        fit=inputs["train"].fit(store),
        settings=request.pipeline.evaluate,
    )
    (folder / "evaluation.json").write_text(evaluation.model_dump_json(indent=1), encoding="utf-8")


def compute_export(
    request: Request, store: Store, inputs: Mapping[Stage, Outcome], folder: Path, _identity: Identity
) -> None:
    """Export the model: one file per format, each read back, and the card."""
    from lntx.export.export import export
    from lntx.export.formats import load_model

    evaluation = parse_stored(Evaluation, inputs["evaluate"].path(store, "evaluation.json").read_bytes())
    model = load_model(inputs["train"].path(store, "model.safetensors"))
    export(model, inputs["train"].fit(store), evaluation, request.pipeline.export, folder)


def _rows(store: Store, inputs: Mapping[Stage, Outcome]) -> list[Path]:
    """Return the files of the dataset, in the order of the rows."""
    return [store.path(file) for file in sorted(inputs["generate"].stored.files, key=lambda file: file.name)]
