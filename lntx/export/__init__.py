"""Export a model to files of several formats; a separate process reads each file back.

Begin with `export`; `formats` is the table of formats. Finding and using an exported model is in `lntx.models`.
"""
