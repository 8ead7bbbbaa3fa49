"""The readers that the editor is held against, installed once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from integration.envfile.readers import Readers
from integration.quick import npm

PRODUCT = Path(__file__).parents[2] / "ai_admin"


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    """This machine's Node.js and shell, and dotenv as the sample product's lock file pins it."""
    node = shutil.which("node")
    assert node, "Node.js is missing: make setup-tests"
    assert shutil.which("npm"), "npm is missing: make setup-tests"
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
    npm("ci", cwd=modules)
    return Readers(node, modules)
