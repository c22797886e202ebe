"""Count names that do not name a thing, over the syntax trees of lntx and flows. Run: python benchmarks/vague_names.py

Exit code 1 if more than 0.5 % of the bindings are such words: assigned names, parameters, functions and classes.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VAGUE = {"asked", "away", "came", "done", "drawn", "each", "found", "given", "gone", "held", "kept", "meant", "one"}
VAGUE |= {"posed", "put", "said", "shown", "speaks", "told", "wanted"}
_MAX_SHARE = 0.005


def main() -> None:
    """Print the vague names and their share."""
    total, vague = 0, []
    for package in ("lntx", "flows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for line, name in _bindings(ast.parse(path.read_text(encoding="utf-8"))):
                total += 1
                if name.strip("_").lower() in VAGUE:
                    vague.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    share = len(vague) / total
    if share > _MAX_SHARE:
        print("\n".join(vague))
    print(f"{len(vague)} of {total:,} names are vague: {100 * share:.2f} %, at most {100 * _MAX_SHARE:g} %")
    sys.exit(share > _MAX_SHARE)


def _bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


if __name__ == "__main__":
    main()
