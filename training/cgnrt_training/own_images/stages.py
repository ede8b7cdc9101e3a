"""The stages from photos to a CGN: photos and masks, saliency head, cGAN, CGN.

Each has a folder in the run's, which it goes on in where it was stopped, and leaves what the next ones begin with.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO, TypedDict

import torch

from cgnrt._support.files import written_beside
from cgnrt._support.terminal import say

from ..cgan.run import Inputs
from ..cgan.train import train as train_cgan
from ..features.files import load_classifier
from ..imagenet.checkpoints import load_biggan, load_head
from ..natural.config import Config as CgnConfig
from ..natural.networks import Files, load_networks
from ..natural.train import train as train_cgn
from ..photos.masks import MaskSource
from ..photos.pack import Photos, open_photos, pack_photos, read_about
from ..runs.sources import SOURCES, source_of
from ..runs.times import shown
from ..saliency.train import train as train_saliency
from .config import Config


@dataclass(frozen=True)
class Given:
    """What a run begins with.

    Attributes:
      images: the folder of photos (`photos.folder.scan_photos`).
      features: an EfficientNet-Lite, for the cGAN's discriminator and the CGN's style losses.
      masks: where the photos' masks come from; None only if `student` is given.
      cgan: a BigGAN-deep of the run's size; its stage is then left out.
      student: a saliency head or a U2-Net; its stage is then left out.
      training_data: what the photos are, in words, for the plan.
    """

    images: Path
    features: Path
    masks: MaskSource | None = None
    cgan: Path | None = None
    student: Path | None = None
    training_data: str | None = None


def run_stages(
    config: Config,
    given: Given,
    output: Path,
    *,
    log: TextIO | None = None,
    device: torch.device | None = None,
) -> Path:
    """Run the stages that are not finished, one after the other; the same call again goes on where it was stopped.

    Args:
      output: gets `photos/`, `saliency/`, `cgan/`, `cgn/`, and at the end `cgn.pt`.
      device: what to train on; None is the CPU.
    Returns:
      The path of `cgn.pt`, which `cgnrt-export` reads.
    Raises:
      ValueError: masks are missing; a stage refuses photos, files or settings, or finds a run of others in its folder.
      CheckpointError: a file is unreadable or of another network.
      CgnrtError: a stage cannot write, or a loss is not finite; what is done stays.
    """
    run = _Run(config, given, output, log or sys.stderr, device or torch.device("cpu"))
    run.check()
    with run.stage("photos", "photos and masks"):
        photos = run.pack()
    student, cgan_file = given.student, given.cgan
    if student is None:
        with run.stage("saliency", "the head that finds objects"):
            student = run.train_saliency(photos)
    if cgan_file is None:
        with run.stage("cgan", "the cGAN, which draws photos of each class"):
            cgan_file = run.train_cgan(photos)
    with run.stage("cgn", "the CGN, which draws shape, texture and background apart"):
        checkpoint = run.train_cgn(photos, cgan_file, student)
    final = output / "cgn.pt"
    with written_beside(final, force=True) as beside:
        shutil.copyfile(checkpoint, beside)
    say(f"next: cgnrt-export {final} -o cgn.plan, then cgnrt sheet cgn.plan -o sheet.png", run.log)
    return final


class _Again(TypedDict):
    """What to do with what a stage's folder holds."""

    resume: bool
    force: bool


@dataclass(frozen=True)
class _Run:
    config: Config
    given: Given
    output: Path
    log: TextIO
    device: torch.device

    def check(self) -> None:
        """Refuse now what a stage would refuse after hours."""
        given = self.given
        if given.masks is None and given.student is None:
            raise ValueError(
                "train natural: masks are missing, expected --saliency PLAN or --masks FOLDER to train the head that "
                "finds objects, or --student FILE in its place."
            )
        load_classifier(given.features)
        if given.cgan is not None:
            load_biggan(given.cgan, resolution=self.config.size)
        if given.student is not None:
            load_head(given.student)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Say which stage it is, and at its end how long it took."""
        names = (
            ["photos"]
            + ["saliency"] * (self.given.student is None)
            + ["cgan"] * (self.given.cgan is None)
            + ["cgn"]
        )
        say(
            f"stage {names.index(name) + 1} of {len(names)}, {name}: {what}, in {self.output / name}",
            self.log,
        )
        begin = time.perf_counter()
        yield
        say(f"stage {name}: {shown(time.perf_counter() - begin)}", self.log)

    def resumes(self, name: str) -> _Again:
        """Whether a stage goes on in its folder. One that was stopped before it knew its files has done nothing yet."""
        started = (self.output / name / "config.json").exists()
        ready = started and (name == "saliency" or (self.output / name / SOURCES).exists())
        return _Again(resume=ready, force=started and not ready)

    def pack(self) -> Photos:
        pack_photos(
            self.given.images, self.output / "photos", self.config.size, self.given.masks, log=self.log
        )
        return open_photos(self.output / "photos")

    def train_saliency(self, photos: Photos) -> Path:
        judged = None
        if "val" in read_about(self.output / "photos")["splits"]:
            judged = open_photos(self.output / "photos", "val")
        return train_saliency(
            self.config.saliency,
            photos,
            self.output / "saliency",
            judged=judged,
            log=self.log,
            device=self.device,
            **self.resumes("saliency"),
        )

    def train_cgan(self, photos: Photos) -> Path:
        folder = self.output / "photos"
        sources = {
            "photos": {"name": folder.name, "sha256": photos.fingerprint, "path": str(folder.resolve())},
            "features": source_of(self.given.features),
        }
        return train_cgan(
            self.config.cgan,
            Inputs(photos, load_classifier(self.given.features), sources),
            self.output / "cgan",
            log=self.log,
            device=self.device,
            **self.resumes("cgan"),
        )

    def train_cgn(self, photos: Photos, cgan: Path, student: Path) -> Path:
        config = self._cgn_config(photos)
        files = Files(biggan=cgan, u2net=student, features=self.given.features)
        return train_cgn(
            config,
            load_networks(files, config, self.log, resolution=self.config.size),
            self.output / "cgn",
            log=self.log,
            device=self.device,
            **self.resumes("cgn"),
        )

    def _cgn_config(self, photos: Photos) -> CgnConfig:
        config, text = self.config.cgn, self.given.training_data
        if text is None:
            text = f"{len(photos):,} photos of {len(photos.classes):,} classes"
            if self.given.cgan is not None:
                drawn = f"no pictures: what {self.given.cgan.name} draws"
                text = drawn if self.given.student else f"{drawn}, in which it finds objects as in {text}"
        return replace(config, log=replace(config.log, training_data=text))
