"""Every fault of the deep canary, and the smallest size at which it shows, as a Markdown page.

Run: PYTHONPATH=tests/core python -m benchmarks.proof_faults [SEED]. Writes benchmarks/results/proof_faults.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from more_proof_faults import MORE_FAULTS, is_caught

from benchmarks.machine import described
from lntx.canary.operators.faults import PROOF_FAULTS, ProofFault, prove_with

PAGE = Path(__file__).parent / "results" / "proof_faults.md"


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    lines = ["| fault | what goes wrong | blamed | network | smallest size |", "|---|---|---|---|---|"]
    missed = []
    for fault in (*PROOF_FAULTS.values(), *MORE_FAULTS):
        smallest = _smallest(fault, seed)
        if smallest is None:
            missed.append(fault.name)
        size = "MISSED" if smallest is None else ("any" if not fault.sizes else f"{smallest:g}")
        lines.append(f"| {fault.name} | {fault.what} | {fault.blame} | {fault.net}; {fault.mode} | {size} |")
    said = [
        "# Faults in a training step",
        f"{len(lines) - 2} faults, {len(missed)} missed{': ' + ', '.join(missed) if missed else ''}. {described()}",
        "The smallest of the tried sizes that shows, with the right operator, step or storage blamed. A size is "
        "relative, or in units in the last place (product-element), or the number of a bit (memory).",
        "\n".join(lines),
    ]
    PAGE.parent.mkdir(exist_ok=True)
    text = "\n\n".join(said) + "\n"
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def _smallest(fault: ProofFault, seed: int) -> float | None:
    """Return the smallest size that is caught, 0 for a fault without sizes, None if it is missed."""
    found = None
    for size in fault.sizes or (0.0,):
        if not is_caught(fault, prove_with(fault, seed=seed, size=size)):
            break
        found = size
    return found


if __name__ == "__main__":
    main()
