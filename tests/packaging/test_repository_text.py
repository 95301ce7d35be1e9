"""What is committed says nothing about the machine it was made on, and its links lead somewhere."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)([^)#\s]+)")


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def test_every_link_in_a_document_leads_to_a_file() -> None:
    documents = tracked("*.md")
    assert documents
    missing = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in LINK.findall(document.read_text())
        if not (document.parent / target).exists()
    ]
    assert missing == []


def test_no_file_names_a_home_folder_or_a_package_index() -> None:
    # spelled in parts, so that this file does not find itself
    unwanted = re.compile(
        "|".join(["/ro" + "ot/", "/wo" + "rk/", "pypi" + r"\.org", "pythonhosted" + r"\.org", "index" + "-url="])
    )
    found = []
    for file in tracked():
        text = file.read_bytes().decode(errors="replace")
        found += [f"{file.relative_to(ROOT)}: {hit}" for hit in unwanted.findall(text)]
    assert found == []
