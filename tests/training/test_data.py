from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgnrt_training.mnist import data
from cgnrt_training.mnist.data import VariantMnist

VARIANTS = ["colored", "double-colored", "wildlife"]


def make(variant: str, mnist: Path, textures: Path, **options) -> VariantMnist:
    return VariantMnist(variant, mnist, textures=textures if variant == "wildlife" else None, **options)


def test_textures_are_read_as_they_are_shown(textures: Path) -> None:
    """Upright, 16 bits scaled, nothing of hidden colours, in formats and suffixes of any kind."""
    folder = textures / "object"
    deep = np.full((40, 60), 100 * 257, np.uint16)
    hidden = np.zeros((40, 60, 4), np.uint8)
    hidden[..., 0] = 250
    turned = np.zeros((40, 60, 3), np.uint8)
    turned[:, :30] = 200
    exif = Image.Exif()
    exif[274] = 6
    for digit, picture, name, options in (
        (0, deep, "0_a.TIF", {}),
        (1, hidden, "1_b.png", {}),
        (2, turned, "2_c.webp", {"exif": exif, "lossless": True}),
    ):
        next(folder.glob(f"{digit}_*")).unlink()
        Image.fromarray(picture).save(folder / name, **options)
    found = data.load_textures(textures).object
    assert (found[0] == 100).all()
    assert (found[1] == 255).all()
    assert (found[2, :70] == 200).all()  # the left half is on top
    assert (found[2, 80:-10] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_batch(mnist: Path, textures: Path, variant: str) -> None:
    source = make(variant, mnist, textures)
    assert len(source) == 40
    batch = source.batch(range(30))
    assert batch.images.shape == (30, 3, 32, 32)
    assert batch.images.dtype == np.float32
    assert batch.images.min() >= -1
    assert batch.images.max() <= 1
    np.testing.assert_array_equal(batch.labels, np.arange(30) * 7 % 10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_train_cues_follow_the_label_and_test_cues_do_not(mnist: Path, textures: Path, variant: str) -> None:
    train = make(variant, mnist, textures).batch(range(500))
    np.testing.assert_array_equal(train.texture, train.labels)
    np.testing.assert_array_equal(train.background, train.labels)
    source = make(variant, mnist, textures, domain="test")
    assert len(source) == 20
    test = source.batch(range(2000))
    for cue in (test.texture, test.background):
        assert np.bincount(cue, minlength=10).min() > 150  # 200 expected, sigma 13.4
        assert abs((cue == test.labels).mean() - 0.1) < 0.03
    assert abs((test.texture == test.background).mean() - 0.1) < 0.03


def test_correlation_lies_between(mnist: Path, textures: Path) -> None:
    batch = make("double-colored", mnist, textures, correlation=0.9).batch(range(4000))
    assert abs((batch.texture == batch.labels).mean() - 0.91) < 0.02  # one random cue in ten hits, too


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_depends_on_seed_and_index_alone(mnist: Path, textures: Path, variant: str) -> None:
    a, b = make(variant, mnist, textures, seed=3), make(variant, mnist, textures, seed=3)
    whole = a.batch(range(20)).images
    np.testing.assert_array_equal(b.batch([7, 3]).images, whole[[7, 3]])
    other = make(variant, mnist, textures, seed=4).batch(range(20)).images
    assert (other != whole).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_later_passes_draw_new_cues_for_the_same_digit(mnist: Path, textures: Path, variant: str) -> None:
    source = make(variant, mnist, textures)
    first, second = source.batch([5]), source.batch([45])
    assert first.labels == second.labels
    assert (first.images != second.images).any()


def test_golden() -> None:
    """The hash behind all draws must not change: sample i of a seed would be another image."""
    index = np.array([0, 1, 2**40], np.int64)
    expected = [0.7008598072523115, 0.15226142245341534, 0.26603892005685736]
    np.testing.assert_array_equal(data.uniform(7, index, 2), expected)


def test_draws_are_uniform_and_normal() -> None:
    index = np.arange(20_000)
    flat = data.uniform(0, index, 0)
    assert abs(flat.mean() - 0.5) < 0.01
    assert np.histogram(flat, 10, (0, 1))[0].min() > 1800
    bell = data.normal(0, index, 0)
    assert abs(bell.mean()) < 0.03
    assert abs(bell.std() - 1) < 0.02
    assert abs(np.corrcoef(flat, data.uniform(0, index, 1))[0, 1]) < 0.03
    assert abs(np.corrcoef(flat, data.uniform(1, index, 0))[0, 1]) < 0.03


def test_double_colored_has_the_colours_of_its_classes(mnist: Path, textures: Path) -> None:
    source = make("double-colored", mnist, textures)
    batch = source.batch(range(40))
    names = source.class_names
    assert names["background"][0] == "darkgreen"
    assert names["texture"][0] == "yellow"  # colour i - 6
    pixels = (batch.images.transpose(0, 2, 3, 1) + 1) * 127.5
    zero = int(np.flatnonzero(batch.labels == 0)[0])
    np.testing.assert_allclose(pixels[zero, 0, 0], (0, 100, 0), atol=12)
    np.testing.assert_allclose(pixels[zero, 15, 6], (255, 255, 0), atol=12)


def test_colored_has_a_black_background(mnist: Path, textures: Path) -> None:
    batch = make("colored", mnist, textures).batch(range(40))
    np.testing.assert_array_equal(batch.images[:, :, 0, :], -1)


def test_wildlife_crops_come_from_the_class_of_each_cue(mnist: Path, textures: Path) -> None:
    source = make("wildlife", mnist, textures, domain="test")
    batch = source.batch(range(20))
    grey = (batch.images.mean(1) + 1) * 127.5
    digit = source.digits[:20]
    for kind, cue, start in (("object", batch.texture, 10), ("background", batch.background, 15)):
        where = digit if kind == "object" else ~digit
        for picture, mask, label in zip(grey, where, cue, strict=True):
            assert abs(picture[mask].mean() - (start + 20 * label + 1.5)) < 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_class_names_are_unique(mnist: Path, textures: Path, variant: str) -> None:
    names = make(variant, mnist, textures).class_names
    assert list(names) == ["shape", "texture", "background"]
    assert all(len(set(each)) == len(each) == 10 for each in names.values())


def test_empty_batch(mnist: Path, textures: Path) -> None:
    for variant in VARIANTS:
        assert make(variant, mnist, textures).batch([]).images.shape == (0, 3, 32, 32)


class TestErrors:
    def test_negative_index(self, mnist: Path, textures: Path) -> None:
        with pytest.raises(ValueError, match="index is -1, expected >= 0"):
            make("colored", mnist, textures).batch([0, -1])

    def test_unknown_variant(self, mnist: Path) -> None:
        with pytest.raises(ValueError, match="variant is 'coloured', expected one of colored"):
            VariantMnist("coloured", mnist)

    def test_wildlife_without_textures(self, mnist: Path) -> None:
        with pytest.raises(ValueError, match=r"textures is not given.*Pass --textures DIR"):
            VariantMnist("wildlife", mnist)

    def test_missing_file(self, mnist: Path) -> None:
        (mnist / "train-labels-idx1-ubyte").unlink()
        with pytest.raises(ValueError, match="file 'train-labels-idx1-ubyte' is missing"):
            VariantMnist("colored", mnist)

    def test_counts_differ(self, mnist: Path, write_idx) -> None:
        write_idx(mnist / "train-labels-idx1-ubyte", np.zeros(59, np.uint8))
        with pytest.raises(ValueError, match="label count is 59, expected 60"):
            VariantMnist("colored", mnist)

    def test_label_out_of_range(self, mnist: Path, write_idx) -> None:
        write_idx(mnist / "train-labels-idx1-ubyte", np.full(60, 10, np.uint8))
        with pytest.raises(ValueError, match=r"label is 10, expected 0\.\.9"):
            VariantMnist("colored", mnist)

    def test_image_size(self, mnist: Path, write_idx) -> None:
        write_idx(mnist / "train-images-idx3-ubyte.gz", np.zeros((60, 32, 32), np.uint8))
        with pytest.raises(ValueError, match=r"image size is \(32, 32\), expected \(28, 28\)"):
            VariantMnist("colored", mnist)

    def test_no_test_domain(self, mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(data, "N_TRAIN", 60)
        with pytest.raises(ValueError, match="test split is empty"):
            VariantMnist("colored", mnist, domain="test")

    def test_textures_missing_class(self, mnist: Path, textures: Path) -> None:
        next((textures / "object").glob("3_*")).unlink()
        with pytest.raises(ValueError, match="classes 3 are missing"):
            VariantMnist("wildlife", mnist, textures=textures)

    def test_textures_class_twice(self, mnist: Path, textures: Path) -> None:
        source = next((textures / "object").glob("3_*"))
        (textures / "object" / "3_again.png").write_bytes(source.read_bytes())
        with pytest.raises(ValueError, match="class 3 is present twice"):
            VariantMnist("wildlife", mnist, textures=textures)

    def test_textures_broken_picture(self, mnist: Path, textures: Path) -> None:
        path = next((textures / "background").glob("4_*"))
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(ValueError, match=rf"{path.name}': content does not decode"):
            VariantMnist("wildlife", mnist, textures=textures)

    def test_textures_without_class(self, mnist: Path, textures: Path) -> None:
        next((textures / "object").glob("3_*")).rename(textures / "object" / "zebra.png")
        with pytest.raises(ValueError, match="file name starts with 'zebra', expected the class"):
            VariantMnist("wildlife", mnist, textures=textures)

    def test_no_textures_folder(self, mnist: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="folder is missing"):
            VariantMnist("wildlife", mnist, textures=tmp_path / "none")
