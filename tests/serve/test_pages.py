"""The page's files, as a server without a browser hands them out."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from email.message import Message
from importlib.resources import files

import pytest
from serving import Running

from cgnrt.serve.browsers import read_pages

FILES = {
    "index.html",
    "style.css",
    "icon.svg",
    "app.js",
    "picker.js",
    "pictures.js",
    "protocol.js",
    "source.js",
    "state.js",
}


def text(name: str) -> str:
    return files("cgnrt.serve").joinpath("ui", name).read_text("utf-8")


def get(server: Running, path: str) -> tuple[int, Message, bytes]:
    try:
        with urllib.request.urlopen(f"http://{server.http}{path}", timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_all_files_are_read_with_their_types() -> None:
    pages = read_pages()
    assert set(pages) == FILES
    assert pages["app.js"][0] == "text/javascript; charset=utf-8"
    assert pages["index.html"] == ("text/html; charset=utf-8", text("index.html").encode())


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/ui", "text/html"), ("/ui/", "text/html"), ("/ui/style.css", "text/css")],
)
def test_files_come_with_headers_that_keep_others_out(server: Running, path: str, kind: str) -> None:
    status, headers, body = get(server, path)
    assert status == 200
    assert headers["content-type"].startswith(kind)
    assert body
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/ui/..", "/ui/../browsers.py", "/ui/%2e%2e/browsers.py", "/ui/none.js", "/ui/ui"]
)
def test_there_is_nothing_else_below_it(server: Running, path: str) -> None:
    status, _, body = get(server, path)
    assert status == 404
    assert b"expected" in body or b"no page has this name" in body


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_name_no_other_host(name: str) -> None:
    addresses = set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]+[^\s\"']*", text(name)))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_what_files_point_at_is_there() -> None:
    page = text("index.html")
    assert set(re.findall(r"(?:src|href)=\"([^\"]+)\"", page)) <= FILES
    ids = re.findall(r"\bid=\"([\w-]+)\"", page)
    assert len(ids) == len(set(ids))
    made = {"shape", "texture", "background", "end-shape", "end-texture", "end-background"}
    assert not made & set(ids)  # of the pickers
    for target in re.findall(r"(?:for|aria-controls|aria-labelledby)=\"([\w-]+)\"", page):
        assert target in ids
    for name in FILES:
        if name.endswith(".js"):
            assert set(re.findall(r"from \"\./([^\"]+)\"", text(name))) <= FILES
            assert set(re.findall(r"\$\(\"([\w-]+)\"\)", text(name))) <= set(ids)
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text(name))


def test_nothing_is_inline() -> None:
    page = text("index.html")
    assert not re.search(r"\s(?:style|on\w+)=|<style|<script(?![^>]*\bsrc=)", page)


def test_every_control_has_a_name() -> None:
    page = text("index.html")
    labelled = set(re.findall(r"<label for=\"([\w-]+)\"", page))
    for control in re.findall(r"<input\b[^>]*>", page):
        (found,) = re.findall(r"\bid=\"([\w-]+)\"", control) or [None]
        assert found in labelled or "aria-label=" in control or 'type="radio"' in control, control
    for attributes, inside in re.findall(r"<button\b([^>]*)>(.*?)</button>", page):
        assert "aria-label=" in attributes or re.sub(r"<[^>]*>|&#?\w+;", "", inside).strip(), attributes


@pytest.mark.parametrize("path", ["/", "/ui"])
def test_redirects_do_not_know_where_the_server_lies(server: Running, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.bound.port, timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().getheader("location") == "ui/"
    connection.close()
