"""What is shown about a result, as Markdown, HTML or text.

Begin with `page`: a `Page` has a headline, notes, tables and pictures. `report` is the page about a run, `plots` draws.
"""
