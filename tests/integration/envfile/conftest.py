"""The readers that the editor is held against, installed once."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from integration.envfile.readers import Readers

PRODUCT = Path(__file__).parents[2] / "ai_admin"


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    """This machine's Node.js and shell, and dotenv as the sample product's lock file pins it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node, "Node.js is missing: make setup-tests"
    assert npm, "npm is missing: make setup-tests"
    modules = tmp_path_factory.mktemp("dotenv")
    pin = json.loads((PRODUCT / "package.json").read_text())["dependencies"]["dotenv"]
    locked = json.loads((PRODUCT / "package-lock.json").read_text())["packages"]["node_modules/dotenv"]
    package = {"name": "readers", "version": "1.0.0", "dependencies": {"dotenv": pin}}
    lock = {
        **package,
        "lockfileVersion": 3,
        "packages": {"": package, "node_modules/dotenv": locked},
    }
    (modules / "package.json").write_text(json.dumps(package))
    (modules / "package-lock.json").write_text(json.dumps(lock))
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=modules,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"npm ci did not work: {done.stderr.strip().splitlines()[:1]}"
    return Readers(node, modules)
