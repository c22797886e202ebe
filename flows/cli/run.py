"""The commands of `lntx`: each reads its options, calls the core or the flow, prints, and returns an exit code."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from flows.cli.options import Common, Configuration, Range, Whole
from flows.cli.outputs import refuse_output
from flows.cli.printing import print_details, print_plan, print_run, print_sweep, say
from lntx import __version__
from lntx.config.schema import Pipeline
from lntx.data.tables import kind_of, wanted_columns
from lntx.errors import BadInput, NotFresh, WrongAnswer
from lntx.pipeline.outcome import Request
from lntx.pipeline.plan import plan as plan_stages
from lntx.runs.run import Run, read_run
from lntx.stages import Selection
from lntx.store.store import Store
from lntx.text import shown

app = App(
    name="lntx",
    help="A known-answer training pipeline: generate, train, evaluate, export.",
    version=__version__,
    default_parameter=Parameter(negative_iterable=(), negative_none=()),
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command()

Flat = Parameter(name="*")
Local = Annotated[bool, Parameter(negative=())]


@app.command
def run(
    *,
    range_: Annotated[Range, Flat] = Range(),
    local: Local = False,
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Run the pipeline, as a Prefect flow run, and print the verdict.

    Args:
        local: Run without Prefect: the same stages and cache.
    """
    return _run(configuration.settle(), range_, common, local=local)


@app.command
def fit(
    file: Path,
    /,
    *,
    target: str,
    features: list[str] | None = None,
    polynomial: Whole | None = None,
    bias: bool | None = None,
    range_: Annotated[Range, Flat] = Range(),
    local: Local = False,
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Run the pipeline on a Parquet or CSV file; the exact least-squares solution is the known answer.

    Args:
        file: The file.
        target: The column to predict.
        features: A column to predict from; repeat for more. [default: all but the target]
        polynomial: Fit the powers 1 to K of the one feature.
        bias: Learn a bias. [default: yes]
        local: Run without Prefect: the same stages and cache.
    """
    data: dict[str, Any] = {"path": str(file.absolute()), "target": target}
    if features is not None:
        data["features"] = features
    if polynomial is not None:
        data["polynomial"] = polynomial
    train = {} if bias is None else {"bias": bias}
    return _run(configuration.settle(data=data, train=train), range_, common, local=local)


@app.command
def sweep(
    *,
    over: list[str],
    processes: Whole | None = None,
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Train every combination of some values and list them, best first.

    Exit code 3 if none is right, 2 if none could be trained.

    What is done is kept: the same command goes on where it was stopped.

    Args:
        over: KEY=VALUES, such as train.learning_rate=0.001,0.01 or train.seed=0:100 or train.learning_rate=1e-4:1:x20
            (20 from 0.0001 to 1); repeat for more keys.
        processes: How many processes large trainings are spread over. [default: one per processor]
    """
    from lntx.sweep.grid import layer_of, parse_over, trials
    from lntx.sweep.sweep import sweep as sweep_over

    if processes is not None and processes < 1:
        raise BadInput(f"--processes must be positive, got {processes}")
    values = parse_over(over)
    # Keys that a trial sets need not be set elsewhere.
    base = configuration.settle(**layer_of(trials(values)[0]))
    found = sweep_over(base, values, root=common.folder, processes=processes)
    if common.json:
        print_json(found.model_dump(mode="json"))
    else:
        print_sweep(found)
    if all(row.verdict is None for row in found.trials):
        return BadInput.exit_code
    return 0 if found.best is not None else WrongAnswer.exit_code


@app.command
def plan(
    *,
    range_: Annotated[Range, Flat] = Range(),
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Say what would run, and why; exit code 4 unless every stage is fresh."""
    plans = plan_stages(Store(common.folder), configuration.settle(), range_.selection())
    if common.json:
        print_json({"stages": {name: {"state": one.state, "reason": one.reason} for name, one in plans.items()}})
    else:
        print_plan(plans)
    return 0 if all(one.state == "fresh" for one in plans.values()) else NotFresh.exit_code


@app.command
def predict(
    values: list[float] | None = None,
    /,
    *,
    input_: Annotated[Path | None, Parameter(name="--input")] = None,
    output: Path | None = None,
    run_: Annotated[str | None, Parameter(name="--run")] = None,
    model: Path | None = None,
    trust: list[str] | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Use a model: the last passing run's by default.

    Args:
        values: One row: a number per feature.
        input_: A Parquet or CSV table, one prediction per row.
        output: Where to write the table with a column of predictions: Parquet or CSV, by its suffix.
        run_: The run whose model to use.
        model: A model file to use.
        trust: sha256 of a .pt2 file that is no export of this root, to load it all the same: it can run code.
        force: Replace the file at --output, if there is one.
    """
    from lntx.models import find_model, write_predictions

    if (values is None) == (input_ is None):
        raise BadInput("give either numbers, one per feature, or --input FILE")
    if (input_ is None) != (output is None):
        raise BadInput("--input and --output go together: a table in, a table out")
    store = Store(common.folder)
    if input_ is not None and output is not None:
        kind_of(input_)
        refuse_output("--output", output, store, inputs=[input_, *([] if model is None else [model])], force=force)
    found = find_model(store, run=run_, path=model, trust=trust or ())
    which: dict[str, Any] = {"run": found.run, "features": found.features}
    if run_ is None and model is None and not common.quiet:
        of = f" of {', '.join(found.features)}" if found.features else ""
        print(shown(f"lntx: by run {found.run}, a model{of}"), file=sys.stderr)
    if input_ is not None and output is not None:
        count = write_predictions(found, input_, output)
        if common.json:
            print_json({"output": str(output), "num_rows": count, **which})
        else:
            say(f"{count} predictions in {output}")
        return 0
    import numpy as np

    prediction = float(found.predict(np.array([values], dtype=np.float64))[0])
    if common.json:
        print_json({"prediction": prediction, **which})
    else:
        say(f"{prediction:.12g}")
    return 0


@app.command
def show(name: str | None = None, /, *, common: Annotated[Common, Flat] = Common()) -> int:
    """Show a run: what was asked, its outcome, and its files, from the export back to the rows.

    Args:
        name: The run, or a beginning of its name. [default: the latest]
    """
    from lntx.runs.history import lineage

    store = Store(common.folder)
    found = read_run(store, name)
    steps = lineage(store, found)
    if common.json:
        print_json({**found.model_dump(mode="json"), "lineage": [step.model_dump(mode="json") for step in steps]})
    else:
        print_details(found, steps)
    return 0


def _run(pipeline: Pipeline, range_: Range, common: Common, *, local: bool) -> int:
    selection = range_.selection()
    # Bad input is known before a server is started for it.
    if pipeline.data.path is not None:
        wanted_columns(pipeline.data)
    plan_stages(Store(common.folder), pipeline, selection)
    if local:
        done = _run_here(pipeline, selection, common)
    else:
        from flows.launch import run_flow

        done = run_flow(
            pipeline,
            root=common.folder,
            from_stage=range_.from_,
            until=range_.until,
            only=range_.only,
            force=range_.forced,
        )
    if common.json:
        print_json(done.model_dump(mode="json"))
    else:
        print_run(done)
    return WrongAnswer.exit_code if done.verdict == "fail" else 0


def _run_here(pipeline: Pipeline, selection: Selection, common: Common) -> Run:
    from lntx.pipeline.runner import run_stages

    return run_stages(Request(pipeline=pipeline, selection=selection, root=common.folder))


def print_json(value: dict[str, Any]) -> None:
    """Print the one object of --json."""
    # A terminal that cannot show a letter still gets JSON.
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json_format.dumps(value, allow_nan=False, ensure_ascii=not is_unicode)
    if not text.isprintable():
        # Control characters beyond ASCII, and marks that turn the direction of text.
        text = "".join(sign if sign.isprintable() else json_format.dumps(sign)[1:-1] for sign in text)
    print(text)
