"""Names the files that people mistake for plans, so that the message can say what was found."""

from __future__ import annotations

from cgnrt.errors import EXPORT_AGAIN, PlanError, refuse
from cgnrt.plan.limits import MANIFEST_NAME
from cgnrt.plan.onnx import wire
from cgnrt.plan.zip_records import LOCAL, LOCAL_SIGNATURE

_EXPORT_CHECKPOINT = "Make a plan of it: cgnrt-export CHECKPOINT -o cgn.plan."
_EXPORT_SOURCE = "Export the checkpoint that it was made from with cgnrt-export."

# (bytes at the start, what it is, what to do)
_MAGIC = (
    (b"version https://git-lfs", "a git-LFS pointer (the file itself was not fetched)", "Run: git lfs pull"),
    (b"\x1f\x8b", "gzip data", "Decompress it first."),
    (b"BZh", "bzip2 data", "Decompress it first."),
    (b"\xfd7zXZ\x00", "xz data", "Decompress it first."),
    (b"\x28\xb5\x2f\xfd", "zstd data", "Decompress it first."),
    (b"\x93NUMPY", "a NumPy array (.npy)", EXPORT_AGAIN),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", EXPORT_AGAIN),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", EXPORT_AGAIN),
    (b"%PDF-", "a PDF document", EXPORT_AGAIN),
    (b"\x7fELF", "an ELF program or library", EXPORT_AGAIN),
)


def recognize(data: memoryview) -> PlanError | None:
    """The error that names a file which is not a plan; None for one that starts as plans do."""
    found, step = _identify(data)
    return refuse("file", found, "a plan (ZIP with manifest.json first)", step) if found else None


def _identify(data: memoryview) -> tuple[str, str]:
    head = bytes(data[:512])
    if head.startswith(LOCAL_SIGNATURE):
        return _identify_zip(data)
    if head.startswith(b"PK\x05\x06"):
        return "an empty ZIP archive", EXPORT_AGAIN
    for magic, name, step in _MAGIC:
        if head.startswith(magic):
            return name, step
    if head[1:4] == b"trt" and head[:1].isalpha():  # ptrt, ftrt, and vtrt of TensorRT-RTX
        return "a raw TensorRT engine", _EXPORT_SOURCE
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 1:
        # The magic number that torch.save wrote first before it wrote ZIP files.
        if b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head[:16]:
            return "a legacy torch checkpoint (a pickle)", _EXPORT_CHECKPOINT
        return "a Python pickle", EXPORT_AGAIN
    if head[257:262] == b"ustar":
        return "a tar archive", "Unpack it first."
    if len(head) > 9 and head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < data.nbytes:
        return "a safetensors file", EXPORT_AGAIN
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "an HTML page (a download that failed?)", "Download the plan again."
    if text.startswith(b"<?xml"):
        return "an XML file (an OpenVINO model?)", _EXPORT_SOURCE
    if text.startswith(b"{"):
        return "a JSON file", EXPORT_AGAIN
    if _is_onnx(data):
        return "a bare ONNX model", "Plans hold three of them: " + EXPORT_AGAIN[0].lower() + EXPORT_AGAIN[1:]
    return f"something that starts with {head[:8]!r}", EXPORT_AGAIN


def _identify_zip(data: memoryview) -> tuple[str, str]:
    """A ZIP is judged by the name of its first member."""
    size = int.from_bytes(data[26:28], "little")
    name = bytes(data[LOCAL.size : LOCAL.size + min(size, 256)])
    if name == MANIFEST_NAME.encode():
        return "", ""
    if name.endswith(b"/data.pkl") or b"/data.pkl" in bytes(data[-65536:]):
        return "a torch checkpoint (a ZIP with a pickle)", _EXPORT_CHECKPOINT
    if name.endswith(b".npy"):
        return "a NumPy archive (.npz)", EXPORT_AGAIN
    if len(name) < size or data.nbytes < LOCAL.size:
        return "the beginning of a ZIP archive", EXPORT_AGAIN
    return f"another ZIP archive (its first member is {name.decode('latin-1')!a})", EXPORT_AGAIN


def _is_onnx(data: memoryview) -> bool:
    """ModelProto: starts with the IR version, and its top-level fields parse up to a graph."""
    head = bytes(data[: 1 << 16])
    if len(head) < 4 or head[0] != 0x08 or not 1 <= head[1] <= 64:
        return False
    position = 2
    try:
        for _ in range(64):
            key, position = wire.read_varint(head, position, len(head))
            number, kind = key >> 3, key & 7
            if number == 7 and kind == wire.BYTES:
                return True
            value, position = wire.read_varint(head, position, len(head))
            if kind == wire.BYTES:
                position += value
            elif kind != wire.VARINT or number > 32:
                return False
    except PlanError:
        return False
    return False
