"""The canary as Prefect flows: a task for each case, or one for each node of a cluster. Nothing is published."""

from typing import Annotated, Any

from prefect import flow, tags, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for
from pydantic import Field

from flows.engines import working
from flows.killed import marked
from flows.tasks import name_run, root, send_core_logs, wrong_answer
from lntx.base.errors import BadInput, LntxError
from lntx.base.text import MAX_MESSAGE, for_message
from lntx.canary.page import canary_page, summary
from lntx.canary.run import conclude_canary, open_suite
from lntx.canary.suite.not_run import NotRun
from lntx.canary.suite.options import CanaryOptions, Device, Level, settle_options
from lntx.canary.suite.results import Canary, CaseReport
from lntx.canary.suite.suite import Result, Suite, keep_first_files, log_if_interrupted
from lntx.cluster.engine import Cluster, Place
from lntx.cluster.nodes import NodeReport, nodes_page, report_of, summarize_nodes, work_for
from lntx.config.schema import MAX_SEED
from lntx.report.page import Page, to_markdown

TAG = "canary"
"""Tag of every run of a canary."""

INJECTED = "injected"
"""Additional tag of runs with a planted fault: a failure in them is expected."""

Flag = Annotated[bool, Field(strict=True)]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] | None


def _run_name() -> str:
    parameters = flow_run.get_parameters()
    words = [
        "deep canary" if parameters.get("deep") else f"canary, level {parameters.get('level', 1)}",
        *(["blind"] if parameters.get("blind") or parameters.get("seed") is not None else []),
        *([f"{parameters['repeat']} times"] if parameters.get("repeat", 1) != 1 else []),
        *([f"with {parameters['inject']}"] if parameters.get("inject") else []),
    ]
    return ", ".join(words)


@flow(
    name="lntx-canary",
    description="Prove that this stack still trains right: everything is computed anew in a throw-away root and held "
    "against the known answer, and nothing is published. Deep: every operator of a training step.",
    flow_run_name=_run_name,
    persist_result=False,
    # A wrong answer is a result: never retry it.
    retries=0,
)
async def canary(
    deep: Flag = False,
    level: Level = 1,
    blind: Flag = False,
    seed: Seed = None,
    repeat: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1,
    compiled: Flag = False,
    processes: Flag = False,
    inject: Annotated[str, Field(max_length=100, pattern="^[a-z0-9-]+$")] | None = None,
    device: Device = "auto",
) -> State[Any]:
    """Run the cases of a suite and judge each.

    Args:
        deep: Check every operator of training steps of five networks, in place of whole trainings.
        level: 1: one case, a second; 2: several shapes, dtypes, thread counts and formats, half a minute; 3: also as
            many rows as fit in a quarter of the free memory, minutes. A deep canary has no levels.
        blind: Draw new random cases.
        seed: Draw the blind cases of this seed again.
        repeat: Number of repetitions.
        compiled: In a deep canary: check code of torch.compile, too.
        processes: In a deep canary: check training in two processes, too.
        inject: A fault to plant, to check that it is caught.
        device: Device to train on.
    """
    send_core_logs()
    try:
        suite = {"deep": deep, "level": level, "compiled": compiled, "processes": processes}
        options = settle_options(blind=blind, seed=seed, repeat=repeat, inject=inject, device=device, **suite)
        with marked():
            result = await _run_cases(open_suite(options, root=root()))
    except LntxError as error:
        return Failed(name=error.kind, message=str(error), data=error)
    run_id = flow_run.get_id()
    url = url_for("flow-run", obj_id=run_id, url_type="ui") if run_id else None
    result = result.model_copy(update={"flow_run_id": run_id, "flow_run_url": url})
    await _publish(canary_page(result), "lntx-canary-deep" if deep else "lntx-canary", summary(result))
    await name_run(f"{_run_name()} · {_outcome(result)}")
    return _state_of_canary(result)


async def _run_cases(suite: Suite[Any, Any]) -> Canary:
    results: list[Result] = []
    with log_if_interrupted(results), tags(TAG, *([INJECTED] if suite.fault else [])):
        for case, repetition in suite.schedule():
            state = _case_task.with_options(task_run_name=case.name)(suite, case, repetition, return_state=True)
            results.append(keep_first_files(results, await _result(state)))
    return conclude_canary(suite, results)


async def _result(state: State[Any]) -> Any:
    result = await state.aresult(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    return result


@task(name="Run a case", persist_result=False)
def _case_task(suite: Suite[Any, Any], case: Any, repetition: int) -> State[Any]:
    send_core_logs()
    result = suite.run_case(case, repetition=repetition, fault=suite.fault)
    if isinstance(result, NotRun):
        message = for_message(result.sentence, MAX_MESSAGE)
        if result.cause == "build":
            return Completed(name="NotRun", message=message, data=result)
        return Failed(name="Failed", message=message, data=result)
    return _state_of_case(result)


def _state_of_case(report: CaseReport) -> State[Any]:
    if report.verdict == "fail":
        return Failed(
            name="WrongAnswer", message=for_message(f"{report.culprit}: {report.reason}", MAX_MESSAGE), data=report
        )
    calls = "" if report.calls is None else f": {report.calls} operator calls, none over its bound"
    return Completed(message=f"everything is as it should be{calls}", data=report)


def _state_of_canary(result: Canary) -> State[Any]:
    """Return the flow's state: a planted fault that is caught is not a wrong answer."""
    message = for_message(summary(result), MAX_MESSAGE)
    if result.verdict is None:
        return Failed(name=LntxError.kind, message=for_message(result.reason or "", MAX_MESSAGE), data=result)
    if result.fault is not None:
        if result.fault.is_right:
            return Completed(name="FaultCaught", message=message, data=result)
        return Failed(name="FaultMissed", message=message, data=result)
    if result.verdict == "fail":
        return wrong_answer(result, f"{result.blame}: {result.reason}")
    # A deep canary that passes is not what the alert on missing canaries waits for.
    return Completed(name="Proved" if result.deep else "Completed", message=message, data=result)


def _outcome(result: Canary) -> str:
    if result.fault is not None:
        return "fault caught" if result.fault.is_right else "fault missed"
    return {"pass": "PASS", "fail": f"FAIL {result.blame}", None: "no verdict"}[result.verdict]


async def _publish(page: Page, key: str, description: str) -> None:
    await acreate_markdown_artifact(to_markdown(page), key=key, description=for_message(description, MAX_MESSAGE))


@flow(
    name="lntx-canary-nodes",
    description="Run a canary on every node of the Ray cluster, and on every GPU; name the node that is wrong.",
    persist_result=False,
    retries=0,
)
async def canary_nodes(deep: Flag = False, level: Level = 1, blind: Flag = False, seed: Seed = None) -> State[Any]:
    """Run a canary in every place, and compare their bits.

    Args:
        deep: Check every operator of training steps, in place of whole trainings.
        level: 1: one case, a second; 2: several shapes, dtypes, thread counts and formats; 3: also many rows.
        blind: Draw new random cases; the same on all nodes.
        seed: Draw the blind cases of this seed again.
    """
    send_core_logs()
    try:
        options = settle_options(deep=deep, level=level, blind=blind, seed=seed)
        with working(root().absolute()) as cluster, tags(TAG), marked():
            if cluster is None:
                raise BadInput("a canary on every node needs LNTX_ENGINE=ray")
            futures = [(place, _place_task.submit(cluster, place, options)) for place in cluster.places]
            states = [(place, future.wait() or future.state) for place, future in futures]
            result = summarize_nodes([await _report(place, state) for place, state in states])
    except LntxError as error:
        return Failed(name=error.kind, message=str(error), data=error)
    page = nodes_page(result)
    await _publish(page, "lntx-canary-nodes", page.headline)
    if result.verdict == "fail":
        return wrong_answer(result, result.reason or "")
    if result.verdict is None:
        return Failed(name=LntxError.kind, message=for_message(result.reason or "", MAX_MESSAGE), data=result)
    return Completed(message=page.headline, data=result)


@task(name="Canary on a node", task_run_name="{place.name}", persist_result=False)
def _place_task(cluster: Cluster, place: Place, options: CanaryOptions) -> State[Any]:
    ((_, result),) = cluster.in_places([(place, work_for(place, options))])
    report = report_of(place, result)
    if report.verdict == "fail":
        return Failed(name="WrongAnswer", message=for_message(report.reason or "", MAX_MESSAGE), data=report)
    if report.verdict is None:
        return Failed(name="Failed", message=for_message(report.reason or "", MAX_MESSAGE), data=report)
    return Completed(message="everything is as it should be", data=report)


async def _report(place: Place, state: State[Any]) -> NodeReport:
    result = await state.aresult(raise_on_failure=False)
    return result if isinstance(result, NodeReport) else report_of(place, RuntimeError(str(result)))
