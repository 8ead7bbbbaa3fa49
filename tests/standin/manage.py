#!/usr/bin/env python3
"""GlitchTip's ``manage.py``, as far as the container contract needs it."""

import sys

from standin.management import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
