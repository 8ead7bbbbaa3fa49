"""What can go wrong: the errors of the shared package, and those of services."""

from __future__ import annotations

from glitchtip_core.errors import BusyError as BusyError
from glitchtip_core.errors import CoreError
from glitchtip_core.errors import IncompleteError as IncompleteError
from glitchtip_core.errors import InterruptedRunError as InterruptedRunError
from glitchtip_core.errors import RolledBackError as RolledBackError
from glitchtip_core.errors import StepTooLongError as StepTooLongError
from glitchtip_core.errors import StoppedError as StoppedError
from glitchtip_core.errors import UnexpectedError as UnexpectedError
from glitchtip_core.errors import UnprovenError as UnprovenError
from glitchtip_core.errors import UnrecordedError as UnrecordedError
from glitchtip_core.errors import UsageError as UsageError
from glitchtip_core.errors import unexpected as unexpected

#: There is one base of errors; this is its name here.
CutoverError = CoreError


class ServiceError(CutoverError):
    """A service did not come back, or could not be proven on the wanted DSN."""


class ProcessGoneError(ServiceError):
    """The process of a service ended after its manager had listed it."""


class UnprovenServiceError(ServiceError):
    """Whether a service uses the wanted DSN could not be determined; the operator may accept that by its name."""
