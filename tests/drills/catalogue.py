"""Every drill, in the order in which they run."""

from __future__ import annotations

from drills import (
    drift,
    drip,
    limits,
    operators,
    power,
    product,
    proof,
    queue,
    scheduler,
    squatter,
    state_disk,
    trackers,
    wayback,
)
from drills.framework import Drill

DRILLS: tuple[Drill, ...] = (
    *power.DRILLS,
    *operators.DRILLS,
    *product.DRILLS,
    *proof.DRILLS,
    *trackers.DRILLS,
    *queue.DRILLS,
    *wayback.DRILLS,
    *state_disk.DRILLS,
    *limits.DRILLS,
    *scheduler.DRILLS,
    *drift.DRILLS,
    *drip.DRILLS,
    *squatter.DRILLS,
)
SHORT: tuple[Drill, ...] = tuple(drill for drill in DRILLS if drill.short)
