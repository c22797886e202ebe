"""The record of each run, the history of runs, verification and garbage collection."""
