"""The table of stages, and the runner that obtains each result: from the cache, or by computing and publishing it.

Begin with `table`; what a stage does is in `work`, how its result is obtained in `runner`, a run's end in `conclude`.
"""
