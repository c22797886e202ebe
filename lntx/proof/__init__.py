"""The proof of a training step: every operator against its formula, within a bound for rounding errors.

Begin with `prove`; `result` is what it returns; `formulas/` has the formulas, each written once, on numbers that carry
a bound. Knows torch and no store, no pipeline and no Prefect.
"""
