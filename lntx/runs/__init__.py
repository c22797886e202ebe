"""What was run: the record of each run, its history, and what may go or is damaged."""
