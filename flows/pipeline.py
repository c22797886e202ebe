"""The pipeline as a Prefect flow: the stages in order, one report, one verdict."""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import TagsContext
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for
from pydantic import Field

from flows.engines import is_ray, working
from flows.folders import refuse_other_folders
from flows.tasks import TASKS, Force, root, send_core_logs, wrong_answer
from lntx.config.loading import validate
from lntx.config.schema import Data, Evaluate, Export, Train
from lntx.errors import LntxError
from lntx.pipeline.conclude import conclude
from lntx.pipeline.outcome import Outcome, Request
from lntx.pipeline.runner import begin
from lntx.runs.run import Run
from lntx.stages import STAGES, Stage, select
from lntx.store.leases import running
from lntx.store.store import Store
from lntx.text import MAX_NAME, for_message


def _run_name() -> str:
    parameters = flow_run.get_parameters()
    data = parameters.get("data") or Data()
    data = data if isinstance(data, Data) else Data.model_validate(data)
    if data.path is not None:
        return f"fit {for_message(Path(data.path).name, MAX_NAME)}"
    assert data.true_weights is not None
    weights = ", ".join(f"{weight:.4g}" for weight in data.true_weights[:3]) + (
        ", …" if len(data.true_weights) > 3 else ""
    )
    return f"y = [{weights}]·x, {data.num_rows:,} rows"


@flow(
    name="lntx",
    description="Generate rows from known weights, train a linear model on them, evaluate what was learned against "
    "the truth, and export the model. Each stage is taken from the store where it is fresh.",
    flow_run_name=_run_name,
    persist_result=False,
)
async def pipeline(
    data: Data = Data(),
    train: Train = Train(),
    evaluate: Evaluate = Evaluate(),
    export: Export = Export(),
    from_stage: Stage | None = None,
    until: Stage | None = None,
    only: Stage | None = None,
    force: Annotated[list[Force], Field(max_length=1 + len(STAGES))] | None = None,
) -> Any:
    """Run the stages and conclude with a verdict.

    Returns: the run. Raises: WrongAnswer, or another LntxError.

    Args:
        data: The rows: generated from known weights, or read from a file.
        train: How the weights are learned.
        evaluate: What counts as the right answer.
        export: The file formats of the model.
        from_stage: Start at this stage; the results of earlier stages are read from the store.
        until: Stop after this stage.
        only: Run only this stage.
        force: Stages to compute even if their results are stored.
    """
    send_core_logs()
    try:
        refuse_other_folders(data)
        config = validate({"data": data, "train": train, "evaluate": evaluate, "export": export})
        request = Request(
            pipeline=config,
            selection=select(from_stage=from_stage, until=until, only=only, force=force or ()),
            root=root().absolute() if is_ray() else root(),
        )
        store = begin(request)
        # Tags of tasks cost a request to the server each, for their concurrency limits; those of the flow run stay.
        with running(store.locks), TagsContext(current_tags=set()), working(request.root):
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
    assert run.report is not None
    await acreate_markdown_artifact(
        (store.root / run.report).read_text(encoding="utf-8"), key="lntx-report", description=_headline(run)
    )
    if run.verdict == "fail":
        return wrong_answer(run, f"{run.blame}: {run.reason}")
    return Completed(message=_headline(run), data=run)


def _failed_as(state: State[Any], result: object) -> State[Any]:
    """Return the state of a flow whose task failed."""
    name = state.name if isinstance(result, LntxError) else None
    return Failed(name=name, message=state.message, data=result)


def _headline(run: Run) -> str:
    if run.verdict is None:
        return "done; not evaluated"
    return f"{run.verdict.upper()}, {run.digits:.4g} digits"
