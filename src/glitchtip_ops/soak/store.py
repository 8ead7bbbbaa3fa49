"""The files of a soak: the plan, a line a sample (fsynced), the verdict.

``<state_dir>/<migration_id>/`` holds the soak that opens the cutover, ``soak-<name>/`` below it a further one
with files of its own: a soak after the cutover never touches the verdict that the cutover used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from glitchtip_core.files import append_line, read_object, write_object

from .plan import Plan

Sample = Mapping[str, Any]
_LONGEST_LINE = 256 * 1024


def _sample_of(line: bytes) -> dict[str, Any] | None:
    """The sample in a line; None for one that a power cut or a full disk tore, or that is no sample."""
    try:
        entry = json.loads(line)
        datetime.fromisoformat(entry["at"])
    except (ValueError, TypeError, KeyError):
        return None
    return entry if isinstance(entry, dict) else None


class SoakFiles:
    """Where one soak of a migration is kept; ``name`` is empty for the one that opens the cutover."""

    def __init__(self, migration_directory: Path, name: str = "") -> None:
        self.name = name
        self.directory = migration_directory / f"soak-{name}" if name else migration_directory
        self.plan = self.directory / "plan.json"
        self.samples = self.directory / "soak.jsonl"
        self.verdict = self.directory / "verdict.json"
        self.out_of_reach = self.directory / "out_of_reach.json"
        self.parity = migration_directory / "parity.json"

    @staticmethod
    def all_of(migration_directory: Path) -> list[SoakFiles]:
        """Every soak of the migration that was ordered, the one that opens the cutover first."""
        names = sorted(path.parent.name[5:] for path in migration_directory.glob("soak-*/plan.json"))
        found = [SoakFiles(migration_directory), *(SoakFiles(migration_directory, name) for name in names)]
        return [files for files in found if files.plan.exists()]

    def read_plan(self) -> Plan | None:
        """The plan, or None when no soak was ordered."""
        data = read_object(self.plan)
        return None if data is None else Plan.from_json(data)

    def read_samples(self) -> Iterator[dict[str, Any]]:
        """All whole lines, one at a time; a torn line is left out (the verdict sees its gap)."""
        try:
            with self.samples.open("rb") as stream:
                for line in stream:
                    entry = _sample_of(line)
                    if entry is not None:
                        yield entry
        except FileNotFoundError:
            return

    def edges(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The first and the last sample without reading those between; None when there is none."""
        first = next(self.read_samples(), None)
        if first is None:
            return None
        with self.samples.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LONGEST_LINE))
            for line in reversed(stream.read().split(b"\n")):
                last = _sample_of(line)
                if last is not None:
                    return first, last
        return first, first

    def add(self, sample: Sample) -> None:
        """Keep one sample, durably. Raises OpsError when it could not be (a full disk); others are whole."""
        append_line(self.samples, json.dumps(sample, sort_keys=True, separators=(",", ":")))

    def set_aside(self, now: datetime) -> None:
        """Rename what is there, so that a new soak can begin; nothing is deleted."""
        stamp = now.strftime("%Y%m%d-%H%M%S")
        for path in (self.plan, self.verdict, self.out_of_reach, self.samples):  # cut off after the first, no soak runs
            if path.exists():
                path.rename(path.with_name(f"{path.stem}.{stamp}{path.suffix}"))

    def write_plan(self, plan: Plan) -> None:
        """Order the soak."""
        write_object(self.plan, plan.to_json())
