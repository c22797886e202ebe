"""The proof of a training step: every operator against its formula, within a bound for rounding errors.

Knows torch and no store, no pipeline and no Prefect. A formula is written once, on numbers that carry a bound.
"""
