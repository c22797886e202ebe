"""A server on PostgreSQL, for a team. Run: pytest tests/service/test_database.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from driving import lntx
from postgresql import postgresql
from service import commands, environment, holders, serving, up

from flows.server.home import Home

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(600)]

PASSWORD = "geheim-7f3a"


def test_runs_are_kept_in_the_database_and_its_password_is_in_no_log(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with postgresql() as trusting:
        # It trusts all that comes over loopback; the password is there to be looked for.
        url = trusting.replace("lntx@", f"lntx:{PASSWORD}@")
        with serving(root, "--no-canary", "--database", url) as service:
            done = lntx("run", "--json", root=root, env=environment())
            assert done.code == 0, done.err
            assert not list(root.rglob("*.db"))
            assert not [words for words in commands() if PASSWORD.encode() in words]
            assert lntx("down", root=root).code == 0
            assert up(root, "--no-canary", "--database", url, port=service.port).code == 0
            assert service.run(done.json["flow_run_id"])["state"]["name"] == "Completed", "it outlives the server"
        (holder,) = holders(root, PASSWORD.encode())
        assert holder == Home(root).folder / "options.json"
        assert holder.stat().st_mode & 0o077 == 0
