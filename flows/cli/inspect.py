"""The commands that look back and keep order: runs, show, diff, report, verify, gc, pin."""

from __future__ import annotations

import re
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.app import Flat, print_result
from flows.cli.options import Common, Whole
from flows.cli.outputs import refuse_output
from flows.cli.printing import (
    print_check,
    print_collection,
    print_details,
    print_difference,
    print_runs,
    say,
)
from lntx.base.errors import BadInput, Damaged, LntxError
from lntx.base.files import write_whole
from lntx.base.text import for_message, quoted
from lntx.store.store import Store

if TYPE_CHECKING:
    from lntx.runs.exchange import Copied

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def runs(*, common: Annotated[Common, Flat] = Common()) -> int:
    """List the runs, the latest first."""
    from lntx.runs.history import list_runs

    summaries = [*list_runs(Store(common.folder))]
    listed = {"runs": [run.model_dump(mode="json") for run in summaries]}
    print_result(common, listed, lambda: print_runs(summaries))
    return 0


def show(name: str | None = None, /, *, common: Annotated[Common, Flat] = Common()) -> int:
    """Show a run: what was asked, its outcome, and its files, from the export back to the rows.

    Args:
        name: The run, or a beginning of its name. [default: the latest]
    """
    from lntx.runs.history import lineage
    from lntx.runs.records import read_run

    store = Store(common.folder)
    run = read_run(store, name)
    steps = lineage(store, run)
    details = {**run.model_dump(mode="json"), "lineage": [step.model_dump(mode="json") for step in steps]}
    print_result(common, details, lambda: print_details(run, steps))
    return 0


def diff(first: str, second: str, /, *, common: Annotated[Common, Flat] = Common()) -> int:
    """Show what differs between two runs: configuration, code, versions, rows, results.

    Args:
        first: The name of a run, or its beginning.
        second: The name of another run, or its beginning.
    """
    from lntx.runs.history import compare_runs

    difference = compare_runs(Store(common.folder), first, second)
    print_result(common, difference, lambda: print_difference(difference))
    return 0


def report(
    name: str | None = None,
    /,
    *,
    output: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    open_: Annotated[bool, Parameter(name="--open", negative=())] = False,
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Write the report of a run: one HTML file that opens in any browser, without a network.

    Args:
        name: The name of the run, or its beginning. [default: the latest]
        output: The file to write. [default: artifacts/reports/RUN.html]
        force: Replace an existing file. The default file needs this only if lntx did not write it.
        open_: Open it in the browser.
    """
    from lntx.pipeline.conclude import report_path, write_report_file
    from lntx.report.page import to_html
    from lntx.report.report import gather_report, report_page
    from lntx.runs.records import read_run

    store = Store(common.folder)
    run = read_run(store, name)
    path = output or report_path(store, run, "html")
    is_own = output is None and store.is_own(path, store.journal.known())
    if output is not None:
        refuse_output("--output", path, store, force=force)
    elif path.exists() and not is_own and not force:
        raise BadInput(
            f"{for_message(path)} exists, and lntx did not write it: --output writes elsewhere, --force replaces it"
        )
    page = to_html(report_page(gather_report(store, run)))
    if output is not None:
        write_whole(path, page)
    else:
        store.prepare()
        with store.shared():
            write_report_file(store, run, "html", page)
    print_result(common, {"run": run.run, "report": str(path)}, lambda: say(str(path)))
    if open_ and not webbrowser.open(path.absolute().as_uri()):
        raise LntxError(f"no browser can be started here: open {for_message(path)} yourself")
    return 0


def verify(*, heal: Annotated[bool, Parameter(negative=())] = False, common: Annotated[Common, Flat] = Common()) -> int:
    """Read every stored file again and check it; exit code 5 if a file is damaged.

    Args:
        heal: Move damaged files to artifacts/.damaged/, with the records that name them; the next run computes again
            what it needs. The runs that lose a file record the loss, and lntx show reports it.
    """
    from lntx.runs.verify import verify as verify_store

    check = verify_store(Store(common.folder), heal=heal)
    print_result(common, check, lambda: print_check(check))
    return Damaged.exit_code if check.damaged and not check.set_aside else 0


def gc(
    *,
    keep: Whole,
    older_than: str | None = None,
    damaged: Annotated[bool, Parameter(negative=())] = False,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Delete what no kept run needs; the last passing run, pinned runs and files in use are always kept.

    Args:
        keep: Number of the latest runs to keep.
        older_than: Delete only what is older than this: 30d, 12h, 90m; also s (seconds) and w (weeks).
        damaged: Empty artifacts/.damaged/ too.
        dry_run: Show what would be deleted, and delete nothing.
    """
    from lntx.runs.garbage import collect_garbage

    if keep < 0:
        raise BadInput(f"--keep must not be negative, got {keep}")
    store = Store(common.folder)
    older_than_s = _seconds(older_than)
    if not dry_run:
        store.prepare()
    collection = collect_garbage(store, keep=keep, older_than_s=older_than_s, damaged=damaged, dry_run=dry_run)
    print_result(common, collection, lambda: print_collection(collection))
    return 0


def pin(
    name: str, /, *, remove: Annotated[bool, Parameter(negative=())] = False, common: Annotated[Common, Flat] = Common()
) -> int:
    """Pin a run: lntx gc never deletes the run or anything that it needs.

    Args:
        name: The name of the run, or its beginning.
        remove: Unpin the run.
    """
    from lntx.runs.garbage import pin as pin_run
    from lntx.runs.garbage import pins

    store = Store(common.folder)
    run = pin_run(store, name, remove=remove)
    pinned = {"run": run, "pinned": not remove, "pins": pins(store)}
    print_result(common, pinned, lambda: say(f"run {run} is {'no longer pinned' if remove else 'pinned'}"))
    return 0


def push(address: str, name: str | None = None, /, *, common: Annotated[Common, Flat] = Common()) -> int:
    """Copy the exports of a run to an object store, with its record; if it passed, `pull` finds it there by default.

    Keys of the store are read where its own tools read them, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
    AWS_ENDPOINT_URL.

    Args:
        address: Where to: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or file:///FOLDER.
        name: The run, or a beginning of its name. [default: the latest]
    """
    from lntx.runs.exchange import push as push_run

    copied = push_run(Store(common.folder), address, name)
    print_result(common, copied, lambda: _print_copied(copied, "pushed"))
    return 0


def pull(
    address: str,
    name: str | None = None,
    /,
    *,
    output: Path,
    force: Annotated[bool, Parameter(negative=())] = False,
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Copy the exports of a run from an object store, and check them against its record.

    Args:
        address: Where from: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or file:///FOLDER.
        name: The name of the run. [default: the last passing run that was pushed]
        output: The folder to write to.
        force: Replace existing files.
    """
    from lntx.runs.exchange import pull as pull_run

    copied = pull_run(address, output, name, force=force)
    print_result(common, copied, lambda: _print_copied(copied, "pulled"))
    return 0


def _print_copied(copied: Copied, verb: str) -> None:
    for file in copied.files:
        say(file)
    say(f"{verb} run {copied.run}: {len(copied.files)} files, {copied.num_bytes:,} bytes")


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if match is None:
        raise BadInput(f"--older-than takes a number and a unit, such as 30d, 12h or 90m, got {quoted(text)}")
    return float(match[1]) * _UNITS[match[2]]
