"""Who may import whom, as data. The API client and the core stand alone, the switch and the operators' tools never meet."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from unit.core.product import PACKAGES, ROOT, name_of

#: Package -> packages of ours that it may import, and programs of others. Everything else is the standard library.
ARROWS: dict[str, tuple[set[str], set[str]]] = {
    "glitchtip_core": (set(), set()),
    "glitchtip_api": (set(), {"requests", "urllib3", "ansible"}),
    "glitchtip_cutover": ({"glitchtip_core"}, set()),
    "glitchtip_ops": ({"glitchtip_core", "glitchtip_api"}, set()),
    "glitchtip_inventory": (set(), {"yaml"}),
}
#: Below this name Ansible finds a package on a server.
UTILS = "ansible.module_utils."
#: Files that may import more, by that name: what the modules of Ansible put between the client and the server.
WITHIN_MODULES = {"src/glitchtip_api/ansible_support.py": {"glitchtip_core"}}


def imports_of(source: str, package: str, module: str) -> set[str]:
    """First words of everything that a module imports, its own package aside; ``..`` for what leaves the package.

    ``module``: its name within the package, with dots. Imports by a text (``importlib.import_module``) count.
    """
    found: set[str] = set()
    depth = module.count(".") + 1
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level > depth:
                found.add("..")
            elif node.level == 0:
                found.add(str(node.module))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    shortened = {name.removeprefix(UTILS) if name.startswith(f"{UTILS}glitchtip_") else name for name in found}
    return {name.split(".")[0] if name != ".." else name for name in shortened} - {package}


def forbidden(source: str, package: str, module: str = "part") -> set[str]:
    ours, others = ARROWS[package]
    return imports_of(source, package, module) - ours - others - set(sys.stdlib_module_names)


def modules_of(package: str) -> list[tuple[Path, str]]:
    directory = ROOT / "src" / package
    files = sorted(directory.rglob("*.py"))
    return [(path, path.relative_to(directory).with_suffix("").as_posix().replace("/", ".")) for path in files]


def test_each_package_of_the_tree_has_its_arrows() -> None:
    assert set(PACKAGES) == set(ARROWS)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    modules = modules_of(package)
    assert len(modules) > 3
    found = {name_of(path): forbidden(path.read_text(), package, module) for path, module in modules}
    excepted = {name: names for name, names in WITHIN_MODULES.items() if name.startswith(f"src/{package}/")}
    assert {name: names for name, names in found.items() if names} == excepted


@pytest.mark.parametrize("package", PACKAGES)
def test_each_arrow_is_used(package: str) -> None:
    """Or it would allow what nobody needs."""
    ours, others = ARROWS[package]
    found = set().union(*(imports_of(path.read_text(), package, module) for path, module in modules_of(package)))
    assert (ours | others) - found == set()


@pytest.mark.parametrize(
    ("package", "line", "word"),
    [
        ("glitchtip_core", "import requests", "requests"),
        ("glitchtip_core", "from glitchtip_cutover.config import Config", "glitchtip_cutover"),
        ("glitchtip_core", "from glitchtip_api import Client", "glitchtip_api"),
        ("glitchtip_core", "from .. import glitchtip_api", ".."),
        ("glitchtip_core", "from ..glitchtip_ops import cli", ".."),
        ("glitchtip_core", "def late():\n    from yaml import safe_load", "yaml"),
        ("glitchtip_core", "from ansible.module_utils.glitchtip_cutover import config", "glitchtip_cutover"),
        ("glitchtip_cutover", "import glitchtip_ops.cli as cli", "glitchtip_ops"),
        ("glitchtip_cutover", "from glitchtip_api import Client", "glitchtip_api"),
        ("glitchtip_cutover", "if TYPE_CHECKING:\n    import requests", "requests"),
        ("glitchtip_ops", "from glitchtip_cutover.journal import fold", "glitchtip_cutover"),
        ("glitchtip_ops", "import importlib\nimportlib.import_module('glitchtip_cutover.cli')", "glitchtip_cutover"),
        ("glitchtip_ops", "import requests", "requests"),
        ("glitchtip_api", "from glitchtip_core.text import printable", "glitchtip_core"),
        ("glitchtip_api", "__import__('glitchtip_core')", "glitchtip_core"),
    ],
)
def test_a_forbidden_import_is_found(package: str, line: str, word: str) -> None:
    """The negative control of the arrows."""
    assert forbidden(line, package) == {word}
    assert forbidden("import json\nfrom .part import x\nfrom collections.abc import Mapping", package) == set()


def test_an_import_within_a_package_may_climb_as_far_as_its_top() -> None:
    assert forbidden("from ..errors import CoreError", "glitchtip_core", "transaction.store") == set()
    assert forbidden("from ...errors import CoreError", "glitchtip_core", "transaction.store") == {".."}


def test_the_client_without_ansible_needs_no_file_that_imports_more() -> None:
    """The operators' tools have no Ansible: nothing of the package imports it, but for what is Ansible's as well."""
    files = [path for path, _ in modules_of("glitchtip_api") if name_of(path) not in WITHIN_MODULES]
    users = {name_of(path) for path in files if "ansible_support" in path.read_text()}
    assert users == {"src/glitchtip_api/configuration/ansible_module.py"}
    assert not any("ansible_module" in path.read_text() for path in files if path.name != "ansible_module.py")
