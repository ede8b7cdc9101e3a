"""Data files are known by their hashes, and come from where the user says, whole or not at all."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cgnrt_training import cli
from cgnrt_training.data_files import KNOWN, Catalogue, DataFile, Form
from cgnrt_training.fetch import check, fetch

CONTENT = {"digits.gz": b"packed digits", "digits": b"unpacked digits", "object/0_a.jpg": b"a picture"}


def form(path: str, content: bytes | None = None) -> Form:
    content = CONTENT[path] if content is None else content
    return Form(path, hashlib.sha256(content).hexdigest(), len(content))


CATALOGUE: Catalogue = (
    DataFile("mnist", (form("digits.gz"), form("digits"))),
    DataFile("textures", (form("object/0_a.jpg"),)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A folder with all of it."""
    for name, content in CONTENT.items():
        path = tmp_path / "origin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "origin"


Serve = Callable[[Callable[[BaseHTTPRequestHandler], None]], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server on this machine whose answer to a GET is the given function; returns its address."""
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/base"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(
    content: bytes, length: int | None = None, code: int = 200
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def from_content(handler: BaseHTTPRequestHandler) -> None:
    name = handler.path.removeprefix("/base/")
    content = CONTENT.get(name)
    reply(content or b"", len(content or b""), 200 if content else 404)(handler)


def states(findings: list) -> list[tuple[str, str]]:
    return [(finding.path, finding.state) for finding in findings]


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_check_says_good_damaged_missing(folder: Path) -> None:
    assert states(check(folder, CATALOGUE)) == [("digits.gz", "missing"), ("object/0_a.jpg", "missing")]
    folder.mkdir()
    (folder / "digits").write_bytes(CONTENT["digits"])
    (folder / "object").mkdir()
    (folder / "object" / "0_a.jpg").write_bytes(b"b picture")
    digits, picture = check(folder, CATALOGUE)
    assert (digits.path, digits.state) == ("digits", "good")
    assert picture.state == "damaged"
    assert "SHA-256 is" in picture.detail

    # A job might read the damaged form: a good one beside it does not help.
    (folder / "digits.gz").write_bytes(b"cut")
    assert check(folder, CATALOGUE)[0].detail == "size is 3, expected 13 bytes"


def test_check_reads_regular_files_alone(folder: Path) -> None:
    (folder / "digits.gz").mkdir(parents=True)
    (folder / "object").write_text("no folder")
    digits, picture = check(folder, CATALOGUE)
    assert (digits.state, digits.detail) == ("damaged", "is not a regular file")
    assert picture.state == "missing"
    (folder / "digits.gz").rmdir()
    (folder / "digits.gz").symlink_to("nowhere")
    assert check(folder, CATALOGUE)[0].detail == "is a link to nothing"


def test_a_published_prefix_is_recognised_and_never_fetched(folder: Path, origin: Path) -> None:
    prefix = DataFile("squeezenet", (Form("digits.gz", form("digits.gz").sha256[:8]),))
    assert states(fetch(folder, origin.as_uri(), (prefix,))) == [("digits.gz", "missing")]
    assert not folder.exists()
    folder.mkdir()
    (folder / "digits.gz").write_bytes(CONTENT["digits.gz"])
    assert states(check(folder, (prefix,))) == [("digits.gz", "good")]


@pytest.mark.parametrize("kind", ["http", "file"])
def test_fetch_gets_what_is_missing(folder: Path, origin: Path, serve: Serve, kind: str) -> None:
    address = serve(from_content) if kind == "http" else origin.as_uri()
    assert {f.detail for f in fetch(folder, address, CATALOGUE)} == {"fetched"}
    assert files(folder) == ["digits.gz", "object/0_a.jpg"]
    assert (folder / "digits.gz").read_bytes() == CONTENT["digits.gz"]
    # Nothing is asked for twice: an address without a server will do.
    assert {f.state for f in fetch(folder, "http://127.0.0.1:1", CATALOGUE)} == {"good"}


def test_a_damaged_file_is_replaced_with_force_alone(folder: Path, origin: Path) -> None:
    folder.mkdir()
    (folder / "digits.gz").write_bytes(b"mine")
    found = fetch(folder, origin.as_uri(), CATALOGUE)[0]
    assert found.state == "damaged"
    assert found.detail == "size is 4, expected 13 bytes; pass --force to replace it"
    assert (folder / "digits.gz").read_bytes() == b"mine"
    assert fetch(folder, origin.as_uri(), CATALOGUE, force=True)[0].state == "good"
    assert (folder / "digits.gz").read_bytes() == CONTENT["digits.gz"]

    (folder / "digits").write_bytes(b"mine")
    found = fetch(folder, origin.as_uri(), CATALOGUE, force=True)[0]
    assert found.detail == "size is 4, expected 15 bytes; remove it to fetch digits.gz"
    assert (folder / "digits").read_bytes() == b"mine"


def silent(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read()  # until the client goes


def drips(handler: BaseHTTPRequestHandler) -> None:
    reply(b"")(handler)
    for byte in CONTENT["digits.gz"]:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.1)


def endless(handler: BaseHTTPRequestHandler) -> None:
    reply(b"")(handler)
    for _ in range(1000):
        handler.wfile.write(bytes(100_000))


def elsewhere(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "ftp://127.0.0.1/digits.gz")
    handler.end_headers()


@pytest.mark.parametrize(
    ("answer", "message", "options"),
    [
        (reply(b"packed digitz"), "SHA-256 is", {}),
        (reply(b"packed"), "size is 6, expected 13 bytes. Try again", {}),
        (reply(b"packed", 13), "size is 6, expected 13 bytes. Try again", {}),
        (reply(b"", 10**12), "size is 1000000000000, expected 13 bytes. It is another file", {}),
        (endless, "more than 13 bytes came, expected no more", {}),
        (reply(b"", 0, 500), "answer is 500 Internal Server Error, expected 200", {}),
        (silent, "nothing came for 0.3 s", {"timeout_s": 0.3}),
        (drips, "of 13 bytes came in 0.3 s, expected all", {"limit_s": 0.3}),
        (elsewhere, "transfer failed", {}),
    ],
)
def test_a_failed_transfer_leaves_nothing(
    folder: Path, serve: Serve, answer: Callable[[BaseHTTPRequestHandler], None], message: str, options: dict
) -> None:
    folder.mkdir()
    (finding,) = fetch(folder, serve(answer), CATALOGUE[:1], **options)
    assert finding.failed
    assert finding.state == "missing"
    assert finding.detail.startswith("fetch 'http://127.0.0.1:")
    assert message in finding.detail
    assert list(folder.iterdir()) == []


def test_a_failed_transfer_leaves_the_old_file(folder: Path, serve: Serve) -> None:
    folder.mkdir()
    (folder / "digits.gz").write_bytes(b"mine")
    (finding,) = fetch(folder, serve(reply(b"packed digitz")), CATALOGUE[:1], force=True)
    assert (finding.state, finding.failed) == ("damaged", True)
    assert (folder / "digits.gz").read_bytes() == b"mine"


def test_no_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        (finding,) = fetch(folder, f"http://127.0.0.1:{unused.getsockname()[1]}", CATALOGUE[:1])
    assert "Connection refused" in finding.detail
    assert not folder.exists()


@pytest.mark.parametrize(
    "address",
    [
        "ftp://a/b",
        "a/b",
        "http://",
        "http://a:b/",
        "http://me:secret@a/",
        "http://a/?q",
        "file:a",
        "file://a/b",
        "http://a/\n",
    ],
)
def test_addresses_that_are_none(folder: Path, address: str) -> None:
    with pytest.raises(ValueError, match=r"^fetch: --from is "):
        fetch(folder, address, CATALOGUE)


def test_the_command(folder: Path, origin: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("cgnrt_training.cli.fetch.KNOWN", CATALOGUE)
    assert cli.main(["fetch", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out.split("\n")[0].split()[:3] == ["missing", "mnist", "digits.gz"]
    assert "1 needed file is not good: digits.gz (missing)." in captured.err
    assert "Pass --from URL" in captured.err
    assert "fetched from URL/digits.gz.\n" in captured.err
    assert not folder.exists()
    assert cli.main(["fetch", str(folder), "--from", f"{(origin / 'nothing').as_uri()}/"]) == 1
    assert f"expected at {(origin / 'nothing').as_uri()}/digits.gz" in capsys.readouterr().err

    (
        origin / "object" / "0_a.jpg"
    ).unlink()  # an optional file may be missing, unless its group was asked for
    assert cli.main(["fetch", str(folder), "--from", origin.as_uri()]) == 0
    assert "missing  textures" in capsys.readouterr().out
    assert cli.main(["fetch", str(folder)]) == 0
    assert cli.main(["fetch", str(folder), "--only", "textures"]) == 1
    assert "digits.gz" not in capsys.readouterr().out.split("mnist")[-1].split("textures")[-1]
    (folder / "digits.gz").write_bytes(b"other")
    assert cli.main(["fetch", str(folder)]) == 1
    assert "digits.gz (damaged)" in (error := capsys.readouterr().err)
    assert "Add --force to replace damaged files." in error
    assert cli.main(["fetch", str(folder), "--from", "ftp://a"]) == 2
    assert cli.main(["fetch", str(folder), "--force"]) == 2
    assert cli.main(["fetch", str(folder / "digits.gz")]) == 2


def test_a_group_that_is_all_alike_takes_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    many = tuple(DataFile("textures", (form(f"{i}.jpg", b"x"),)) for i in range(5))
    monkeypatch.setattr("cgnrt_training.cli.fetch.KNOWN", many)
    assert cli.main(["fetch", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("missing  textures    5 files")
    assert cli.main(["fetch", str(folder), "--only", "textures"]) == 1
    assert ", ".join(f"{i}.jpg (missing)" for i in range(5)) in capsys.readouterr().err
    folder.mkdir()
    (folder / "3.jpg").write_bytes(b"x")
    assert cli.main(["fetch", str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_the_known_files() -> None:
    forms = [form for file in KNOWN for form in file.forms]
    assert len({form.path for form in forms}) == len(forms)
    # What a server sends can be told apart from everything else.
    assert all(len(file.forms[0].sha256) == 64 and file.forms[0].size_bytes for file in KNOWN)
    assert all(set(form.sha256) <= set("0123456789abcdef") for form in forms)
    assert sum(file.group == "textures" for file in KNOWN) == 20
    assert {
        form.path.removesuffix(".gz") for file in KNOWN if file.group == "mnist" for form in file.forms
    } == {f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")}
