"""On the server: wait for one record of the journal and stop the program's process dead in its tracks.

``python3 watch.py JOURNAL LOCK SKIP EVENT [NTH [FIELD=VALUE]]`` - ``SKIP`` lines of the journal are old; at the NTH
record of that event the holder of the lock gets SIGSTOP, and its process id is printed. A record is on the disk
before the act that it announces begins, so the act is caught within milliseconds: no hook in the program.
Exit code 3 when the record does not come within 300 s.
"""

import json
import os
import signal
import sys
import time


def main() -> int:
    """Poll every two milliseconds; see the module."""
    journal, lock, skip, event = sys.argv[1:5]
    nth = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    field, _, value = sys.argv[6].partition("=") if len(sys.argv) > 6 else ("", "", "")
    deadline = time.monotonic() + 300
    offset, lines, seen = 0, 0, 0
    print("watching", flush=True)
    while time.monotonic() < deadline:
        try:
            with open(journal, "rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            data = b""
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            offset += len(line)
            lines += 1
            record = json.loads(line)
            if lines <= int(skip) or record["event"] != event or (field and str(record.get(field)) != value):
                continue
            seen += 1
            if seen == nth:
                with open(lock, encoding="ascii") as holder:
                    pid = int(holder.read().strip())
                os.kill(pid, signal.SIGSTOP)
                print(pid, flush=True)
                return 0
        time.sleep(0.002)
    return 3


if __name__ == "__main__":
    sys.exit(main())
