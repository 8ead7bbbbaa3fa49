"""Mitogen's linear strategy, which keeps one Python on the server for a whole play: a task costs a tenth.

Mitogen 0.3 sends a module's own ``module_utils`` after reading the imports of its code, without those that are relative, as ours are among
each other; here they are found too.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType

import mitogen.imports
from ansible_mitogen import module_finder
from ansible_mitogen.plugins.strategy import mitogen_linear

DOCUMENTATION = """
name: fast
short_description: Mitogen's linear strategy, for module_utils that import each other relatively
description:
  - Used by tests for runs after the first one, which goes as an operator's.
"""

_absolute = module_finder.walk_imports


def walk_imports(code: CodeType, prefix: str = "") -> Iterator[str]:
    """Names that the code imports, parents first; Mitogen compiles it with the module's name as its file.

    Whether the module is a package is not known here, so a relative import is read both ways; names of no module do no harm.
    """
    yield from _absolute(code, prefix)
    name = code.co_filename
    for level, module, names in mitogen.imports.codeobj_imports(code):
        for package in (name, name.rpartition(".")[0]) if level else ():
            path = package.split(".")
            full = [*path[: len(path) - level + 1], *filter(None, module.split("."))]
            if not ".".join(full).startswith(prefix):
                continue
            found = [*(full[:end] for end in range(1, len(full) + 1)), *([*full, leaf] for leaf in names)]
            yield from (".".join(each) for each in found if len(each) > prefix.count("."))


module_finder.walk_imports = walk_imports
StrategyModule = mitogen_linear.StrategyModule
