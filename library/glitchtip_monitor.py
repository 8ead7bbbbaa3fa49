#!/usr/bin/python
"""Keep an uptime monitor of a GlitchTip organization as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_monitor
short_description: Create, change or delete an uptime monitor of a GlitchTip organization
description:
  - Finds the monitor by its name within the organization, and fails when two have the name.
  - A monitor tells nobody anything by itself. It is reported by the alert rules of its O(project) that have
    C(uptime), see M(glitchtip_alert), when it goes down after it was up, and when it comes back. A monitor that is
    down from its first check on is never reported, so create it while its target is up.
  - Values that would harm the server are refused before anything is sent. An interval of 0 would stop the
    checks of every monitor of the instance, an unknown type would break the list of monitors for everyone.
  - The checks are made by GlitchTip's worker, from where it runs.
options:
  organization:
    description: Slug of the organization.
    type: str
    required: true
  name:
    description: Name of the monitor.
    type: str
    required: true
  type:
    description:
      - What is checked. A new monitor needs it.
      - V(Ping) sends HEAD and takes any answer for up. V(GET) and V(POST) compare the status and the body.
        V(TCP Port) opens a connection. V(Heartbeat) waits for calls of the returned C(heartbeatEndpoint).
      - V(SSL) is reported as down always; the module warns. Use V(GET) with an https address.
    type: str
    choices: [Ping, GET, POST, TCP Port, SSL, Heartbeat]
  target:
    description:
      - Complete address of what is checked (RV(monitor.url)); host name or IPv4 address with port for V(TCP Port); nothing for
        V(Heartbeat).
      - The server refuses host names without a dot, such as service names of Docker, except for V(TCP Port).
    type: str
  project:
    description:
      - Slug of the project whose alert rules report the monitor. An empty string unlinks it.
      - Without one nobody is told; the module warns.
    type: str
  interval:
    description:
      - Seconds between two checks, 1 to 32767, on 6.x to 86400. For V(Heartbeat) the longest time without a call.
      - Left out, a new monitor has 60.
    type: int
  check_timeout:
    description: Seconds that a check may take, 1 to 60. Left out, the server takes 20.
    type: int
  expected_status:
    description: HTTP status of the answer that is up. V(GET) and V(POST) need it.
    type: int
  expected_body:
    description: Text that the answer contains when it is up. An empty string takes any.
    type: str
extends_documentation_fragment: [glitchtip, glitchtip.state]
"""

EXAMPLES = r"""
- name: Watch the shop's health address
  glitchtip_monitor:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    name: shop
    type: GET
    target: https://shop.example.org/health
    expected_status: 200
    expected_body: ok
    interval: 30
    check_timeout: 10
    project: ai-admin

- name: Watch a container by its service name
  glitchtip_monitor:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    name: database
    type: TCP Port
    target: postgres:5432
    project: ai-admin

- name: Expect a sign of life of the hourly job, with half an hour to spare
  glitchtip_monitor:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    name: hourly-job
    type: Heartbeat
    interval: 5400
    project: ai-admin
  register: hourly_job
  no_log: true
"""

RETURN = r"""
monitor:
  description:
    - The monitor, null when it is absent.
    - Whoever knows its C(heartbeatEndpoint) may report life. It is returned because the job needs it; use
      C(no_log) and keep it like a password. In a diff it is masked.
  returned: success
  type: dict
  sample:
    id: 1
    name: hourly-job
    monitorType: Heartbeat
    url: ""
    projectID: "10"
    interval: 5400
    timeout: null
    expectedStatus: null
    expectedBody: ""
    heartbeatEndpoint: https://errors.example.org/api/0/organizations/ai-admin/heartbeat_check/0000..0000/
predicted:
  description: True in check mode when the object was not read but foreseen; unknown values are empty then.
  returned: success
  type: bool
msg:
  description: In check mode, why the change was foreseen without reading.
  returned: in check mode, when the server, the token or the parent is not there yet
  type: str
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
"""

from ansible.module_utils.glitchtip_api.ansible_support import run
from ansible.module_utils.glitchtip_api.ensure import ensure_monitor
from ansible.module_utils.glitchtip_api.ensure.monitor import predicted_monitor

TYPES = ["Ping", "GET", "POST", "TCP Port", "SSL", "Heartbeat"]


def main() -> None:
    run(
        "monitor",
        {
            "organization": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "type": {"type": "str", "choices": TYPES},
            "target": {"type": "str", "no_log": False},
            "project": {"type": "str"},
            "interval": {"type": "int"},
            "check_timeout": {"type": "int"},
            "expected_status": {"type": "int"},
            "expected_body": {"type": "str", "no_log": False},
        },
        lambda client, p, dry_run: ensure_monitor(
            client,
            p["organization"],
            p["name"],
            type=p["type"],
            url=p["target"],
            project=p["project"],
            interval=p["interval"],
            timeout=p["check_timeout"],
            expected_status=p["expected_status"],
            expected_body=p["expected_body"],
            state=p["state"],
            dry_run=dry_run,
        ),
        lambda p: predicted_monitor(
            p["name"],
            {
                "monitorType": p["type"],
                "url": p["target"],
                "interval": p["interval"],
                "timeout": p["check_timeout"],
                "expectedStatus": p["expected_status"],
                "expectedBody": p["expected_body"],
            },
            p["project"],
        ),
    )


if __name__ == "__main__":
    main()
