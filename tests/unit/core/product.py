"""The product's own files, found from the tree, and what of their text is code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("src", "library", "roles", "filter_plugins", "playbooks", "doc_fragments")
SUFFIXES = {".py", ".yml", ".j2", ".sh", ".mjs", ".cjs"}
FILES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix in SUFFIXES and "node_modules" not in path.parts
]
PACKAGES = sorted(path.parent.name for path in (ROOT / "src").glob("*/__init__.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def strings_of(source: str) -> Iterator[str]:
    """The texts of a Python file that are neither documentation nor a part of a longer text of lines."""
    tree = ast.parse(source)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documentation:
            continue
        if node.value.count("\n") < 5:
            yield node.value


def code_of(path: Path) -> str:
    """What a file does, without what it says about that: the texts of Python code, the other files without their comments."""
    source = path.read_text(errors="replace")
    if path.suffix == ".py":
        return "\n".join(f'"{text}"' for text in strings_of(source))
    return re.sub(r"(?m)^\s*(#|//).*$|(?s:\{#.*?#\})", "", source)
