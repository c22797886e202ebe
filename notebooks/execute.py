"""Write each notebook from its text, executed. Run: python notebooks/execute.py

A notebook is kept twice: NAME.py is the source (jupytext's percent format), NAME.ipynb is that source with its outputs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent


def main() -> None:
    """Write all notebooks."""
    for source in sources():
        notebook = executed(source)
        nbformat.write(notebook, source.with_suffix(".ipynb"))
        print(source.with_suffix(".ipynb").name)


def sources() -> list[Path]:
    """Return the texts of all notebooks."""
    return sorted(HERE.glob("tutorial*.py"))


def read(source: Path) -> NotebookNode:
    """Return the notebook of a text, without outputs."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        # jupytext draws ids at random: the same text must give the same file.
        cell.id = f"cell-{number}"
    return notebook


def executed(source: Path) -> NotebookNode:
    """Return the notebook of a text with its outputs, without what differs from run to run: times, Python's version."""
    notebook = read(source)
    with tempfile.TemporaryDirectory() as folder:
        # IPython keeps the history of all input in its folder: not in the user's.
        environment = {**os.environ, "IPYTHONDIR": folder}
        client = NotebookClient(
            notebook,
            timeout=300,
            record_timing=False,
            resources={"metadata": {"path": folder}},
            # The kernel warns that its loopback sockets are not encrypted.
            extra_arguments=["--log-level=40"],
        )
        client.execute(env=environment)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


if __name__ == "__main__":
    main()
