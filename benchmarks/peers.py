"""Seconds of the same small work in pipeline tools, as a Markdown page: a plain script, DVC, Kedro, ZenML, Metaflow,
Prefect alone, and lntx.

Run: make bench-peers, or python -m benchmarks.peers [--rounds N]. Writes benchmarks/results/peers.md. The work: 1000
rows in a Parquet file, x integers from 1 to 10 and y = 3.7x; 1000 epochs of nn.Linear(1, 1, bias=False) in float32 with
loss.backward() and SGD; the learned weight against 3.7, as JSON; and one .pt2 file. Generate, train, evaluate and
export are stages where the tool has stages. Each tool is set up as its documentation does it, in a virtual environment
of its own under .venvs, and its telemetry is off.

Timed is the whole command: cold, in a fresh folder; cached, the same command again; and with another learning rate,
where generate need not run again. What comes once per folder or user (dvc init, zenml init, tables in Prefect's
database) is done before, and said under the table. Rounds are interleaved; medians are shown.

What differs: Kedro and ZenML hand over data frames, as in their documentation, and so import pandas; the others use
pyarrow alone. ZenML's types need torch even where all is cached. DVC and Metaflow start a process per stage. Prefect
starts a server for each run. And lntx does more than the others: it checks the rows, solves the same problem exactly,
judges by that solution, and reads the export back.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import described

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "results" / "peers.md"
STAGES = ("generate", "train", "evaluate", "export")
RATE, OTHER_RATE = "0.01", "0.012"
STATES = ("cold", "cached", "one changed")
LIMIT = 300  # Seconds for one command: a tool that waits for an answer must not hold up the others.

# Each environment's packages.
_TORCH = ("torch==2.13.0", "numpy==2.4.6", "pyarrow==26.0.1")
PINS = {
    "plain": _TORCH,
    "dvc": ("dvc==3.67.1", *_TORCH),
    "kedro": (
        "kedro==1.7.0",
        "kedro-datasets[json-jsondataset,pandas-parquetdataset,pickle-pickledataset]==9.6.0",
        "pandas==3.1.1",
        *_TORCH,
    ),
    "zenml": ("zenml[local]==0.98.0", "pandas==3.1.1", *_TORCH),
    "metaflow": ("metaflow==2.19.39", *_TORCH),
    "prefect": ("prefect==3.9.1", *_TORCH),
    "lntx": ("-c", str(ROOT / "constraints.txt"), "-e", str(ROOT), *_TORCH),
}

# What all but lntx run. Each stage leaves its name in a file: so one sees what ran, and what came from a cache. torch
# is imported where it is needed, so that no tool pays for it in a process that only generates or finds all cached.
_WORK = """
import os

def ran(stage):
    with open(os.environ["RAN"], "a") as file:
        file.write(stage + "\\n")

def make_rows():
    import numpy as np, pyarrow as pa
    ran("generate")
    x = np.random.default_rng(0).integers(1, 11, 1000)
    return pa.table({"x": x, "y": 3.7 * x})

def fit(rows, learning_rate):
    import torch
    from torch import nn
    ran("train")
    x, y = (torch.tensor(rows[name].to_numpy(), dtype=torch.float32).reshape(-1, 1) for name in ("x", "y"))
    torch.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    loss, optimizer = nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=learning_rate)
    for _ in range(1000):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model

def compare(model):
    ran("evaluate")
    error = abs(model.weight.item() - 3.7)
    assert error < 1e-5, error
    return {"weight": model.weight.item(), "error": error}

def exported(model):
    import torch
    ran("export")
    return torch.export.export(model, (torch.ones(2, 1),))

def export_to(path, model):
    import torch
    torch.export.save(exported(model), path)
"""

_PLAIN = """
import json, sys
import pyarrow.parquet as pq
from work import compare, export_to, fit, make_rows

pq.write_table(make_rows(), "rows.parquet")
model = fit(pq.read_table("rows.parquet"), float(sys.argv[1]))
with open("metrics.json", "w") as file:
    json.dump(compare(model), file)
export_to("model.pt2", model)
"""

_DVC = {
    "dvc.yaml": """
stages:
  generate:
    cmd: python generate.py
    deps: [generate.py]
    outs: [rows.parquet]
  train:
    cmd: python train.py
    deps: [train.py, rows.parquet]
    params: [learning_rate]
    outs: [model.pt]
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, model.pt]
    metrics:
      - metrics.json:
          cache: false
  export:
    cmd: python export.py
    deps: [export.py, model.pt]
    outs: [model.pt2]
""",
    "generate.py": """
import pyarrow.parquet as pq
from work import make_rows

pq.write_table(make_rows(), "rows.parquet")
""",
    "train.py": """
import torch, yaml
import pyarrow.parquet as pq
from work import fit

with open("params.yaml") as file:
    parameters = yaml.safe_load(file)
torch.save(fit(pq.read_table("rows.parquet"), parameters["learning_rate"]), "model.pt")
""",
    "evaluate.py": """
import json
import torch
from work import compare

with open("metrics.json", "w") as file:
    json.dump(compare(torch.load("model.pt", weights_only=False)), file)
""",
    "export.py": """
import torch
from work import export_to

export_to("model.pt2", torch.load("model.pt", weights_only=False))
""",
}

_KEDRO = {
    "pyproject.toml": """
[tool.kedro]
package_name = "line"
project_name = "line"
kedro_init_version = "1.7.0"
source_dir = "src"
""",
    "conf/base/catalog.yml": """
rows:
  type: pandas.ParquetDataset
  filepath: data/rows.parquet
model:
  type: pickle.PickleDataset
  filepath: data/model.pkl
metrics:
  type: json.JSONDataset
  filepath: data/metrics.json
program:
  type: line.datasets.ProgramDataset
  filepath: data/model.pt2
""",
    "conf/local/credentials.yml": "",
    "src/line/__init__.py": "",
    "src/line/settings.py": "",
    "src/line/datasets.py": """
from pathlib import Path
import torch
from kedro.io import AbstractDataset

class ProgramDataset(AbstractDataset):
    def __init__(self, filepath):
        self._filepath = Path(filepath)

    def load(self):
        return torch.export.load(self._filepath)

    def save(self, program):
        self._filepath.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, self._filepath)

    def _describe(self):
        return {"filepath": self._filepath}
""",
    "src/line/pipeline_registry.py": """
import pyarrow as pa
from kedro.pipeline import Node, Pipeline
from line.work import compare, exported, fit, make_rows

def generate():
    return make_rows().to_pandas()

def train(rows, learning_rate):
    return fit(pa.Table.from_pandas(rows), learning_rate)

def register_pipelines():
    return {"__default__": Pipeline([
        Node(generate, None, "rows"),
        Node(train, ["rows", "params:learning_rate"], "model"),
        Node(compare, "model", "metrics"),
        Node(exported, "model", "program"),
    ])}
""",
}

_ZENML = """
import sys
from pathlib import Path
from typing import Annotated
import pandas as pd, pyarrow as pa
from torch import nn
from zenml import pipeline, step
from work import compare, export_to, fit, make_rows

@step
def generate() -> Annotated[pd.DataFrame, "rows"]:
    return make_rows().to_pandas()

@step
def train(rows: pd.DataFrame, learning_rate: float) -> Annotated[nn.Module, "model"]:
    return fit(pa.Table.from_pandas(rows), learning_rate)

@step
def evaluate(model: nn.Module) -> Annotated[dict[str, float], "metrics"]:
    return compare(model)

@step
def export(model: nn.Module) -> Annotated[Path, "program"]:
    export_to("model.pt2", model)
    return Path("model.pt2")

@pipeline
def line(learning_rate: float):
    model = train(generate(), learning_rate)
    evaluate(model)
    export(model)

if __name__ == "__main__":
    line(learning_rate=float(sys.argv[1]))
"""

_METAFLOW = """
import json
import pyarrow.parquet as pq
from metaflow import FlowSpec, Parameter, step
from work import compare, export_to, fit, make_rows

class Line(FlowSpec):
    learning_rate = Parameter("learning_rate", default=0.01)

    @step
    def start(self):
        pq.write_table(make_rows(), "rows.parquet")
        self.next(self.train)

    @step
    def train(self):
        self.model = fit(pq.read_table("rows.parquet"), self.learning_rate)
        self.next(self.evaluate)

    @step
    def evaluate(self):
        self.metrics = compare(self.model)
        with open("metrics.json", "w") as file:
            json.dump(self.metrics, file)
        self.next(self.end)

    @step
    def end(self):
        export_to("model.pt2", self.model)

if __name__ == "__main__":
    Line()
"""

# The stages' arguments differ: with INPUTS, two tasks with equal inputs would share one result. The model is handed
# over as numbers: a module read back has another hash, so that what follows would run again.
_PREFECT = """
import json, sys
import pyarrow.parquet as pq
from prefect import flow, task
from prefect.cache_policies import INPUTS
from work import compare, export_to, fit, make_rows

def restored(weight):
    import torch
    model = torch.nn.Linear(1, 1, bias=False)
    model.load_state_dict({"weight": torch.tensor(weight)})
    return model

@task(cache_policy=INPUTS, persist_result=True)
def generate(rows):
    pq.write_table(make_rows(), rows)
    return rows

@task(cache_policy=INPUTS, persist_result=True)
def train(rows, learning_rate):
    return fit(pq.read_table(rows), learning_rate).weight.tolist()

@task(cache_policy=INPUTS, persist_result=True)
def evaluate(weight, metrics):
    found = compare(restored(weight))
    with open(metrics, "w") as file:
        json.dump(found, file)
    return found

@task(cache_policy=INPUTS, persist_result=True)
def export(weight, program):
    export_to(program, restored(weight))
    return program

@flow
def line(learning_rate):
    weight = train(generate("rows.parquet"), learning_rate)
    evaluate(weight, "metrics.json")
    export(weight, "model.pt2")

if __name__ == "__main__":
    line(float(sys.argv[1]))
"""

_LNTX = (
    "lntx run --local --data.num-rows 1000 --data.weights 3.7 --train.dtype float32 --train.learning-rate {rate} "
    "--train.gradient autograd --train.precondition none --train.tolerance 0 --train.max-epochs 1000 "
    "--export.formats pt2 --root ."
)


@dataclass(frozen=True)
class Tool:
    """One row: its files by path, its command, and what is said to its first use of a folder."""

    title: str
    command: str
    files: dict[str, str] = field(default_factory=dict)
    work: str = "work.py"
    setup: str = ""
    settings: str = ""  # The file that holds the learning rate, where it is not in the command.
    environment: dict[str, str] = field(default_factory=dict)  # {folder} stands for the round's folder.


TOOLS = {
    "plain": Tool("plain script", "python plain.py {rate}", {"plain.py": _PLAIN}),
    "dvc": Tool(
        "DVC",
        "dvc repro",
        _DVC,
        setup="dvc init --no-scm",
        settings="params.yaml",
        environment={"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": "{folder}/.site"},
    ),
    "kedro": Tool(
        "Kedro",
        "kedro run",
        _KEDRO,
        work="src/line/work.py",
        settings="conf/base/parameters.yml",
        environment={"KEDRO_DISABLE_TELEMETRY": "1"},
    ),
    "zenml": Tool(
        "ZenML",
        "python run.py {rate}",
        {"run.py": _ZENML},
        setup="zenml init",
        environment={"ZENML_ANALYTICS_OPT_IN": "false", "ZENML_CONFIG_PATH": "{folder}/.zenml-config"},
    ),
    "metaflow": Tool(
        "Metaflow",
        "python flow.py run --learning_rate {rate}",
        {"flow.py": _METAFLOW},
        environment={"METAFLOW_USER": "peers"},
    ),
    "prefect": Tool(
        "Prefect",
        "python flow.py {rate}",
        {"flow.py": _PREFECT},
        setup="prefect server database upgrade -y",
        environment={"PREFECT_HOME": "{folder}/.prefect", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
    ),
    "lntx": Tool("lntx", _LNTX),
}


class Unable(Exception):
    """Why a tool could not be measured, in one line."""


@dataclass
class Times:
    """A tool's seconds by state, and the stages that its last command in each state ran."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {state: [] for state in STATES})
    ran: dict[str, set[str]] = field(default_factory=dict)
    setup: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds must be 1 or more")
    versions: dict[str, str] = {}
    reasons: dict[str, str] = {}
    times = {name: Times() for name in TOOLS}
    for name in TOOLS:
        try:
            versions[name] = _installed(name)
        except Unable as error:
            reasons[name] = f"not installed: {error}"
    # Round 0 fills the page cache and __pycache__, and is not counted.
    for number in range(rounds + 1):
        for name in TOOLS:
            if name not in reasons:
                print(f"round {number} of {rounds}: {name}", file=sys.stderr)
                try:
                    _round(name, times[name] if number else Times())
                except Unable as error:
                    reasons[name] = f"does not run: {error}"
        for name in ("plain", "lntx"):
            if name in reasons:
                sys.exit(f"{name} could not be measured: {reasons[name]}")
    page = _page(rounds, versions, reasons, times)
    print(page)
    PAGE.write_text(f"{page}\n", encoding="utf-8")


def _installed(name: str) -> str:
    """The version of a tool in its environment, which is made where it is missing or has other packages."""
    venv = ROOT / ".venvs" / name
    python, stamp = venv / "bin" / "python", venv / ".installed"
    pins = "\n".join(PINS[name])
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != pins:
        print(f"installing {name}", file=sys.stderr)
        _checked([sys.executable, "-m", "venv", "--clear", str(venv)])
        _checked([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS[name]])
        stamp.write_text(pins, encoding="utf-8")
    package = "torch" if name == "plain" else name
    return _checked([str(python), "-c", f"from importlib.metadata import version; print(version('{package}'))"])


def _checked(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unable(_reason(done.stderr or done.stdout))
    return done.stdout.strip()


def _round(name: str, times: Times) -> None:
    """A fresh folder for a tool: its set-up, and its command in each state."""
    tool = TOOLS[name]
    with tempfile.TemporaryDirectory(prefix=f"peers-{name}-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        for path, text in {tool.work: _WORK, **tool.files}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text.lstrip(), encoding="utf-8")
        if tool.setup:
            times.setup.append(_run(name, tool.setup, folder)[0])
        for state in STATES:
            rate = OTHER_RATE if state == "one changed" else RATE
            if tool.settings:
                (folder / tool.settings).write_text(f"learning_rate: {rate}\n", encoding="utf-8")
            seconds, times.ran[state] = _run(name, tool.command.format(rate=rate), folder)
            times.seconds[state].append(seconds)
            needed = {"cold": set(STAGES), "cached": set(), "one changed": set(STAGES[1:])}[state]
            if not needed <= times.ran[state]:
                raise Unable(f"{state}: {', '.join(sorted(needed - times.ran[state]))} did not run")


def _run(name: str, command: str, folder: Path) -> tuple[float, set[str]]:
    """Seconds of a command, and the stages that it ran."""
    bin_folder = ROOT / ".venvs" / name / "bin"
    ran, output = folder / "ran.txt", folder / "output.txt"
    ran.write_text("", encoding="utf-8")
    environment = {
        "PATH": os.pathsep.join([str(bin_folder), os.defpath]),
        # No settings of the user's, and none left for them.
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "DO_NOT_TRACK": "1",
        "RAN": str(ran),
        **{key: value.format(folder=folder) for key, value in TOOLS[name].environment.items()},
    }
    program, *words = command.split()
    # A file, not a pipe: a process that a tool leaves behind would hold the pipe open.
    with output.open("w", encoding="utf-8") as file:
        started = time.perf_counter()
        try:
            code = subprocess.run(
                [str(bin_folder / program), *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                check=False,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unable(str(error)) from error
        seconds = time.perf_counter() - started
    said = output.read_text(encoding="utf-8", errors="replace")
    if code:
        raise Unable(f"{command}: {_reason(said)}")
    if name == "lntx":
        return seconds, set(re.findall(r"^(\w+) +ran\b", said, re.MULTILINE))
    return seconds, set(ran.read_text(encoding="utf-8").split())


def _reason(text: str) -> str:
    """The line of what a command said that tells most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return errors[-1].replace("|", "/") if errors else "it said nothing"


def _page(rounds: int, versions: dict[str, str], reasons: dict[str, str], times: dict[str, Times]) -> str:
    table = ["| tool | cold | cached | one changed |", "|---|---|---|---|"]
    for name, tool in TOOLS.items():
        title = f"{tool.title}, torch" if name == "plain" else tool.title
        if name in reasons:
            table.append(f"| {title} | {reasons[name]} | – | – |")
            continue
        cells = [_cell(times[name], times["plain"], state) for state in STATES]
        table.append(f"| {title} {versions[name]} | {' | '.join(cells)} |")
    setups = [
        f"{tool.title} {statistics.median(times[name].setup):.1f} s (`{tool.setup}`)"
        for name, tool in TOOLS.items()
        if times[name].setup
    ]
    return "\n\n".join(
        [
            "# The same work in pipeline tools",
            f"1000 rows, 1000 epochs in float32, one .pt2 file. Seconds of the whole command, medians of {rounds} "
            "interleaved rounds; in parentheses the ratio to the plain script in the same run, in brackets the least "
            "and the most. Cached: the same command again. One changed: another learning rate. lntx does more than "
            "the others: see the head of benchmarks/peers.py.",
            "\n".join(table),
            f"Not timed, once per folder or user: {', '.join(setups) or 'nothing'}.",
            described(),
        ]
    )


def _cell(times: Times, plain: Times, state: str) -> str:
    seconds, base = (statistics.median(one.seconds[state]) for one in (times, plain))
    least, most = min(times.seconds[state]), max(times.seconds[state])
    again = ", runs all again" if state != "cold" and times.ran[state] == set(STAGES) else ""
    return f"{seconds:.2f} ({seconds / base:.2f}) [{least:.1f}–{most:.1f}]{again}"


if __name__ == "__main__":
    main()
