"""Files that people mistake for plans are named."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from cgnrt.errors import PlanError
from cgnrt.plan import Plan


def onnx_bytes() -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [])
    return helper.make_model(graph, producer_name="pytorch").SerializeToString()


def zip_bytes(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return stream.getvalue()


def npz_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=np.zeros(3))
    return stream.getvalue()


def tar_bytes() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3086989\n"
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
SAFETENSORS = struct.pack("<Q", 17) + b'{"__metadata__":{}' + b"}" * 8

CASES = [
    (b"", "file is empty"),
    (LFS, r"file is a git-LFS pointer .*Run: git lfs pull"),
    (b"ftrt" + bytes(100), "file is a raw TensorRT engine"),
    (b"ptrt" + bytes(100), "file is a raw TensorRT engine"),
    (b"vtrt" + bytes(4) + b"\x02", "file is a raw TensorRT engine"),
    (
        zip_bytes("archive/data.pkl", "archive/version"),
        r"file is a torch checkpoint .*cgnrt-export CHECKPOINT",
    ),
    (zip_bytes("archive/version", "archive/data.pkl"), "file is a torch checkpoint"),
    (LEGACY, "file is a legacy torch checkpoint"),
    (pickle.dumps({"a": 1}), "file is a Python pickle"),
    (onnx_bytes(), "file is a bare ONNX model"),
    (gzip.compress(b"x", mtime=0), "file is gzip data"),
    (npz_bytes(), r"file is a NumPy archive \(\.npz\)"),
    (b"\x93NUMPY\x01\x00" + bytes(50), "file is a NumPy array"),
    (zip_bytes("readme.txt"), r"file is another ZIP archive \(its first member is 'readme.txt'\)"),
    (zip_bytes("readme.txt")[:34], "file is the beginning of a ZIP archive"),
    (zip_bytes(), "file is an empty ZIP archive"),
    (tar_bytes(), "file is a tar archive"),
    (SAFETENSORS, "file is a safetensors file"),
    (b"<!DOCTYPE html><html>", "file is an HTML page"),
    (b'<?xml version="1.0"?><net>', "file is an XML file"),
    (json.dumps({"format_version": 1}).encode(), "file is a JSON file"),
    (b"\x7fELF" + bytes(100), "file is an ELF program"),
    (b"\x89HDF\r\n\x1a\n" + bytes(10), "file is an HDF5 file"),
    (b"PK", "file is something that starts with b'PK'"),
    (b"\x80", "file is something that starts with"),
    (b"\x08", "file is something that starts with"),
    (b"\x08\x01\x12", "file is something that starts with"),
    (b"hello, world, I am no plan", "file is something that starts with b'hello, w'"),
    (bytes(4096), "file is something that starts with"),
]


@pytest.mark.parametrize(("raw", "message"), CASES, ids=[message[8:40] for _, message in CASES])
def test_foreign_files_are_named(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cgn.plan"
    path.write_bytes(raw)
    for verify in (True, False):
        with pytest.raises(PlanError, match=message) as caught:
            Plan.open(path, verify=verify)
        assert str(caught.value).startswith(f"load '{path}': ")
        assert ", expected " in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r"load '.*none.plan': file is missing, expected a plan\. Check the path"
    ):
        Plan.open(tmp_path / "none.plan")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="file is a directory, expected a plan"):
        Plan.open(tmp_path)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PlanError, match="file is not a regular file"):
        Plan.open(tmp_path / "pipe")


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(PlanError, match=r"file is unreadable \(Not a directory\)"):
        Plan.open(tmp_path / "file" / "cgn.plan")


def test_a_path_that_no_file_can_have() -> None:
    with pytest.raises(PlanError, match="path is embedded null byte"):
        Plan.open("a\0b")
    with pytest.raises(PlanError, match="file is unreadable"):
        Plan.open("x" * 5000)


def test_a_file_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", denied)  # root, who may run the tests, reads everything
    with pytest.raises(PlanError, match=r"file is unreadable \(Permission denied\)"):
        Plan.open(tmp_path / "cgn.plan")
