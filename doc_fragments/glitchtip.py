"""The options that every glitchtip module shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Connection, and separately the state, for `extends_documentation_fragment`."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - Address of the server as this module reaches it, for example V(http://127.0.0.1:8080).
      - The module runs where the task runs; a GlitchTip bound to localhost needs the task on its host.
    type: str
    required: true
  token:
    description:
      - API token. GlitchTip shows it once, when it is created; see M(glitchtip_token).
      - May be empty in check mode, while the step that creates it has not run.
    type: str
  timeout:
    description: Seconds to wait for each answer.
    type: int
    default: 30
  ca_path:
    description:
      - PEM file, where the module runs, with the certificates of the authorities that the server's
        certificate may be signed by. Without it the usual authorities are trusted, or those of the
        environment variable E(REQUESTS_CA_BUNDLE).
    type: path
  validate_certs:
    description: Whether the server's certificate must be valid. V(false) lets anyone between read the token.
    type: bool
    default: true
requirements:
  - python >= 3.11
  - requests >= 2.32
  - urllib3 >= 2.0
author:
  - The maintainers of this repository (@maintainers)
notes:
  - Requests that only read or may safely be repeated are repeated after 429, 502, 503, 504 and after a lost
    connection, with growing pauses. A create is never repeated before looking whether it happened.
  - Proxies of the environment (E(HTTPS_PROXY), E(HTTP_PROXY), E(NO_PROXY)) are used, but never for an address
    of the machine itself. A C(~/.netrc) is not read.
  - GlitchTip 5.0 or newer; an older server is refused with a clear message.
"""

    STATE = r"""
options:
  state:
    description:
      - Whether the object should be there. Only the named object is touched.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description:
      - Makes no write; the client refuses every method but GET and HEAD.
      - Where the server, the token or the parent object is not there yet, the module reports the change
        that it would make and says so in RV(ignore:msg).
    support: full
  diff_mode:
    description: Shows the changed keys only. Secrets and the paths of webhook addresses are masked.
    support: full
"""
