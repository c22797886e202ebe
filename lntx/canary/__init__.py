"""The known-answer test of a whole stack: data, torch, optimiser, export and a fresh process, with nothing cached.

Begin with `suite/suite`: a `Suite` has cases, runs and judges each, and makes one result of all; `trainings` and
`operators` are the two suites, `run` runs one. Orchestrators and the command line are in flows/; formulas of operators
in `proof`.
"""
