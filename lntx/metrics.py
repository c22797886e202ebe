"""Figures of a result in Prometheus' text format: for node_exporter's textfile collector, and for a server's page."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from lntx.base.files import read_regular, write_whole
from lntx.base.version import __version__
from lntx.runs.run import Run

if TYPE_CHECKING:
    # They import torch, which a server does without.
    from lntx.canary.suite.results import Canary
    from lntx.cluster.nodes import NodesReport

_MAX_BYTES = 10_000_000
_LAST_PASS = "lntx_last_pass_timestamp_seconds"
_LAST_PASS_LINE = re.compile(_LAST_PASS + r'\{kind="([^"\\\n]+)"\} ([0-9.]+(?:e[+-]?[0-9]+)?)$', re.MULTILINE)


class Metrics:
    """The figures of results of several kinds, such as run and canary; a figure that is not known has no sample."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauge("lntx_version_info", "Version of lntx.", "version").labels(__version__).set(1)
        self._passed = self._gauge("lntx_passed", "1: the last one passed; 0: it failed, or has no verdict.", "kind")
        self._end = self._gauge("lntx_last_timestamp_seconds", "When the last one ended, since 1970.", "kind")
        self._pass = self._gauge(_LAST_PASS, "When the last one that passed ended, since 1970.", "kind")
        self._digits = self._gauge("lntx_digits", "Correct digits of the worst coefficient.", "kind")
        self._seconds = self._gauge("lntx_seconds", "Duration of a stage or case.", "kind", "part")

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def add_number(self, name: str, text: str, value: float) -> None:
        """Add a figure without labels."""
        self._gauge(name, text).set(value)

    def add_end(self, kind: str, end: float, *, passed: bool) -> None:
        """Add the verdict of the last one of a kind, and when it ended, in seconds since 1970."""
        self._passed.labels(kind).set(passed)
        self._end.labels(kind).set(end)
        if passed:
            self.add_pass(kind, end)

    def add_pass(self, kind: str, end: float) -> None:
        """Add when the last one that passed ended."""
        self._pass.labels(kind).set(end)

    def add(self, result: Run | Canary | NodesReport) -> None:
        """Add a result of any kind."""
        if isinstance(result, Run):
            self.add_run(result)
            return
        from lntx.canary.suite.results import Canary

        if isinstance(result, Canary):
            self._add_canary(result)
        else:
            self._add_nodes(result)

    def add_run(self, run: Run, kind: str = "run") -> None:
        """Add a run: verdict, digits, and seconds by stage."""
        self.add_end(kind, ended_at(run), passed=run.verdict == "pass")
        if run.digits is not None:
            self._digits.labels(kind).set(run.digits)
        self._add_seconds(kind, ((name, stage.seconds) for name, stage in run.stages.items()))

    def _add_canary(self, canary: Canary) -> None:
        """Add a canary: verdict, digits of its worst case, and seconds by case."""
        kind = "deep canary" if canary.deep else "canary"
        self.add_end(kind, _now(), passed=canary.verdict == "pass")
        digits = [case.run.digits for case in canary.cases if case.run is not None and case.run.digits is not None]
        if digits:
            self._digits.labels(kind).set(min(digits))
        self._add_seconds(kind, ((case.name, case.seconds) for case in canary.cases))

    def _add_nodes(self, nodes: NodesReport) -> None:
        """Add a canary on every node: the verdict of all, and of each place."""
        self.add_end("nodes", _now(), passed=nodes.verdict == "pass")
        for place in nodes.places:
            self.add_end(f"node {place.place}", _now(), passed=place.verdict == "pass")
            self._add_seconds(f"node {place.place}", ((case.name, case.seconds) for case in place.cases))

    def _add_seconds(self, kind: str, parts: Iterable[tuple[str, float | None]]) -> None:
        for name, seconds in parts:
            if seconds is not None:
                self._seconds.labels(kind, name).set(seconds)

    def text(self) -> str:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry).decode()


def write_metrics(result: Run | Canary | NodesReport, path: Path) -> None:
    """Write the figures of a result to a file, in one step; when the last one passed is taken over from the file.
    A canary with a planted fault changes nothing.
    """
    if getattr(result, "fault", None) is not None:
        # What a planted fault does says nothing about the machine.
        return
    metrics = Metrics()
    for kind, end in _last_passes(path).items():
        metrics.add_pass(kind, end)
    metrics.add(result)
    write_whole(path, metrics.text())


def _last_passes(path: Path) -> dict[str, float]:
    """Return when the last one of each kind passed, as an earlier file says; lines that say nothing are left out."""
    with contextlib.suppress(OSError):
        text = read_regular(path, most=_MAX_BYTES).decode(errors="replace")
        return {kind: float(number) for kind, number in _LAST_PASS_LINE.findall(text)}
    return {}


def ended_at(run: Run) -> float:
    """Return when a run ended, in seconds since 1970."""
    return datetime.datetime.fromisoformat(run.created_at).timestamp()


def _now() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()
