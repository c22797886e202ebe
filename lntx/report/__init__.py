"""One page about a run, in Markdown and in HTML, with its plots."""
