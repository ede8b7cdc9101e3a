"""The data files that are known by their hashes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """A file that will do.

    Attributes:
      path: inside the data folder, with forward slashes.
      sha256: hex, or its first digits where no more is published; then the file is recognised, never fetched.
      size_bytes: None where it is not known.
    """

    path: str
    sha256: str
    size_bytes: int | None = None


@dataclass(frozen=True)
class DataFile:
    """One thing that jobs read, in any of its forms; the first is the one to fetch."""

    group: str
    forms: tuple[Form, ...]


Catalogue = tuple[DataFile, ...]

REQUIRED = frozenset({"mnist"})  # groups that every job needs
PURPOSES = {
    "mnist": "the original digits",
    "squeezenet": "the perceptual loss; optional",
    "textures": "wildlife, as the authors chose them; optional, any twenty will do",
}


def _mnist(name: str, size: int, sha256: str, unpacked_size: int, unpacked_sha256: str) -> DataFile:
    return DataFile("mnist", (Form(f"{name}.gz", sha256, size), Form(name, unpacked_sha256, unpacked_size)))


def _texture(path: str, size: int, sha256: str) -> DataFile:
    return DataFile("textures", (Form(path, sha256, size),))


# fmt: off
# ruff: noqa: E501 - a line for each file
KNOWN: Catalogue = (
    _mnist(
        "train-images-idx3-ubyte",
        9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    _mnist(
        "train-labels-idx1-ubyte",
        28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    _mnist(
        "t10k-images-idx3-ubyte",
        1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    _mnist(
        "t10k-labels-idx1-ubyte",
        4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    DataFile("squeezenet", (
        Form("squeezenet1_1-fp16.pth", "d20bb980b5c8d16b045178b3069aaa822596e0a3ab2baba0ded83f50bd32958c", 2_487_813),
        Form("squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),  # torchvision's own file, whose name has the digits
    )),
    _texture("background/0_veined_0066.jpg", 515_109, "253effebdb863d8fe4254fd9c3df21e36c9222fad2f454639ad8d1e8b87ed96a"),
    _texture("background/1_veined_0067.jpg", 166_388, "67e555623f1fff4a9abda6036e6c76ce6cbcb801ff240e04d8848b475709a4dd"),
    _texture("background/2_veined_0073.jpg", 143_312, "91b3dc279226199de4dc03b56da0ce892e9d3f10b4b5136037f28de906d2276d"),
    _texture("background/3_veined_0180.jpg", 51_131, "9dbe19a8284cd2b6c1bef09928acdbd9ccdf9ded707ddb6358221968165ce458"),
    _texture("background/4_veined_0131.jpg", 57_884, "9e6d2ae36b8755d2a530005b905c2a3f4e1bc94b1535b6fe6e1c553acfc2b54b"),
    _texture("background/5_veined_0157.jpg", 55_595, "7e34b2b445f50c7af9c86262be9af39c3ce43c61d039d8c44a4afba89d077ae1"),
    _texture("background/6_veined_0158.jpg", 16_981, "4f992fd0da74cc53d37c065699a73af9e42c06dc38b2a2f22673452458708ce6"),
    _texture("background/7_veined_0104.jpg", 51_305, "c43441149846718186ab4c01f61c476c96c748c1149defaf5366e2534431954c"),
    _texture("background/8_veined_0188.jpg", 68_666, "d32d40f567ee3f58d421b9e02265ce1c8f0fe1ed91d8dedaa282cdc114161f39"),
    _texture("background/9_veined_0189.jpg", 69_723, "ab3144757372f34153b29ddf1e2e80cbdf6079bb18233b220ad5dda594829d74"),
    _texture("object/0_striped_0001.jpg", 50_473, "41b22c1a1e5edba336302b2ec175fc280647aaae6ebbbbfa9cfc433596305aff"),
    _texture("object/1_striped_0091.jpg", 15_214, "d6020007460a7e41a5d654e1c3b2b2ef8243e44aeede630aaa2947c0aedfddb9"),
    _texture("object/2_striped_0008.jpg", 35_512, "2ab2fc76e9ffd495ddf690a3d0bdf75158fcc2c73fb24c420ca238ce36a87ca0"),
    _texture("object/3_striped_0043.jpg", 61_470, "b9ab6ae10ddb6381a8021305fd41cdf2e575d9a829e2b79b9db218d89ac66537"),
    _texture("object/4_striped_0092.jpg", 14_233, "90e4b7683d348fb6d940abca13be4ad619b379ad9b3e2c96fab9f7d4dc4214ad"),
    _texture("object/5_striped_0028.jpg", 39_950, "b32940be4462eb40879905f13dfa2753d1e4b044904ed6390da6a8d35735d6d2"),
    _texture("object/6_striped_0097.jpg", 65_123, "bd362eefa810a35a24eeffe542a9727c3953ded745fa68e167b68a718b71d731"),
    _texture("object/7_striped_0004.jpg", 19_419, "0943891ac43a4acd5d8a874f121ef862a97a1de000c3fb1d936bbe2c6d027c2a"),
    _texture("object/8_striped_0125.jpg", 26_046, "edfe305c0e8f9dfa9d1576c9a32ab3f29e74ea1e8b5bab91ab4b9b83aec902e2"),
    _texture("object/9_striped_0033.jpg", 54_127, "d22a5fcf1ce2ea648c506d13f31a50eaf2260b903256e40fec32995b531d6933"),
)
# fmt: on
