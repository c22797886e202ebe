"""The suite of operators: training steps of built-in networks (`nets`), each operator proved; and kernels of others.

Begin with `suite`. The proof itself is `lntx/proof`, which knows no canary.
"""
