"""Settings and health."""

from __future__ import annotations

from . import auth, db, state
from .auth import api
from .http import Request, Response, answer, router


@router.route("/api/settings/", "GET")
def settings(request: Request) -> Response:  # noqa: ARG001
    """Open to all. Needs the database, as on the real server: 500 when it is down."""
    current = state.get().settings
    first = registration_for_first_user()
    return answer(
        {
            "socialApps": [],
            "billingEnabled": False,
            "iPaidForGlitchTip": False,
            "enableUserRegistration": current.user_registration or first,
            "enableSocialAppsUserRegistration": current.social_registration or first,
            "enableOrganizationCreation": current.organization_creation,
            "stripePublicKey": None,
            "plausibleUrl": None,
            "plausibleDomain": None,
            "chatwootWebsiteToken": None,
            "sentryDSN": None,
            "sentryTracesSampleRate": 0.01,
            "environment": None,
            "version": current.version,
            "serverTimeZone": "UTC",
            "glitchtipInstanceName": current.instance_name,
        }
    )


def registration_for_first_user() -> bool:
    """Closed registration stays open while there is no user at all."""
    return not db.must("SELECT EXISTS (SELECT FROM users_user) AS any")["any"]


@api("/api/0/organizations/{org}/chunk-upload/", "GET")
def chunk_upload(request: Request, org: str) -> Response:
    """How source maps would be uploaded; the upload itself is not imitated."""
    auth.organization(request, org)
    return answer(
        {
            "url": f"{state.get().settings.domain}/api/0/organizations/{org}/chunk-upload/",
            "chunkSize": 33554432,
            "chunksPerRequest": 1,
            "maxFileSize": 2147483648,
            "maxRequestSize": 33554432,
            "concurrency": 1,
            "hashAlgorithm": "sha1",
            "compression": ["gzip"],
            "accept": ["debug_files", "release_files", "pdbs", "sources", "artifact_bundles"],
        }
    )


@router.route("/_health/", "GET")
def health(request: Request) -> Response:  # noqa: ARG001
    """200 whenever the process runs, also without database and Valkey."""
    return Response(200, b"ok", "text/plain")


@router.route("/api/0/internal/health", "GET")
def internal_health(request: Request) -> Response:  # noqa: ARG001
    """The same, without a trailing slash."""
    return Response(200, b'{"healthy": {}, "problems": []}', "application/json")
