#!/bin/sh
# Bring the sample product up on its server: run as root after boot, as often as you like.
#
#   ssh root@server 'sh /opt/ai-admin/provision.sh' <<<"$DSN"      the DSN as one line on standard input,
#   SENTRY_DSN=... sh provision.sh                                 or in the environment; never as an argument
#
# An existing .env is left as it is: whoever changed it since had a reason (the DSN switch is one).
# AI_ADMIN_DSN_IN_PM2_ENV=<service> gives that service SENTRY_DSN in its PM2 environment as well.
# AI_ADMIN_EVENT_INTERVAL_MS (default 2000) goes into .env.
set -eu

APP_DIR=${AI_ADMIN_DIR:-/opt/ai-admin}
STATE_DIR=${AI_ADMIN_STATE_DIR:-/var/lib/ai-admin}
ENV_FILE=$APP_DIR/.env

fail() {
    echo "provision: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "must run as root"
[ -f "$APP_DIR/ecosystem.config.js" ] || fail "$APP_DIR holds no ecosystem.config.js"
[ -d "$APP_DIR/node_modules/@sentry/node" ] || fail "$APP_DIR has no node_modules: run npm ci there"
command -v pm2 >/dev/null || fail "pm2 is not installed"

umask 077
mkdir -p "$STATE_DIR"
if [ ! -e "$ENV_FILE" ]; then
    dsn=${SENTRY_DSN:-}
    if [ -z "$dsn" ] && [ ! -t 0 ]; then
        IFS= read -r dsn || [ -n "$dsn" ] || fail "no DSN on standard input and no SENTRY_DSN in the environment"
    fi
    case $dsn in
        http://?*@?*/?* | https://?*@?*/?*) ;;
        *) fail "SENTRY_DSN is not of the form http(s)://key@host/project" ;;
    esac
    cat >"$ENV_FILE.part" <<ENV
# AI Admin, production settings
NODE_ENV=production
PORT=3000

# Data
DATABASE_HOST=127.0.0.1
DATABASE_PORT=5433
DATABASE_NAME=ai_admin
REDIS_URL="redis://127.0.0.1:6379/0"

# Error tracking
SENTRY_ENABLED=true
SENTRY_DSN=$dsn
SENTRY_TRACES_SAMPLE_RATE=0.1
SENTRY_PROFILES_SAMPLE_RATE=0.1

# Product
COMPANY_NAME='Example Salon & Co'
AI_ADMIN_EVENT_INTERVAL_MS=${AI_ADMIN_EVENT_INTERVAL_MS:-2000}
AI_ADMIN_LEDGER=$STATE_DIR/ledger.jsonl
AI_ADMIN_SPOOL=$STATE_DIR/spool
ENV
    chmod 600 "$ENV_FILE.part"
    mv "$ENV_FILE.part" "$ENV_FILE"
    unset dsn
fi

# PM2 gives a service every variable of the shell that starts it. It gets a clean one, or each
# service would carry this shell's SENTRY_DSN for ever.
in_pm2() {
    env -i HOME=/root USER=root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        PM2_HOME="${PM2_HOME:-/root/.pm2}" AI_ADMIN_DSN_IN_PM2_ENV="${AI_ADMIN_DSN_IN_PM2_ENV:-}" "$@"
}

if [ -d /run/systemd/system ]; then
    if [ ! -f /etc/systemd/system/pm2-root.service ]; then
        in_pm2 pm2 startup systemd -u root --hp /root >/dev/null
    fi
    # The daemon belongs to its unit, not to the login session that runs this script.
    [ -e /root/.pm2/dump.pm2 ] || { mkdir -p /root/.pm2 && printf '[]' >/root/.pm2/dump.pm2; }
    systemctl is-active --quiet pm2-root || in_pm2 systemctl start pm2-root
fi
in_pm2 pm2 ping >/dev/null

if ! in_pm2 pm2 describe pm2-logrotate >/dev/null 2>&1; then
    in_pm2 pm2 install pm2-logrotate >/dev/null
fi
# `pm2 start` of a running ecosystem would restart it: only what is missing is started.
missing=$(in_pm2 pm2 jlist | APP_DIR=$APP_DIR node -e '
    const running = new Set(JSON.parse(require("fs").readFileSync(0, "utf8")).map((p) => p.name));
    const { apps } = require(process.env.APP_DIR + "/ecosystem.config.js");
    console.log(apps.map((a) => a.name).filter((name) => !running.has(name)).join(","));')
if [ -n "$missing" ]; then
    in_pm2 pm2 start "$APP_DIR/ecosystem.config.js" --only "$missing" >/dev/null
    in_pm2 pm2 save >/dev/null
fi
echo "provision: $(in_pm2 pm2 jlist | node -e '
    const list = JSON.parse(require("fs").readFileSync(0, "utf8"));
    console.log(list.map((p) => `${p.name} ${p.pm2_env.status}`).join(", "));')"
