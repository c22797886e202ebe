"""Prefect flows and the command line of `lntx`; no mathematics and no second runner."""

# No module with a flow postpones its annotations: a script that serves a flow of its own pickles the flows that it
# calls, and a copy knows only the names that its code uses, not those of its annotations.
