"""One canary on every node of a cluster, and on every GPU: which is wrong, and which gives other bits than its like.

Compares the results of the nodes; each node judges its own answers.
"""

from __future__ import annotations

import collections
import functools
import tempfile
from collections.abc import Iterable, Sequence
from typing import Literal

from lntx.canary.drift import device_kind
from lntx.canary.not_run import NotRun
from lntx.canary.order import Order
from lntx.canary.results import CaseReport
from lntx.canary.run import run_canary
from lntx.cluster import Cluster, Place
from lntx.config.schema import Section
from lntx.stages import Blame
from lntx.text import markdown, shown


class PlaceReport(Section):
    """The outcome of a canary in one place: on the processors of a node, or on a GPU of it."""

    place: str
    """Host name and address of the node, and the GPU, if it is one."""

    kind: str | None
    """Model of the processor or of the GPU; None if the canary did not come to an end."""

    verdict: Literal["pass", "fail"] | None
    """Whether all cases that ran were right; None if no case was wrong, and the canary failed or nothing ran."""

    blame: Blame | None
    """The part that is wrong in the first wrong case."""

    reason: str | None
    """What is wrong there, or why the canary did not come to an end."""

    cases: tuple[CaseReport, ...]
    """Reports of all cases that ran."""

    not_run: tuple[NotRun, ...] = ()
    """Cases that the libraries of this place cannot run."""

    unfinished: tuple[NotRun, ...] = ()
    """Cases in which the canary itself failed."""


class Fleet(Section):
    """The outcome of a canary on every node."""

    verdict: Literal["pass", "fail"] | None
    """Whether all nodes are right; None if none is wrong, and some gave no answer."""

    reason: str | None
    """The places that are wrong or gave no answer, and why."""

    drift: tuple[str, ...]
    """Sentences about places whose bits differ from those of their kind, and about cases that a place cannot run."""

    places: tuple[PlaceReport, ...]
    """Reports of all places, by name."""


def canary_in(order: Order) -> PlaceReport:
    """Run a canary in this process, in a root of its own, for a report about this place."""
    with tempfile.TemporaryDirectory(prefix="lntx-canary-") as root:
        found = run_canary(order, root=root)
    return PlaceReport(
        place="",
        kind=device_kind("cuda" if order.device == "cuda" else "cpu"),
        **{name: getattr(found, name) for name in ("verdict", "blame", "reason", "cases", "not_run", "unfinished")},
    )


def work_in(place: Place, order: Order) -> functools.partial[PlaceReport]:
    """Return the work of a place."""
    return functools.partial(canary_in, order.model_copy(update={"device": "cuda"}) if place.is_gpu else order)


def report_of(place: Place, found: PlaceReport | Exception) -> PlaceReport:
    """Return the outcome of the canary in a place, with the name of the place."""
    if isinstance(found, PlaceReport):
        return found.model_copy(update={"place": place.name})
    said = str(found).splitlines()[0] if str(found) else ""
    reason = f"the canary did not come to an end ({type(found).__name__}: {shown(said)})"
    return PlaceReport(place=place.name, kind=None, verdict=None, blame=None, reason=reason, cases=())


def run_on_every_node(cluster: Cluster, order: Order) -> Fleet:
    """Run a canary in every place of a cluster, all at once."""
    works = [(place, work_in(place, order)) for place in cluster.places]
    return sum_up_places(report_of(place, found) for place, found in cluster.in_places(works))


def sum_up_places(reports: Iterable[PlaceReport]) -> Fleet:
    """Return one result for all places."""
    places = tuple(reports)
    verdicts = {place.verdict for place in places}
    bad = [place for place in places if place.verdict != "pass"]
    reason = "; ".join(f"{place.place}: {f'{place.blame}: ' if place.blame else ''}{place.reason}" for place in bad)
    notes = [*_drift(places), *(f"{place.place}: {case.sentence}" for place in places for case in place.not_run)]
    return Fleet(
        verdict="fail" if "fail" in verdicts else None if None in verdicts else "pass",
        reason=reason or None,
        drift=tuple(notes),
        places=places,
    )


def table(fleet: Fleet) -> list[list[str]]:
    """Return a header and a row for each place: the verdict of each case."""
    names = [*dict.fromkeys(case.name for place in fleet.places for case in place.cases)]
    rows = [["place", "kind", *names]]
    for place in fleet.places:
        verdicts = {
            case.name: case.verdict if case.blame is None else f"{case.verdict}: {case.blame}" for case in place.cases
        }
        rows.append([place.place, place.kind or "–", *(verdicts.get(name, "–") for name in names)])
    return rows


def fleet_page(fleet: Fleet) -> str:
    """Return the outcome as Markdown."""
    header, *rows = [[markdown(cell) for cell in line] for line in table(fleet)]
    lines = [header, ["---"] * len(header), *rows]
    notes = [f"> {markdown(text)}" for text in (fleet.reason, *fleet.drift) if text]
    return (
        "\n\n".join([f"# {headline(fleet)}", *notes, "\n".join("| " + " | ".join(line) + " |" for line in lines)])
        + "\n"
    )


def headline(fleet: Fleet) -> str:
    """Return the verdict and the number of right places."""
    right = sum(one.verdict == "pass" for one in fleet.places)
    return f"{(fleet.verdict or 'no verdict').upper()}  {right} of {len(fleet.places)} places right"


def _drift(places: Sequence[PlaceReport]) -> Iterable[str]:
    """Yield a sentence for each case in a place that gives other bits than most places of its kind."""
    alike: dict[tuple[str | None, str, int], dict[str, str]] = collections.defaultdict(dict)
    for one in places:
        for case in one.cases:
            if case.verdict == "pass" and case.bits is not None:
                alike[one.kind, case.name, case.repetition][one.place] = case.bits
    for (_, name, _), bits in alike.items():
        usual, count = collections.Counter(bits.values()).most_common(1)[0]
        for place, found in bits.items():
            if found != usual:
                yield f"drift: {name} gives other bits on {place} than on {count} of the {len(bits)} places of its kind"
