"""Banks: pictures as mechanisms, written, read, and refused by name where they are hostile."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt.errors import PlanError
from cgnrt.plan import BankContents, Plan, archive, open_any, write_bank, write_plan
from cgnrt.plan.limits import CHUNK_BYTES
from tests.plan.conftest import taken_apart


@pytest.fixture
def bank_parts(golden_bank_plan: Path, tmp_path: Path) -> Any:
    return taken_apart(golden_bank_plan, tmp_path)


def contents(channels: int, labels: Any = (0, 1, 1), size: int = 4, **options: Any) -> BankContents:
    pictures = np.random.default_rng(channels).integers(0, 256, (len(labels), channels, size, size), np.uint8)
    return BankContents(pictures, np.asarray(labels), ["cat", "dog"], **options)


def write(path: Path, **changed: Any) -> Plan:
    given = {"shape": contents(1), "texture": contents(3), "background": contents(3)}
    write_bank(path, **(given | changed), force=True)
    return Plan.open(path)


def test_pictures_come_back_sorted_by_class(tmp_path: Path) -> None:
    shape = contents(1, (1, 0, 1, 0))
    with write(tmp_path / "a.plan", shape=shape) as plan:
        bank = plan.banks["shape"]
        assert np.array_equal(bank.pictures, shape.pictures[[1, 3, 0, 2]])
        assert bank.labels.tolist() == [0, 0, 1, 1]
        plan.verify_banks()


def words(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)[:, None]


def test_an_entry_is_the_high_half_of_the_product_with_the_size_of_the_class(tmp_path: Path) -> None:
    with write(tmp_path / "a.plan", shape=contents(1, (0, 0, 0, 1))) as plan:
        bank = plan.banks["shape"]
        third = 2**32 // 3
        drawn = words(0, third, third + 1, 2 * third + 2, 2**32 - 1, 2**32 - 1)
        assert bank.entries(np.array([0, 0, 0, 0, 0, 1]), drawn).tolist() == [0, 0, 1, 2, 2, 3]


def test_weights_are_followed_exactly(tmp_path: Path) -> None:
    weighted = contents(1, (0, 0, 0, 1, 1), weights=np.array([1, 0, 3, 0, 2]))
    with write(tmp_path / "a.plan", shape=weighted) as plan:
        bank = plan.banks["shape"]
        drawn = words(0, 2**30 - 1, 2**30, 2**32 - 1, 0, 2**32 - 1)
        assert bank.entries(np.array([0, 0, 0, 0, 1, 1]), drawn).tolist() == [0, 0, 2, 2, 4, 4]


def test_float_weights_keep_their_proportions(tmp_path: Path) -> None:
    with write(tmp_path / "a.plan", shape=contents(1, weights=np.array([0.5, 0.25, 0.75]))) as plan:
        weights = plan.banks["shape"].weights
        assert weights is not None
        assert weights.tolist() == [1 << 31, 1 << 29, 3 << 29]


def set_labels(values: list[int]) -> Callable[[Any], None]:
    def change(parts: Any) -> None:
        parts.members["banks/shape.labels"] = np.array(values, "<i4").tobytes()

    return change


def set_weights(values: list[int]) -> Callable[[Any], None]:
    def change(parts: Any) -> None:
        parts.members["banks/texture.weights"] = np.array(values, "<u4").tobytes()

    return change


def set_field(field: str, value: Any, mechanism: str = "shape") -> Callable[[Any], None]:
    return lambda parts: parts.manifest["mechanisms"][mechanism].__setitem__(field, value)


def cut(member: str) -> Callable[[Any], None]:
    return lambda parts: parts.members.__setitem__(member, parts.members[member][:-1])


HOSTILE: list[tuple[Callable[[Any], None], str]] = [
    (
        set_field("count", 2**40),
        "mechanisms.shape.count is 1099511627776, expected an integer in 1..67108864",
    ),
    (set_field("count", 60_000_000), "size of member 'banks/shape.pictures' is 448, expected 3840000000"),
    (set_field("count", 0), "mechanisms.shape.count is 0, expected an integer in 1.."),
    (set_field("store", "zip"), "mechanisms.shape.store is 'zip', expected 'raw'"),
    (set_field("kind", "film"), "mechanisms.shape.kind is 'film', expected 'graph' or 'bank'"),
    (set_field("pictures", "banks/shape.labels"), "expected banks/<stem>.pictures"),
    (
        set_field("hashes", "banks/texture.hashes"),
        "bank hashes is 'banks/texture.hashes', expected a member that nothing",
    ),
    (set_field("classes", ["a", "b"]), "mechanism 'shape': labels is a list with 2, expected 0..1"),
    (set_field("classes", ["a", "b", "c", "d"]), "class 3 ('d') without a picture, expected at least one"),
    (set_field("sources", [{"name": "x"}]), "sources[0].count is missing"),
    (cut("banks/shape.pictures"), "size of member 'banks/shape.pictures' is 447, expected 448"),
    (cut("banks/shape.hashes"), "size of member 'banks/shape.hashes' is 31, expected 32"),
    (cut("banks/shape.labels"), "size of member 'banks/shape.labels' is 27, expected 28"),
    (cut("banks/texture.weights"), "size of member 'banks/texture.weights' is 27, expected 28"),
    (set_labels([0, 0, 0, 1, 2, 2, 3]), "labels is a list with 3, expected 0..2"),
    (set_labels([-1, 0, 0, 1, 2, 2, 2]), "labels is a list with -1, expected 0..2"),
    (set_labels([0, 1, 0, 1, 2, 2, 2]), "labels is a list that falls, expected one that rises"),
    (set_labels([0, 0, 0, 0, 2, 2, 2]), "class 1 ('square') without a picture"),
    (set_weights([1, 2, 3, 0, 0, 5, 1]), "weights is 0 in all for class 1 ('dots'), expected 1..4294967295"),
    (set_weights([2**32 - 1, 2, 3, 1, 0, 5, 1]), "weights is 4294967300 in all for class 0"),
]


@pytest.fixture
def following_parts(tmp_path: Path) -> Any:
    """A plan whose textures follow the shapes, in pieces."""
    labels = (0, 0, 1)
    write(
        tmp_path / "following.plan", shape=contents(1, labels), texture=contents(3, labels, follows="shape")
    ).close()
    return taken_apart(tmp_path / "following.plan", tmp_path)


def test_a_texture_that_follows_has_the_order_and_labels_of_the_shape(tmp_path: Path) -> None:
    labels, weights = (1, 0, 1, 0), np.array([1, 2, 3, 4])
    texture = contents(3, labels, follows="shape")
    with write(tmp_path / "a.plan", shape=contents(1, labels, weights=weights), texture=texture) as plan:
        shape, bank = plan.banks["shape"], plan.banks["texture"]
        assert plan.following == {"texture": "shape"}
        assert np.array_equal(bank.pictures, texture.pictures[[1, 3, 0, 2]])
        drawn = words(0, 2**30, 2**31, 2**32 - 1)
        found = bank.entries(np.array([0, 0, 1, 1]), drawn)
        assert np.array_equal(found, shape.entries(np.array([0, 0, 1, 1]), drawn))
        assert "banks/texture.labels" not in plan.members


FOLLOWING: list[tuple[Callable[[Any], None], str]] = [
    (
        set_field("follows", "shape"),
        "mechanisms.shape.follows is 'shape', expected null: only texture may follow",
    ),
    (
        set_field("follows", "shape", "background"),
        "mechanisms.background.follows is 'shape', expected null: only",
    ),
    (
        set_field("follows", "background", "texture"),
        "mechanisms.texture.follows is 'background', expected 'shape'",
    ),
    (set_field("roll", True, "texture"), "texture.roll is True, expected false, since texture follows shape"),
    (
        set_field("labels", "banks/texture.labels", "texture"),
        "texture.labels is 'banks/texture.labels', expected null",
    ),
    (
        set_field("weights", "banks/x.weights", "texture"),
        "texture.weights is 'banks/x.weights', expected null, since",
    ),
    (
        set_field("classes", ["cat", "cow"], "texture"),
        "texture.classes is other names, expected those of shape, which",
    ),
    (set_field("follows", None, "texture"), "mechanisms.texture.labels is null, expected a string"),
]


@pytest.mark.parametrize(("change", "message"), FOLLOWING, ids=range(len(FOLLOWING)))
def test_what_does_not_follow_is_refused_by_name(
    following_parts: Any, change: Callable[[Any], None], message: str
) -> None:
    change(following_parts)
    with pytest.raises(PlanError) as caught:
        raise_from(following_parts, following_parts.manifest, following_parts.members)
    assert message in str(caught.value)


def test_a_texture_that_follows_has_as_many_pictures_as_the_shape(following_parts: Any) -> None:
    following_parts.manifest["mechanisms"]["texture"]["count"] = 2
    raw = following_parts.members["banks/texture.pictures"][: 2 * 48]
    following_parts.members |= {
        "banks/texture.pictures": raw,
        "banks/texture.hashes": hashlib.sha256(raw).digest(),
    }
    with pytest.raises(
        PlanError, match=r"texture\.count is 2, expected 3, as many as shape has, which texture follows"
    ):
        raise_from(following_parts, following_parts.manifest, following_parts.members)


def test_no_network_is_followed(following_parts: Any, golden_plan: Path, tmp_path: Path) -> None:
    graph = taken_apart(golden_plan, tmp_path)
    texture = contents(3, size=8).pictures
    bank, members = BankContents(texture, np.arange(3), ["disc", "square", "cross"], follows="shape").members(
        "texture"
    )
    manifest = {**graph.manifest, "mechanisms": {**graph.manifest["mechanisms"], "texture": bank}}
    kept = {name: data for name, data in graph.members.items() if "texture" not in name}
    with pytest.raises(
        PlanError, match=r"texture\.follows is 'shape', expected null, since shape is a network"
    ):
        write_plan(tmp_path / "x.plan", manifest, kept | members)


def test_writers_of_a_texture_that_follows_are_told_what_is_missing(
    golden_plan: Path, tmp_path: Path
) -> None:
    path, labels = tmp_path / "a.plan", (0, 0, 1)
    texture = contents(3, labels, follows="shape")
    with pytest.raises(ValueError, match=r"texture follows shape, expected pictures with the shape's labels"):
        write(path, shape=contents(1, (0, 1, 1)), texture=texture)
    with pytest.raises(ValueError, match=r"follows is 'shape' for background, expected it for texture only"):
        write(path, background=texture)
    with pytest.raises(ValueError, match=r"follows is 'mask', expected 'shape' or None"):
        contents(3, follows="mask")
    for given in ({"roll": True}, {"weights": np.ones(3)}):
        with pytest.raises(ValueError, match=rf"{next(iter(given))} is given beside follows='shape'"):
            contents(3, follows="shape", **given)
    with Plan.open(golden_plan) as graphs, pytest.raises(ValueError, match="shape, which is a network in"):
        write(path, shape=graphs, texture=contents(3, size=8, follows="shape"), background=graphs)
    with write(path, shape=contents(1, labels), texture=texture) as plan:
        with pytest.raises(
            ValueError, match=r"texture of '.*a.plan' follows shape, expected shape of the same plan"
        ):
            write(tmp_path / "b.plan", texture=plan)
        with write(tmp_path / "b.plan", shape=plan, texture=plan) as joined:
            assert joined.following == {"texture": "shape"}
            assert np.array_equal(joined.banks["texture"].pictures, plan.banks["texture"].pictures)
        with write(tmp_path / "c.plan", shape=plan, texture=contents(3, labels, follows="shape")) as joined:
            assert joined.banks["texture"].labels.tolist() == list(labels)


@pytest.mark.parametrize(("change", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_bank_is_refused_by_name(
    bank_parts: Any, change: Callable[[Any], None], message: str
) -> None:
    change(bank_parts)
    manifest, members = bank_parts.manifest, bank_parts.members
    with pytest.raises(PlanError) as caught:
        raise_from(bank_parts, manifest, members)
    assert message in str(caught.value)


def test_pictures_of_other_hashes_are_refused(bank_parts: Any) -> None:
    message = bank_parts.refusal()  # which gives the pictures a hash of their own
    assert "SHA-256 of member 'banks/shape.pictures' is" in message
    assert "expected that of 'banks/shape.hashes', which has the hashes of its chunks" in message


def raise_from(parts: Any, manifest: dict[str, Any], members: dict[str, bytes]) -> None:
    """By the writer, which checks what it wrote by the reader's code, with the hashes that a bank has."""
    write_plan(parts.folder / "hostile.plan", manifest, members)


def test_a_bank_beside_another_range_is_refused(golden_plan: Path, bank_parts: Any, tmp_path: Path) -> None:
    graph = taken_apart(golden_plan, tmp_path)
    graph.manifest["mechanisms"]["texture"]["range"] = [0, 1]
    write_plan(tmp_path / "zero.plan", graph.manifest, graph.members)
    with Plan.open(tmp_path / "zero.plan") as texture, open_any(bank_parts.folder / "zero.plan"):
        pictures = contents(3, size=8)
        with pytest.raises(
            PlanError, match=r"texture\.range is \[0, 1\], expected \[-1, 1\], since background"
        ):
            write_bank(tmp_path / "x.plan", shape=contents(1, size=8), texture=texture, background=pictures)


def flipped(path: Path, member: str, place: int) -> None:
    """One byte of a member changed, behind the plan's back."""
    with Plan.open(path) as plan:
        start = bytes(path.read_bytes()).index(bytes(plan.member(member)))
    with path.open("r+b") as file:
        file.seek(start + place)
        (byte,) = file.read(1)
        file.seek(start + place)
        file.write(bytes([byte ^ 1]))


def test_a_chunk_is_compared_when_it_is_first_used(tmp_path: Path) -> None:
    size = 512  # four pictures a chunk
    path = tmp_path / "a.plan"
    write(path, shape=contents(1, [0] * 5 + [1] * 4, size), texture=contents(3, size=size),
          background=contents(3, size=size)).close()  # fmt: skip
    flipped(path, "banks/shape.pictures", CHUNK_BYTES + 5)
    with Plan.open(path) as plan:  # the whole plan is checked except for pictures
        bank = plan.banks["shape"]
        bank.check(np.array([0, 3, 8]))
        with pytest.raises(
            PlanError, match=r"SHA-256 of chunk 1 of member 'banks/shape.pictures' is .*copy it"
        ):
            bank.check(np.array([2, 4]))
        with pytest.raises(PlanError, match=r"read '.*a.plan': mechanism 'shape': SHA-256 of chunk 1"):
            plan.verify_banks()


@pytest.mark.parametrize("threads", [1, 3])
def test_chunks_are_compared_by_several_threads(tmp_path: Path, threads: int) -> None:
    size = 512
    path = tmp_path / "a.plan"
    write(path, shape=contents(1, [0] * 20 + [1] * 20, size), texture=contents(3, size=size),
          background=contents(3, size=size)).close()  # fmt: skip
    with Plan.open(path) as plan:
        bank, seen = plan.banks["shape"], []
        bank.check(np.arange(16), threads)
        bank.verify(progress=seen.append)
        assert sum(seen) == bank.stored_bytes
    flipped(path, "banks/shape.pictures", 7 * CHUNK_BYTES)
    with Plan.open(path) as plan:
        plan.banks["shape"].check(np.arange(28), threads)
        with pytest.raises(PlanError, match=r"SHA-256 of chunk 7 of member 'banks/shape.pictures'"):
            plan.banks["shape"].check(np.arange(40), threads)


def test_a_plan_that_is_changed_under_its_reader_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    with write(path) as plan:
        plan.banks["texture"].check(np.array([0]))
        flipped(path, "banks/texture.pictures", 3)
        with pytest.raises(PlanError, match=r"SHA-256 of chunk 0 of member 'banks/texture.pictures'"):
            plan.check_unchanged()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: contents(1, (0, 0, 0)), "class 'dog' has no picture"),
        (lambda: contents(1, (0, 1, 2)), r"labels are 0\.\.2, expected 0\.\.1"),
        (lambda: contents(1, weights=np.array([1, 0, 0])), "the weights of class 'dog' are all 0"),
        (lambda: contents(1, weights=np.array([1, -1, 2])), "a weight is negative"),
        (lambda: contents(1, weights=np.array([2**32, 1, 1])), "weights of a class add up to 4294967296"),
        (lambda: contents(1, weights=np.array([1, 1])), r"weights are int64 \(2,\), expected numbers \(3,\)"),
        (lambda: contents(2), "of 1 or 3 channels"),
        (lambda: BankContents(np.zeros((2, 1, 4, 4)), np.zeros(2), ["a"]), "pictures are float64"),
        (lambda: contents(1, (0.0, 1.0)), "labels are float64"),
    ],
)
def test_contents_check_themselves(make: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_parts_have_one_size_and_their_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sizes are 8 x 8 for shape, 4 x 4 for texture"):
        write(tmp_path / "a.plan", shape=contents(1, size=8))
    with pytest.raises(ValueError, match="pictures of texture have 1 channels, expected 3"):
        write(tmp_path / "a.plan", texture=contents(1))


def test_mechanisms_of_plans_are_joined(golden_plan: Path, golden_bank_plan: Path, tmp_path: Path) -> None:
    with Plan.open(golden_plan) as graphs, Plan.open(golden_bank_plan) as banks:
        write_bank(tmp_path / "a.plan", shape=banks, texture=graphs, background=banks)
        with Plan.open(tmp_path / "a.plan") as plan:
            assert (list(plan.banks), list(plan.networks)) == (["shape", "background"], ["texture"])
            assert {source["sha256"] for source in plan.manifest.sources} == {graphs.digest, banks.digest}
            assert np.array_equal(plan.banks["shape"].pictures, banks.banks["shape"].pictures)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than 2,000 bytes are laid out as those of 4 GiB are."""
    monkeypatch.setattr(archive, "MAX_SMALL_FILE_BYTES", 2000)


@pytest.mark.usefixtures("small_limit")
def test_a_large_archive_is_one_that_other_tools_read(tmp_path: Path) -> None:
    with write(tmp_path / "a.plan") as plan, zipfile.ZipFile(tmp_path / "a.plan") as other:
        assert other.testzip() is None
        assert other.namelist() == ["manifest.json", *plan.members]
        for name in plan.members:
            assert other.read(name) == bytes(plan.member(name))
            assert np.frombuffer(plan.member(name), np.uint8).ctypes.data % 64 == 0


@pytest.mark.usefixtures("small_limit")
def test_every_byte_around_the_members_of_a_large_archive_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    with write(path) as plan:
        raw, data = (
            path.read_bytes(),
            {name: bytes(plan.member(name)) for name in ("manifest.json", *plan.members)},
        )
    inside = np.zeros(len(raw), bool)
    at = 0
    for content in data.values():
        at = raw.index(content, at)
        inside[at : at + len(content)] = True
        at += len(content)
    for place in np.flatnonzero(~inside).tolist():
        changed = bytearray(raw)
        changed[place] ^= 0x41
        with pytest.raises(PlanError):
            archive.index_members(memoryview(bytes(changed)))


def test_a_large_archive_is_not_used_for_a_small_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(archive, "MAX_SMALL_FILE_BYTES", 2000)
        write(tmp_path / "a.plan").close()
    with pytest.raises(PlanError, match=r"zip64 is used for [0-9]+ bytes, expected used for more than"):
        Plan.open(tmp_path / "a.plan")


def test_a_large_member_beyond_the_file_is_refused(tmp_path: Path, small_limit: None) -> None:
    write(tmp_path / "a.plan").close()
    raw = bytearray((tmp_path / "a.plan").read_bytes())
    place = raw.rindex(b"banks/background.labels") + len("banks/background.labels") + 4
    struct.pack_into("<QQ", raw, place, 2**60, 2**60)
    (tmp_path / "a.plan").write_bytes(raw)
    with pytest.raises(PlanError, match=r"size of member 'banks/background.labels' is 1152921504606846976"):
        Plan.open(tmp_path / "a.plan")
    assert os.path.getsize(tmp_path / "a.plan") == len(raw)
