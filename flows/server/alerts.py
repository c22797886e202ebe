"""Alerts: a run failed, crashed or gave a wrong answer, or no canary has passed for too long.

They are automations of the Prefect server, replaced when the options change. Each alert has an id, because a busy
server may post it more than once. A fifth automation marks a run as crashed if its heartbeats were killed with it.
Canaries with a planted fault end as completed when the fault is caught, and so raise no alert.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from uuid import UUID

from prefect.blocks.notifications import AppriseNotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from pydantic import SecretStr

from flows.server.deployments import FLOWS
from flows.server.settings import SILENT_S, ServerOptions
from lntx.base import errors

_Action = CallWebhook | SendNotification | DoNothing

_RUN = "prefect.flow-run"
_PREFIX = "lntx: "
_BLOCK = "lntx-alerts"
_DEAD_MAN = f"{_PREFIX}no passing canary"

# States are named after the errors that end a run.
_FAILED = ("Failed", "TimedOut", "FaultMissed", *sorted({kind.kind for kind in errors.KINDS} - {"WrongAnswer"}))

_PAYLOAD = """{
  "id": "{{ flow_run.id if flow_run else firing.id }}:%s:{{ flow_run.run_count if flow_run else 1 }}",
  "alert": "%s",
  "flow": {{ (flow.name if flow else "") | tojson }},
  "flow_run": {{ (flow_run.name if flow_run else "") | tojson }},
  "state": {{ (flow_run.state.name if flow_run else "") | tojson }},
  "message": {{ (flow_run.state.message if flow_run else "") | tojson }},
  "url": {{ (flow_run | ui_url if flow_run else "") | tojson }}
}"""
_PAYLOAD_WITHOUT_RUN = """{
  "id": "{{ firing.id }}",
  "alert": "%s",
  "flow": "%s",
  "flow_run": "",
  "state": "",
  "message": "%s",
  "url": ""
}"""
_BODY = """{{ flow_run.name if flow_run else "" }}: {{ flow_run.state.message if flow_run else "" }}
{{ flow_run | ui_url if flow_run else "" }}"""

DROPPED = "lntx.events-dropped"
"""Name of the event that says that others were lost."""


class Notification(AppriseNotificationBlock):
    """Alerts by mail, Slack, Teams and whatever else Apprise knows: its address says which."""

    _block_type_name = "lntx notification"
    _block_type_slug = "lntx-notification"


async def install(client: PrefectClient, options: ServerOptions) -> None:
    """Create the automations for these options, and delete outdated ones of an earlier start."""
    made = automations(
        options,
        webhook=None if options.webhook is None else await _save_webhook(options.webhook),
        notification=None if options.notify is None else await _save_notification(options.notify),
    )
    current = {automation.name: _signed(automation) for automation in made}
    for name in {_DEAD_MAN, *current}:
        old = await client.read_automations_by_name(name)
        if name in current and [earlier.tags for earlier in old] == [current[name].tags]:
            # Unchanged: its timer keeps running, and if a person disabled it, it stays disabled.
            continue
        for earlier in old:
            await client.delete_automation(earlier.id)
        if name in current:
            await client.create_automation(current[name])


def automations(
    options: ServerOptions, *, webhook: UUID | None = None, notification: UUID | None = None
) -> list[AutomationCore]:
    """Return the automations. webhook, notification: blocks that send alerts; without one, the UI alone shows them."""

    def call(name: str, payload: str, body: str) -> list[_Action]:
        subject = f"{_PREFIX}{name}"
        actions: list[_Action] = [] if webhook is None else [CallWebhook(block_document_id=webhook, payload=payload)]
        if notification is not None:
            actions.append(SendNotification(block_document_id=notification, subject=subject, body=body))
        return actions or [DoNothing()]

    def call_without_run(name: str, flow: str, message: str) -> list[_Action]:
        return call(name, _PAYLOAD_WITHOUT_RUN % (name, flow, message), message)

    sent = "" if webhook or notification else " The UI alone shows it: lntx up --webhook or --notify sends it."

    reactive = {
        "failed": (_FAILED, "A run failed before it had an answer."),
        "crashed": (("Crashed",), "A run's process died."),
        "wrong answer": (("WrongAnswer",), "A run or a canary gave a wrong answer."),
    }
    made = [
        AutomationCore(
            name=f"{_PREFIX}{name}",
            description=description + sent,
            trigger=EventTrigger(
                posture=Posture.Reactive,
                expect={f"{_RUN}.{state}" for state in states},
                match={"prefect.resource.id": f"{_RUN}.*"},
                match_related=_of_flows([*FLOWS]),
                for_each={"prefect.resource.id"},
                threshold=1,
                within=timedelta(0),
            ),
            actions=call(name, _PAYLOAD % (name, name), _BODY),
        )
        for name, (states, description) in reactive.items()
    ]
    if options.schedules_canary:
        hours = options.dead_man_hours
        message = f"no canary has passed for {hours:g} hours"
        made.append(_no_passing_canary(hours, call_without_run("no passing canary", "lntx-canary", message)))
    message = "the server has dropped events, and alerts may be among them: lntx doctor"
    made.append(_dropped_events(call_without_run("events dropped", "", message)))
    return [*made, _silent_run()]


def _signed(automation: AutomationCore) -> AutomationCore:
    """Return the automation with a tag that is a digest of its content."""
    # Sort sets: their order differs between processes.
    content = json.dumps(
        automation.model_dump(exclude={"tags"}),
        sort_keys=True,
        default=lambda value: sorted(value) if isinstance(value, (set, frozenset)) else str(value),
    )
    return automation.model_copy(update={"tags": ["lntx", hashlib.sha256(content.encode()).hexdigest()[:12]]})


def _dropped_events(actions: list[_Action]) -> AutomationCore:
    return AutomationCore(
        name=f"{_PREFIX}events dropped",
        description="The server had more events than its database can write.",
        trigger=EventTrigger(posture=Posture.Reactive, expect={DROPPED}, threshold=1, within=timedelta(0)),
        actions=actions,
    )


def _no_passing_canary(hours: float, actions: list[_Action]) -> AutomationCore:
    return AutomationCore(
        name=_DEAD_MAN,
        description=f"No canary has passed within {hours:g} hours.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            # A canary whose planted fault is caught, and a deep one, end in states with other names.
            expect={f"{_RUN}.Completed"},
            match_related=_of_flows(["lntx-canary"]),
            threshold=1,
            within=timedelta(hours=hours),
        ),
        actions=actions,
    )


def _silent_run() -> AutomationCore:
    return AutomationCore(
        name=f"{_PREFIX}a silent run has crashed",
        description=f"A run that gives no sign of life for {SILENT_S} seconds was killed.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={f"{_RUN}.heartbeat"},
            # The next heartbeat, or any state that ends the run.
            expect={f"{_RUN}.*"},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=SILENT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name="Crashed", message=f"no sign of life for {SILENT_S} seconds"
            )
        ],
    )


async def _save_webhook(url: str) -> UUID:
    await Webhook.aregister_type_and_schema()
    block = Webhook(url=url, headers={"Content-Type": "application/json"}, allow_private_urls=True)
    block_id: UUID = await block.asave(_BLOCK, overwrite=True)
    return block_id


async def _save_notification(address: str) -> UUID:
    await Notification.aregister_type_and_schema()
    block_id: UUID = await Notification(url=SecretStr(address), notify_type="failure").asave(_BLOCK, overwrite=True)
    return block_id


def _of_flows(names: list[str]) -> dict[str, list[str] | str]:
    return {"prefect.resource.role": "flow", "prefect.resource.name": names}
