"""DSNs in settings files are found with their line, variable, block and application; comments count for nothing."""

from __future__ import annotations

import time

import pytest

from glitchtip_cutover.mentions import CODE, LINES, YAML, find_mentions, mask

DSN = "https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@o1.ingest.sentry.example.org/7"
KEY = "SENTRY_DSN"
ECOSYSTEM = f"""\
// was {DSN}
const path = require('node:path'); /* {DSN} */
module.exports = {{
  apps: [
    {{
      name: 'api', // {DSN}
      script: './src/index.js',
      env: {{ NODE_ENV: 'production', SENTRY_DSN: '{DSN}' }},
      env_production: {{
        // {DSN}
      "SENTRY_DSN": "{DSN}",
      }},
    }},
    {{ env_staging: {{ ['SENTRY_DSN']: `{DSN}` }}, name: "worker" }},
  ],
  deploy: {{ production: {{ 'post-deploy': 'SENTRY_DSN={DSN} pm2 reload ecosystem.config.js' }} }},
}};
"""


def found(text: str, kind: str) -> list[tuple[int, str, str]]:
    return [(each.line, each.path, each.owner) for each in find_mentions(text, kind, KEY)]


def test_an_ecosystem_file_names_block_and_application_whatever_their_order() -> None:
    assert found(ECOSYSTEM, CODE) == [
        (8, "env.SENTRY_DSN", "api"),
        (11, "env_production.SENTRY_DSN", "api"),
        (14, "env_staging.SENTRY_DSN", "worker"),
        (16, "deploy.production.post-deploy", ""),
    ]


@pytest.mark.parametrize(
    ("text", "name", "declared"),
    [
        (f"const OLD = '{DSN}'; module.exports = {{apps: [{{env: {{SENTRY_DSN: OLD}}}}]}}", "OLD", True),
        (f"export default {{apps: [{{env: {{SENTRY_DSN: process.env.SENTRY_DSN || '{DSN}'}}}}]}}", KEY, False),
        (f"module.exports = {{apps: [{{env: {{SENTRY_DSN: prod ? '{DSN}' : 'x'}}}}]}}", KEY, False),
        (f"process.env.SENTRY_DSN = '{DSN}';", KEY, True),
        (f"process.env['SENTRY_DSN'] = '{DSN}'", KEY, True),
        (f"x({{apps: [{{env: Object.assign({{}}, {{SENTRY_DSN: '{DSN}'}})}}]}})", KEY, False),
        (f"if (a === b) {{ use('{DSN}') }}", "", False),
    ],
)
def test_code_gives_a_value_its_name_in_every_usual_form(text: str, name: str, declared: bool) -> None:
    mention = find_mentions(text, CODE, KEY)[0]
    assert (mention.name, mention.declared, mention.value) == (name, declared, DSN)


def test_code_shows_an_empty_value_and_one_that_is_put_together() -> None:
    text = "m = {apps: [{name: 'a', env: {SENTRY_DSN: ''}, env_production: {SENTRY_DSN: `https://${KEY}@o1.example.org/7`}}]}"
    empty, built = find_mentions(text, CODE, KEY)
    assert (empty.value, empty.path) == ("", "m.env.SENTRY_DSN")
    assert built.value == "https://${KEY}@o1.example.org/7"
    assert mask(built.value) == "https://***@o1.example.org/7"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (DSN, "https://***@o1.ingest.sentry.example.org/7"),
        ("https://a:b@c@host.example.org/1", "https://***@host.example.org/1"),
        ("key@host.example.org/1", "***"),
        ("x https://key@host.example.org/1", "***"),
        ("secret", "***"),
        ("", "-"),
    ],
)
def test_a_value_is_shown_without_its_key(value: str, shown: str) -> None:
    assert mask(value) == shown


def test_the_saved_list_of_pm2_names_the_service() -> None:
    text = '[\n {\n  "name": "api",\n  "env": {"name": "api"},\n  "SENTRY_DSN": "https:\\/\\/k@s.example.org\\/7"\n }\n]'
    mention = find_mentions(text, CODE, KEY)[0]
    assert (mention.line, mention.owner, mention.value) == (5, "api", "https://k@s.example.org/7")


COMPOSE = f"""\
name: product
services:
  api:
    environment:
      SENTRY_DSN: {DSN} # {DSN}
      # SENTRY_DSN: {DSN}
  worker:
    environment:
      - NODE_ENV=production
      - "SENTRY_DSN=${{SENTRY_DSN:-{DSN}}}"
  other:
    command: ["node", "--dsn", "{DSN}"]
"""
PM2_YAML = f"""\
apps:
  - script: ./index.js
    name: api
    env_production:
      SENTRY_DSN: "{DSN}"
  - name: worker
    env:
      SENTRY_DSN: {DSN}
"""
WORKFLOW = f"""\
name: Deploy
on: [push]
jobs:
  deploy:
    env:
      SENTRY_DSN: {DSN}
    steps:
      - name: write
        run: |
          echo "SENTRY_DSN={DSN}" > .env
"""


def test_yaml_files_name_service_and_place() -> None:
    assert found(COMPOSE, YAML) == [
        (5, "services.api.environment.SENTRY_DSN", "api"),
        (10, "services.worker.environment.SENTRY_DSN", "worker"),
        (12, "services.other.command", "other"),
    ]
    assert found(PM2_YAML, YAML) == [(5, "env_production.SENTRY_DSN", "api"), (8, "env.SENTRY_DSN", "worker")]
    assert [(line, owner) for line, _, owner in found(WORKFLOW, YAML)] == [(6, ""), (10, "")]
    assert [each.name for each in find_mentions(WORKFLOW, YAML, KEY)] == [KEY, KEY]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"SENTRY_DSN={DSN}", KEY),
        (f'export SENTRY_DSN="{DSN}" # x', KEY),
        (f"PUBLIC_SENTRY_DSN={DSN}", "PUBLIC_SENTRY_DSN"),
        (f'Environment="A=b" "SENTRY_DSN={DSN}"', KEY),
        (f"ENV SENTRY_DSN {DSN}", KEY),
        (f"ENV SENTRY_DSN={DSN}", KEY),
        (f'sed -i "s|^SENTRY_DSN=.*|SENTRY_DSN={DSN}|" .env', KEY),
        (f"SENTRY_DSN=${{SENTRY_DSN:-{DSN}}}", KEY),
        (f"node send.js {DSN}", ""),
    ],
)
def test_lines_of_scripts_units_and_env_files_name_the_variable(line: str, name: str) -> None:
    mention = find_mentions(f"\n{line}\n", LINES, KEY)[0]
    assert (mention.line, mention.name) == (2, name)


@pytest.mark.parametrize(
    "text",
    [
        f"# SENTRY_DSN={DSN}",
        f"  ; {DSN}",
        f"A=1 # {DSN}",
        "REDIS=redis://:pw@127.0.0.1:6379/0",
        "GIT=https://user:token@git.example.org/group/repository.git",
        "GIT=https://token@git.example.org/group/7-tools",
        "API=https://api.example.org/7",
    ],
)
def test_comments_and_other_addresses_are_no_dsn(text: str) -> None:
    assert find_mentions(text, LINES, KEY) == []


@pytest.mark.parametrize("kind", [CODE, YAML, LINES])
@pytest.mark.parametrize(
    "text",
    [
        "https://a@b" + "/1" * 200_000 + "/x",
        "https://" * 60_000,
        "'" * 300_000,
        "`" * 200_001,
        "{" * 200_000,
        "https://" + "a" * 500_000,
        ("- " * 50 + "a: 'b'\n") * 2000,
    ],
)
def test_a_hostile_file_costs_no_more_than_seconds(kind: str, text: str) -> None:
    began = time.process_time()
    find_mentions(text, kind, KEY)
    assert time.process_time() - began < 10
