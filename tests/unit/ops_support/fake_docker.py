"""``docker`` as far as the tools call it, on the state in $FAKE_WORLD/docker.json.

The tools of PostgreSQL are run for real in a world with a real server, else played on the databases in
$FAKE_WORLD/cluster.json: there a database is a mapping of table to number of rows, a dump is that mapping
as JSON, and knobs make the tools misbehave: ``dump_fails``, ``dump_drops`` (a table that the dump lacks),
``restore_fails``. As a program it speaks on its streams; tests call ``docker`` in their own process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

#: What the script that reads the queue answers on a 5.2 server where nothing waits.
IDLE_QUEUE = {
    "kombu": 1,
    "known": 0,
    "celery": 0,
    "oldest_celery": "",
    "unacked": 0,
    "stranded": 0,
    "first": "",
    "held": [""],
    "failed": 0,
    "queues": {"ingest": [0, ""], "default": [0, ""]},
    "used": 1_500_000,
}


class Refusal(Exception):  # noqa: N818
    """The program would end with an exit code; its message goes to stderr."""


def answer_sql(cluster: dict, database: str, line: str) -> str:
    """What psql prints for one line of SQL."""
    databases = cluster["databases"]
    if line.startswith("\\echo"):
        return line.split(None, 1)[1].strip() + "\n"
    if "pg_export_snapshot" in line:
        return "00000003-0000001B-1\n"
    if "current_database(), " in line:
        return f"{database}\t{cluster['version']}\n"
    if "current_setting" in line:
        return f"{cluster['version']}\n"
    if "pg_database_size" in line:
        return "1000\n"
    if "FROM pg_database" in line:
        return "".join(f"{name}\n" for name in databases if name.startswith("glitchtip_verify_"))
    if "to_regclass('db_vtaskmetadata')" in line:
        return "t\n" if "vtasks" in cluster else "f\n"
    if "FROM db_vtaskmetadata" in line:
        return "".join(f"{key}\t{value}\n" for key, value in cluster["vtasks"].items())
    if "to_regclass('django_migrations')" in line:
        return "issues\t0042_last\n"
    if line.startswith("ORDER BY n.nspname"):
        return "".join(f"{name}\t{rows}\n" for name, rows in databases[database].items())
    return ""


def database_tool(root: Path, tool: str, argv: list[str], stdin: str) -> str:
    """What createdb, dropdb, pg_dump, pg_restore and psql print and do to the cluster."""
    path = root / "cluster.json"
    cluster = json.loads(path.read_text())
    databases = cluster["databases"]
    named = argv[argv.index("-d") + 1] if "-d" in argv else "glitchtip"
    if tool == "psql":
        return "".join(answer_sql(cluster, named, line) for line in stdin.splitlines())
    if tool == "pg_dump":
        if cluster.get("dump_fails"):
            raise Refusal("pg_dump: error: query failed")
        kept = {name: rows for name, rows in databases[named].items() if name != cluster.get("dump_drops")}
        return json.dumps(kept) + "\n"
    if tool == "createdb":
        databases[argv[-1]] = {}
    elif tool == "dropdb":
        databases.pop(argv[-1], None)
    elif tool == "pg_restore":
        if cluster.get("restore_fails"):
            raise Refusal("pg_restore: error: could not read from input file: end of file")
        databases[named] = json.loads(stdin)
    path.write_text(json.dumps(cluster))
    return ""


def docker(root: Path, argv: list[str], stdin: str = "") -> str:
    """What ``docker <argv>`` prints. Raises Refusal when it would fail."""
    with (root / "calls.jsonl").open("a") as log:
        log.write(json.dumps(argv) + "\n")
    state = json.loads((root / "docker.json").read_text())
    if state.get("down"):
        raise Refusal("Cannot connect to the Docker daemon")
    containers = {entry["Id"]: entry for entry in state["containers"]}
    command, *rest = argv
    if command == "ps":
        return "".join(f"{name}\n" for name in containers)
    if command in ("stop", "start", "restart"):
        return ""
    if command == "inspect" and "{{.State.ExitCode}}" in rest:
        return f"{containers[rest[-1]]['State']['ExitCode']}\n"
    if command == "inspect" and "{{json .Config.Env}}" in rest:
        return json.dumps(containers[rest[-1]]["Config"].get("Env", []))
    if command == "inspect" and "--format" in rest:
        return json.dumps(containers[rest[-1]]["Mounts"])
    if command == "inspect":
        return json.dumps([containers[word] for word in rest if word in containers])
    if command == "image":
        return json.dumps(["registry.example.org:5000/x@sha256:" + "b" * 64])
    if command == "stats":
        names = [containers[word]["Name"].lstrip("/") for word in rest if word in containers]
        return "".join(f"{name}\t{state['stats']}\n" for name in names)
    if command == "logs":
        return state["logs"].get(containers[rest[-1]]["Config"]["Labels"]["com.docker.compose.service"], "")
    if command == "info":
        return state.get("root", "/var/lib/docker") + "\n"
    if command == "exec" and "EVAL" in rest:
        return json.dumps({**IDLE_QUEUE, **state.get("queue", {})})
    if command == "exec" and "valkey-cli" in rest:
        return "\n".join(state["valkey"]) if "--scan" in rest else state["valkey"][rest[-1]]
    if command == "exec" and "sh" in rest:
        words = rest[rest.index("sh") :]
        if state.get("postgres") == "fake":
            return database_tool(root, words[4], words[5:], stdin)
        os.environ.update(
            {"POSTGRES_USER": "glitchtip", "POSTGRES_DB": "glitchtip", "POSTGRES_PASSWORD": "secret-pw"}
        )
        os.execvp("sh", words)  # noqa: S606
    raise Refusal(f"unexpected: {argv}")


if __name__ == "__main__":
    try:
        sys.stdout.write(docker(Path(os.environ["FAKE_WORLD"]), sys.argv[1:]))
    except Refusal as refusal:
        sys.exit(str(refusal))
