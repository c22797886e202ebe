"""Print the results of commands for a person. Computes nothing."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flows.cli.progress import clear_progress
from lntx.base.text import MAX_MESSAGE, align, escape, for_message, shorten
from lntx.config.schema import changed_settings

if TYPE_CHECKING:
    from lntx.base.stages import Stage
    from lntx.pipeline.plan import StagePlan
    from lntx.report.page import Page
    from lntx.runs.garbage import Collection
    from lntx.runs.history import Ancestor, Difference, RunSummary
    from lntx.runs.run import Run
    from lntx.runs.verify import Check
    from lntx.sweep.sweep import Sweep

_MAX_COEFFICIENTS = 20
# With six numbers of up to eleven characters it makes 80 columns.
_NAME_WIDTH = 16


def say(line: str = "") -> None:
    """Print one line, shortened and escaped, so that quoted text cannot control the terminal."""
    clear_progress()
    print(shorten(escape(line), MAX_MESSAGE))


def print_run(run: Run) -> None:
    """Print the stages, the learned and true weights side by side, and the verdict last."""
    for stage, report in run.stages.items():
        seconds = "" if report.state != "ran" else f"{report.seconds:.2f} s"
        say(f"{stage:<10} {report.state:<8} {seconds}".rstrip())
    if run.learned_weights is not None:
        say()
        print_coefficients(run)
    say()
    for warning in run.warnings:
        say(f"warning: {warning}")
    say(verdict_line(run))


def print_coefficients(run: Run) -> None:
    """Print the coefficients: with what the evaluation says of them for a table, beside the true ones else."""
    if run.true_weights is None and run.reference_weights is not None:
        print_estimates(run)
    else:
        print_table(run.compared[: _MAX_COEFFICIENTS + 1])
    hidden = len(run.compared) - 1 - _MAX_COEFFICIENTS
    if hidden > 0:
        say(f"… and {hidden} more (--json has them all)")


def print_estimates(run: Run) -> None:
    """Print what R's summary(lm) prints, in 80 columns."""
    from lntx.runs.tables import HEADER, cells

    rows = [[for_message(row.name, _NAME_WIDTH), *cells(row)] for row in run.estimates[:_MAX_COEFFICIENTS]]
    print_table([["", *HEADER], *rows])
    say()
    for line in run.summary:
        say(line)


def verdict_line(run: Run) -> str:
    """Return one line: PASS or FAIL, and the reason."""
    if run.verdict == "pass":
        return f"PASS  {run.digits:.4g} digits, {run.epochs} epochs, run {run.run}; next: lntx report"
    if run.verdict == "fail":
        return f"FAIL  {run.blame}: {run.reason}"
    return f"not evaluated, run {run.run}; next: the same command without --only or --until"


def print_plan(plans: Mapping[Stage, StagePlan]) -> None:
    """Print one line per stage: state and reason."""
    for stage, plan in plans.items():
        say(f"{stage:<10} {plan.state:<8} {plan.reason or ''}".rstrip())
    if all(plan.state == "fresh" for plan in plans.values()):
        say("all fresh")
    else:
        say("not fresh; next: lntx run with the same options")


def print_details(run: Run, lineage: Sequence[Ancestor]) -> None:
    """Print a run for `show`: its time, the settings that differ from the defaults, the results, and the files, from
    the export back to the rows.
    """
    say(f"run {run.run}, {run.created_at}")
    for key, value in changed_settings(run.config).items():
        say(f"{key} = {for_message(value)}")
    for step in lineage:
        made_from = f", from {' and '.join(step.made_from)}" if step.made_from else ""
        say(f"{step.stage} {step.key[:12]}{made_from}")
        for file in step.files:
            say(f"  {file.path}")
    if run.report is not None:
        say(run.report)
    for path in run.lost:
        say(f"lost: {path} was damaged or gone, and lntx verify --heal set it aside")
    say()
    print_run(run)


def print_sweep(sweep: Sweep) -> None:
    """Print the trials, best first, and the path of the picture that shows all of them."""
    listed = sweep.trials[:_MAX_COEFFICIENTS]
    keys = list(listed[0].settings) if listed else []
    short = [key.split(".")[1] for key in keys]
    rows = [
        [
            *(_setting(row.settings[key]) for key in keys),
            row.verdict or "error",
            "–" if row.digits is None else f"{row.digits:.4g}",
            "–" if row.epochs is None else str(row.epochs),
        ]
        for row in listed
    ]
    print_table([[*(short if len({*short}) == len(keys) else keys), "verdict", "digits", "epochs"], *rows])
    if len(sweep.trials) > len(listed):
        say(f"… and {len(sweep.trials) - len(listed)} more (--json has them all)")
    say()
    problems = Counter(row.error.splitlines()[0] for row in sweep.trials if row.error)
    for error, count in problems.items():
        say(f"{count} without an answer: {error}")
    right = sum(row.verdict == "pass" for row in sweep.trials)
    say(f"{right} of {len(sweep.trials)} right, {sweep.resumed} from an earlier sweep; {sweep.picture}")
    if sweep.best is not None:
        say(f"next: lntx run {_options(sweep.best.settings)} trains the best")


def _setting(value: object) -> str:
    """Return a value in six digits: a table of trials is read, not copied."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _options(settings: Mapping[str, object]) -> str:
    """Return settings as options of the command line, exactly. None is every default that it can be."""
    words = []
    for key, value in settings.items():
        section, name = key.replace("_", "-").split(".")
        if isinstance(value, bool):
            words.append(f"--{section}.{'' if value else 'no-'}{name}")
        elif value is not None:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [f"--{section}.{name} {shlex.quote(str(amount))}" for amount in values]
    return " ".join(words)


def print_runs(runs: Sequence[RunSummary]) -> None:
    """Print one line per run."""
    if not runs:
        say("no run yet: lntx run makes one")
        return
    rows = [
        [
            run.run,
            run.verdict or "–",
            "–" if run.digits is None else f"{run.digits:.4g}",
            _computed(run),
            ("pinned " if run.pinned else "")
            + " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in run.settings.items()),
        ]
        for run in runs
    ]
    print_table([["run", "verdict", "digits", "computed", "settings"], *rows], within=_columns())


def _computed(run: RunSummary) -> str:
    """Return which stages a run computed, in a few words."""
    computed = [stage for stage, state in run.states.items() if state in ("ran", "failed")]
    if len(computed) == len(run.states):
        return "all"
    # A stage after a wrong answer is skipped: those that ran are named by the first.
    return f"{'only' if len(computed) == 1 else 'from'} {computed[0]}" if computed else "none"


def _columns() -> int:
    """Return the width of the terminal, 80 where there is none."""
    return shutil.get_terminal_size().columns


def print_difference(difference: Difference) -> None:
    """Print one line per difference."""
    nothing = True
    for section, pairs in difference:
        for name, (old, new) in pairs.items():
            nothing = False
            say(f"{section:<9} {name}: {_short(old)} → {_short(new)}")
    if nothing:
        say("no difference")


def print_collection(collection: Collection) -> None:
    """Print what is removed, and why the rest is kept."""
    for removal in collection.removed:
        say(f"{'would remove' if collection.dry_run else 'removed'} {removal.path} ({removal.num_bytes:,} bytes)")
    for path in collection.frames:
        say(f"{path} held the rows of a data frame: only lntx.fit with that frame computes them again")
    for keeping in collection.kept:
        say(f"kept run {keeping.run}: {keeping.why}")
    for reason in collection.held:
        say(reason)
    if collection.in_use:
        say(f"kept {collection.in_use} results that a running run uses")
    would, advice = ("would be ", "; next: the same without --dry-run") if collection.dry_run else ("", "")
    say(f"{collection.freed_bytes:,} bytes {would}freed{advice}")


def print_check(check: Check) -> None:
    """Print what is damaged or lost, and what to do."""
    for damage in check.damaged:
        say(f"{damage.path}: {damage.problem}")
    for loss in check.losses:
        say(f"{loss.path}: known to be lost, of run {loss.run}")
    say(f"{check.files} files, {check.num_bytes:,} bytes: {len(check.damaged) or 'none'} damaged")
    if check.set_aside:
        say("moved to artifacts/.damaged/; the next lntx run computes what it needs of them")
    elif check.damaged:
        say("lntx run computes what it needs of them again; lntx verify --heal sets all of them aside")


def _short(value: object) -> str:
    return "none" if value is None else for_message(value, 40)


def print_table(rows: Sequence[Sequence[str]], *, within: int = MAX_MESSAGE) -> None:
    """Print rows in aligned columns, two spaces apart. within: the most characters of a line."""
    for line in align(rows, within=within):
        say(line)


def print_page(page: Page) -> None:
    """Print a page: its tables and notes, and the verdict last."""
    from lntx.report.page import to_text

    for line in to_text(page):
        say(line)
