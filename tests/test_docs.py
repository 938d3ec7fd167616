"""Everything that the documentation shows is run: each page in a fresh process, as a reader would."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
OUTSIDE = ("http:", "https:", "mailto:")
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))


def named(path: Path) -> str:
    """The page's path inside the repository."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if ">>> " in p.read_text()], ids=named)
def test_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    flags = ["-o", "ELLIPSIS", "-o", "NORMALIZE_WHITESPACE"]
    command = [sys.executable, "-W", "error", "-m", "doctest", *flags, str(page)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_how_it_works_passes_its_own_checks(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(DOCS / "how_it_works.py"), run_name="__main__")
    assert "All checks against central differences and against gpujac passed." in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text()) if not link.startswith(OUTSIDE)]
    assert [link for link in targets if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    paths = set(re.findall(r"`((?:gpujac|docs|tests|profiling)/[\w./]*\w)`", text))
    assert sorted(p for p in paths if not (ROOT / p).exists()) == []


def test_decision_pages_are_numbered_without_gaps() -> None:
    numbers = [int(p.name[:4]) for p in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("page", DECISIONS[1:], ids=named)
def test_a_decision_page_has_its_five_parts(page: Path) -> None:
    parts = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert parts[:5] == ["Question", "Choice", "Why", "What we gave up", "When to look again"]
