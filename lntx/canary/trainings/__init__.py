"""The suite of trainings: its cases, their faults, and how the files of a run are judged, part by part.

Begin with `suite`, then `judge`. `canary/oracle` computes the expected weights of each epoch.
"""
