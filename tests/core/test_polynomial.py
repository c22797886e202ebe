"""Polynomials of a user's column: what is refused, what is predicted. Run: pytest tests/core/test_polynomial.py"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from commandline import Cli

import lntx
from lntx.base.errors import BadInput


def _write(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    path.write_text("x,y\n" + "".join(f"{a!r},{b!r}\n" for a, b in zip(x.tolist(), y.tolist(), strict=True)))
    return path


def test_a_polynomial_is_fitted_and_asked_for_its_column(cli: Cli, tmp_path: Path) -> None:
    x = np.arange(20.0)
    path = _write(tmp_path / "rows.csv", x, 1 + 2 * x - 3 * x**2)
    run = cli("fit", str(path), "--target", "y", "--polynomial", "2", "--local", "--json").json
    assert (run["features"], run["learned_weights"], run["learned_bias"]) == (["x", "x^2"], [2.0, -3.0], 1.0)
    assert cli("predict", "3").out == "-20\n"
    assert cli("predict", "1", "2").code == 2
    assert cli("predict", "--input", str(path), "--output", "out.csv").code == 0
    assert Path("out.csv").read_text().splitlines()[4].endswith(",-20")
    assert lntx.predict(3.0, model=run["exports"]["pt2"]).tolist() == [-20.0]


def test_predictions_have_the_digits_of_the_fit(tmp_path: Path) -> None:
    """Years to the fifth power: their rounding alone would be seen in the predictions."""
    x = np.arange(1980.0, 2024.0)
    y = np.sin(x / 7) + np.random.Generator(np.random.PCG64(0)).normal(size=len(x))
    run = lntx.fit(_write(tmp_path / "rows.csv", x, y), target="y", polynomial=5, root=tmp_path)
    assert run.verdict == "pass"
    assert run.learned_weights is not None
    assert run.learned_bias is not None
    predicted = lntx.predict(x[:, None], root=tmp_path)
    for value, found in zip(x.tolist(), predicted.tolist(), strict=True):
        terms = (Fraction(w) * Fraction(value) ** k for k, w in enumerate([run.learned_bias, *run.learned_weights]))
        assert found == pytest.approx(float(sum(terms)), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"features": ["x", "y2"]}, "data.polynomial takes the powers of one feature, got 2"),
        ({}, "takes the powers of one feature, and .* has 2: name"),
        ({"features": ["x"], "polynomial": 0}, "data.polynomial must be greater than or equal to 1"),
    ],
)
def test_what_is_no_polynomial_is_refused(tmp_path: Path, options: dict[str, object], line: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y2,y\n1,2,3\n2,3,4\n3,5,1\n4,1,1\n")
    with pytest.raises(BadInput, match=line):
        lntx.fit(path, target="y", root=tmp_path, **({"polynomial": 2} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("degree", [6, 8])
def test_years_to_high_powers_are_solved_or_said_to_be_too_close(tmp_path: Path, degree: int) -> None:
    x = np.arange(1980.0, 2024.0)
    y = np.sin(x / 7)
    try:
        run = lntx.fit(_write(tmp_path / "rows.csv", x, y), target="y", polynomial=degree, root=tmp_path)
    except BadInput as error:
        assert "is, to 14 digits, a linear combination of" in str(error)  # noqa: PT017
        assert degree > 6
    else:
        assert run.verdict == "pass"
        assert run.digits is not None
        assert run.digits > 13
