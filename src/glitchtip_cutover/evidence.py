"""What an apply and a confirm demand as evidence that a service is on its new DSN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .api import Event, await_event
from .config import Side
from .errors import CutoverError, ServiceError, UnprovenServiceError
from .heard import Attribution
from .parts import Parts
from .proof import SERVER_TAG, Proof
from .rehearsal import ACCEPT
from .targets import MIRROR, Target, to_before


class Evidence(Parts):
    """Proofs of services, and who accepts that there is none."""

    def prove(
        self, names: list[str], target: Target, baseline: set[str], talking: Mapping[str, float]
    ) -> dict[str, Proof]:
        """Prove every named service; raises ServiceError at the first that is not on its DSN."""
        proofs: dict[str, Proof] = {}
        for name, found in self.proving.outcomes(names, target, baseline):
            outcome = self._without_proof(name, found, talking) if isinstance(found, CutoverError) else found
            if outcome.kind != "own_event":
                self.see_that_none_goes_astray(name, target, outcome.event_id)
                if name in talking and not self.config.confirm_window:
                    self._accept(
                        name, f"about {talking[name]:g} events of {name} were expected, and none arrived"
                    )
            if target.name == MIRROR and len(target.sides[name]) == 1:
                note = "; ".join(filter(None, (outcome.note, "the old side accepted, not read back")))
                outcome = replace(outcome, note=note)
            self.journal.append("proved", service=name, proof=outcome.kind, event_id=outcome.event_id)
            self.host.progress(f"{name}: {outcome.kind} {outcome.event_id}")
            proofs[name] = outcome
        return proofs

    def _without_proof(self, name: str, error: CutoverError, talking: Mapping[str, float]) -> Proof:
        """What to record for a service that no probe can prove: it is accepted by its name, or is to be heard.

        Raises the error where neither holds.
        """
        if not isinstance(error, UnprovenServiceError):
            raise error
        if name in talking and self.config.confirm_window and name not in self.config.accept_unproven:
            return Proof("none", note=str(error))
        self._accept(name, str(error))
        return Proof("none", note=f"accepted as unproven: {error}")

    def _accept(self, name: str, reason: str) -> None:
        """Journal that a service is accepted without a proof. Raises UnprovenServiceError where nobody accepts it."""
        if name not in self.config.accept_unproven:
            raise UnprovenServiceError(f"{reason}; {ACCEPT}")
        self.journal.append("unproven_accepted", service=name, reason=reason)

    def see_that_none_goes_astray(self, name: str, target: Target, probe: str) -> None:
        """A probe speaks for a service's settings, not for its code: nothing that it reported since its restart may be at the old tracker alone.

        A job that rests has not been restarted, what its last run reported may be there. Which name the service gives its server, where
        its code sets one, is seen in the probe's event. Raises ServiceError. An old tracker that cannot be asked is no reason against
        the switch.
        """
        listed = self.services.processes()
        attribution = Attribution(self.config, listed)
        running = [found for found in listed if found.name == name and found.online]
        new = target.sides[name][0]
        old = [side for side in to_before(self.config, self.snapshots.before()).sides[name] if side != new]
        if not running or not old:
            return
        stood_in = self.host.tracker(new).event(probe) if probe else None
        servers = {stood_in.tags[SERVER_TAG]} if stood_in and SERVER_TAG in stood_in.tags else set()
        for side in old:
            try:
                events = self.host.tracker(side).recent_events()
            except CutoverError as error:
                self.host.progress(f"{error}; whether {name} still reports there was not seen")
                continue
            for process in running:
                own = attribution.find(events, [process], (), self.host.tracker(side).event, servers)
                if own and not (side in target.sides[name] and self.await_event(new, own.event_id)):
                    raise ServiceError(
                        f"{name} still reports to the {side.name} tracker alone: its event {own.event_id} arrived there after its restart, "
                        f"so its code sets the DSN itself, whatever {self.config.env_key} says"
                    )

    def await_event(self, side: Side, event_id: str) -> Event | None:
        """The event, once that tracker has it; behind the mirror what reached one side is about to reach the other."""
        return await_event(
            self.host.tracker(side),
            event_id,
            self.config.probe_wait,
            monotonic=self.host.monotonic,
            sleep=self.host.sleep,
        )
