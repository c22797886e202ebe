"""One canary on every node of a cluster, and on every GPU: which is wrong, and which differs from equal hardware.

Compares the results of the nodes; each node judges its own answers.
"""

from __future__ import annotations

import collections
import functools
import tempfile
from collections.abc import Iterable, Sequence
from typing import Literal

from lntx.base.text import for_message
from lntx.canary.run import run_canary
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.suite.results import Outcome
from lntx.cluster.engine import Cluster, Place
from lntx.config.schema import Section
from lntx.report.page import Page, Table


class NodeReport(Outcome):
    """The outcome of a canary in one place: on the processors of a node, or on a GPU of it."""

    place: str
    """Host name and address of the node, and the GPU, if it is one."""

    kind: str | None
    """Model of the processor or of the GPU; None if the canary did not come to an end."""


class NodesReport(Section):
    """The outcome of a canary on every node."""

    verdict: Literal["pass", "fail"] | None
    """Whether all nodes are right; None if none is wrong, and some gave no answer."""

    reason: str | None
    """The places that are wrong or gave no answer, and why."""

    drift: tuple[str, ...]
    """Sentences about places whose bits differ from those of equal hardware, and about cases that a place cannot run.
    """

    places: tuple[NodeReport, ...]
    """Reports of all places, by name."""


def run_here(options: CanaryOptions) -> NodeReport:
    """Run a canary in this process, in a root of its own, for a report about this place."""
    with tempfile.TemporaryDirectory(prefix="lntx-canary-") as root:
        canary = run_canary(options, root=root)
    values = {name: getattr(canary, name) for name in Outcome.model_fields}
    return NodeReport(place="", kind=canary.device, **values)


def work_for(place: Place, options: CanaryOptions) -> functools.partial[NodeReport]:
    """Return the work of a place."""
    return functools.partial(run_here, options.model_copy(update={"device": "cuda"}) if place.is_gpu else options)


def report_of(place: Place, result: NodeReport | Exception) -> NodeReport:
    """Return the outcome of the canary in a place, with the name of the place."""
    if isinstance(result, NodeReport):
        return result.model_copy(update={"place": place.name})
    message = str(result).splitlines()[0] if str(result) else ""
    reason = f"the canary did not come to an end ({type(result).__name__}: {for_message(message)})"
    nothing = {"verdict": None, "blame": None, "operator": None, "cases": (), "not_run": (), "unfinished": ()}
    return NodeReport(place=place.name, kind=None, reason=reason, **nothing)


def run_on_every_node(cluster: Cluster, options: CanaryOptions) -> NodesReport:
    """Run a canary in every place of a cluster, all at once."""
    works = [(place, work_for(place, options)) for place in cluster.places]
    return summarize_nodes(report_of(place, result) for place, result in cluster.in_places(works))


def summarize_nodes(reports: Iterable[NodeReport]) -> NodesReport:
    """Return one result for all places."""
    places = tuple(reports)
    verdicts = {place.verdict for place in places}
    bad = [place for place in places if place.verdict != "pass"]
    reason = "; ".join(f"{place.place}: {f'{place.blame}: ' if place.blame else ''}{place.reason}" for place in bad)
    notes = [*_drift(places), *(f"{place.place}: {case.sentence}" for place in places for case in place.not_run)]
    return NodesReport(
        verdict="fail" if "fail" in verdicts else None if None in verdicts else "pass",
        reason=reason or None,
        drift=tuple(notes),
        places=places,
    )


def nodes_page(nodes: NodesReport) -> Page:
    """Return the page about all places: a row for each, with the verdict of each case."""
    names = [*dict.fromkeys(case.name for place in nodes.places for case in place.cases)]
    rows = []
    for place in nodes.places:
        verdicts = {
            case.name: case.verdict if case.culprit is None else f"{case.verdict}: {case.culprit}"
            for case in place.cases
        }
        rows.append([place.place, place.kind or "–", *(verdicts.get(name, "–") for name in names)])
    right = sum(place.verdict == "pass" for place in nodes.places)
    headline = f"{(nodes.verdict or 'no verdict').upper()}  {right} of {len(nodes.places)} places right"
    return Page(
        headline=headline if nodes.reason is None else f"{headline}: {nodes.reason}",
        verdict=nodes.verdict,
        notes=nodes.drift,
        tables=[Table(header=("place", "kind", *names), rows=rows)],
    )


def _drift(places: Sequence[NodeReport]) -> Iterable[str]:
    """Yield a sentence for each case in a place whose bits differ from those of most places with equal hardware."""
    alike: dict[tuple[str | None, str, int], dict[str, str]] = collections.defaultdict(dict)
    for place in places:
        for case in place.cases:
            if case.verdict == "pass" and case.bits is not None:
                alike[place.kind, case.name, case.repetition][place.place] = case.bits
    for (_, name, _), bits in alike.items():
        usual, count = collections.Counter(bits.values()).most_common(1)[0]
        for place_name, digest in bits.items():
            if digest != usual:
                yield f"drift: {name} on {place_name} differs from {count} of {len(bits)} places with equal hardware"
