"""``python -m attack``: measure, attack every measured name in every way, print ``N of N held``; 1 when one is not."""

from __future__ import annotations

import os
import sys
import time

from attack.matrix import measure, run

#: Times that root opens a name while the user swaps it.
RACES = 1000


def main() -> int:
    """Run the whole matrix; prints what was measured, and every attack that got through or has no working control."""
    if os.geteuid() != 0:
        print("attack: needs root, who is attacked here by a user without any rights", file=sys.stderr)
        return 1
    began = time.monotonic()
    measured = measure()
    for text in sorted(measured.outside):
        print(f"not through the layer: {text}")
    print(f"{len(measured.files())} names of another user are opened, written, moved or removed; {len(measured.seen)} are looked at")
    cells = measured.cells()
    held = proven = 0
    for cell in cells:
        calls = measured.calls_of(cell)
        told = run(cell, calls, RACES)
        without = run(cell, calls, RACES, protected=False)
        held += not told
        proven += bool(without)
        if told or not without:
            state = f"BROKEN: {told}" if told else "held, but without the protection it holds too"
            written = ", written in place" if cell.in_place else ""
            print(f"{cell.kind} in place of {cell.name}{written} ({cell.command}): {state}", flush=True)
    print(f"{proven} of {len(cells)} succeed with the protection off")
    print(f"{held} of {len(cells)} held ({time.monotonic() - began:.0f} s)")
    return 0 if held == proven == len(cells) and not measured.outside else 1


if __name__ == "__main__":
    sys.exit(main())
