"""Run lntx with other versions of Python and of its dependencies, in an environment of its own under .venvs.

Run: python benchmarks/versions.py floors (the lowest versions that pyproject.toml admits), newest, or 3.12 (the
versions of constraints.txt with this Python). --record writes what worked to lntx/tried.json, for doctor and docs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRIED = ROOT / "lntx" / "tried.json"
_EXTRAS = ("--extra", "onnx", "--extra", "sklearn")
_TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "polars", "polars-runtime-32")
_TESTS = tuple(
    f"tests/core/test_{name}.py"
    for name in (
        "pipeline",
        "data",
        "tables",
        "training",
        "evaluation",
        "export",
        "models",
        "store",
        "prove",
        "sklearn",
    )
)
_FACTS = """
import importlib.metadata, json, platform, sys, torch
versions = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
kernels = torch.backends.cpu.get_cpu_capability()
print(json.dumps({"python": platform.python_version(), "machine": platform.machine(), "kernels": kernels,
                  "versions": versions}))
"""
_TABLE = "a,b,y\n" + "".join(f"{k},{k * k % 7},{2 * k - 3 * (k * k % 7) + 0.5 + k % 3}\n" for k in range(40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="floors, newest, or a version of Python")
    parser.add_argument("--record", action="store_true", help="write what worked to lntx/tried.json")
    options = parser.parse_args()
    python = install(options.name)
    commands = run_commands(python)
    tests = run_tests(python)
    if options.record:
        record(options.name, python, [*commands, tests])


def install(name: str) -> Path:
    """Create the environment, and return its Python."""
    folder = ROOT / ".venvs" / name
    version = name if re.fullmatch(r"3\.\d+", name) else f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.rmtree(folder, ignore_errors=True)
    _uv("venv", "--python", version, str(folder))
    wanted = folder / "requirements.txt"
    choice = {"floors": ["--resolution", "lowest-direct"], "newest": []}.get(name, ["-c", "constraints.txt"])
    _uv("pip", "compile", *choice, "--python-version", version, "pyproject.toml", *_EXTRAS, "-o", str(wanted))
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    tools = [f"{tool}=={pinned[tool]}" for tool in _TOOLS]
    python = folder / "bin" / "python"
    _uv("pip", "install", "--python", str(python), "-r", str(wanted), *tools)
    _uv("pip", "install", "--python", str(python), "--no-deps", "-e", ".")
    return python


def run_commands(python: Path) -> list[str]:
    """Run the commands in a new folder; end at the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "table.csv").write_text(_TABLE)
        commands = [
            "run",
            "run --local",
            "fit table.csv --target y --local",
            "predict --input table.csv --output predictions.parquet",
            "canary",
            "canary --level 2 --local",
            "canary --deep --local",
            "canary --deep --blind --local",
            "doctor",
        ]
        for command in commands:
            print(f"$ lntx {command}", flush=True)
            subprocess.run([str(python), "-m", "lntx", *command.split()], cwd=folder, check=True)
    return commands


def run_tests(python: Path) -> str:
    """Run those tests of the core that depend most on other packages. Warnings of these versions are theirs."""
    words = ["-m", "pytest", "-n", "2", "-q", "-m", "not slow", "-o", "filterwarnings=", "-p", "no:cacheprovider"]
    subprocess.run([str(python), *words, *_TESTS], cwd=ROOT, check=True)
    return ", ".join(_TESTS)


def record(name: str, python: Path, worked: list[str]) -> None:
    """Replace the row of this name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]]
    facts = json.loads(subprocess.run([str(python), "-c", _FACTS, *names], capture_output=True, check=True).stdout)
    rows = json.loads(TRIED.read_text()) if TRIED.exists() else []
    row = {"name": name, "date": datetime.date.today().isoformat(), **facts, "worked": worked}
    rows = [*(old for old in rows if old["name"] != name), row]
    TRIED.write_text(json.dumps(rows, indent=1) + "\n")


def _uv(*words: str) -> None:
    # uv reads no configuration of pip.
    links = os.environ.get("PIP_FIND_LINKS")
    environment = {**os.environ, **({"UV_FIND_LINKS": links} if links else {})}
    subprocess.run([sys.executable, "-m", "uv", *words, "--quiet"], cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
