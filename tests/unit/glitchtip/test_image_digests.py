"""Images are held to a digest: what is expected, what the first deploy recorded, and nothing is written on a refusal."""

from __future__ import annotations

import json
import os
import stat
import time

import image_digests as subject
import pytest

ONE, TWO, IMAGE_ID = ("sha256:" + digit * 64 for digit in "123")
REFERENCE = "registry.example.org:5000/team/glitchtip:6.2.6"
REPOSITORY = "registry.example.org:5000/team/glitchtip"


def image(*digests, image_id=IMAGE_ID, repository=REPOSITORY):
    return {"Id": image_id, "RepoDigests": [f"{repository}@{digest}" for digest in digests]}


# --- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "entry"),
    [
        (REFERENCE, REPOSITORY),
        ("glitchtip/glitchtip:6.2.6", "glitchtip/glitchtip"),
        ("glitchtip/glitchtip:6.2.6", "docker.io/glitchtip/glitchtip"),
        ("postgres:17", "postgres"),
        ("postgres:17", "docker.io/library/postgres"),
        ("registry.example.org:5000/postgres", "registry.example.org:5000/postgres"),
    ],
)
def test_the_digest_is_that_of_the_references_own_repository(reference, entry):
    digests = [f"other.example.org/{entry}@{TWO}", f"{entry}@{ONE}"]
    assert subject.pick_digest(reference, digests) == ONE


@pytest.mark.parametrize("digests", [[], [f"somebody/else@{ONE}"], [f"{REPOSITORY}-2@{ONE}"]])
def test_without_a_digest_of_its_repository_there_is_none(digests):
    assert subject.pick_digest(REFERENCE, digests) is None


def test_a_pin_carries_tag_and_digest_and_a_local_image_its_tag_alone():
    assert subject.pin(REFERENCE, ONE) == f"{REFERENCE}@{ONE}"
    assert subject.pin(REFERENCE, None) == REFERENCE


@pytest.mark.parametrize(("expected", "recorded"), [("", None), (ONE, None), ("", ONE), (ONE, ONE)])
def test_a_digest_that_is_expected_and_recorded_passes(expected, recorded):
    assert subject.check("glitchtip", REFERENCE, ONE, expected, recorded) is None


@pytest.mark.parametrize(
    ("expected", "recorded", "words"),
    [(TWO, None, "is expected"), (TWO, ONE, "is expected"), ("", TWO, "the tag was moved")],
)
def test_another_digest_is_refused_with_both_digests_named(expected, recorded, words):
    with pytest.raises(subject.DigestError, match=words) as refusal:
        subject.check("glitchtip", REFERENCE, ONE, expected, recorded)
    assert ONE in str(refusal.value)
    assert TWO in str(refusal.value)
    assert REFERENCE in str(refusal.value)


# --- the module, with an engine on PATH --------------------------------------------------------------------------------


@pytest.fixture
def have(run_module, tmp_path):
    """have(check=False, **spec of the one image) -> result; the record is tmp_path/deployed.json."""

    def run(*, check=False, reference=REFERENCE, expected=None, **limits):
        spec = {"reference": reference} | ({} if expected is None else {"expected": expected})
        options = {"images": {"glitchtip": spec}, "record": str(tmp_path / "deployed.json")}
        options |= limits
        return run_module("image_digests", _check=check, _ansible_remote_tmp=str(tmp_path), **options)

    return run


@pytest.fixture
def record(tmp_path):
    return tmp_path / "deployed.json"


def test_a_missing_image_is_pulled_pinned_and_recorded(have, engine, record):
    engine.set(registry={REFERENCE: image(ONE)})
    result = have()
    assert result["changed"] is True
    assert result["pulled"] == ["glitchtip"]
    assert result["pinned"] == {"glitchtip": f"{REFERENCE}@{ONE}"}
    assert json.loads(record.read_text()) == {"glitchtip": {"reference": REFERENCE, "digest": ONE}}
    assert stat.S_IMODE(record.stat().st_mode) == 0o640
    assert engine.pulls == [REFERENCE]


def test_a_repeat_pulls_nothing_and_changes_nothing(have, engine, record):
    engine.set(registry={REFERENCE: image(ONE)})
    have()
    before = record.stat()
    result = have(expected=ONE)
    assert result["changed"] is False
    assert result["pinned"] == {"glitchtip": f"{REFERENCE}@{ONE}"}
    assert engine.pulls == [REFERENCE]
    assert record.stat().st_ino == before.st_ino


def test_an_image_that_is_there_is_not_pulled(have, engine, record):
    engine.set(local={REFERENCE: image(ONE)})
    result = have()
    assert (result["pulled"], engine.pulls) == ([], [])
    assert result["changed"] is True  # the record is new
    assert record.exists()


def test_an_empty_expectation_expects_nothing(have, engine):
    engine.set(local={REFERENCE: image(ONE)})
    assert have(expected="")["failed"] is False


def test_an_image_from_no_registry_is_held_by_its_id(have, engine, record):
    engine.set(local={REFERENCE: image()})
    assert have()["pinned"] == {"glitchtip": REFERENCE}
    assert json.loads(record.read_text())["glitchtip"]["digest"] == IMAGE_ID
    engine.set(local={REFERENCE: image(image_id=TWO)})
    refused = have()
    assert refused["failed"]
    assert "the tag was moved" in refused["msg"]


def test_an_engine_whose_image_ids_are_registry_digests_is_pinned_too(have, engine):
    engine.set(local={REFERENCE: image(ONE, image_id=ONE)})  # the containerd image store
    assert have()["pinned"] == {"glitchtip": f"{REFERENCE}@{ONE}"}


def test_another_digest_than_expected_is_refused_and_nothing_recorded(have, engine, record):
    engine.set(registry={REFERENCE: image(ONE)})
    refused = have(expected=TWO)
    assert refused["failed"]
    assert f"has digest {ONE}, but {TWO} is expected; nothing was changed" in refused["msg"]
    assert not record.exists()


def test_a_moved_tag_is_refused_and_the_record_stays(have, engine, record):
    engine.set(local={REFERENCE: image(ONE)})
    have()
    before = record.read_bytes()
    engine.set(local={REFERENCE: image(TWO)})
    refused = have()
    assert refused["failed"]
    assert (
        f"has digest {TWO}, but the first deploy on this host had {ONE}: the tag was moved" in refused["msg"]
    )
    assert record.read_bytes() == before


def test_check_mode_sees_a_moved_tag_too(have, engine):
    engine.set(local={REFERENCE: image(ONE)})
    have()
    engine.set(local={REFERENCE: image(TWO)})
    assert have(check=True)["failed"]


def test_a_new_version_gets_a_record_of_its_own(have, engine, record):
    newer = REFERENCE.replace("6.2.6", "6.2.7")
    engine.set(local={REFERENCE: image(ONE), newer: image(TWO)})
    have()
    assert have(reference=newer)["changed"] is True
    assert json.loads(record.read_text()) == {
        "glitchtip": {"reference": newer, "digest": TWO, "earlier": {REFERENCE: ONE}}
    }


@pytest.mark.parametrize("others", [["6.2.7"], ["6.2.7", "6.2.8"], ["6.2.7", "6.2.8", "6.2.7", "6.2.9"]])
def test_an_old_tag_that_is_set_again_is_held_to_its_first_digest(have, engine, record, others):
    """However many versions were deployed in between."""
    references = [REFERENCE.replace("6.2.6", version) for version in others]
    engine.set(local={REFERENCE: image(ONE), **{reference: image(TWO) for reference in references}})
    for reference in [REFERENCE, *references]:
        assert have(reference=reference)["failed"] is False
    before = record.read_bytes()
    engine.set(local={REFERENCE: image(IMAGE_ID)})
    refused = have(reference=REFERENCE)
    assert refused["failed"]
    assert f"the first deploy on this host had {ONE}: the tag was moved" in refused["msg"]
    assert record.read_bytes() == before
    engine.set(local={REFERENCE: image(ONE)})
    assert have(reference=REFERENCE)["pinned"] == {"glitchtip": f"{REFERENCE}@{ONE}"}
    kept = json.loads(record.read_text())["glitchtip"]
    assert kept == {"reference": REFERENCE, "digest": ONE, "earlier": dict.fromkeys(references, TWO)}


def test_a_record_without_earlier_references_is_read_as_before(have, engine, record):
    record.write_text(json.dumps({"glitchtip": {"reference": REFERENCE, "digest": ONE}}))
    engine.set(local={REFERENCE: image(ONE)})
    assert have()["changed"] is False


def test_records_of_other_images_stay(have, engine, record):
    other = {"valkey": {"reference": "valkey/valkey:8", "digest": TWO}}
    record.write_text(json.dumps(other))
    engine.set(local={REFERENCE: image(ONE)})
    have()
    assert json.loads(record.read_text()) == {**other, "glitchtip": {"reference": REFERENCE, "digest": ONE}}


@pytest.mark.parametrize("expected", ["sha256:short", "1" * 64, ONE.upper(), ONE + "0", ONE + "\n"])
def test_an_expectation_that_is_no_digest_is_refused_before_a_pull(have, engine, record, expected):
    engine.set(registry={REFERENCE: image(ONE)})
    refused = have(expected=expected)
    assert refused["failed"]
    assert "must be sha256: and 64 hex digits" in refused["msg"]
    assert engine.pulls == []
    assert not record.exists()


def test_a_registry_that_does_not_answer_is_one_sentence(have, engine, record):
    reason = "Get http://registry.example.org:5000/v2/: dial tcp 192.0.2.1:5000: i/o timeout"
    engine.set(refusal=f"Some progress\nError response from daemon: {reason}")
    refused = have()
    assert refused["failed"]
    assert refused["msg"].startswith(
        f"Image {REFERENCE} could not be pulled: Error response from daemon: {reason}"
    )
    assert "nothing was changed" in refused["msg"]
    assert "\n" not in refused["msg"]
    assert not record.exists()


def test_an_image_that_does_not_show_after_its_pull_is_refused(have, engine, record):
    engine.set(registry={REFERENCE: image(ONE)}, forgets=True)
    refused = have()
    assert refused["failed"]
    assert "was pulled but the engine does not show it" in refused["msg"]
    assert not record.exists()


def test_check_mode_predicts_without_pulling_or_writing(have, engine, record):
    engine.set(registry={REFERENCE: image(ONE)})
    result = have(check=True)
    assert result["changed"] is True
    assert result["pulled"] == ["glitchtip"]
    assert result["pinned"] == {"glitchtip": REFERENCE}
    assert engine.pulls == []
    assert not record.exists()


@pytest.fixture
def no_docker(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("image_digests.AnsibleModule.get_bin_path", lambda *_args, **_options: None)


@pytest.mark.usefixtures("no_docker")
def test_without_an_engine_the_module_says_what_comes_first(have, record):
    refused = have()
    assert refused["failed"]
    assert "docker command is not installed" in refused["msg"]
    assert not record.exists()


@pytest.mark.usefixtures("no_docker")
def test_without_an_engine_check_mode_still_predicts(have):
    assert have(check=True)["pulled"] == ["glitchtip"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"glitchtip": "6.2.6"}', '{"glitchtip": {"earlier": []}}']
)
def test_a_record_that_cannot_be_read_is_one_sentence_and_is_kept(have, engine, record, content):
    engine.set(local={REFERENCE: image(ONE)})
    record.write_text(content)
    refused = have()
    assert refused["failed"]
    assert str(record) in refused["msg"]
    assert "Traceback" not in refused["msg"]
    assert record.read_text() == content


@pytest.mark.parametrize("spec", [{}, {"reference": ""}, {"reference": 17}, "postgres:17"])
def test_an_image_without_a_reference_is_one_sentence(run_module, tmp_path, engine, spec):
    refused = run_module("image_digests", images={"postgres": spec}, record=str(tmp_path / "deployed.json"))
    assert refused["failed"]
    assert "postgres" in refused["msg"]
    assert engine.pulls == []


# --- limits of a pull ------------------------------------------------------------------------------------------------

BYTES = [f"Downloading [==>      ]  {n}MB/90MB" for n in range(1, 4)]


def is_running(number):
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{number}/stat") as text:
        return text.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("repeats", [None, BYTES[-1]])
@pytest.mark.slow
def test_a_pull_that_stalls_in_a_blob_is_ended_with_its_children(have, engine, record, repeats):
    """Some engines send the same state again and again; that is no progress."""
    engine.set(registry={REFERENCE: image(ONE)}, progress=BYTES, pause=0.3, hangs=True, repeats=repeats)
    begin = time.monotonic()
    refused = have(stall_seconds=1)
    assert time.monotonic() - begin < 10
    assert refused["failed"]
    for wanted in (
        f"Image {REFERENCE} could not be pulled from registry.example.org:5000: no progress for 1 s",
        f"last seen: 0123456789ab: {BYTES[-1]}",
        "nothing was changed",
        "stall_seconds",
        "run it again",
        "docker load",
    ):
        assert wanted in refused["msg"]
    assert not record.exists()
    for number in (engine.root / "pids").read_text().split():
        for _ in range(50):
            if not is_running(number):
                break
            time.sleep(0.1)
        assert not is_running(number)


@pytest.mark.slow
def test_a_pull_that_takes_too_long_in_all_is_ended_although_it_moves(have, engine):
    engine.set(registry={REFERENCE: image(ONE)}, progress=[f"step {n}" for n in range(100)], pause=0.2)
    refused = have(pull_seconds=1, stall_seconds=60)
    assert refused["failed"]
    assert "it took longer than 1 s in all (pull_seconds; last seen: 0123456789ab: step" in refused["msg"]


@pytest.mark.slow
def test_a_pull_that_moves_slowly_is_not_ended(have, engine):
    engine.set(registry={REFERENCE: image(ONE)}, progress=BYTES, pause=0.6)
    assert have(stall_seconds=1)["pulled"] == ["glitchtip"]


@pytest.mark.parametrize("option", ["pull_seconds", "stall_seconds"])
def test_a_limit_of_nothing_is_refused(have, engine, option):
    refused = have(**{option: 0})
    assert refused["msg"] == f"{option} is a number of seconds from 1 on, not 0"
    assert engine.pulls == []


def test_an_engine_that_does_not_answer_is_one_sentence(have, engine, monkeypatch):
    program = engine.root / "docker"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("image_digests.INSPECT_SECONDS", 0.3)
    refused = have()
    assert refused["failed"]
    assert f"docker image inspect {REFERENCE} did not answer within 0.3 s" in refused["msg"]
    assert "systemctl status docker" in refused["msg"]


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        (REFERENCE, "registry.example.org:5000"),
        ("postgres:17", "docker.io"),
        ("glitchtip/glitchtip:6.2.6", "docker.io"),
        ("localhost/x", "localhost"),
        ("ghcr.io/a/b:1", "ghcr.io"),
    ],
)
def test_the_registry_of_a_reference(reference, registry):
    assert subject.registry_of(reference) == registry


def test_what_a_terminal_shows_is_read_without_its_escapes():
    progress = subject.Progress()
    assert progress.feed("\x1b[1A\x1b[2K\rabc: Downloading  1MB/9MB\x1b[1B\r\n")
    assert not progress.feed("\x1b[1A\x1b[2K\rabc: Downloading  1MB/9MB\x1b[1B\r\n")
    assert not progress.feed("abc: Downl")
    assert progress.feed("oading  2MB/9MB\r\n")
    assert progress.last == "abc: Downloading  2MB/9MB"


def test_the_digests_are_handed_over_and_whether_the_record_has_them(have, engine):
    engine.set(local={REFERENCE: image(ONE)})
    first = have()
    assert (first["digests"], first["deployed_before"]) == ({"glitchtip": ONE}, [])
    assert have(check=True)["deployed_before"] == ["glitchtip"]


def test_check_mode_names_no_digest_of_a_missing_image(have, engine):
    engine.set(registry={REFERENCE: image(ONE)})
    assert have(check=True)["digests"] == {}


def test_without_a_record_nothing_is_kept(run_module, engine, tmp_path):
    engine.set(local={REFERENCE: image(ONE)})
    result = run_module("image_digests", images={"glitchtip": {"reference": REFERENCE}})
    assert (result["changed"], result["digests"], result["deployed_before"]) == (False, {"glitchtip": ONE}, [])
    assert [path for path in tmp_path.iterdir() if path.name != "engine"] == []


def test_the_reason_for_an_expectation_ends_the_refusal(run_module, engine, tmp_path):
    engine.set(local={REFERENCE: image(ONE)})
    spec = {"reference": REFERENCE, "expected": TWO, "because": "Phase 1 tested that one."}
    refused = run_module("image_digests", images={"glitchtip": spec}, record=str(tmp_path / "deployed.json"))
    assert refused["msg"].endswith("nothing was changed. Phase 1 tested that one.")
