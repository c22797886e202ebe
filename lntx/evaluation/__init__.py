"""Compare the learned weights with the exact solution and the truth: figures, verdict and reason.

Begin with `evaluate`. Exact sums are in `numerics`; who is to blame for a wrong answer is decided in `pipeline`.
"""
