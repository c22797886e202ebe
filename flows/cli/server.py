"""The commands `up` and `down`: a hardened Prefect server of the root, its deployments and their schedules."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import ValidationError

from flows.cli.app import Flat, print_json, print_result
from flows.cli.options import Common, Configuration, Whole
from flows.cli.printing import say
from flows.server.home import Home, Running, ServerState, refuse_other_database
from flows.server.schedule_checks import canary_alert_hours, check_schedules
from flows.server.settings import (
    BUSY_RUNS,
    POSTGRESQL,
    ServerOptions,
    is_healthy,
    prefect_home,
    runs_of_last_hour,
)
from flows.server.unit import unit
from lntx.base.errors import BadInput, LntxError
from lntx.base.text import quoted
from lntx.config.loading import explain

_DEFAULTS = ServerOptions()
_UP_WITHIN_S = 800.0
_DOWN_WITHIN_S = 60.0


def up(
    *,
    port: Whole = _DEFAULTS.port,
    cron: str | None = None,
    interval: float | None = None,
    canary_cron: str | None = None,
    canary_interval: float | None = None,
    no_canary: Annotated[bool, Parameter(name="--no-canary", negative=())] = False,
    deep_cron: str | None = None,
    timezone: str = _DEFAULTS.timezone,
    webhook: str | None = None,
    notify: str | None = None,
    dead_man_hours: float | None = None,
    database: str | None = None,
    retention_days: float = _DEFAULTS.retention_days,
    keep: Whole = _DEFAULTS.keep_runs,
    keep_days: float = _DEFAULTS.keep_days,
    allow_folder: Annotated[list[Path] | None, Parameter(metavar="FOLDER")] = None,
    host_name: Annotated[list[str] | None, Parameter(metavar="NAME")] = None,
    foreground: Annotated[bool, Parameter(negative=())] = False,
    systemd: Annotated[bool, Parameter(negative=())] = False,
    configuration: Annotated[Configuration, Flat] = Configuration(),
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Start a Prefect server on loopback, with the deployments pipeline, canary and one per stage, and their schedules.

    The configuration (--config, --data.…) is the default of the pipeline's deployments.

    Args:
        port: Port of the server on 127.0.0.1.
        cron: Cron schedule of the pipeline, such as "0 6 * * *".
        interval: Interval between runs of the pipeline, in seconds.
        canary_cron: Cron schedule of the canary.
        canary_interval: Interval between runs of the canary, in seconds. [default: 3600]
        no_canary: Do not schedule the canary.
        deep_cron: Cron schedule of the deep canary, such as "0 4 * * *"; with new networks each time.
        timezone: Time zone of the cron schedules, such as Europe/Berlin.
        webhook: URL that alerts are posted to: failed, crashed, wrong answer, no passing canary.
            [default: LNTX_WEBHOOK]
        notify: Address of a service that alerts are sent to, as Apprise writes it: mailto://…, slack://…, msteams://….
            [default: LNTX_NOTIFY]
        dead_man_hours: Hours without a passing canary after which an alert is raised. [default: 6, or twice the
            longest time between two canaries if that is longer]
        database: URL of a PostgreSQL database for a team, postgresql+asyncpg://USER:PASSWORD@HOST/NAME. [default:
            LNTX_DATABASE, else SQLite under the root]
        retention_days: Age in days after which Prefect deletes flow runs and events.
        keep: Minimum number of runs that the daily garbage collection keeps.
        keep_days: Age in days up to which the daily garbage collection keeps every run.
        allow_folder: A folder that flows may read tables from, in addition to the root; repeat the option for more.
        host_name: A name under which a proxy reaches the server, such as lntx.example.org; requests under other names
            than localhost are refused. Repeat the option for more.
        foreground: Stay in the foreground, for a service manager.
        systemd: Print a systemd unit for these options, and start nothing.
    """
    if cron is not None and interval is not None:
        raise BadInput(f"--cron {cron!r} and --interval {interval:g} both say when the pipeline runs: drop one")
    if canary_cron is not None and canary_interval is not None:
        message = f"--canary-cron {canary_cron!r} and --canary-interval {canary_interval:g}"
        raise BadInput(f"{message} both say when the canary runs: drop one")
    if no_canary and (canary_cron is not None or canary_interval is not None):
        raise BadInput("--no-canary and a schedule of the canary contradict each other: drop one")
    # An address may hold a password: a variable stands in no list of processes.
    webhook, notify, database = (
        value or os.environ.get(f"LNTX_{name}")
        for name, value in (("WEBHOOK", webhook), ("NOTIFY", notify), ("DATABASE", database))
    )
    _check_address(notify)
    _check_url("--webhook", webhook, "http://", "https://")
    _check_url("--database", database, "postgresql+asyncpg://")
    every_hour = canary_cron is None and canary_interval is None and not no_canary
    options = _options(
        port=port,
        cron=cron,
        interval_s=interval,
        canary_cron=canary_cron,
        canary_interval_s=_DEFAULTS.canary_interval_s if every_hour else canary_interval,
        deep_cron=deep_cron,
        timezone=timezone,
        webhook=webhook,
        notify=notify,
        **({} if dead_man_hours is None else {"dead_man_hours": dead_man_hours}),
        database=database,
        retention_days=retention_days,
        keep_runs=keep,
        keep_days=keep_days,
        folders=[str(folder.absolute()) for folder in allow_folder or ()],
        host_names=host_name or (),
        pipeline=_pipeline(configuration),
    )
    check_schedules(options)
    if dead_man_hours is None:
        options = options.model_copy(update={"dead_man_hours": canary_alert_hours(options)})
    home = Home(common.folder)
    if systemd:
        named = {"LNTX_DATABASE": database, "LNTX_WEBHOOK": webhook, "LNTX_NOTIFY": notify}
        secrets = {name: value for name, value in named.items() if value is not None}
        for line in unit(home, sys.argv[1:], secrets).splitlines():
            say(line)
        return 0
    home.prepare()
    if database is None:
        refuse_other_database(prefect_home(home))
    running = home.running()
    if running is not None:
        raise Running(f"a server of this root is up already at {running.url}: lntx down ends it")
    if home.is_held():
        raise Running("a server of this root is starting or stopping: wait, or stop it with lntx down")
    home.secret()
    if foreground:
        from flows.server.supervisor import main

        _print_up(home, options, None, common)
        return main(home.root, options)
    state = _start(home, options)
    _print_up(home, options, state, common)
    return 0


def down(*, common: Annotated[Common, Flat] = Common()) -> int:
    """Stop the server that `lntx up` started, and its runs; it is not an error if no server is up."""
    home = Home(common.folder)
    if not home.is_held():
        print_result(common, {"was_up": False}, lambda: say("no server of this root is up: lntx up starts one"))
        return 0
    deadline = time.monotonic() + _DOWN_WITHIN_S
    # A server that is starting has a process too.
    home.tell_to_end()
    while home.is_held():
        if time.monotonic() > deadline:
            raise LntxError(f"the server does not end: see {home.logs}/supervisor.log")
        time.sleep(0.1)
    print_result(common, {"was_up": True}, lambda: say("down"))
    return 0


def _check_url(option: str, url: str | None, *begins: str) -> None:
    if url is None:
        return
    if not url.startswith(begins):
        # Do not quote the rest, which may contain a password.
        raise BadInput(f"{option} must begin with {' or '.join(begins)}, got {quoted(url.split(':')[0], 20)}")
    if not urllib.parse.urlsplit(url).hostname:
        raise BadInput(f"{option} names no host")


def _check_address(address: str | None) -> None:
    if address is None:
        return
    # Imported here: few servers need it.
    from apprise import Apprise

    if not Apprise().add(address):
        # Do not quote the rest, which may contain a password.
        scheme = quoted(address.split(":")[0], 20)
        raise BadInput(f"--notify is no address that Apprise knows ({scheme}): see the list in its documentation")


def _options(**values: Any) -> ServerOptions:
    try:
        return ServerOptions.model_validate(values)
    except ValidationError as error:
        # The field says the unit, or what is kept, where the option does not.
        option = {"interval_s": "interval", "canary_interval_s": "canary-interval", "keep_runs": "keep"}
        raise BadInput(*explain(error, name=lambda key: "--" + option.get(key, key.replace("_", "-")))) from None


def _pipeline(configuration: Configuration) -> dict[str, dict[str, object]]:
    """Return the settings that differ from the defaults; a path is made absolute for runs in another folder."""
    settings: dict[str, dict[str, object]] = configuration.settle().model_dump(mode="json", exclude_defaults=True)
    path = settings.get("data", {}).get("path")
    if path is not None:
        settings["data"]["path"] = str(Path(str(path)).absolute())
    return settings


def _start(home: Home, options: ServerOptions) -> ServerState:
    """Start the supervisor in a new session, and wait until everything is up and the server answers."""
    if sys.stderr.isatty():
        print("starting a Prefect server, about ten seconds", file=sys.stderr)
    log = home.logs / "start.log"
    with log.open("w", encoding="utf-8") as handle:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server.supervisor", str(home.root)],
            stdin=subprocess.PIPE,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            cwd=home.root,
            # A folder named flows under the root must not shadow this package.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    assert process.stdin is not None
    with process.stdin:
        # Not as an argument: it may hold passwords.
        process.stdin.write(options.model_dump_json().encode())
    deadline = time.monotonic() + _UP_WITHIN_S
    try:
        while (state := home.running()) is None or state.pid != process.pid or not is_healthy(state.api_url):
            if process.poll() is not None:
                message = log.read_text(encoding="utf-8").strip().removeprefix("lntx: ")
                raise LntxError(message or f"the server did not come up: see {home.logs}")
            if time.monotonic() > deadline:
                raise LntxError(f"the server did not come up within {_UP_WITHIN_S:g} s: see {home.logs}")
            time.sleep(0.1)
    except BaseException:
        if process.poll() is None:
            process.terminate()
            process.wait()
        raise
    return state


def _print_up(home: Home, options: ServerOptions, state: ServerState | None, common: Common) -> None:
    limits = {
        "prefect_retention_days": options.retention_days,
        "keep_runs": options.keep_runs,
        "keep_days": options.keep_days,
    }
    if common.json:
        facts = {"url": options.url, "secret_file": str(home.secret_path), "logs": str(home.logs), "limits": limits}
        print_json({**facts, "pid": None if state is None else state.pid})
        return
    say(f"{'up at' if state is not None else 'starting at'} {options.url}")
    say(f"log in with the text of {home.secret_path}")
    say(f"logs in {home.logs}")
    pipeline = options.cron or (f"every {options.interval_s:g} s" if options.interval_s else "on demand")
    every = f"every {options.canary_interval_s:g} s" if options.canary_interval_s else "on demand"
    deep = f"; deep canary: {options.deep_cron}" if options.deep_cron else ""
    say(f"pipeline: {pipeline}; canary: {options.canary_cron or every}{deep} ({options.timezone})")
    say(
        f"kept: flow runs and events {options.retention_days:g} days; {options.keep_runs} runs, and any for "
        f"{options.keep_days:g} days"
    )
    ways = {"to the webhook": options.webhook, "to the address of --notify": options.notify}
    alerts = " and ".join(way for way, address in ways.items() if address is not None)
    alerts = alerts or "in the UI alone (--webhook or --notify sends them)"
    dead_man = (
        f"; no passing canary for {options.dead_man_hours:g} hours raises one" if options.schedules_canary else ""
    )
    say(f"alerts: {alerts}{dead_man}")
    if options.database is None and (runs := runs_of_last_hour(home.root)) > BUSY_RUNS:
        say(f"load: {runs:,} runs began in the last hour: beyond {BUSY_RUNS:,}, take PostgreSQL: {POSTGRESQL}")
    say("next: lntx run, or a deployment of the UI; lntx down ends it")
    sys.stdout.flush()
