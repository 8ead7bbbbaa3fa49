"""Misspelt variables, placeholders, wrong values and plain secrets are found in every place where an operator can write them."""

from __future__ import annotations

import string
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext

from glitchtip_inventory.names import read_known, unknown_names
from glitchtip_inventory.sources import Given, read_given
from glitchtip_inventory.specifications import read_specifications, wrong_values
from glitchtip_inventory.values import is_placeholder, mail_url_problem, placeholders, plain_secrets

ROOT = Path(__file__).resolve().parents[3]
KNOWN = read_known(ROOT)
SPECIFICATIONS = read_specifications(ROOT / "roles")


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def judge(*names, **values):
    return list(unknown_names([Given(name, values.get(name, "x"), "here") for name in names], KNOWN))


@pytest.mark.parametrize("name", sorted(SPECIFICATIONS))
def test_every_variable_of_every_role_is_missed_when_a_letter_is(name):
    """The nearest one is what was meant, wherever the letter is missing and whatever else the role knows."""
    prefix = KNOWN.prefix_of(name)
    own = name[len(prefix) :]
    slips = {prefix + own[:at] + own[at + 1 :] for at in range(0, len(own), 3)} - KNOWN.names - {prefix}
    for slip in slips:
        told = judge(slip)
        assert len(told) == 1, slip
        assert f"no role knows the variable {slip}; did you mean " in told[0]
    if len(own) > 8:
        assert sum(f"did you mean {name}?" in judge(slip)[0] for slip in slips) >= 0.8 * len(slips)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("ai_admin_cutover_canry", "ai_admin_cutover_canary"),
        ("ai-admin-cutover_canary", "ai_admin_cutover_canary"),
        ("Glitchtip_Port", "glitchtip_port"),
        ("glitchtp_port", "glitchtip_port"),
        ("migraton_id", "migration_id"),
        ("product_pm2_usr", "product_pm2_user"),
        ("uninstall_delete_event", "uninstall_delete_events"),
    ],
)
def test_prefix_case_and_hyphens_are_seen_through(slip, meant):
    (told,) = judge(slip)
    assert f"did you mean {meant}?" in told


def test_an_internal_variable_must_not_be_set():
    (told,) = judge("__glitchtip_remove_events")
    assert "internal variable of role glitchtip and must not be set" in told


def test_names_of_the_operators_own_are_left_alone():
    assert judge("vault_become_password", "team_contact", "ansible_user", "nginx_port", "shop_dsn") == []


def test_a_shared_name_that_others_refer_to_is_used():
    given = [Given("product_flavour", "x", "here"), Given("team", "{{ product_flavour }}", "here")]
    assert list(unknown_names(given, KNOWN)) == []
    assert len(judge("product_flavour")) == 1


@pytest.mark.parametrize("inventory", ["example", "demo"])
def test_our_own_inventories_hold_no_unknown_name(inventory):
    given = read_given([str(ROOT / "inventory" / inventory)], {}, load, ROOT / "playbooks")
    assert len(given) > 20
    assert list(unknown_names(given, KNOWN)) == []


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("group_vars/all/main.yml", "a: 1\nglitchtip_prt: 1\n", "group_vars/all/main.yml line 2"),
        ("group_vars/all.yml", "glitchtip_prt: 1\n", "group_vars/all.yml line 1"),
        ("group_vars/servers", "glitchtip_prt: 1\n", "group_vars/servers line 1"),
        ("group_vars/all/more/deep.json", '{"glitchtip_prt": 1}\n', "deep.json line 1"),
        ("host_vars/production.yml", "---\nglitchtip_prt: 1\n", "host_vars/production.yml line 2"),
        ("hosts.yml", "all:\n  vars:\n    glitchtip_prt: 1\n", "hosts.yml line 3"),
        ("hosts.yml", "all:\n  hosts:\n    one:\n      glitchtip_prt: !vault |\n        abc\n", "hosts.yml line 4"),
        ("hosts", "[servers]\none ansible_host=192.0.2.10 glitchtip_prt=1\n", "hosts line 2"),
        ("hosts.ini", "[servers:vars]\nglitchtip_prt = 1\n", "hosts.ini line 2"),
    ],
)
def test_each_place_of_an_inventory_is_read_and_named(tmp_path, file, text, place):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for source in (tmp_path, path if path.parent == tmp_path else tmp_path / "hosts.yml"):
        (told,) = unknown_names(read_given([str(source)], {}, load), KNOWN)
        assert place in told
        assert "glitchtip_port" in told


def test_the_command_line_and_group_vars_beside_the_playbooks_are_read(tmp_path):
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("docker_sorce: distro\n")
    told = list(unknown_names(read_given(["host,"], {"glitchtip_prt": 1}, load, tmp_path), KNOWN))
    assert [text.split(":")[0] for text in told][1] == "the command line (-e)"
    assert len(told) == 2


# ---------------------------------------------------------------------- placeholders


@pytest.mark.parametrize(
    "text", ["replace-me", "replace-me-token-of-sentry", "REPLACE_ME", "changeme", "change-this", "<token>", "xxxx", "your-token"]
)
def test_placeholders(text):
    assert is_placeholder(text)


@pytest.mark.parametrize(
    "text", ["sntrys_eyJpYXQiOjE3", "todo-service", "replacement", "/opt/xxl", "my-server", "https://x.example.org", "", "a<b>c"]
)
def test_what_is_no_placeholder(text):
    assert not is_placeholder(text)


def test_a_placeholder_counts_where_something_reads_it():
    given = [
        Given("vault_used", "replace-me", "vault.yml line 1"),
        Given("vault_deep", {"list": ["replace-me"]}, "vault.yml line 2"),
        Given("vault_unused", "replace-me", "vault.yml line 3"),
        Given("ai_admin_cutover_old_token", "{{ vault_used }}", "main.yml line 1"),
        Given("ops_sentry_token", "{{ hop }}", "main.yml line 2"),
        Given("hop", "{{ vault_deep.list[0] }}", "main.yml line 3"),
        Given("ansible_become_password", "replace-me", "hosts.yml line 9"),
    ]
    told = dict(placeholders(given, KNOWN, {}))
    assert set(told) == {"vault_used", "vault_deep", "ansible_become_password"}
    assert told["vault_used"].startswith("vault.yml line 1: vault_used still holds")


def test_a_placeholder_that_another_file_overrides_is_no_fault():
    given = [Given("ops_sentry_token", "replace-me", "vault.example.yml"), Given("ops_sentry_token", "real", "vault.yml")]
    assert list(placeholders(given, KNOWN, {"ops_sentry_token": "real"})) == []
    assert len(list(placeholders(given, KNOWN, {"ops_sentry_token": "replace-me"}))) == 1


# ---------------------------------------------------------------------- mail server


@pytest.mark.parametrize("sign", string.punctuation)
@pytest.mark.parametrize("place", ["user", "password"])
def test_every_sign_that_moves_the_host_is_found_and_no_other(sign, place):
    user, password = ("a" + sign + "b", "pw") if place == "user" else ("user", "p" + sign + "w")
    if sign == ":" and place == "user":
        return  # ends the user by definition
    url = f"smtp+tls://{user}:{password}@mail.example.org:587"
    try:
        parts = urlsplit(url)
        read = (parts.hostname, parts.port, parts.username, parts.password)
    except ValueError:
        read = None
    assert (mail_url_problem(url) == "") == (read == ("mail.example.org", 587, user, password))


def test_a_raw_sign_is_named_with_its_code_and_the_password_is_not_shown():
    told = mail_url_problem("smtp://user:s3cr#t/x@mail.example.org:587")
    assert "# as %23" in told
    assert "/ as %2F" in told
    assert "s3cr" not in told


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("", True),
        ("consolemail://", True),
        ("smtp://mail.example.org:25", True),
        ("smtp://user:p%23w@mail.example.org:587", True),
        ("smtp://user@example.org:pw@mail.example.org:587", True),
        ("smtps://user:pw@[2001:db8::1]:465", True),
        ("mail.example.org:25", False),
        ("http://mail.example.org", False),
        ("smtp://user@mail.example.org:587", False),
        ("smtp://user:pw@mail.example.org:99999", False),
        ("smtp://user:pw@mail.example.org:port", False),
        ("smtp://user:p#w", False),
    ],
)
def test_mail_addresses(url, fits):
    assert (mail_url_problem(url) == "") == fits


# ---------------------------------------------------------------------- plain secrets


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("vault.yml", "vault_a: h1dden\n", True),
        ("vault", "a: h1dden\n", True),
        ("vault/all.yml", "a: h1dden\n", True),
        ("main.yml", "vault_a: h1dden\n", True),
        ("main.yml", "vault_a: '{{ lookup(\"env\", \"A\") }}'\n", False),
        ("vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", False),
        ("vault.yml", "vault_a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n", False),
        ("vault.yml", "vault_a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\nvault_b: plain\n", True),
        ("vault.yml", "vault_a: ''\n", False),
        ("vault.example.yml", "vault_a: replace-me\n", False),
        ("main.yml", "glitchtip_port: 8080\n", False),
    ],
)
@pytest.mark.parametrize("repository", [True, False])
def test_secrets_in_plain_text_inside_a_git_tree(tmp_path, file, text, found, repository):
    path = tmp_path / "inventory/group_vars/all" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    if repository:
        (tmp_path / ".git").mkdir()
    told = list(plain_secrets([str(tmp_path / "inventory")]))
    assert bool(told) == (found and repository)
    assert all("ansible-vault encrypt" in text and "h1dden" not in text for text in told)


# ---------------------------------------------------------------------- values


def wrong(name, value, render=lambda value: value):
    def validate(specification, values):
        return ArgumentSpecValidator(specification).validate(values).error_messages

    return list(wrong_values([Given(name, value, "main.yml line 7")], SPECIFICATIONS, {name: value}, render, validate))


def wrong_for(specification):
    """A value that does not fit, for each kind of variable; None where every value does."""
    if specification.get("choices"):
        return "no-such-choice"
    return {"int": "many", "float": "much", "bool": "perhaps", "list": {"a": 1}, "dict": "x"}.get(specification.get("type", "str"))


@pytest.mark.parametrize("name", sorted(name for name in SPECIFICATIONS if wrong_for(SPECIFICATIONS[name]) is not None))
def test_a_wrong_value_of_any_variable_is_found(name):
    told = wrong(name, wrong_for(SPECIFICATIONS[name]))
    assert told
    assert all(text.startswith("main.yml line 7: ") for text in told)
    assert name in told[0]


def test_what_is_not_defined_is_named_and_a_secret_is_not_shown():
    def render(_value):
        raise ValueError("'vault_missing' is undefined\nmore")

    (told,) = wrong("ops_sentry_token", "{{ vault_missing }}", render)
    assert told == "main.yml line 7: the value of ops_sentry_token cannot be used: 'vault_missing' is undefined."
    (told,) = wrong("ai_admin_cutover_notify", {"url": "https://hooks.example.org/s3cret"})
    assert "s3cret" not in told


def test_placeholders_behind_a_vault_are_seen_in_whole_files_and_in_single_values(tmp_path, monkeypatch):
    secrets = [("default", VaultSecret(b"password"))]
    vault = VaultLib(secrets)
    loader = DataLoader()
    loader.set_vault_secrets(secrets)
    monkeypatch.setattr(VaultSecretsContext, "_current", VaultSecretsContext(secrets))
    place = tmp_path / "group_vars/all"
    place.mkdir(parents=True)
    (place / "vault.yml").write_bytes(vault.encrypt("vault_file: replace-me\n"))
    single = vault.encrypt("replace-me").decode().replace("\n", "\n  ")
    (place / "main.yml").write_text(
        f'ops_sentry_token: "{{{{ vault_file }}}}{{{{ vault_single }}}}"\nvault_single: !vault |\n  {single}\n'
    )
    given = read_given([str(tmp_path)], {}, lambda path: loader.load_from_file(str(path)))
    told = dict(placeholders(given, KNOWN, {}))
    assert set(told) == {"vault_file", "vault_single"}
    assert "main.yml line 2" in told["vault_single"]
    assert list(plain_secrets([str(tmp_path)])) == []
