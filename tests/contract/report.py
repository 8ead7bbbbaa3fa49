"""What a run found: the line at its end and ``artifacts/contract.json``."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Report:
    """Outcomes by rule. A rule that failed in any of its parts (set-up, call, tear-down) has failed."""

    server: str = ""
    version: str = ""
    line: str = ""
    line_source: str = ""
    destructive: bool = False
    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    provenances: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def note(self, rule: str, when: str, outcome: str, reason: str = "") -> None:
        """One part of a rule: ``when`` is setup, call or teardown; ``outcome`` passed, failed or skipped."""
        if outcome == "failed":
            self.outcomes[rule] = "failed"
        elif outcome == "skipped" and self.outcomes.get(rule) != "failed":
            self.outcomes[rule] = "not applicable"
            self.reasons[rule] = reason
        elif when == "call":
            self.outcomes.setdefault(rule, "passed")
        self.seconds = time.monotonic() - self.started

    def count(self, outcome: str) -> int:
        """How many rules ended so: ``passed``, ``failed``, ``not applicable``."""
        return sum(1 for found in self.outcomes.values() if found == outcome)

    def known_from(self) -> dict[str, int]:
        """How many of the rules that ran are known from where; ``measured`` is said of the 5.2 line only."""
        ran = [rule for rule, outcome in self.outcomes.items() if outcome != "not applicable"]
        found = Counter(self.provenances[rule] for rule in ran if rule in self.provenances)
        return dict(found.most_common())

    def why(self) -> dict[str, int]:
        """Reasons why rules were not applicable, with how many each."""
        rules = [rule for rule, outcome in self.outcomes.items() if outcome == "not applicable"]
        return dict(Counter(self.reasons[rule] for rule in rules).most_common())

    def sentence(self) -> str:
        """The line at the end of a run."""
        what = f"GlitchTip {self.version or 'of unknown version'}, line {self.line} by {self.line_source}"
        reasons = "; ".join(f"{count} {reason}" for reason, count in self.why().items())
        skipped = f"{self.count('not applicable')} not applicable" + (f" ({reasons})" if reasons else "")
        ran = self.count("passed") + self.count("failed")
        known = ", ".join(f"{count} {where}" for where, count in self.known_from().items())
        known = f"; known from: {known}" if known else ""
        return (
            f"contract: {ran} rules ran on {self.server} ({what}) in {self.seconds:.0f} s:"
            f" {self.count('passed')} passed, {self.count('failed')} failed, {skipped}{known}"
        )

    def as_json(self) -> dict[str, Any]:
        """What ``artifacts/contract.json`` holds of one run: counts, reasons, names of rules; no secret."""
        return {
            "server": self.server,
            "version": self.version,
            "rules": len(self.outcomes),
            "passed": self.count("passed"),
            "failed": self.count("failed"),
            "not_applicable": self.count("not applicable"),
            "line": self.line,
            "line_source": self.line_source,
            "destructive": self.destructive,
            "seconds": round(self.seconds, 1),
            "reasons": self.why(),
            "provenance": self.known_from(),
            "failures": sorted(rule for rule, outcome in self.outcomes.items() if outcome == "failed"),
            "leftovers": self.leftovers,
        }

    def write(self, path: Path) -> None:
        """Write :meth:`as_json`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")


def joined(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Several runs as one report of the same keys: counts added up, names joined, the runs themselves beside."""
    if len(runs) == 1:
        return {**runs[0], "runs": runs}
    texts = {key: ", ".join(run[key] for run in runs) for key in ("server", "version")}
    counts = {key: sum(run[key] for run in runs) for key in ("rules", "passed", "failed", "not_applicable")}
    return {**texts, **counts, "runs": runs}
