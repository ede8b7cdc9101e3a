"""Who is let in, and over what."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tritonclient.http as triton
from serving import generator, running
from tritonclient.utils import InferenceServerException

from cgnrt.errors import CgnrtError
from cgnrt.serve.browsers import public_origin
from cgnrt.serve.service import Service

TLS = Path(__file__).parent / "tls"  # of localhost alone, made for these tests
BODY = json.dumps({"parameters": {"count": 1}}).encode()


def test_a_token(golden_plan: Path) -> None:
    with (
        running(Service(generator(golden_plan), "v2", token="s3cret")) as server,
        triton.InferenceServerClient(server.http) as client,
    ):
        assert client.is_server_live()  # for probes
        assert client.is_server_ready()
        with urllib.request.urlopen(f"http://{server.http}/ui/") as page:  # which asks for the token
            assert page.status == 200
        for headers in (None, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}):
            with pytest.raises(InferenceServerException, match="token is missing or wrong") as caught:
                client.get_model_metadata("v2", headers=headers)
            assert caught.value.status() == "401"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://{server.http}/metrics")
        assert client.get_model_metadata("v2", headers={"Authorization": "Bearer s3cret"})["name"] == "v2"
    assert "s3cret" not in server.log.getvalue()


def test_other_sites_pages_are_refused(golden_plan: Path) -> None:
    with running(Service(generator(golden_plan), "v2")) as server:
        for origin, status in ((f"http://{server.http}", 200), ("http://elsewhere", 400), ("null", 400)):
            asked = urllib.request.Request(
                f"http://{server.http}/v2/models/v2/infer", BODY, {"Origin": origin}
            )
            if status == 200:
                assert urllib.request.urlopen(asked).status == 200
            else:
                with pytest.raises(urllib.error.HTTPError, match=str(status)):
                    urllib.request.urlopen(asked)


def status(address: str, headers: dict[str, str]) -> int:
    try:
        asked = urllib.request.Request(f"http://{address}/v2/models/v2/infer", BODY, headers)
        return int(urllib.request.urlopen(asked).status)
    except urllib.error.HTTPError as error:
        return error.code


def test_names_that_others_gave_to_this_machine(golden_plan: Path) -> None:
    with running(Service(generator(golden_plan), "v2")) as server:
        port = server.bound.port
        for host in (
            "localhost",
            f"localhost:{port}",
            f"LOCALHOST:{port}",
            f"127.0.0.9:{port}",
            f"[::1]:{port}",
        ):
            assert status(server.http, {"Host": host}) == 200, host
        for host in (f"evil.example:{port}", "", "[", "127.0.0.1.evil.example", "10.0.0.1"):
            assert status(server.http, {"Host": host}) == 400, host
        rebound = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
        assert status(server.http, rebound) == 400


def test_any_name_where_others_are_to_ask(golden_plan: Path) -> None:
    with running(Service(generator(golden_plan), "v2", token="s3cret")) as server:
        assert status(server.http, {"Host": "images.example", "Authorization": "Bearer s3cret"}) == 200
    with running(Service(generator(golden_plan), "v2"), host="0.0.0.0") as server:
        assert status(server.http, {"Host": "images.example"}) == 200


def test_tls(golden_plan: Path) -> None:
    service = Service(generator(golden_plan), "v2")
    with running(service, certificate=TLS / "certificate.pem", key=TLS / "key.pem") as server:
        context = ssl.create_default_context(cafile=TLS / "certificate.pem")
        address = f"https://localhost:{server.bound.port}/v2/models/v2/infer"
        with urllib.request.urlopen(address, BODY, context=context) as answer:
            assert json.load(answer)["model_name"] == "v2"
        with pytest.raises(OSError, match=r"closed|reset"):
            urllib.request.urlopen(address.replace("https", "http"), BODY)
        with pytest.raises(urllib.error.URLError, match=r"self.signed"):
            urllib.request.urlopen(address, BODY)
        assert urllib.request.urlopen(address, BODY, context=context).status == 200


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"certificate": "certificate.pem"}, "one of certificate and key"),
        ({"certificate": "certificate.pem", "key": "nothing.pem"}, "not a pair of PEM files"),
        ({"certificate": "key.pem", "key": "certificate.pem"}, "not a pair of PEM files"),
    ],
)
def test_no_tls(golden_plan: Path, files: dict[str, str], message: str) -> None:
    paths = {name: TLS / file for name, file in files.items()}
    with (
        pytest.raises(CgnrtError, match=message),
        running(Service(generator(golden_plan), "v2"), **paths),
    ):
        pass


def test_the_pages_of_a_proxy(golden_plan: Path) -> None:
    public = (public_origin("https://Images.Example:443/cgn/"), public_origin("http://other.example:81"))
    with running(Service(generator(golden_plan), "v2"), public=public) as server:
        for host in ("images.example", server.http):
            assert status(server.http, {"Host": host, "Origin": "https://images.example"}) == 200
            assert status(server.http, {"Host": host, "Origin": "http://other.example:81"}) == 200
        for origin in ("http://evil.example", "http://images.example", "https://images.example:81"):
            assert status(server.http, {"Origin": origin}) == 400, origin
        assert status(server.http, {"Host": "evil.example"}) == 400


@pytest.mark.parametrize("url", ["", "images.example", "ftp://x", "https://", "https://a@b", "http://x:y"])
def test_no_public_url(url: str) -> None:
    with pytest.raises(ValueError, match="expected one like https://images"):
        public_origin(url)
