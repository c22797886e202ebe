"""More than one machine: `engine` works on parts of rows on a Ray cluster, `nodes` runs a canary on each of its nodes.

The only package that imports Ray.
"""
