"""What docs/ says is so: every block of code is run, or at least held against what it speaks of.

A block after `<!-- run -->` is run; the blocks of a page in order, each page in a folder of its own. There a page finds
`images`, and unless it makes them itself a finished `run` with the ensembles B5 and B20, and its `bundle`. Python
blocks share their names. Shell blocks may call ripieno, curl and the programs in examples/; `ripieno serve` goes
on behind the blocks that follow. `<!-- run: NAME -->` writes the block to the file NAME. Searches run at a test's size.

Any other block is read: commands by the command line itself (verbs, flags, numbers), Python by its compiler and for the
names it imports, YAML, TOML and JSON by their parsers. What `text` shows is output.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import json
import multiprocessing
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ripieno.__main__ import main
from ripieno.cli import console
from tests.quick_runs import quick_runs

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>run|tested)(?:: (?P<what>\S+))? -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
RUN = [page for page in PAGES if "<!-- run" in page.read_text()]
TINY = {
    "family": "resnet",
    "ranges": {"learning_rate": {"kind": "continuous", "low": 1e-3, "high": 1e-2, "log": True}},
    "fixed": {"width": 4, "stem_filters": 4, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "batch_size": 64},
}
"""A space of networks that train in no time."""
HERE = "127.0.0.1:8000"
"""Where pages say that their server answers."""
STRANGERS = (
    "perf_analyzer",
    "curl",
    "docker",
    "kubectl",
    "systemctl",
    "install",
    "ray",
    "optuna-dashboard",
    "tritonserver",
)
"""Programs that are not ours: their own words are not checked."""


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


# blocks that are run


@dataclass
class Reader:
    """Who copies a page line by line."""

    page: Path
    monkeypatch: pytest.MonkeyPatch
    servers: contextlib.ExitStack
    address: str = HERE
    names: dict[str, Any] = field(default_factory=dict)

    def copy(self, block: re.Match[str]) -> None:
        """Do what a block says."""
        text = block["text"].replace(HERE, self.address)
        if block["what"]:
            Path(block["what"]).write_text(text)
        elif block["language"] == "bash":
            for command in block["text"].strip().splitlines():
                command = command.replace(HERE, self.address)  # a server that this block started is elsewhere
                self.shell(shlex.split(quick(command), comments=True))
        else:
            assert block["language"] == "python", f"{self.page.name}: {block['language']} cannot be run"
            text = re.sub(r"ripieno\.tune\((.*)\)", r'ripieno.tune(\1, pool="inline", space="tiny.json")', text)
            exec(compile(text.replace("trials=4", "trials=2"), self.page.name, "exec"), self.names)

    def shell(self, words: list[str]) -> None:
        """One command."""
        if words[:2] == ["ripieno", "serve"]:
            from ripieno.server import start_in_thread

            self.address = self.servers.enter_context(start_in_thread(words[2], port=0)).url.removeprefix("http://")
        elif words[0] == "ripieno":
            self.monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0, words
        elif words[0] == "python":
            self.monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        else:
            assert words[0] == "curl", f"only ripieno, python and curl are run: {words}"
            if shutil.which("curl"):
                subprocess.run([*words, "--fail", "--max-time", "20"], check=True, capture_output=True)


def quick(command: str) -> str:
    """A command at a test's size: seconds instead of hours, in this process."""
    command = re.sub(r"--hours \S+", "--trials 2 --epochs 1", command).replace("--trials 4", "--trials 2")
    command = re.sub(r"--seconds \S+", "--seconds 0.2", command)
    if command.startswith("ripieno tune"):
        command = re.sub(r"--space resnet\S*", "", command)
        command += " --pool inline" + ("" if "--space" in command else " --space tiny.json")
    if re.match(r"ripieno allocate \w+ B", command):
        command += " --max-benches 1"
    if command.startswith("ripieno bench") and "--seconds" not in command:
        command += " --seconds 0.2"
    return command


@pytest.fixture(scope="module")
def chosen_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the ensembles of the pages' budgets."""
    import ripieno

    path = tmp_path_factory.mktemp("docs") / "run"
    shutil.copytree(finished_run, path)
    ripieno.select(path, [5, 20])
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    return tmp_path


@pytest.fixture(scope="module")
def reader() -> Iterator[ProcessPoolExecutor]:
    """A process for the blocks of all pages: one that ran thousands of tests before was killed at times."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def run_blocks(page: Path, folder: Path) -> None:
    """Run the marked blocks of a page in `folder`."""
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.ExitStack() as servers, quick_runs():
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        reader = Reader(page, monkeypatch, servers, names={"__name__": page.stem})
        for block in FENCE.finditer(page.read_text()):
            if block["mark"] == "run":
                reader.copy(block)
    console.set_output_mode(json=False, quiet=False)
    for path in folder.glob("*.py"):  # another page may have another module of the same name
        sys.modules.pop(path.stem, None)


@pytest.mark.long
@pytest.mark.parametrize("page", RUN, ids=name)
def test_marked_blocks_run(
    page: Path,
    folder: Path,
    digit_folder: Path,
    chosen_run: Path,
    finished_bundle: Path,
    reader: ProcessPoolExecutor,
) -> None:
    text = page.read_text()
    if "images.py images" not in text:
        shutil.copytree(digit_folder, folder / "images")
    if "ripieno tune images --run run" not in text:
        shutil.copytree(chosen_run, folder / "run")
        shutil.copytree(finished_bundle, folder / "bundle")
    reader.submit(run_blocks, page, folder).result()


# blocks that are read


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_that_are_not_run_speak_of_what_there_is(page: Path) -> None:
    for block in FENCE.finditer(page.read_text()):
        if block["mark"] is None:
            check(block["language"], block["text"])


def check(language: str, text: str) -> None:
    """Raise AssertionError, or what a parser raises, for a block that cannot be right."""
    if language == "bash":
        for line in re.sub(r"\\\n", " ", text).strip().splitlines():
            check_command(shlex.split(line, comments=True))
    elif language == "python":
        check_python(text)
    elif language == "json":
        json.loads(text)
    elif language == "toml":
        tomllib.loads(text)
    elif language == "yaml":
        list(pytest.importorskip("yaml", reason="needs the extra `yaml`").safe_load_all(text))
    else:
        assert language in ("", "text"), f"nobody checks a block of {language}"
        assert not re.search(r"^(ripieno|pip) ", text, re.MULTILINE), f"commands belong into a block of bash: {text}"


def check_command(words: list[str]) -> None:
    """A command's verb and flags exist, and files of ours that it names."""
    words = words[1:] if words and "=" in words[0] and words[0].isupper() else words
    if not words or words[0] == "export":
        return
    program, *rest = words
    for word in rest:
        if word.startswith(("deploy/", "benchmarks/", "examples/", "scripts/")):
            assert (ROOT / word).exists(), word
    if program == "ripieno":
        check_ripieno(rest)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for found in re.findall(r"ripieno\[(.*?)\]", " ".join(rest)):
            assert set(found.split(",")) <= set(extras), found
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), rest[0]
    elif program.startswith(("scripts/", "benchmarks/")):
        assert (ROOT / program).exists(), program
    else:
        assert program in (*STRANGERS, "python"), f"nobody knows {program}"


def check_ripieno(words: list[str]) -> None:
    """The command line reads the words, as it would before it does what they say."""
    from typer.main import get_command

    from ripieno.cli.main import app

    if words[0].startswith("--"):
        assert words[0] in ("--install-completion", "--show-completion", "--version", "--help"), words
        return
    verbs: Any = get_command(app)
    assert words[0] in verbs.commands, f"no verb {words[0]}"
    verbs.commands[words[0]].make_context(f"ripieno {words[0]}", list(words[1:]))


def check_python(text: str) -> None:
    """It compiles, and what it takes from ripieno is there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ripieno"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ripieno":
            assert hasattr(importlib.import_module("ripieno"), node.attr), f"ripieno has no {node.attr}"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("bash", "ripieno tun images"),
        ("bash", "ripieno tune images --huors 1"),
        ("bash", "ripieno tune images --hours one"),
        ("bash", "pip install 'ripieno[everything]'"),
        ("bash", "docker build -f deploy/Nowhere ."),
        ("bash", "frobnicate"),
        ("python", "import ripieno\nripieno.tuned()"),
        ("python", "from ripieno.search import Nothing"),
        ("", "ripieno serve bundle"),
        ("rust", "fn main() {}"),
    ],
)
def test_a_block_that_cannot_be_right_is_noticed(language: str, text: str) -> None:
    with pytest.raises(Exception, match=r"\w"):
        check(language, text)


# the rest of a page


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_of_ours_that_a_page_names_exist(page: Path) -> None:
    for path in re.findall(r"`((?:benchmarks|examples|scripts|deploy|tests)/[\w./-]*\w)", page.read_text()):
        assert (ROOT / path).exists(), path


def test_metrics_that_are_named_exist() -> None:
    served = (ROOT / "ripieno" / "server" / "metrics.py").read_text().replace("{prefix}", "worker")
    for page in PAGES:
        for metric in re.findall(r"`ripieno_(\w+?)(?:_total)?`", page.read_text()):
            # the AutoML benchmark's name of ripieno for columns that are pixels
            assert f"ripieno_{metric}" in served or metric == "images", metric


def test_every_flag_says_what_it_does() -> None:
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert len(rows) > 80
    assert [flag for flag, said in rows if not said.strip()] == []


def test_every_public_name_is_in_the_reference() -> None:
    import ripieno

    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    named = set(re.findall(r"^::: ripieno\.(?:.*\.)?(\w+)$", pages, re.MULTILINE))
    whole = {of for module in ("types", "errors") for of in vars(importlib.import_module(f"ripieno.{module}"))}
    assert set(ripieno.__all__) - named - whole - {"__version__"} == set()


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    assert [name(page) for page in PAGES if not re.search(rf"- (.*: )?{name(page)}$", menu, re.MULTILINE)] == []


def test_what_docs_say_of_algorithms_is_so() -> None:
    from ripieno.search import ALGORITHMS, Algorithm, find_algorithm

    text = (DOCS / "search.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| `([\w-]+)` \|", text, re.MULTILINE)
    assert {name: find_algorithm(f"{scheduler}+{sampler}") for name, scheduler, sampler in rows} == ALGORITHMS
    options = re.search(r"^\| option \|.*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert options is not None
    named = re.findall(r"^\| `(\w+)` \|", options[0], re.MULTILINE)
    assert named == [f.name for f in dataclasses.fields(Algorithm) if f.name != "name"]
