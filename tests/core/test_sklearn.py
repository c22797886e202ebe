"""The scikit-learn estimator passes scikit-learn's own checks. Run: pytest tests/core/test_sklearn.py"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'lntx[sklearn]'")


def test_the_estimator_passes_check_estimator() -> None:
    from sklearn.utils.estimator_checks import check_estimator

    from lntx.sklearn import LinearRegression

    with warnings.catch_warnings():
        # A check that scikit-learn skips, and one that tries a y of the wrong shape.
        warnings.simplefilter("ignore")
        underdetermined = {"check_sample_weight_equivalence_on_dense_data": "it has 27 rows for 31 coefficients"}
        done = check_estimator(LinearRegression(), on_fail=None, expected_failed_checks=underdetermined)
    assert [one["check_name"] for one in done if one["status"] == "failed"] == []
    assert sum(one["status"] == "passed" for one in done) > 40


def test_it_is_what_scikit_learn_finds_and_more_exact() -> None:
    from sklearn.linear_model import LinearRegression as Theirs

    from lntx.sklearn import LinearRegression

    draw = np.random.default_rng(0)
    x = draw.normal(size=(50, 3))
    y = x @ [1.0, -2.0, 3.0] + 4
    for intercept in (True, False):
        ours, theirs = (kind(fit_intercept=intercept).fit(x, y) for kind in (LinearRegression, Theirs))
        assert np.allclose(ours.coef_, theirs.coef_, rtol=1e-10)
        assert np.allclose(ours.predict(x), theirs.predict(x), rtol=1e-10)
        assert ours.run_.verdict == "pass"
    weights = draw.exponential(size=50)
    ours, theirs = (kind().fit(x, y + x[:, 0] ** 2, sample_weight=weights) for kind in (LinearRegression, Theirs))
    assert np.allclose(ours.coef_, theirs.coef_, rtol=1e-10)
    with pytest.raises(ValueError, match="duplicates"):
        LinearRegression().fit(np.column_stack([x, x[:, 0]]), y)
