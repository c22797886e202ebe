"""The configuration of a run: the sections with their validation rules, and the layers that are merged.

Begin with `schema`, which has every key. Knows no stage and no command.
"""
