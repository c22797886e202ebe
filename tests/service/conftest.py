"""A server that the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from service import Service, serving


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service") / "root", "--no-canary") as found:
        yield found
