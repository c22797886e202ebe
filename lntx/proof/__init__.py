"""The proof of a training step: every operator against its formula, within a bound for rounding errors.

Begin with `prove`; `result` is what it returns. `operators/` judges one call, by `formulas/`, which are written once,
in `bounds/`: numbers that carry a bound. Knows torch and no store, no pipeline and no Prefect.
"""
