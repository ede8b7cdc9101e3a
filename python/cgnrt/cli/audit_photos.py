"""`cgnrt audit --photos`: a folder of photos with masks, and the numbers of their classes."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cgnrt._support.machine import keep_freed_memory
from cgnrt._support.reading import read_file
from cgnrt._support.suggest import did_you_mean
from cgnrt._support.terminal import say
from cgnrt._support.values import is_int
from cgnrt.cli.classifiers import opened_classifier
from cgnrt.cli.photos import Photos, read_photos

if TYPE_CHECKING:
    from cgnrt.real import PhotoAudit

_LARGEST_LABELS = 1 << 24  # bytes of the file


def audit_photos(arguments: argparse.Namespace) -> PhotoAudit:
    """Audit the classifier on the folder of photos, and write the sheet.

    Raises:
      ValueError: photos cannot be used, or their labels are not known.
    """
    from cgnrt import real

    keep_freed_memory()  # of one batch for the next, which is as large
    with ExitStack() as stack:
        classifier, inputs = opened_classifier(stack, arguments.classifier, arguments.inputs)
        photos = read_photos(arguments, [arguments.photos])
        labels, classes = _labels(arguments, photos)
        result = real.audit(
            classifier,
            photos.images,
            photos.masks,
            labels,
            n=arguments.n,
            batch_size=64 if arguments.batch is None else arguments.batch,
            seed=arguments.seed,
            confidence=arguments.confidence,
            inputs=inputs,
            classes=classes,
            names=[str(file) for file in photos.files],
            places=not arguments.no_places,
            threads=arguments.threads or 0,
        )
    if arguments.sheet is not None:
        if result.examples:
            result.sheet(arguments.sheet, force=arguments.force)
        else:
            say(
                f"no sheet: no photo is right and lost when something else changes ({arguments.sheet})",
                sys.stderr,
            )
    return result


def _labels(arguments: argparse.Namespace, photos: Photos) -> tuple[list[int], list[str] | dict[int, str]]:
    """The class of each photo as a number of the classifier's answers, and the names of the classes.

    Raises:
      ValueError: the file of --labels does not have a photo's class, or has another form.
    """
    if arguments.labels is None:
        names = sorted(set(photos.classes))
        return [names.index(name) for name in photos.classes], names
    numbers = _read_labels(arguments.labels)
    for file, name in zip(photos.files, photos.classes, strict=True):
        if name not in numbers:
            raise ValueError(
                f"audit '{arguments.labels}': class '{name}' of photo '{file}' is missing, expected a number for each "
                f"sub-folder of '{arguments.photos}'.{did_you_mean(name, numbers)}"
            )
    return [numbers[name] for name in photos.classes], {number: name for name, number in numbers.items()}


def _read_labels(path: Path) -> dict[str, int]:
    """Numbers by the names of classes."""
    try:
        content = json.loads(read_file(path, _LARGEST_LABELS))
    except FileNotFoundError:
        raise ValueError(f"audit '{path}': file is missing, expected a .json. Check the path.") from None
    except ValueError as error:
        raise ValueError(
            f"audit '{path}': content is not JSON ({error}), expected numbers of classes."
        ) from error
    if isinstance(content, list):
        content = {name: number for number, name in reversed(list(enumerate(content)))}
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and is_int(number) and number >= 0 for name, number in content.items()
    ):
        raise ValueError(
            f"audit '{path}': content is not an object from names to numbers of 0 or more, or a list of names. "
            'Write {"cat": 281, "dog": 207}, for example.'
        )
    return content
