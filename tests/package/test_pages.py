"""What the pages tell a user to paste runs: README's and docs' Python blocks and commands, in their order.

Each page is pasted into an empty folder beside the checkout's plans. `page_inputs.py` makes what a user has to bring,
`page_rules.py` says which sizes are made small and what is not run.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import page_rules
import pages
import pytest
from numpy.typing import NDArray
from page_commands import replaced, unknown_options
from page_inputs import Inputs

import cgnrt.cli
import cgnrt_export.cli
import cgnrt_training.cli

ROOT = pages.ROOT
MAINS: dict[str, Callable[[Sequence[str]], int]] = {
    "cgnrt": cgnrt.cli.main,
    "cgnrt-train": cgnrt_training.cli.main,
    "cgnrt-export": cgnrt_export.cli.main,
}
PHOTOS = "# needs: photos"  # a block that begins so has these in memory
MAIN = "import sys; from cgnrt.cli import main; sys.exit(main(sys.argv[1:]))"


def made_small(words: list[str]) -> list[str]:
    """A command with small sizes."""
    shown = " ".join(words) + " "
    for begin, options in page_rules.SMALL.items():
        if shown.startswith(begin):
            words = replaced(words, shlex.split(options))
    return words


@dataclass
class Pasted:
    """A page's folder, and what has been started there."""

    page: Path
    folder: Path
    inputs: Inputs
    extended: bool
    namespace: dict[str, object] = field(default_factory=lambda: {"__name__": "__main__"})
    servers: list[subprocess.Popen[str]] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)  # told on the page -> of the last server

    def python(self, text: str, line: int) -> None:
        self.provide(re.findall(r"[\w./-]+", text))
        if named := re.match(r"# (\w+\.py)\n", text):  # a file of the user's
            (self.folder / named[1]).write_text(text)
        if text.startswith(PHOTOS):
            self.namespace |= photos()
        for told, small in {**self.addresses, **page_rules.REPLACED.get(self.page.name, {})}.items():
            text = text.replace(told, small)
        exec(
            compile("\n" * (line - 1) + text, str(self.page), "exec"), self.namespace
        )  # errors have the page's lines

    def command(self, words: list[str]) -> None:
        outputs = [after for word, after in itertools.pairwise(words) if word in ("-o", "--output")]
        self.provide([word for word in words if word not in outputs])
        for told, found in self.addresses.items():
            words = [word.replace(told, found) for word in words]
        words = made_small(words)
        if words[:2] == ["cgnrt", "serve"]:
            return self.serve(words)
        shown = shlex.join(words)
        expected = next((code for begin, code in page_rules.EXIT.items() if shown.startswith(begin)), 0)
        if words[0] in MAINS:
            status = MAINS[words[0]](words[1:])
        else:
            program = sys.executable if words[0] == "python" else words[0]
            status = subprocess.run([program, *words[1:]], check=False).returncode
        assert status == expected, f"{self.page.name}: {shown} ended with {status}"

    def provide(self, words: Iterable[str]) -> None:
        """Make what the user has to bring, by its name, as it stands in a command or a block."""
        classes = page_rules.CLASSES.get(self.page.name, ("cat", "dog"))
        plans = page_rules.PLANS.get(self.page.name, set()) | (set() if self.extended else {"u2netp.plan"})
        for word in words:
            for name in (word.rstrip("/"), word.partition("/")[0], word.partition(":")[0] + ".py"):
                if not name.endswith(".plan") or name in plans:
                    self.inputs.provide(name, self.folder, classes)

    def serve(self, words: list[str]) -> None:
        """Start a server, and wait until it says where it listens."""
        server = subprocess.Popen([sys.executable, "-c", MAIN, *words[1:]], stderr=subprocess.PIPE, text=True)
        self.servers.append(server)
        assert server.stderr is not None
        said = []
        for line in server.stderr:
            said.append(line)
            if '"ready"' in line:
                ready = json.loads(line)
                ports = {"8000": ready["port"], "8001": ready["grpc_port"]}
                self.addresses = {f"127.0.0.1:{told}": f"127.0.0.1:{port}" for told, port in ports.items()}
                return
        raise AssertionError(f"{shlex.join(words)}: {''.join(said)}")

    def stop(self) -> None:
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
        assert [server.returncode for server in self.servers] == [0] * len(self.servers)


def photos() -> dict[str, object]:
    """Photos in memory whose backgrounds tell their label, and a classifier that looks at these alone."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    masks = np.stack([(y - 32) ** 2 + (x - 24 - k) ** 2 < 14**2 for k in range(12)])
    labels = np.arange(12) % 3
    ground = random.integers(20, 60, (12, 64, 64, 3)) + 60 * labels[:, None, None, None]
    images = np.where(masks[..., None], 230, ground).astype(np.uint8)

    def model(images: NDArray[np.float32]) -> NDArray[np.int64]:
        corner = images[:, :, :8, :8].mean(axis=(1, 2, 3)) * 255
        return ((corner - 10) // 60).astype(np.int64).clip(0, 2)

    return {"photos": images, "masks": masks, "labels": labels, "model": model, "step": 0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def paste(tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Run a page in an empty folder beside the checkout's plans: all of it, or without what takes longer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # commands add the current folder
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("cgnrt_training.mnist.data.N_TRAIN", 40)  # in place of 50,000
    monkeypatch.setattr("cgnrt_training.classifier.train.N_HELD_OUT", 16)  # of 10,000
    (tmp_path / "plans").symlink_to(ROOT / "plans")
    started: list[Pasted] = []

    def run(page: Path, *, extended: bool) -> None:
        here = Pasted(page, tmp_path, inputs, extended)
        started.append(here)
        for block in pages.blocks(page.read_text()):
            if block.kind == "python":
                if is_run(page, block.text, extended=extended):
                    here.python(block.text, block.line)
            elif block.kind == "sh":
                for words in pages.commands(block.text):
                    if is_run(page, shlex.join(words), extended=extended):
                        here.command(words)

    yield run
    for here in started:
        here.stop()
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def rule_of(page: Path, text: str, rules: Iterable[str]) -> str | None:
    """The rule that names a command, or a line of a Python block; a page's own rules begin with its name."""
    for rule in rules:
        name, mark, begin = rule.rpartition(".md: ")
        if mark and name != page.stem:
            continue
        if any(f"{line} ".startswith(begin) for line in text.splitlines()):
            return rule
    return None


def is_run(page: Path, text: str, *, extended: bool) -> bool:
    rules = page_rules.NOT_RUN if extended else {**page_rules.NOT_RUN, **page_rules.EXTENDED}
    return rule_of(page, text, rules) is None


def pieces(page: Path) -> list[str]:
    """What the page says to run: commands, and the text of Python blocks."""
    found = []
    for block in pages.blocks(page.read_text()):
        if block.kind == "sh":
            found += [shlex.join(words) for words in pages.commands(block.text)]
        elif block.kind == "python":
            found.append(block.text)
    return found


def takes_longer(page: Path) -> bool:
    return any(rule_of(page, piece, page_rules.EXTENDED) for piece in pieces(page))


def by_name(page: Path) -> str:
    return page.name


@pytest.mark.filterwarnings(*page_rules.WARNINGS)
@pytest.mark.parametrize("page", [page for page in pages.PAGES if pieces(page)], ids=by_name)
def test_what_is_pasted_runs(page: Path, paste: Callable[..., None]) -> None:
    paste(page, extended=False)


@pytest.mark.extended
@pytest.mark.filterwarnings(*page_rules.WARNINGS)
@pytest.mark.parametrize("page", [page for page in pages.PAGES if takes_longer(page)], ids=by_name)
def test_what_takes_longer_runs_too(page: Path, paste: Callable[..., None]) -> None:
    paste(page, extended=True)


def test_every_rule_is_needed() -> None:
    """What is not run any more has no reason any more."""
    found = [(page, piece) for page in pages.PAGES for piece in pieces(page)]
    for rules in (page_rules.NOT_RUN, page_rules.EXTENDED, page_rules.SMALL, page_rules.EXIT):
        unused = [rule for rule in rules if not any(rule_of(page, piece, [rule]) for page, piece in found)]
        assert unused == []


@pytest.mark.parametrize("page", pages.PAGES, ids=by_name)
def test_no_code_stands_outside_of_what_is_run(page: Path) -> None:
    """Python has a block of its language, and commands have one of their own."""
    hidden = [
        f"line {block.line}: {block.text}"
        for block in pages.blocks(page.read_text())
        if block.kind == "text"
        and (pages.looks_like_python(block.text) or pages.begins_with_a_command(block.text))
    ]
    assert hidden == []


def named(page: Path) -> Iterator[list[str]]:
    """The page's commands of cgnrt, in blocks and in the text."""
    for piece in pieces(page):
        if piece.startswith("cgnrt"):
            yield shlex.split(piece)
    for span in pages.spans(page.read_text()):
        if re.match(r"cgnrt(-train|-export)? ", span) and "|" not in span:
            yield span.split()


@pytest.mark.parametrize("page", pages.PAGES, ids=by_name)
def test_commands_have_the_options_that_they_name(page: Path) -> None:
    assert [f"{' '.join(words)}: {wrong}" for words in named(page) for wrong in unknown_options(words)] == []


@pytest.mark.extended
def test_benchmarks_have_the_options_that_pages_name() -> None:
    wrong = []
    for page in pages.PAGES:
        named = [*pieces(page), *pages.spans(page.read_text())]
        for words in (shlex.split(text) for text in named if text.startswith("python bench/")):
            done = subprocess.run(
                [sys.executable, ROOT / words[1], "--help"], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            wrong += [
                f"{page.name}: {' '.join(words)}: {word}"
                for word in words[2:]
                if word.startswith("-") and word not in re.findall(r"-[\w-]+", done.stdout)
            ]
    assert wrong == []


def test_blocks_are_found() -> None:
    text = "Prose.\n\n    cgnrt inspect a.plan\n\n`cgnrt x`\n"
    text += "\n```sh\ncgnrt-train mnist \\\n    --data D  # where\n```\n"
    text += "\n```python\nprint(1)\n```\n\n    a  b\n\nEnd with `cgnrt\ny`.\n"
    found = list(pages.blocks(text))
    assert [(block.kind, block.line) for block in found] == [
        ("sh", 3),
        ("sh", 8),
        ("python", 13),
        ("text", 16),
    ]
    assert pages.commands(found[1].text) == [["cgnrt-train", "mnist", "--data", "D"]]
    assert list(pages.spans(text)) == ["cgnrt x", "cgnrt y"]
    loop = "for a in x y; do\n    cgnrt-train gan --variant $a && cp $a 'b c'\ndone"
    assert pages.commands(loop)[1::2] == [["cp", "x", "b c"], ["cp", "y", "b c"]]
    assert list(map(pages.looks_like_python, ("import a", "f(1)  # c", "a  b", "x = 1"))) == [
        True,
        True,
        False,
        False,
    ]


def test_commands_are_made_small() -> None:
    words = shlex.split("cgnrt generate plans/a.plan -n 20_000 -o out --image png")
    assert replaced(words, ["-n", "4", "--processes", "1"]) == [
        *shlex.split("cgnrt generate plans/a.plan -n 4 -o out --image png --processes 1")
    ]
    assert replaced(["cgnrt-train", "gan", "--set", "a=1"], ["--set", "b=2"])[2:] == [
        "--set",
        "a=1",
        "--set",
        "b=2",
    ]
