"""How far lntx, statsmodels and R agree on tables that statsmodels ships, as a Markdown table of digits.

Run: make bench, or python benchmarks/agreement.py. R is used where Rscript is found. Rows with gaps are left out by all
three; columns that lntx refuses (text, constants) are left out for all.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.api as sm

import lntx

# The module in statsmodels.datasets and the column to predict; all other numeric columns are features.
TABLES = {
    "anes96": "vote", "ccard": "AVGEXP", "copper": "WORLDCONSUMPTION", "cpunish": "EXECUTIONS", "credit": "y",
    "engel": "foodexp", "fair": "affairs", "fertility": "2008", "grunfeld": "invest", "heart": "survival",
    "longley": "TOTEMP", "macrodata": "realcons", "modechoice": "gc", "nile": "volume", "randhie": "mdvis",
    "scotland": "YES", "spector": "GPA", "stackloss": "STACKLOSS", "star98": "NABOVE", "statecrime": "violent",
    "strikes": "duration", "sunspots": "SUNACTIVITY", "danish_data": "lrm", "china_smoking": "smoking_yes_cancer_yes",
    "committee": "BILLS104", "elec_equip": "elec_equip", "cancer": "cancer",
}  # fmt: skip

FIGURES = ("coefficient", "std. error", "t", "p", "interval", "R²", "adjusted R²", "F", "p of F")


def main() -> None:
    has_r = shutil.which("Rscript") is not None
    print("Digits to which statsmodels (and R) agree with lntx, the worst of each kind\n")
    print("| table | rows × features | " + " | ".join(FIGURES) + " |")
    print("|---" * (len(FIGURES) + 2) + "|")
    done = 0
    for name, target in TABLES.items():
        frame = _frame(name, target)
        if frame is None:
            continue
        done += 1
        ours = _lntx(frame)
        others = [_statsmodels(frame), *([_r(frame)] if has_r else [])]
        agreed = [" / ".join(f"{_digits(ours[kind], other[kind]):.1f}" for other in others) for kind in FIGURES]
        print(f"| {name} | {len(frame)} × {frame.shape[1] - 1} | " + " | ".join(agreed) + " |")
    print(f"\n{done} tables; statsmodels{' / R' if has_r else ' (Rscript was not found)'}")


def _frame(name: str, target: str) -> pd.DataFrame | None:
    """The numeric columns of a table that differ from each other, the target called y and the last."""
    try:
        data = getattr(sm.datasets, name).load_pandas().data
    except (AttributeError, FileNotFoundError):
        return None
    frame = data.select_dtypes("number").astype("float64").dropna()
    if target not in frame or len(frame) < 5:
        return None
    y = frame.pop(target)
    kept: list[str] = []
    for column in frame.columns:
        # The first columns that are independent beside a constant.
        trial = np.column_stack([np.ones(len(frame)), frame[[*kept, column]]])
        scaled = trial / np.linalg.norm(trial, axis=0).clip(1e-300)
        if np.linalg.svd(scaled, compute_uv=False)[-1] > 1e-9 and len(trial) > trial.shape[1] + 1:
            kept.append(column)
    if not kept:
        frame, kept = pd.DataFrame({"row": np.arange(1.0, len(y) + 1)}, index=y.index), ["row"]
    chosen: pd.DataFrame = frame[kept]
    return chosen.set_axis([f"x{j}" for j in range(len(kept))], axis=1).assign(y=y).reset_index(drop=True)


def _lntx(frame: pd.DataFrame) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as root:
        run = lntx.fit(frame, target="y", root=root, until="evaluate")
        table = run.coefficients
    return {
        "coefficient": table["estimate"].tolist(),
        "std. error": table["standard_error"].tolist(),
        "t": table["t"].tolist(),
        "p": table["p"].tolist(),
        "interval": [*table["low"], *table["high"]],
        "R²": [run.r_squared or 0.0],
        "adjusted R²": [run.adjusted_r_squared or 0.0],
        "F": [run.f_statistic or math.inf],
        "p of F": [run.f_p_value or 0.0],
    }


def _statsmodels(frame: pd.DataFrame) -> dict[str, list[float]]:
    x = np.column_stack([frame.drop(columns="y"), np.ones(len(frame))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = sm.OLS(frame.y.to_numpy(), x).fit(method="qr")
        return {
            "coefficient": fitted.params.tolist(),
            "std. error": fitted.bse.tolist(),
            "t": fitted.tvalues.tolist(),
            "p": fitted.pvalues.tolist(),
            "interval": fitted.conf_int().T.ravel().tolist(),
            "R²": [float(fitted.rsquared)],
            "adjusted R²": [float(fitted.rsquared_adj)],
            "F": [float(fitted.fvalue)],
            "p of F": [float(fitted.f_pvalue)],
        }


def _r(frame: pd.DataFrame) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        frame.to_csv(path, index=False, float_format="%.17g")
        program = (
            f"d <- read.csv('{path}'); m <- lm(y ~ ., d, tol = 1e-14); s <- summary(m); f <- s$fstatistic; "
            "cat(sprintf('%.17g', c(s$coefficients, confint(m), s$r.squared, s$adj.r.squared, f[1], "
            "pf(f[1], f[2], f[3], lower.tail = FALSE))), sep = '\\n')"
        )
        done = subprocess.run(["Rscript", "-e", program], capture_output=True, text=True, check=True)
    numbers = [float(line) for line in done.stdout.split()]
    p = frame.shape[1]
    # The intercept comes first.
    parts = [np.roll(numbers[k * p : (k + 1) * p], -1).tolist() for k in range(6)]
    names = ("coefficient", "std. error", "t", "p")
    found = dict(zip(names, parts, strict=False)) | {"interval": [*parts[4], *parts[5]]}
    return found | {name: [value] for name, value in zip(FIGURES[5:], numbers[6 * p :], strict=True)}


def _digits(values: list[float], others: list[float]) -> float:
    """Log relative error of the worst, at most 15; of tiny probabilities the absolute one."""
    worst = 15.0
    for value, other in zip(values, others, strict=True):
        error = abs(value - other) / max(abs(value), 1e-300)
        if error > 0 and not (abs(value) < 1e-300 and abs(other) < 1e-300):
            worst = min(worst, -math.log10(error))
    return max(0.0, worst)


if __name__ == "__main__":
    main()
