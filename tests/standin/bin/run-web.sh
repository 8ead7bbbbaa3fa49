#!/bin/sh
# The web server. Migrations are not run here.
set -e
if [ "${USE_GRANIAN:-}" != "true" ] && [ "${STANDIN_LINE:-5.2}" = "5.2" ]; then
  : > /tmp/project-master.pid # uWSGI writes its pid there; a read-only /tmp stops it
fi
exec python3 -m standin web
