"""Digits of least-squares solvers on NIST's certified datasets, as a Markdown table.

Run: make bench, or python benchmarks/certified.py [FOLDER of CSV files and certified.json].
Other solvers get what their users give them: float64 columns, powers made in float64. R is used where Rscript is found.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Solution = tuple[list[float], list[float] | None]
"""Coefficients and, where the solver gives them, their standard errors; the intercept first."""

FOLDER = Path(__file__).parent.parent / "tests" / "data"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    certified = json.loads((folder / "certified.json").read_text(encoding="utf-8"))
    solvers: dict[str, Callable[[Path, dict[str, Any]], Solution]] = {
        "lntx, reference": lambda path, model: _lntx(path, model, "reference"),
        "lntx, trained": lambda path, model: _lntx(path, model, "learned"),
        "numpy lstsq": _numpy,
        "scikit-learn LinearRegression": _sklearn,
        "statsmodels OLS (pinv)": lambda path, model: _statsmodels(path, model, "pinv"),
        "statsmodels OLS (qr)": lambda path, model: _statsmodels(path, model, "qr"),
        "torch.linalg.lstsq": _torch,
    }
    if shutil.which("Rscript"):
        solvers["R lm"] = _r
    print("Correct digits (log relative error, at most 15) of the worst coefficient / standard error\n")
    print("| solver | " + " | ".join(certified) + " |")
    print("|---" * (len(certified) + 1) + "|")
    for name, solve in solvers.items():
        cells = [
            _cell(solve(folder / f"{dataset}.csv", values["model"]), values) for dataset, values in certified.items()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _cell(solution: Solution, certified: dict[str, Any]) -> str:
    coefficients, errors = solution
    worst = _worst(coefficients, certified["coef"])
    return f"{worst:.1f} / –" if errors is None else f"{worst:.1f} / {_worst(errors, certified['std_err']):.1f}"


def _worst(values: list[float], certified: list[str]) -> float:
    return min(_digits(value, float(expected)) for value, expected in zip(values, certified, strict=True))


def _digits(value: float, certified: float) -> float:
    """Of a certified 0, log absolute error, as NIST does."""
    error = abs(value - certified) / (abs(certified) or 1.0)
    if not error < math.inf:
        return 0.0
    return 15.0 if error == 0 else min(15.0, max(0.0, -math.log10(error)))


def _lntx(path: Path, model: dict[str, Any], which: str) -> Solution:
    from lntx import fit

    degree = model["degree"]
    with tempfile.TemporaryDirectory() as root:
        run = fit(
            path,
            target="y",
            polynomial=degree if degree > 1 else None,
            bias=model["intercept"],
            root=root,
            until="evaluate",
        )
    intercept = getattr(run, f"{which}_bias")
    first = [] if intercept is None else [intercept]
    errors = [*([run.bias_standard_error] if first else []), *(run.standard_errors or ())]
    return [*first, *getattr(run, f"{which}_weights")], errors if which == "reference" else None  # type: ignore[return-value]


def _columns(path: Path, model: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The design matrix, the intercept first, and y."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = np.array([[float(row[name]) for name in row] for row in csv.DictReader(stream)])
    y, x = rows[:, 0], rows[:, 1:]
    if model["degree"] > 1:
        x = np.stack([x[:, 0] ** k for k in range(1, model["degree"] + 1)], axis=1)
    return np.hstack([np.ones((len(y), 1)), x]) if model["intercept"] else x, y


def _numpy(path: Path, model: dict[str, Any]) -> Solution:
    x, y = _columns(path, model)
    return np.linalg.lstsq(x, y, rcond=None)[0].tolist(), None


def _torch(path: Path, model: dict[str, Any]) -> Solution:
    import torch

    x, y = (torch.from_numpy(values) for values in _columns(path, model))
    return torch.linalg.lstsq(x, y.unsqueeze(1)).solution[:, 0].tolist(), None


def _sklearn(path: Path, model: dict[str, Any]) -> Solution:
    from sklearn.linear_model import LinearRegression

    x, y = _columns(path, model)
    intercept = model["intercept"]
    fitted = LinearRegression(fit_intercept=intercept).fit(x[:, 1:] if intercept else x, y)
    return [*([float(fitted.intercept_)] if intercept else []), *fitted.coef_.tolist()], None


def _statsmodels(path: Path, model: dict[str, Any], method: str) -> Solution:
    import statsmodels.api as sm

    x, y = _columns(path, model)
    fitted = sm.OLS(y, x).fit(method=method)
    return fitted.params.tolist(), fitted.bse.tolist()


def _r(path: Path, model: dict[str, Any]) -> Solution:
    # tol: the default, 1e-7, drops columns of Wampler's as dependent.
    powers = [f"I(x^{k})" if k > 1 else "x" for k in range(1, model["degree"] + 1)] if model["degree"] else ["."]
    formula = f"y ~ {' + '.join(powers)}{'' if model['intercept'] else ' - 1'}"
    program = (
        f"d <- read.csv('{path}'); s <- summary(lm({formula}, d, tol = 1e-14))$coefficients; "
        "cat(sprintf('%.17g', s[, 1:2]), sep = '\\n')"
    )
    done = subprocess.run(["Rscript", "-e", program], capture_output=True, text=True, check=True)
    numbers = [float(line) for line in done.stdout.split()]
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]


if __name__ == "__main__":
    main()
