"""Odd files: the new value is read by exactly those that read the old one, and nothing else changes for anybody."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from integration.envfile.corpus import EDITED, KEY, NEW, OLD, REFUSED, Edited, Refused
from integration.envfile.readers import Readers, Variables, differences

from glitchtip_cutover.envfile import EnvFile, find_assignment, replace_value
from glitchtip_cutover.errors import CutoverError

by_name = pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
Pairs = dict[str, tuple[dict[str, Variables], dict[str, Variables]]]


def read_pairs(readers: Readers, files: dict[str, tuple[bytes, bytes]], scratch: Path) -> Pairs:
    """What the readers find before and after, by the name of a case."""
    paths = []
    for number, contents in enumerate(files.values()):
        for side, data in zip(("before", "after"), contents, strict=True):
            path = scratch / f"{number}.{side}"
            path.write_bytes(data)
            paths.append(path)
    found = readers.read(paths, scratch)
    return {name: (found[2 * number], found[2 * number + 1]) for number, name in enumerate(files)}


@pytest.fixture(scope="module")
def edited(readers: Readers, tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    files = {case.name: (case.data(), replace_value(case.data(), KEY, NEW)) for case in EDITED}
    return read_pairs(readers, files, tmp_path_factory.mktemp("edited"))


@pytest.mark.parametrize("case", EDITED, ids=[case.name for case in EDITED])
def test_the_new_value_is_read_by_exactly_those_that_read_the_old_one(case: Edited, edited: Pairs) -> None:
    before, after = edited[case.name]
    assert tuple(name for name, found in before.items() if found.get(KEY) == case.value) == case.readers
    assert tuple(name for name, found in after.items() if found.get(KEY) == NEW) == case.readers
    assert differences(KEY, case.value, NEW, before, after) == []


@pytest.mark.parametrize("case", EDITED, ids=[case.name for case in EDITED])
def test_every_other_byte_stays_and_the_way_back_is_exact(case: Edited, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(case.data())
    file = EnvFile(path, KEY)
    assert file.value() == case.value
    assert file.rehearse(NEW) == case.data(NEW)
    assert path.read_bytes() == case.data()
    assert file.replace(NEW) is True
    assert path.read_bytes() == case.data(NEW)
    if case.value:
        file.replace(case.value)
        assert path.read_bytes() == case.data()


@by_name
def test_refuses_in_one_exact_sentence_and_touches_nothing(case: Refused, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(case.data)
    before = path.stat()
    with pytest.raises(CutoverError) as caught:
        EnvFile(path, KEY).replace(NEW)
    assert str(caught.value) == case.sentence.replace("{}", str(path))
    assert OLD not in str(caught.value)
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [entry.name for entry in tmp_path.iterdir()] == [".env"]


def test_the_corpus_has_no_case_twice_and_covers_each_group_of_readers() -> None:
    names = Counter(case.name for case in (*EDITED, *REFUSED))
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) >= 80
    assert len({case.readers for case in EDITED}) == 4


def test_node_reads_the_same_by_itself_as_from_its_command_line(
    readers: Readers, edited: Pairs, tmp_path: Path
) -> None:
    chosen = (
        "crlf",
        "bom before the key",
        "trailing blanks",
        "export with a tab",
        "values of several lines around",
    )
    for case in EDITED:
        if case.name in chosen:
            path = tmp_path / "env"
            path.write_bytes(case.data())
            assert readers.env_file(path, KEY) == edited[case.name][0]["node"].get(KEY)


# ------------------------------------------------------------------ files that nobody thought of

PIECES = (
    "A=1", "B='two words'", 'C="x"', "D=it's", 'E="open', "F='open", "G=`g`", "H=`open", "two\"", "close'", "I=x\\",
    'J="esc\\"aped"', 'K="esc\\"', "L='a\\'b'", "# don't", '# "quoted"', "  # it's = 'x", "???", "=x", "M:", "N: n",
    "O=", "P= ", "Q=\t'q'", "'lone", '"', "'", "R='a' S='b'", "T=a#b'c", "U=a # b'c", "export V=v", "export", "",
    " ", "W=$X", "Y=${A}z", "Käse=ü", "X=a b'c d'", 'Z="$A $(true)"', "\u00a0AA=1\u00a0", "AB=\u00a0'x", "\fAC=1",
    "AD=\\'", "AE=\"a'b\"", "AF='a\"b'", "AG=\\", "  \\", "AH=1 \\", "AI=\"a\\\\\"", "NOTE=x SENTRY_DSN",
    "export SENTRY_DSN", "AJ=~", "`", "AK=x`y", "AL='x'y\"z\"", "AM == 'x", "AN=a=b'c", "\\", "AO=\"x' # \"",
)  # fmt: skip
LINES = (
    "SENTRY_DSN=@@", "SENTRY_DSN='@@'", 'SENTRY_DSN="@@"', "SENTRY_DSN=`@@`", "export SENTRY_DSN=@@",
    "SENTRY_DSN = @@", "  SENTRY_DSN=@@ # c", "SENTRY_DSN=@@ # it's", 'SENTRY_DSN="@@" # "', "SENTRY_DSN=@@  ",
    "SENTRY_DSN=@@#'", "SENTRY_DSN: @@", "A=1 SENTRY_DSN=@@", "SENTRY_DSN='@@", "SENTRY_DSN=@@'", "SENTRY_DSN=\n'@@'",
    "export 'SENTRY_DSN=@@'", "\u00a0SENTRY_DSN=@@",
)  # fmt: skip


def made(random_source: random.Random) -> str:
    """A file of odd lines with the key in their midst, seldom twice."""
    pieces = random_source.choices(PIECES, k=random_source.randint(1, 6))
    for _ in range(1 if random_source.random() < 0.9 else 2):
        position = random_source.randint(0, len(pieces))
        pieces.insert(position, random_source.choice(LINES[:11] if random_source.random() < 0.8 else LINES))
    text = random_source.choice(("\n", "\n", "\n", "\r\n")).join(pieces) + random_source.choice(("\n", ""))
    return (random_source.choice(("", "", "", "\ufeff")) + text).replace("@@", OLD)


def outcomes(
    edit: Callable[[bytes], bytes], readers: Readers, scratch: Path, count: int
) -> tuple[int, dict[bytes, list[str]]]:
    """How many of ``count`` made files were edited, and what was wrong with which of them."""
    source = random.Random(20261121)
    files = {}
    for number in range(count):
        data = made(source).encode()
        try:
            files[str(number)] = (data, edit(data))
        except CutoverError:
            continue
    pairs = read_pairs(readers, files, scratch)
    wrong = {
        files[name][0]: found
        for name, (before, after) in pairs.items()
        if (found := differences(KEY, OLD, NEW, before, after))
    }
    return len(files), wrong


def test_of_files_made_by_chance_none_is_edited_wrongly(readers: Readers, tmp_path: Path) -> None:
    edited, wrong = outcomes(lambda data: replace_value(data, KEY, NEW), readers, tmp_path, 1000)
    assert wrong == {}
    assert edited > 300


def test_an_editor_of_lines_would_be_found_out(readers: Readers, tmp_path: Path) -> None:
    """The control of this file: what most tools do breaks both the made files and the corpus."""

    def naive(data: bytes) -> bytes:
        return re.sub(rb"(?m)^(\s*(?:export\s+)?SENTRY_DSN\s*=).*$", rb"\g<1>" + NEW.encode(), data)

    edited, wrong = outcomes(naive, readers, tmp_path, 200)
    assert edited == 200
    assert len(wrong) > 40
    files = {case.name: (case.data(), naive(case.data())) for case in EDITED}
    pairs = read_pairs(readers, files, tmp_path)
    found = [case.name for case in EDITED if differences(KEY, case.value, NEW, *pairs[case.name])]
    assert {"crlf", "empty value"} & set(found)


def test_what_is_found_is_what_dotenv_reads_from_every_made_file(readers: Readers, tmp_path: Path) -> None:
    source = random.Random(7)
    expected = {}
    for number in range(300):
        data = made(source).encode()
        try:
            expected[tmp_path / str(number)] = find_assignment(data, KEY).value
        except CutoverError:
            continue
        (tmp_path / str(number)).write_bytes(data)
    found = readers.read(list(expected), tmp_path)
    assert [answer["dotenv"].get(KEY) for answer in found] == list(expected.values())
    assert len(expected) > 90
