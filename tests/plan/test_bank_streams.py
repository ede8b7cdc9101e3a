"""Banks of WebP and JPEG streams: written, read, and refused by name before a decoder takes memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cgnrt.errors import PlanError
from cgnrt.plan import BankContents, Plan, write_bank, write_plan
from cgnrt.plan.bank import chunk_hashes
from cgnrt.plan.bank_streams import check_index, decode_stream, encode_stream
from tests.plan.conftest import taken_apart

CLASSES = ["cat", "dog"]
RGB, GREY = (3, 16, 24), (1, 16, 24)


def pictures(count: int, shape: tuple[int, ...] = (3, 16, 16)) -> np.ndarray:
    """Smooth ones with a little noise, which JPEG keeps nearly as they are."""
    rng = np.random.default_rng(shape[0])
    slope = (
        np.linspace(0, 200, shape[2])[None, None, None, :] + np.linspace(0, 40, count)[:, None, None, None]
    )
    return (slope + rng.integers(0, 4, (count, *shape))).astype(np.uint8)


def contents(channels: int, **options: Any) -> BankContents:
    return BankContents(pictures(5, (channels, 16, 16)), np.array([0, 1, 0, 1, 1]), CLASSES, **options)


def write(path: Path, **options: Any) -> Plan:
    write_bank(path, shape=contents(1), texture=contents(3), background=contents(3), force=True, **options)
    return Plan.open(path)


@pytest.mark.parametrize(
    ("store", "quality", "error"), [("webp", None, 0), ("webp", 95, 12), ("jpeg", None, 5)]
)
def test_pictures_come_back(tmp_path: Path, store: str, quality: int | None, error: int) -> None:
    order = np.array([0, 2, 1, 3, 4])
    with (
        write(tmp_path / "a.plan", store=store, quality=quality) as plan,
        write(tmp_path / "raw.plan") as raw,
    ):
        for name, bank in plan.banks.items():
            expected = raw.banks[name].pictures[order]
            found = bank.read(order)
            assert found.dtype == np.uint8
            mask = name == "shape"
            assert np.abs(found.astype(int) - expected).max() <= (0 if mask else error)
            assert bank.spec.store == ("webp" if mask else store)
            assert bank.labels.tolist() == [0, 0, 1, 1, 1]
        plan.verify_banks()
        message = f"bank 'texture': pictures are {store} streams, expected raw ones. Use Bank.read."
        with pytest.raises(ValueError, match=message):
            _ = plan.banks["texture"].pictures


def test_streams_are_taken_over_as_they_are(tmp_path: Path) -> None:
    with write(tmp_path / "a.plan", store="jpeg", quality=60) as plan:
        write_bank(tmp_path / "b.plan", shape=plan, texture=contents(3), background=plan)
        with Plan.open(tmp_path / "b.plan") as joined:
            stores = {name: bank.spec.store for name, bank in joined.banks.items()}
            assert stores == {"shape": "webp", "texture": "raw", "background": "jpeg"}
            assert joined.member("banks/background.pictures") == plan.member("banks/background.pictures")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": "png"}, "write bank: store is 'png', expected 'raw' or 'webp' or 'jpeg'"),
        ({"quality": 80}, "write bank: quality is given for raw pictures. Give store='webp' or 'jpeg', too."),
        ({"store": "jpeg", "quality": 0}, r"write bank: quality is 0, expected 1\.\.100 for jpeg"),
        ({"store": "webp", "quality": 101}, r"write bank: quality is 101, expected 0\.\.100 for webp"),
        ({"store": "webp", "quality": 0.5}, r"write bank: quality is 0.5, expected 0\.\.100 for webp"),
    ],
)
def test_a_wrong_store_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.plan", **options)
    assert not list(tmp_path.iterdir())


# Members.


@pytest.fixture
def parts(golden_bank_streams_plan: Path, tmp_path: Path) -> Any:
    return taken_apart(golden_bank_streams_plan, tmp_path)


def refusal(parts: Any) -> str:
    with pytest.raises(PlanError) as caught:
        write_plan(parts.folder / "hostile.plan", parts.manifest, parts.members)
    return str(caught.value)


def index_of(parts: Any) -> np.ndarray:
    return np.frombuffer(parts.members["banks/background.index"], "<u8").copy()


def set_index(change: Callable[[np.ndarray], Any]) -> Callable[[Any], None]:
    def apply(parts: Any) -> None:
        found = index_of(parts)
        changed = change(found)
        parts.members["banks/background.index"] = (
            (found if changed is None else changed).astype("<u8").tobytes()
        )

    return apply


def set_field(field: str, value: Any) -> Callable[[Any], None]:
    return lambda parts: parts.manifest["mechanisms"]["background"].__setitem__(field, value)


def longer(parts: Any) -> None:
    raw = parts.members["banks/background.pictures"] + bytes(10_000_000)
    parts.members |= {
        "banks/background.pictures": raw,
        "banks/background.hashes": chunk_hashes(memoryview(raw)),
    }


HOSTILE: list[tuple[Callable[[Any], None], str]] = [
    (
        set_index(lambda index: index[:-1]),
        "size of member 'banks/background.index' is 56, expected 64 (for 7",
    ),
    (set_index(lambda index: index.__setitem__(0, 1)), "index is 1 .. "),
    (
        set_index(lambda index: index.__setitem__(-1, 2**63)),
        "index is 0 .. 9223372036854775808, expected 0 .. ",
    ),
    (
        set_index(lambda index: index.__setitem__(3, 2**64 - 1)),
        "index is a list that does not rise, expected one",
    ),
    (
        set_index(lambda index: index.__setitem__(3, index[2])),
        "index is a list that does not rise, expected one",
    ),
    (
        set_index(lambda index: index.__setitem__(3, index[1])),
        "index is a list that does not rise, expected one",
    ),
    (set_field("index", None), "mechanisms.background.index is null, expected a string"),
    (
        set_field("index", "banks/background.labels"),
        "mechanisms.background.index is 'banks/background.labels', expected",
    ),
    (
        set_field("store", "raw"),
        "mechanisms.background.index is 'banks/background.index', expected null for raw",
    ),
    (set_field("store", "avif"), "mechanisms.background.store is 'avif', expected 'raw' or 'webp' or 'jpeg'"),
    (set_field("count", 2**26), "size of member 'banks/background.pictures' is "),
    (longer, "size of member 'banks/background.pictures' is "),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_bank_of_streams_is_refused_by_name(
    parts: Any, change: Callable[[Any], None], message: str
) -> None:
    change(parts)
    assert message in refusal(parts)


def test_a_stream_longer_than_any_picture_is_refused() -> None:
    longest = 4 * 10 + 65_536
    check_index(np.array([0, longest], "<u8"), longest, 10)
    with pytest.raises(
        PlanError, match=rf"length of picture 1 is {longest + 1} bytes, expected 1..{longest}"
    ):
        check_index(np.array([0, 5, 6 + longest], "<u8"), 6 + longest, 10)


def test_the_index_of_millions_of_streams_takes_no_memory_to_check() -> None:
    index = np.arange(4_000_001, dtype="<u8")
    tracemalloc.start()
    check_index(index, 4_000_000, 3)
    assert tracemalloc.get_traced_memory()[1] < index.nbytes
    tracemalloc.stop()


# Streams.


def encoded(picture: np.ndarray, **options: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(picture).save(target, **options)
    return target.getvalue()


def webp(shape: tuple[int, ...] = RGB, quality: int | None = None) -> bytes:
    return encode_stream(pictures(1, shape)[0], "webp", quality)


def jpeg(shape: tuple[int, ...] = RGB) -> bytes:
    return encode_stream(pictures(1, shape)[0], "jpeg", None)


def replaced(stream: bytes, at: int, new: bytes) -> bytes:
    return stream[:at] + new + stream[at + len(new) :]


def many_pixels(side: int) -> np.ndarray:
    return np.zeros((side, side, 3), np.uint8)


def jpeg_of_size(height: int, width: int) -> bytes:
    stream = jpeg()
    return replaced(stream, stream.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


TALL = np.repeat(pictures(1, RGB)[0].transpose(1, 2, 0), 2, axis=0)
STREAMS: list[tuple[str, bytes, str]] = [
    ("webp", b"", "stream is b'', expected a WebP file"),
    ("webp", jpeg(), "stream is b'\\xff\\xd8"),
    (
        "webp",
        webp() + b"\0\0",
        "stream is a WebP file of another length, expected one chunk of picture, and nothing else",
    ),
    ("webp", webp()[:-2], "stream is a WebP file of another length"),
    ("webp", webp((3, 24, 16)), "size is 24 x 16, expected 16 x 24, the plan's resolution"),
    ("webp", webp((3, 24, 16), 80), "size is 24 x 16, expected 16 x 24, the plan's resolution"),
    ("webp", replaced(webp(), 21, struct.pack("<I", 0x0FFFFFFF)), "size is 16384 x 16384, expected 16 x 24"),
    (
        "webp",
        replaced(webp(), 24, b"\xf0"),
        "stream is lossless WebP of another form, expected one without an alpha",
    ),
    ("webp", replaced(webp(), 20, b"\x00"), "stream is lossless WebP of another form"),
    (
        "webp",
        replaced(webp(quality=80), 20, b"\x01"),
        "stream is lossy WebP of another form, expected a key frame that",
    ),
    (
        "webp",
        replaced(webp(quality=80), 27, b"\xff"),
        "stream is lossy WebP of another form, expected a key frame",
    ),
    (
        "webp",
        replaced(webp(), 12, b"VP8X"),
        "stream is WebP with a chunk b'VP8X', expected 'VP8 ' or 'VP8L' alone",
    ),
    (
        "webp",
        encoded(TALL[:16], format="WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0"),
        "stream is a WebP file of another length",
    ),
    ("webp", replaced(webp(), 25, b"\xff" * 40), "stream is not webp ("),
    ("jpeg", b"", "stream is b'', expected a JPEG file from its beginning to its end"),
    ("jpeg", webp(), "stream is b'RI"),
    ("jpeg", jpeg()[:-2], "expected a JPEG file from its beginning to its end"),
    (
        "jpeg",
        jpeg() + b"hidden\xff\xd9",
        "stream is JPEG of several scans, expected one scan, and nothing behind it",
    ),
    ("jpeg", jpeg((3, 24, 16)), "size is 24 x 16, expected 16 x 24, the plan's resolution"),
    ("jpeg", jpeg_of_size(65_535, 65_535), "size is 65535 x 65535, expected 16 x 24, the plan's resolution"),
    ("jpeg", jpeg_of_size(0, 24), "size is 0 x 24, expected 16 x 24"),
    ("jpeg", jpeg(GREY), "stream is JPEG of 1 components of 8 bits, expected 3 of 8 bits"),
    (
        "jpeg",
        encoded(TALL[:16], format="JPEG", progressive=True),
        "stream is JPEG with marker 0xC2, expected baseline, with no metadata except JFIF's",
    ),
    (
        "jpeg",
        encoded(TALL[:16], format="JPEG", comment=b"x"),
        "stream is JPEG with marker 0xFE, expected baseline",
    ),
    (
        "jpeg",
        jpeg()[:2] + b"\xff\xdb\0\0" + jpeg()[2:],
        "stream is JPEG with a segment of 0 bytes at byte 2, expected",
    ),
    (
        "jpeg",
        jpeg()[:2] + b"\xff\xdb\xff\xff" + jpeg()[2:],
        "stream is JPEG with a segment of 65535 bytes at byte 2",
    ),
    (
        "jpeg",
        jpeg()[:2] + b"\0" + jpeg()[2:],
        "stream is JPEG without a marker at byte 2, expected segments one after",
    ),
    ("jpeg", b"\xff\xd8\xff\xd9", "stream is JPEG without a marker at byte 2"),
    (
        "jpeg",
        b"\xff\xd8\xff\xda\0\x02\xff\xd9",
        "stream is JPEG without a frame header, expected one before the scan",
    ),
]


@pytest.mark.parametrize(("store", "stream", "message"), STREAMS, ids=range(len(STREAMS)))
def test_a_hostile_stream_is_refused_before_memory_is_taken(store: str, stream: bytes, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(PlanError) as caught:
        decode_stream(stream, store, RGB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message in str(caught.value)
    assert peak < 4_000_000  # Pillow's modules, if nothing has imported them yet


def test_a_picture_bomb_never_reaches_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    bombs = [
        ("webp", encoded(many_pixels(4000), format="WEBP", lossless=True)),
        ("webp", encoded(many_pixels(4000), format="WEBP", quality=10)),
        ("jpeg", encoded(many_pixels(4000), format="JPEG", subsampling=0)),
    ]
    opened: list[object] = []
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: opened.append(arguments))
    for store, bomb in bombs:
        with pytest.raises(PlanError, match="size is 4000 x 4000, expected 16 x 24"):
            decode_stream(bomb, store, RGB)
    assert not opened


def test_what_the_writer_makes_is_read() -> None:
    for shape in (RGB, GREY, (3, 1, 1), (1, 1, 1), (3, 33, 7)):
        picture = pictures(1, shape)[0]
        for store, quality, error in (("webp", None, 0), ("webp", 95, 30), ("jpeg", 95, 12)):
            found = decode_stream(encode_stream(picture, store, quality), store, shape)
            assert found.shape == shape
            assert np.abs(found.astype(int) - picture).max() <= error


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_a_changed_stream_is_refused_or_a_picture_of_this_size(data: st.DataObject) -> None:
    store = data.draw(st.sampled_from(["webp", "lossy", "jpeg"]))
    stream = bytearray({"webp": webp(), "lossy": webp(quality=80), "jpeg": jpeg()}[store])
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(stream)) | st.just(len(stream)))
    try:
        found = decode_stream(bytes(stream[:end]), "jpeg" if store == "jpeg" else "webp", RGB)
    except PlanError:
        return
    assert found.shape == RGB


def test_the_picture_that_is_wrong_is_named(tmp_path: Path) -> None:
    with write(tmp_path / "a.plan", store="jpeg") as plan:
        manifest = {**plan.manifest.to_dict()}
        members = {name: bytes(plan.member(name)) for name in plan.members}
    del manifest["members"]
    index = np.frombuffer(members["banks/texture.index"], "<u8").copy()
    other = jpeg((3, 8, 8))
    raw = members["banks/texture.pictures"]
    raw = raw[: int(index[2])] + other + raw[int(index[3]) :]
    index[3:] = index[3:] - (index[3] - index[2]) + np.uint64(len(other))
    members |= {"banks/texture.pictures": raw, "banks/texture.index": index.tobytes()}
    members["banks/texture.hashes"] = chunk_hashes(memoryview(raw))
    write_plan(tmp_path / "b.plan", manifest, members)
    with Plan.open(tmp_path / "b.plan") as plan:
        plan.verify_banks()
        assert len(plan.banks["texture"].read(np.array([0, 1, 3, 4]))) == 4
        message = "mechanism 'texture': picture 2: size is 8 x 8, expected 16 x 16, the plan's resolution"
        with pytest.raises(PlanError, match=message):
            plan.banks["texture"].read(np.array([1, 2]))
