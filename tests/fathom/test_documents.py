"""README and docs: commands are understood, code compiles, links lead somewhere, and sentences are short."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fathom import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(document.relative_to(ROOT)) for document in DOCUMENTS]
SHOWN = re.compile(r"^(?:    |\$ |    \$ )?fathom ([a-z].*?)(?:  .*| #.*|\\|&)?$|`fathom ([a-z][^`]*)`", re.MULTILINE)
PLACEHOLDERS = {"RATE": "9", "TIME": "9s", "N": "1", "DIR": "."}
MENTIONED = ("missing", "needs a value")
"""What is only mentioned in a sentence need not be complete."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?:    .*\n)+", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MOST_WORDS, MOST_WORDS_OF_A_SENTENCE = 120, 45


def commands(document: Path) -> list[str]:
    found = ((line or inline).strip() for line, inline in SHOWN.findall(document.read_text(encoding="utf-8")))
    return [" ".join(command.split()) for command in found if not re.search(r"\[|\||\.\.\.|…", command)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_its_commands_are_understood(document, monkeypatch, capsys):
    monkeypatch.setattr("fathom.console.options.folder", Path)  # of the reader, not of this machine
    for command in commands(document):
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
        try:
            cli.parser(words[0]).parse_args(words)
        except SystemExit:
            said = capsys.readouterr().err
            assert any(word in said for word in MENTIONED), f"{document.name}: fathom {command}: {said}"


def test_the_documents_show_commands():
    assert sum(len(commands(document)) for document in DOCUMENTS) > 40


def test_the_page_of_commands_is_that_of_the_parsers():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from commands import PAGE, page
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python docs/commands.py`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_its_python_compiles(document):
    for language, code in FENCED.findall(document.read_text(encoding="utf-8")):
        if language == "python" and not code.startswith(">>>"):
            ast.parse(code)


def prose(text: str) -> list[str]:
    """Paragraphs and items of lists. Code, tables, headings and comments are no prose; `...` counts as one word."""
    text = re.sub(r"<!--.*?-->", "", FENCED.sub("", text), flags=re.DOTALL)
    text = re.sub(r"(?<=\n\n)(?:    .*\n)+", "", text)
    text = re.sub(r"^(?:\||#|!\[|:::|    options|      members).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "code", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return [part for part in re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", text, flags=re.MULTILINE) if part.strip()]


def too_long(text: str) -> list[str]:
    found = []
    for paragraph in prose(text):
        if len(paragraph.split()) > MOST_WORDS:
            found.append(f"{len(paragraph.split())} words: {paragraph.split(maxsplit=8)[:8]}")
        for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(paragraph.split())):
            if len(sentence.split()) > MOST_WORDS_OF_A_SENTENCE:
                found.append(f"{len(sentence.split())} words: {sentence}")
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_its_sentences_and_paragraphs_are_short(document):
    assert too_long(document.read_text(encoding="utf-8")) == []


def test_a_long_sentence_and_a_long_paragraph_are_found():
    assert len(too_long("word " * 46)) == 1
    assert len(too_long("A short sentence. " * 41)) == 1
    assert too_long("A short sentence. " * 40 + "\n\n- " + "word " * 45 + "\n\n| " + "word " * 50) == []


def anchors(document: Path) -> set[str]:
    """What GitHub and MkDocs call the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-") for heading in headings}


def broken(place: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    document = (place / path).resolve() if path else place
    return not document.exists() or (bool(anchor) and anchor not in anchors(document))


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_its_links_lead_somewhere(document):
    links = LINK.findall(FENCED.sub("", document.read_text(encoding="utf-8")))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if broken(document if link.startswith("#") else document.parent, link)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_the_files_that_it_names_exist(document):
    rooms = "export|server|clients|loadtests|fathom|deploy|benchmarks|tests"
    named = re.findall(rf"`((?:{rooms})/[\w/.-]+\.\w+)`", document.read_text(encoding="utf-8"))
    written_by_who_follows = re.compile(r"NAME|^deploy/(tls|prometheus/targets)/")
    assert [name for name in named if not written_by_who_follows.search(name) and broken(ROOT, name)] == []


def test_every_document_that_the_code_names_exists():
    listed = subprocess.run(
        ["git", "grep", "-hoIE", r"\bdocs/[a-z/_.-]+\.(md|png|jpg|svg|json|py)(#[a-z0-9_-]+)?", "--", ":!CHANGELOG.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(listed) > 50
    assert sorted({name for name in listed if broken(ROOT, name)}) == []


def test_the_reference_names_every_parameter_of_the_bundled_python_models():
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    for config in (ROOT / "model_repository").glob("*/config.pbtxt"):
        text = config.read_text(encoding="utf-8")
        if 'backend: "python"' in text:
            keys = re.findall(r'^parameters \{ key: "(\w+)"', text, re.MULTILINE)
            assert [key for key in keys if f"`{key}`" not in page] == [], config.parent.name


def test_every_page_stands_in_the_navigation():
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert {name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")} == listed
