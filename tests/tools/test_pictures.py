"""The pictures in the documents: small ones, each of them shown, each of them taken by a test."""

from pathlib import Path

from tools.environments import CHECKOUT
from tools.pictures import KEPT, MOST_BYTES, SHOWN, problem


def test_every_picture_of_the_documents_is_taken_by_the_tests_and_is_shown() -> None:
    kept = {file.stem: file for file in KEPT.iterdir()}
    assert sorted(kept) == sorted(SHOWN)
    documents = "".join(file.read_text() for file in [CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md")])
    for file in kept.values():
        assert problem(file) == ""
        assert file.read_bytes().startswith(b"\x89PNG\r\n")
        assert f"pictures/{file.name}" in documents, file.name


def test_a_picture_that_is_missing_or_too_large_is_named(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(b"x" * MOST_BYTES)
    assert problem(large) == "large.png: it has 200000 bytes, and 200000 are too many"
    assert problem(tmp_path / "missing.png") == "missing.png: no test has taken it"
