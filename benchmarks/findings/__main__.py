"""All findings of docs/findings.md as a Markdown table; --json for a program.

Run: python benchmarks/findings [--json | --record]; --record keeps what was measured in
benchmarks/results/findings.json, for the pages of the site. The last column is torch's error in units of the largest
error that a right kernel may have: above 1, accuracy is lost. ATEN_CPU_CAPABILITY=avx2 or avx512 selects the kernels.
"""

from __future__ import annotations

import json
import platform
import runpy
import sys
from pathlib import Path

import torch

RESULTS = Path(__file__).parents[1] / "results" / "findings.json"


def main() -> None:
    rows, not_run = [], {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        try:
            rows.append((path.stem, *_measured(path)))
        except Exception as error:
            # This build cannot run it.
            not_run[path.stem] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    kernels = torch.backends.cpu.get_cpu_capability()
    if "--record" in sys.argv[1:]:
        # Other versions of torch call it otherwise.
        kernels = kernels.replace("NO AVX", "DEFAULT")
        _record(f"{torch.__version__.partition('+')[0]}, {platform.machine()} {kernels}", rows)
        return
    if "--json" in sys.argv[1:]:
        facts = {"torch": torch.__version__, "machine": platform.machine(), "kernels": kernels}
        print(json.dumps({**facts, "rows": rows, "not_run": not_run}))
        return
    print(f"torch {torch.__version__}, {platform.machine()}, {kernels} kernels\n")
    print("| script | what is computed | true | torch | error / allowed |")
    print("|---|---|---|---|---|")
    for name, what, true, found, allowed in rows:
        print(f"| {name} | {what} | {true:.6g} | {found:.6g} | {abs(found - true) / allowed:.3g} |")
    for name, why in not_run.items():
        print(f"\nnot run here: {name}: {why}")


def _record(stack: str, rows: list[tuple[str, str, float, float, float]]) -> None:
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known[stack] = {name: [true, found, allowed] for name, _, true, found, allowed in rows}
    RESULTS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


def _measured(path: Path) -> tuple[str, float, float, float]:
    """What a script computes, as its docstring's first line says, and what it measures."""
    script = runpy.run_path(str(path))
    return (script["__doc__"].splitlines()[0].removesuffix("."), *script["measure"]())


if __name__ == "__main__":
    main()
