"""The canary on every node of a Ray cluster as a Prefect flow: one task for each node and each GPU."""

from typing import Annotated, Any

from prefect import flow, tags, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from flows.canary import TAG
from flows.engines import working
from flows.tasks import root, send_core_logs, wrong_answer
from lntx.canary.fleet import PlaceReport, fleet_page, headline, report_of, sum_up_places, work_in
from lntx.canary.levels import Level
from lntx.canary.order import Order, settle_order
from lntx.cluster import Cluster, Place
from lntx.config.schema import MAX_SEED
from lntx.errors import BadInput, LntxError
from lntx.text import MAX_MESSAGE, shown


@flow(
    name="lntx-canary-nodes",
    description="Run a canary on every node of the Ray cluster, and on every GPU; name the node that is wrong.",
    persist_result=False,
    retries=0,
)
async def canary_nodes(
    level: Level = 1,
    blind: Annotated[bool, Field(strict=True)] = False,
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] | None = None,
) -> State[Any]:
    """Run a canary in every place, and compare their bits.

    Args:
        level: 1: one case, a second; 2: several shapes, dtypes, thread counts and formats; 3: also many rows.
        blind: Draw new random weights, rows and settings; the same on all nodes.
        seed: Draw the blind cases of this seed again.
    """
    send_core_logs()
    try:
        order = settle_order(level=level, blind=blind, seed=seed, repeat=1, device="auto")
        with working(root().absolute()) as cluster, tags(TAG):
            if cluster is None:
                raise BadInput("a canary on every node needs LNTX_ENGINE=ray")
            asked = [(place, _place_task.submit(cluster, place, order)) for place in cluster.places]
            states = [(place, future.wait() or future.state) for place, future in asked]
            found = sum_up_places([await _report(place, state) for place, state in states])
    except LntxError as error:
        return Failed(name=error.kind, message=str(error), data=error)
    await acreate_markdown_artifact(fleet_page(found), key="lntx-canary-nodes", description=headline(found))
    if found.verdict == "fail":
        return wrong_answer(found, found.reason or "")
    if found.verdict is None:
        return Failed(name=LntxError.kind, message=shown(found.reason or "", MAX_MESSAGE), data=found)
    return Completed(message=headline(found), data=found)


@task(name="Canary on a node", task_run_name="{place.name}", persist_result=False)
def _place_task(cluster: Cluster, place: Place, order: Order) -> State[Any]:
    ((_, found),) = cluster.in_places([(place, work_in(place, order))])
    report = report_of(place, found)
    if report.verdict == "fail":
        return Failed(name="WrongAnswer", message=shown(report.reason or "", MAX_MESSAGE), data=report)
    if report.verdict is None:
        return Failed(name="Failed", message=shown(report.reason or "", MAX_MESSAGE), data=report)
    return Completed(message="everything is as it should be", data=report)


async def _report(place: Place, state: State[Any]) -> PlaceReport:
    came = await state.aresult(raise_on_failure=False)
    return came if isinstance(came, PlaceReport) else report_of(place, RuntimeError(str(came)))
