"""What role backups refuses as recipients, before anything is written."""

from __future__ import annotations

import pytest
from rendered_variables import render, roles_variables

PUBLIC = "age1" + "q" * 58
PRIVATE = "AGE-SECRET-KEY-1" + "Q" * 58


def refusals(recipients: object) -> list[str]:
    variables = roles_variables() | {"backups_age_recipients": recipients}
    found = render(variables, ["__backups_refusals"])["__backups_refusals"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("recipients", [[], [PUBLIC], [PUBLIC, "age1" + "z" * 58]])
def test_public_keys_pass(recipients: list[str]) -> None:
    assert refusals(recipients) == []


@pytest.mark.parametrize(
    ("recipients", "sentence"),
    [
        ([PRIVATE], "has a private key"),
        ([PRIVATE.lower()], "has a private key"),
        ([PUBLIC, PUBLIC + "x"], "1 of its entries have another form"),
        ([PUBLIC.upper(), 7], "2 of its entries have another form"),
        (["-o/etc/passwd"], "1 of its entries have another form"),
        ([PUBLIC + "\n-i"], "1 of its entries have another form"),
    ],
)
def test_anything_else_is_refused_and_never_quoted(recipients: list[object], sentence: str) -> None:
    text = " ".join(refusals(recipients))
    assert sentence in text
    assert not [each for each in recipients if len(str(each)) > 20 and str(each) in text]
