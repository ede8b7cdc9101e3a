"""What README and docs say a user has to bring, small: photos, data files, weights, a module of one's own."""

from __future__ import annotations

import gzip
import itertools
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from many_classes import imagenet_sized
from PIL import Image

from cgnrt.plan import open_any, write_plan
from cgnrt_training import cli
from cgnrt_training.classifier.model import Classifier, save_classifier
from cgnrt_training.features.efficientnet_lite import SIZES, EfficientNetLite
from cgnrt_training.features.installed import installed_features
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.mnist.models import CGN
from cgnrt_training.natural.stand_ins import write_stand_ins

ROOT = Path(__file__).resolve().parents[2]
IMAGENETTE = (
    "English_springer", "French_horn", "cassette_player", "chain_saw", "church",
    "garbage_truck", "gas_pump", "golf_ball", "parachute", "tench",
)  # fmt: skip
OWN_MODULE = """
import numpy as np
import torch


def classify(images):
    return (images.mean(axis=(1, 2, 3)) > 0).astype(int)


def reader(masks):
    return (masks.mean(axis=(1, 2, 3)) > 0.1).astype(int)


model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 2))
"""
LPIPS_CHANNELS = (64, 128, 256, 384, 384, 512, 512)


def write_photos(
    folder: Path, classes: Sequence[str], per_class: int = 8, splits: Sequence[str] = (".",)
) -> None:
    """`images` and `masks`, each with a folder for each class: a bright disc on a dark ground of stripes.

    Args:
      splits: the folders of the classes' folders.
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[:72, :96]
    for (number, name), k, split in itertools.product(enumerate(classes), range(per_class), splits):
        centre_y, centre_x = random.integers(28, 44), random.integers(30, 66)
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < random.integers(14, 22) ** 2
        ground = np.array((20 + 8 * number, 40, 10 + 9 * k)) + 20 * (x % 8 < 4)[..., None]
        noise = random.integers(-20, 20, (72, 96, 3))
        colour = np.array((200, 120 + 12 * number, 255 - 20 * number)) + noise
        picture = np.where(inside[..., None], colour, ground).clip(0, 255).astype(np.uint8)
        for kind, pixels in (("images", picture), ("masks", (inside * 255).astype(np.uint8))):
            path = folder / kind / split / name / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def write_mnist(folder: Path) -> None:
    """60 digits, bars whose place is the label, and textures beside them."""
    labels = (np.arange(60) * 7 % 10).astype(np.uint8)
    images = np.zeros((60, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4:24, 2 * label + 3 : 2 * label + 7] = 200
    folder.mkdir()
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / f"{name}.gz").write_bytes(gzip.compress(head + array.tobytes(), 1))
    random = np.random.default_rng(0)
    for kind, start in (("object", 10), ("background", 15)):
        (folder / kind).mkdir()
        for digit in range(10):
            pixels = random.integers(0, 4, (160, 180, 3)) + start + 20 * digit
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{digit}_{kind}.png")


def bright_objects(path: Path) -> Path:
    """A plan of kind "saliency" that finds what is bright: the golden one with other weights."""
    with open_any(ROOT / "tests/plan/golden/v4-saliency.plan") as plan:
        manifest = plan.manifest.to_dict()
        members = {name: bytes(plan.member(name)) for name in plan.members if name != "manifest.json"}
    del manifest["members"]
    weight = np.zeros((1, 3, 3, 3), np.float32)
    weight[:, :, 1, 1] = 2
    name = manifest["saliency"]["weights"]
    rest = members[name][weight.nbytes :]
    write_plan(path, manifest, members | {name: weight.tobytes() + rest})
    return path


class Inputs:
    """Makes each input once, in a folder of its own, and links it where a page needs it."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._made: dict[str, Path] = {}

    def provide(self, name: str, folder: Path, classes: Sequence[str]) -> None:
        """Link the input of this name into a page's folder, if there is one, and nothing of this name is there yet."""
        maker = MAKERS.get(name)
        if maker is None or (folder / name).exists():
            return
        key = f"{name}-{len(classes)}"
        if key not in self._made:
            self._made[key] = maker(self, Path(name).name, classes)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(self._made[key])

    def photos(self, name: str, classes: Sequence[str]) -> Path:
        folder = self.store / f"photos-{len(classes)}"
        if not folder.exists():
            many = len(classes) > 2
            write_photos(folder, classes, 3 if many else 8, ("train", "val") if many else (".",))
        return folder / ("masks" if name.lower() == "masks" else "images")

    def mnist(self, name: str, classes: Sequence[str]) -> Path:
        if not (self.store / "mnist").exists():
            write_mnist(self.store / "mnist")
        return self.store / "mnist"

    def stand_ins(self, name: str, classes: Sequence[str]) -> Path:
        """A BigGAN and a VGG16, which are narrow and have random weights."""
        folder = self.store / "stand-ins"
        if not folder.exists():
            folder.mkdir()
            write_stand_ins(folder, 64, channel_width=4, num_classes=10)
        return folder / {"biggan-deep-256": "biggan", "BIGGAN": "biggan"}.get(name, name)

    def finder(self, name: str, classes: Sequence[str]) -> Path:
        """In place of U2-Net: a head that learnt the masks of these photos, in two seconds."""
        run = self.store / "finder"
        if not run.exists():
            photos = self.photos("photos", ("cat", "dog"))
            shared = ["--images", str(photos), "--masks", str(photos.with_name("masks"))]
            _train("photos", *shared, "--size", "64", "--output", str(self.store / "finder-pack"))
            settings = ["train.width=4", "train.batch_size=8", "train.ema=0.9", "log.sheet_photos=1"]
            options = [word for setting in settings for word in ("--set", setting)]
            pack = ["--photos", str(self.store / "finder-pack"), "--steps", "150", *options]
            _train("saliency", *pack, "--output", str(run))
        return run / "saliency.pt"

    def finder_plan(self, name: str, classes: Sequence[str]) -> Path:
        return bright_objects(self.store / name)

    def imagenet_plan(self, name: str, classes: Sequence[str]) -> Path:
        return imagenet_sized(ROOT, self.store / name)

    def authors(self, name: str, classes: Sequence[str]) -> Path:
        """A CGN of few channels in the authors' form."""
        path = self.store / name
        torch.manual_seed(0)
        model = CGN(n_classes=10, noise_size=6, channels=4, resolution=32, init="normal", gain=0.3)
        torch.save(model.state_dict(), path)
        return path

    def classifier(self, name: str, classes: Sequence[str]) -> Path:
        path = self.store / name
        torch.manual_seed(0)
        save_classifier(Classifier(), {}, path)
        return path

    def gans(self, name: str, classes: Sequence[str]) -> Path:
        folder = self.store / name
        folder.mkdir()
        data = str(self.mnist(name, classes))
        for variant in ("colored", "double-colored", "wildlife"):
            settings = ["--variant", variant, "--steps", "1", "--set", "batch_size=4"]
            run = self.store / f"gan-{variant}"
            _train("gan", *settings, "--data", data, "--textures", data, "--output", str(run))
            (folder / f"{variant}.pt").symlink_to(run / "gan.pt")
        return folder

    def plans(self, name: str, classes: Sequence[str]) -> Path:
        return ROOT / "plans"

    def random_cgn(self, name: str, classes: Sequence[str]) -> Path:
        path = self.store / name
        sizes = ["--resolution", "64", "--channel-width", "4", "--classes", "1000"]
        _train("imagenet-random", *sizes, "-o", str(path))
        return path

    def lite(self, name: str, classes: Sequence[str]) -> Path:
        """EfficientNet-Lite1 with random weights."""
        path = self.store / name
        torch.manual_seed(0)
        torch.save(EfficientNetLite(SIZES[1]).state_dict(), path)
        return path

    def lite0(self, name: str, classes: Sequence[str]) -> Path:
        return installed_features()

    def squeezenet(self, name: str, classes: Sequence[str]) -> Path:
        path = self.store / name
        torch.manual_seed(0)
        torch.save(SqueezeNetFeatures().state_dict(), path)
        return path

    def lpips(self, name: str, classes: Sequence[str]) -> Path:
        path = self.store / name
        torch.manual_seed(0)
        torch.save(
            {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(LPIPS_CHANNELS)}, path
        )
        return path

    def file(self, name: str, classes: Sequence[str]) -> Path:
        path = self.store / name
        texts = {"my_module.py": OWN_MODULE, "token.txt": "secret\n", "labels.json": '{"cat": 0, "dog": 1}'}
        path.write_text(texts[name])
        return path

    def tls(self, name: str, classes: Sequence[str]) -> Path:
        return ROOT / "tests/serve/tls" / {"cert.pem": "certificate.pem"}.get(name, name)


Maker = Callable[[Inputs, str, Sequence[str]], Path]
MAKERS: dict[str, Maker] = {
    **dict.fromkeys(("photos", "masks", "IMAGES", "MASKS"), Inputs.photos),
    **dict.fromkeys(("DATA", "MNIST", "TEXTURES"), Inputs.mnist),
    **dict.fromkeys(("biggan-deep-256", "vgg16_bn.pth", "BIGGAN"), Inputs.stand_ins),
    **dict.fromkeys(("u2netp.pth", "u2net.pth", "U2NET"), Inputs.finder),
    "u2netp.plan": Inputs.finder_plan,
    "cgn.plan": Inputs.imagenet_plan,
    "ckp.pth": Inputs.authors,
    "runs/classifier/classifier.pt": Inputs.classifier,
    "GANS": Inputs.gans,
    "PLANS": Inputs.plans,
    "cgn.pth": Inputs.random_cgn,
    **dict.fromkeys(("efficientnet-lite1.pth", "CLASSIFIER"), Inputs.lite),
    **dict.fromkeys(("efficientnet-lite0.pth", "FEATURES"), Inputs.lite0),
    "squeezenet1_1.pth": Inputs.squeezenet,
    "squeeze.pth": Inputs.lpips,
    **dict.fromkeys(("my_module.py", "token.txt", "labels.json"), Inputs.file),
    **dict.fromkeys(("cert.pem", "key.pem"), Inputs.tls),
}


def _train(*words: str) -> None:
    assert cli.main(list(words)) == 0, words
