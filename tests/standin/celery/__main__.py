"""``celery -A glitchtip worker [-B]``: the stand-in's worker, with its schedule if asked for."""

from __future__ import annotations

import sys

from standin.__main__ import main as standin


def main() -> None:
    """Run what ``sys.argv`` asks for; ends the process with its exit status."""
    if "worker" not in sys.argv:
        sys.exit(f"celery: only worker is played here, not {' '.join(sys.argv[1:])}")
    sys.exit(standin(["worker_with_beat" if "-B" in sys.argv else "worker"]))


if __name__ == "__main__":
    main()
