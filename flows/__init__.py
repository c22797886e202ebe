"""Prefect flows and the command line of `lntx`; no mathematics and no second runner."""
