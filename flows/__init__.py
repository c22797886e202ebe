"""Prefect and the command line around `lntx`; no mathematics and no second runner."""
