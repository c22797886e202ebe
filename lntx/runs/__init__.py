"""The record of each run, the history of runs, verification and garbage collection.

Begin with `run`: what a run is. Whether a file is lntx's own is decided in `store`.
"""
