"""From the command line to a server: where a run reports to (`connection`), and a flow run on it (`launch`)."""
