"""A root as a clean run leaves it, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from driving import Done, bits, run


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The root and the run."""
    root = tmp_path_factory.mktemp("clean") / "root"
    done = run(root)
    assert done.code == 0, done.err
    return root, done


@pytest.fixture
def clean_bits(clean: tuple[Path, Done]) -> dict[str, list[str]]:
    """Digests of what a clean run makes."""
    return bits(clean[1])
