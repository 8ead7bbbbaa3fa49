"""Whether the text of an instrument file sets an option of ``Sentry.init()``."""

from __future__ import annotations

import re

_COMMENTS = re.compile(r"/\*.*?\*/|(?<![:\"'`])//[^\n]*", re.DOTALL)


def is_set_in(text: str, option: str) -> bool:
    """Whether ``option`` is given as a key, in short form, or by assignment, outside of comments.

    A file that takes its options from elsewhere (``...options``, ``init(options)``) is given the benefit of the doubt.
    """
    code = _COMMENTS.sub(" ", text)
    key = rf"""(?:^|[{{,\s])["']?{re.escape(option)}["']?\s*(?=[:,}}])|\.{re.escape(option)}\s*="""
    if re.search(key, code):
        return True
    return re.search(r"\binit\(\s*(?![\s{)])|\.\.\.\s*[A-Za-z_$(]", code) is not None
