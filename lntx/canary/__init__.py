"""The known-answer test of a whole stack: data, torch, optimiser, export and a fresh process, with nothing cached."""
