"""The pipeline as a Prefect flow: the stages in order, one report, one verdict."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact, acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.context import SyncClientContext, TagsContext
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for
from pydantic import Field

from flows.engines import is_ray, working
from flows.folders import refuse_other_folders
from flows.killed import marked
from flows.tasks import TASKS, Force, name_run, root, send_core_logs, wrong_answer
from lntx.base.errors import LntxError
from lntx.base.stages import STAGES, Stage, select
from lntx.base.text import MAX_NAME, for_message
from lntx.config.loading import validate
from lntx.config.schema import Data, Evaluate, Export, Pipeline, Train, changed_settings
from lntx.pipeline.conclude import conclude
from lntx.pipeline.outcome import Outcome, Request
from lntx.pipeline.runner import begin
from lntx.report.report import coefficients
from lntx.runs.run import Run
from lntx.store.leases import running
from lntx.store.store import Store

REPORTS = "LNTX_REPORTS_URL"
"""Variable with the address below which the reports of this root are served."""

_MAX_ROWS = 200
_NAMED_KEYS = ("data.weights", "data.num_features", "data.num_rows", "data.path", "data.target")


def _run_name() -> str:
    """Return what distinguishes a run in a list: rows, stages, and the settings that differ from the defaults."""
    parameters = flow_run.get_parameters()
    sections = {name: parameters[name] for name in Pipeline.model_fields if parameters.get(name) is not None}
    try:
        config = validate(sections)
    except LntxError:
        # The flow itself refuses them.
        return "refused"
    changes = [
        f"{key.partition('.')[2]} {for_message(str(value).lower() if isinstance(value, bool) else value, 20)}"
        for key, value in changed_settings(config).items()
        if key not in _NAMED_KEYS
    ]
    more = ["…"] if len(changes) > 3 else []
    return " · ".join([_rows(config.data), *_selection(parameters), *changes[:3], *more])


def _rows(data: Data) -> str:
    if data.path is not None:
        return f"fit {for_message(Path(data.path).name, MAX_NAME)}"
    return data.formula


def _selection(parameters: dict[str, Any]) -> list[str]:
    only, first, last = (parameters.get(name) for name in ("only", "from_stage", "until"))
    if only not in (None, "all"):
        return [f"{only} only"]
    return [
        *([f"from {first}"] if first not in (None, STAGES[0]) else []),
        *([f"until {last}"] if last not in (None, STAGES[-1]) else []),
    ]


@flow(
    name="lntx",
    description="Generate rows from known weights, train a linear model on them, evaluate what was learned against "
    "the truth, and export the model. Each stage is taken from the store where it is fresh.",
    flow_run_name=_run_name,
    persist_result=False,
)
async def pipeline(
    only: Literal["all", Stage] = "all",
    from_stage: Stage = STAGES[0],
    until: Stage = STAGES[-1],
    force: Annotated[list[Force], Field(max_length=1 + len(STAGES))] = [],  # noqa: B006 (never changed; a form shows it)
    data: Data = Data(),
    train: Train = Train(),
    evaluate: Evaluate = Evaluate(),
    export: Export = Export(),
) -> Any:
    """Run the stages and conclude with a verdict.

    Returns: the run. Raises: WrongAnswer, or another LntxError.

    Args:
        only: Run only this stage; all: those from from_stage until until.
        from_stage: Start at this stage; the results of earlier stages are read from the store.
        until: Stop after this stage.
        force: Stages to compute even if their results are stored.
        data: The rows: generated from known weights, or read from a file.
        train: How the weights are learned.
        evaluate: What counts as the right answer.
        export: The file formats of the model.
    """
    send_core_logs()
    try:
        refuse_other_folders(data)
        config = validate({"data": data, "train": train, "evaluate": evaluate, "export": export})
        request = Request(
            pipeline=config,
            selection=select(
                from_stage=None if from_stage == STAGES[0] else from_stage,
                until=None if until == STAGES[-1] else until,
                only=None if only == "all" else only,
                force=force,
            ),
            root=root().absolute() if is_ray() else root(),
        )
        store = begin(request)
        # Tags of tasks cost a request to the server each, for their concurrency limits; those of the flow run stay.
        # One client for all tasks: each would make its own, with its own certificates and its own token.
        client = SyncClientContext.get_or_create()
        with running(store.locks), marked(), TagsContext(current_tags=set()), client, working(request.root):
            return await _run_tasks(store, request)
    except LntxError as error:
        return Failed(name=error.kind, message=str(error), data=error)


async def _run_tasks(store: Store, request: Request) -> State[Any]:
    """Run every stage as a task, and return the state with the verdict."""
    outcomes: dict[Stage, Outcome] = {}
    for stage, stage_task in TASKS.items():
        if stage not in request.stages:
            outcomes[stage] = Outcome(stage=stage, state="skipped")
            continue
        state = stage_task(request, outcomes, return_state=True)
        result = await state.aresult(raise_on_failure=False)
        if not isinstance(result, Outcome):
            return _failed_as(state, result)
        outcomes[stage] = result
    run_id = flow_run.get_id()
    run = conclude(
        store,
        request,
        outcomes,
        flow_run_id=run_id,
        flow_run_url=url_for("flow-run", obj_id=run_id, url_type="ui") if run_id else None,
        write_report=True,
    )
    await asyncio.gather(_publish(store, run), name_run(f"{_run_name()} · {_outcome(run)}"))
    if run.verdict == "fail":
        return wrong_answer(run, f"{run.blame}: {run.reason}")
    return Completed(message=_headline(run), data=run)


def _failed_as(state: State[Any], result: object) -> State[Any]:
    """Return the state of a flow whose task failed."""
    name = state.name if isinstance(result, LntxError) else None
    return Failed(name=name, message=state.message, data=result)


async def _publish(store: Store, run: Run) -> None:
    """Publish the report and its table of coefficients, and a link to the report as a page where one is served."""
    assert run.report is not None
    report = (store.root / run.report).read_text(encoding="utf-8")
    artifacts = [acreate_markdown_artifact(report, key="lntx-report", description=_headline(run))]
    if run.learned_weights is not None:
        header, rows = coefficients(run)
        table = [dict(zip(header, row, strict=True)) for row in rows[:_MAX_ROWS]]
        more = f"; the first {_MAX_ROWS} of {len(rows)}" if len(rows) > _MAX_ROWS else ""
        description = f"What was learned, beside the known answer{more}."
        artifacts.append(acreate_table_artifact(table, key="lntx-coefficients", description=description))
    if REPORTS in os.environ:
        link = f"{os.environ[REPORTS]}/{run.run}.html"
        artifacts.append(acreate_link_artifact(link, link_text=f"report of run {run.run}", key="lntx-page"))
    await asyncio.gather(*artifacts)


def _outcome(run: Run) -> str:
    """Return the verdict of a run, and whether it computed anything."""
    verdict = {"pass": f"PASS {run.digits or 0:.4g}", "fail": f"FAIL {run.blame}", None: "no verdict"}[run.verdict]
    is_cached = all(stage.state in ("cached", "skipped") for stage in run.stages.values())
    return f"{verdict} · cached" if is_cached else verdict


def _headline(run: Run) -> str:
    if run.verdict is None:
        return "done; not evaluated"
    return f"{run.verdict.upper()}, {run.digits:.4g} digits"
