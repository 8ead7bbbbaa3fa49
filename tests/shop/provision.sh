#!/bin/sh
# Bring the shop up on its server: run as root once after boot, the DSN as one line on standard input.
# PM2 belongs to the user `shop`, whose Node.js lies where nvm puts it.
set -eu

HOME_DIR=/srv/shop
APP_DIR=$HOME_DIR/app
BIN=$(ls -d "$HOME_DIR"/.nvm/versions/node/v*/bin)

IFS= read -r dsn || [ -n "$dsn" ] || { echo "provision: no DSN on standard input" >&2; exit 1; }
case $dsn in
    http://?*@?*/?* | https://?*@?*/?*) ;;
    *) echo "provision: the DSN is not of the form http(s)://key@host/project" >&2; exit 1 ;;
esac

as_shop() {
    (cd "$HOME_DIR" && runuser -u shop -- env -i HOME="$HOME_DIR" USER=shop LANG="${LANG:-C.UTF-8}" PM2_HOME="$HOME_DIR/.pm2" \
        PATH="$BIN:/usr/local/bin:/usr/bin:/bin" "$@")
}

install -d -o shop -g shop -m 700 /var/lib/shop
for settings in production web; do
    install -o shop -g shop -m 600 /dev/stdin "$APP_DIR/config/$settings.env" <<ENV
# Shop, $settings
SENTRY_DSN=$dsn
SENTRY_ENVIRONMENT=production
SENTRY_RELEASE=shop@3.1.0
AI_ADMIN_LEDGER=/var/lib/shop/ledger.jsonl
ENV
done
DSN=$dsn python3 - "$APP_DIR/ecosystem.config.cjs" <<'PYTHON'
import os, pathlib, sys
file = pathlib.Path(sys.argv[1])
file.write_text(file.read_text().replace("@SENTRY_DSN@", os.environ["DSN"]))
PYTHON

# As PM2 tells its user to do it as root; that leaves a daemon of root.
PATH="$BIN:$PATH" pm2 startup systemd -u shop --hp "$HOME_DIR" >/dev/null
PATH="$BIN:$PATH" pm2 kill >/dev/null
as_shop mkdir -p "$HOME_DIR/.pm2"
[ -e "$HOME_DIR/.pm2/dump.pm2" ] || as_shop sh -c 'printf "[]" > "$PM2_HOME/dump.pm2"'
systemctl start pm2-shop
as_shop pm2 start "$APP_DIR/ecosystem.config.cjs" --env production >/dev/null
as_shop pm2 save >/dev/null
echo "provision: $(as_shop pm2 jlist | python3 -c '
import json, sys
print(", ".join(p["name"] + " " + p["pm2_env"]["status"] for p in json.load(sys.stdin)))')"
