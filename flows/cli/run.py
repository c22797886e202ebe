"""The commands that compute: run, fit, sweep, plan, predict. Each calls the core or the flow."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from flows.cli.app import Flat, Local, print_result
from flows.cli.options import Common, Configuration, DialectFlags, Range, Where, Whole, read_dialect
from flows.cli.outputs import refuse_metrics, refuse_output, write_metrics
from flows.cli.printing import print_plan, print_run, print_sweep, say
from flows.engines import is_ray, working
from lntx.base.errors import BadInput, NotFresh, WrongAnswer
from lntx.base.stages import Selection
from lntx.base.text import for_message
from lntx.config.schema import Pipeline
from lntx.export.worker import fresh_process
from lntx.pipeline.outcome import Request
from lntx.pipeline.plan import plan as plan_stages
from lntx.runs.run import Run
from lntx.store.store import Store


def run(
    *,
    range_: Annotated[Range, Flat] = Range(),
    local: Local = False,
    prom: Path | None = None,
    where: Annotated[Where, Flat] = Where(),
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Run the pipeline as a Prefect flow run, and print the verdict.

    Args:
        local: Run without Prefect, with the same stages and cache.
        prom: File of metrics to write, for the textfile collector of node_exporter (NAME.prom).
    """
    return _run(configuration.settle(), range_, common, where, local=local, prom=prom)


def fit(
    file: str,
    /,
    *,
    target: str,
    features: Annotated[list[str] | None, Parameter(metavar="COLUMN")] = None,
    polynomial: Whole | None = None,
    bias: bool | None = None,
    range_: Annotated[Range, Flat] = Range(),
    local: Local = False,
    prom: Path | None = None,
    where: Annotated[Where, Flat] = Where(),
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Run the pipeline on a Parquet, Feather or CSV file; the known answer is the exact least-squares solution.

    Args:
        file: The file, or a folder or glob of Parquet files.
        target: The column to predict.
        features: A column to predict from; repeat the option for more. [default: all but the target]
        polynomial: Fit the powers 1 to K of the only feature.
        bias: Learn a bias. [default: yes]
        local: Run without Prefect, with the same stages and cache.
        prom: File of metrics to write, for the textfile collector of node_exporter (NAME.prom).
    """
    path = file if "://" in file else str(Path(file).absolute())
    data: dict[str, Any] = {"path": path, "target": target}
    if features is not None:
        data["features"] = features
    if polynomial is not None:
        data["polynomial"] = polynomial
    train = {} if bias is None else {"bias": bias}
    return _run(configuration.settle(data=data, train=train), range_, common, where, local=local, prom=prom)


def sweep(
    *,
    over: Annotated[list[str], Parameter(metavar="KEY=VALUES")],
    processes: Whole | None = None,
    where: Annotated[Where, Flat] = Where(),
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Train with every combination of the given values, and list the results, best first.

    Exit code 3 if no result is right, 2 if no combination could be trained.

    Finished trainings are stored: after an interruption, the same command resumes.

    Args:
        over: Such as train.learning_rate=0.001,0.01 or train.seed=0:100 or train.learning_rate=1e-4:1:x20
            (20 values from 0.0001 to 1); repeat the option for more keys.
        processes: Number of processes that share large trainings. [default: one per processor]
    """
    from lntx.sweep.grid import layer_of, parse_over, trials
    from lntx.sweep.sweep import sweep as sweep_over

    if processes is not None and processes < 1:
        raise BadInput(f"--processes must be positive, got {processes}")
    values = parse_over(over)
    # Keys that a trial sets need not be set elsewhere.
    base = configuration.settle(**layer_of(trials(values)[0]))
    where.choose()
    root = _whole_root(common)
    with working(root):
        result = sweep_over(base, values, root=root, processes=0 if is_ray() else processes)
    print_result(common, result, lambda: print_sweep(result))
    if all(row.verdict is None for row in result.trials):
        return BadInput.exit_code
    return 0 if result.best is not None else WrongAnswer.exit_code


def plan(
    *,
    range_: Annotated[Range, Flat] = Range(),
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Show what would run, and why; exit code 4 unless every stage is fresh."""
    plans = plan_stages(Store(common.folder), configuration.settle(), range_.selection())
    stages = {name: {"state": stage_plan.state, "reason": stage_plan.reason} for name, stage_plan in plans.items()}
    print_result(common, {"stages": stages}, lambda: print_plan(plans))
    return 0 if all(stage_plan.state == "fresh" for stage_plan in plans.values()) else NotFresh.exit_code


def predict(
    values: list[float] | None = None,
    /,
    *,
    input_: Annotated[Path | None, Parameter(name="--input")] = None,
    output: Path | None = None,
    run_: Annotated[str | None, Parameter(name="--run")] = None,
    model: Path | None = None,
    csv: Annotated[DialectFlags | None, Parameter(name="data")] = None,  # type: ignore[valid-type]
    interval: Literal["confidence", "prediction"] | None = None,
    level: float = 0.95,
    trust: Annotated[list[str] | None, Parameter(metavar="SHA256")] = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Predict with a model, by default that of the last passing run.

    Args:
        values: One row: one number per feature.
        input_: A Parquet or CSV table; each row gets one prediction.
        output: The file for the table with a column of predictions: Parquet or CSV, by its suffix.
        run_: The run whose model is used.
        model: The model file to use.
        csv: How a CSV file at --input is written, if not as the file of the fit.
        interval: With --input, add the columns low and high: the interval of the mean, or of a new value.
        level: Probability that such an interval holds the mean, or the value.
        trust: sha256 of a .pt2 file that this root did not export, to load it anyway: it can run code.
        force: Replace an existing file at --output.
    """
    from lntx.models import find_model

    if (values is None) == (input_ is None):
        raise BadInput("give either numbers, one per feature, or --input FILE")
    if interval is not None and input_ is None:
        raise BadInput("--interval adds columns to a table: add --input FILE and --output FILE")
    if (input_ is None) != (output is None):
        raise BadInput("--input and --output go together: a table in, a table out")
    store = Store(common.folder)
    written = None
    if csv is not None:
        if input_ is None:
            raise BadInput("--data.… says how the file at --input is written: add --input FILE")
        from lntx.data.spelling import Spelling

        written = Spelling.of(read_dialect(csv))
    if input_ is not None and output is not None:
        from lntx.data.tables import files_of

        read = [*files_of(str(input_)), *([] if model is None else [model])]
        if output.absolute().parent == input_.absolute() or fnmatch(str(output.absolute()), str(input_.absolute())):
            raise BadInput(f"--output {for_message(output)} would be part of what --input names: choose another place")
        refuse_output("--output", output, store, inputs=read, force=force)
    source = find_model(store, run=run_, path=model, trust=trust or ())
    which: dict[str, Any] = {"run": source.run, "features": source.features}
    if run_ is None and model is None and not common.quiet:
        of = f" of {', '.join(source.features)}" if source.features else ""
        print(for_message(f"lntx: by run {source.run}, a model{of}"), file=sys.stderr)
    if input_ is not None and output is not None:
        from lntx.predictions import write_predictions

        count = write_predictions(source, input_, output, dialect=written, interval=interval, level=level)
        message = f"{count} prediction{'' if count == 1 else 's'} in {output}"
        print_result(common, {"output": str(output), "num_rows": count, **which}, lambda: say(message))
        return 0
    import numpy as np

    prediction = float(source.predict(np.array([values], dtype=np.float64))[0])
    print_result(common, {"prediction": prediction, **which}, lambda: say(f"{prediction:.12g}"))
    return 0


def _run(pipeline: Pipeline, range_: Range, common: Common, where: Where, *, local: bool, prom: Path | None) -> int:
    where.choose()
    refuse_metrics(prom, common)
    selection = range_.selection()
    # Detect bad input before a server is started.
    if pipeline.data.path is not None:
        from lntx.data.importing import wanted_columns

        wanted_columns(pipeline.data)
    plans = plan_stages(Store(common.folder), pipeline, selection)
    if local:
        result = _run_here(pipeline, selection, common)
    else:
        work = [stage for stage, planned in plans.items() if planned.state != "fresh"]
        if "export" in work:
            # Its imports overlap those of Prefect.
            fresh_process()
        from flows.client.launch import run_flow

        result = run_flow(
            pipeline,
            root=common.folder,
            from_stage=range_.from_,
            until=range_.until,
            only=range_.only,
            force=range_.forced,
            work=work,
        )
    print_result(common, result, lambda: print_run(result))
    write_metrics(result, prom)
    return WrongAnswer.exit_code if result.verdict == "fail" else 0


def _run_here(pipeline: Pipeline, selection: Selection, common: Common) -> Run:
    from lntx.pipeline.runner import run_stages

    root = _whole_root(common)
    with working(root):
        return run_stages(Request(pipeline=pipeline, selection=selection, root=root))


def _whole_root(common: Common) -> Path:
    """Return the root; for a cluster by its whole path, which all nodes must have."""
    return common.folder.absolute() if is_ray() else common.folder
