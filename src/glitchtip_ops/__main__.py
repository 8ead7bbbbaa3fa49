"""``python -m glitchtip_ops``: the same as the command ``glitchtip-ops``."""

import sys

from .cli import main

sys.exit(main())
