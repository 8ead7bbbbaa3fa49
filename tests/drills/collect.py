"""On the server: what stands there now, read without the program under test.

A JSON object on standard input: ``{"env_file", "state_dir", "directories", "dump", "key", "dsns": {"old", "new"},
"canaries": {name: text}, "service_prefix"}``; a JSON object on standard output. DSNs are told as old, new, other or none.
"""

import fcntl
import json
import os
import re
import subprocess
import sys


def which(value, dsns):
    """How a DSN is called."""
    if not value:
        return "none"
    return next((name for name, dsn in dsns.items() if dsn == value), "other")


def env_file(path, key, dsns):
    """The DSN of the file, by a reader of our own, and the file with that value taken out."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        return {"dsn": "unreadable", "rest": str(error)}
    found = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    rest = re.sub(rf"^{key}=.*$", f"{key}=", text, flags=re.MULTILINE)
    return {"dsn": which(found[0], dsns) if len(found) == 1 else f"{len(found)} times", "rest": rest}


def journal_phase(path):
    """What the last record that opens or closes a change says; and the names of the records."""
    try:
        with open(path, encoding="utf-8") as file:
            events = [json.loads(line)["event"] for line in file]
    except FileNotFoundError:
        return "none", []
    except (ValueError, KeyError):
        return "damaged", []
    phase = "none"
    for event in events:
        phase = {
            "apply_begin": "open",
            "applied": "applied",
            "confirmed": "confirmed",
            "rollback_begin": "open",
            "rollback_incomplete": "incomplete",
            "rolled_back": "rolled_back",
            "override_begin": "open",
            "override_incomplete": "incomplete",
            "override_done": "confirmed",
            "override_dropped": "confirmed",
        }.get(event, phase)
    return phase, events


def lock_free(path):
    """Whether nobody holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def carried(entry, key, dsns):
    """The DSN in PM2's stored environment of one entry, wherever it stands."""
    places = [
        entry,
        entry.get("env") or {},
        entry.get("pm2_env") or {},
        (entry.get("pm2_env") or {}).get("env") or {},
    ]
    values = {place[key] for place in places if isinstance(place, dict) and place.get(key)}
    return "none" if not values else which(values.pop(), dsns) if len(values) == 1 else "several"


def leftovers(directories):
    """Files of an interrupted write."""
    found = []
    for directory in directories:
        for path, directories_below, names in os.walk(directory):
            directories_below[:] = [
                name for name in directories_below if name not in ("node_modules", "modules")
            ]
            found += [os.path.join(path, name) for name in names if name.endswith(".part")]
    return found


def secrets_in(canaries, texts):
    """``secret in place`` for each secret that a text shows."""
    return [
        f"{name} in {place}"
        for place, text in texts.items()
        for name, value in canaries.items()
        if value in text
    ]


def main():
    """See the module."""
    asked = json.load(sys.stdin)
    dsns, key, state_dir = asked["dsns"], asked["key"], asked["state_dir"]
    listed = (
        subprocess.run(
            ["timeout", "20", "pm2", "jlist"],
            capture_output=True,
            text=True,
            env={**os.environ, "PM2_HOME": "/root/.pm2"},
        ).stdout
        if os.path.exists("/root/.pm2/rpc.sock")
        else ""
    )
    at = listed.find("[{")
    processes = json.loads(listed[at:]) if at >= 0 else []
    try:
        with open(asked["dump"], encoding="utf-8") as file:
            dump = json.load(file)
    except (OSError, ValueError):
        dump = []
    phase, events = journal_phase(f"{state_dir}/journal.jsonl")
    units = subprocess.run(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", f"{asked['service_prefix']}*"],
        capture_output=True,
        text=True,
    ).stdout
    texts = {
        "systemd's journal": subprocess.run(
            ["journalctl", "-q", "--no-pager", "-o", "json", "-a"], capture_output=True, text=True
        ).stdout,
        "the arguments of a process": subprocess.run(
            ["ps", "axww", "-o", "args"], capture_output=True, text=True
        ).stdout,
    }
    for name in ("journal.jsonl", "applied.json", "rolled_back.json"):
        try:
            with open(f"{state_dir}/{name}", encoding="utf-8") as file:
                texts[name] = file.read()
        except OSError:
            pass
    print(
        json.dumps(
            {
                "env": env_file(asked["env_file"], key, dsns),
                "processes": {
                    entry["name"]: {
                        "pid": entry.get("pid") or 0,
                        "status": entry["pm2_env"]["status"],
                        "carries": carried(entry, key, dsns),
                        "job": bool(entry["pm2_env"].get("cron_restart")),
                    }
                    for entry in processes
                    if not entry["pm2_env"].get("pmx_module")
                },
                "dump": {entry["name"]: carried(entry, key, dsns) for entry in dump if "name" in entry},
                "journal": phase,
                "events": events,
                "open": os.path.exists(f"{state_dir}/open"),
                "lock_free": lock_free(f"{state_dir}/lock"),
                "active": [
                    line.split()[0]
                    for line in units.splitlines()
                    if line.split()[2] in ("active", "activating", "deactivating", "reloading")
                ],
                "leftovers": leftovers(asked["directories"]),
                "secrets": secrets_in(asked["canaries"], texts),
            }
        )
    )


if __name__ == "__main__":
    main()
