"""`python -m flows.cli`: the same as the command `lntx`."""

from flows.cli import main

main()
