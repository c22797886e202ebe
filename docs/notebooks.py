"""Put the notebooks on the site, with their outputs, as mkdocs builds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook."""
    for path in sorted(_NOTEBOOKS.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        content = "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=content))
    return files


def _parts(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        # Links between the notebooks, and to the pages beside them.
        return [source.replace(".ipynb)", ".md)").replace("](../docs/", "](../")]
    return [f"```python\n{source}\n```", *(_output(output) for output in cell["outputs"])]


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![]({_uri(data['image/png'])})"
    if "text/html" in data:
        return f"<div>{' '.join(''.join(data['text/html']).split())}</div>"
    return f"```text\n{''.join(data.get('text/plain', output.get('text', ''))).rstrip()}\n```"


def _uri(image: str) -> str:
    return f"data:image/png;base64,{''.join(image.split())}"
