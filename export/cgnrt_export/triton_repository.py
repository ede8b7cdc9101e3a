"""Model repositories that a stock Triton serves: config.pbtxt, model.py and the plan."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from cgnrt._support.files import discard, written_beside
from cgnrt.errors import CgnrtError
from cgnrt.plan import Plan
from cgnrt.serve.description import INPUT_TYPES, VERSION, output_types
from cgnrt.serve.triton import PLAN_NAME

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

_MODEL = '''"""Serves the plan beside it. Triton's Python needs: pip install 'cgnrt[cpu,serve]'"""

from cgnrt.serve.triton import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

_CONFIG = """\
# Written by cgnrt-export; yours to edit.
name: "{name}"
backend: "python"
max_batch_size: 0 # requests are merged by cgnrt itself
input [
{inputs}
]
output [
{outputs}
]
# KIND_AUTO is a GPU where Triton has one, which needs the cgnrt[gpu] or cgnrt[tensorrt] engines; else the CPU.
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
model_transaction_policy {{ decoupled: {decoupled} }}
# Options, as parameters {{ key: "queue" value: {{ string_value: "512" }} }}:
#   backend, precision, threads, trust_engines    as for cgnrt.Generator
#   images, stream_images                         in one request at most; in one that is answered as a stream
#   queue                                         images that wait at most
#   timeout_s                                     from a request to its answer
"""


def check_name(name: str) -> None:
    """Refuse a model name that is not a plain folder name, or that URLs would have to escape.

    Raises:
      ValueError: what is expected instead.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"export to Triton: model name is {name[:100]!r}, expected letters, digits, '_', '-' and '.'. Pass --name."
        )


def refuse_existing_model(repository: Path, name: str, *, force: bool) -> None:
    """Refuse to replace a model: asked before long work, whose result would have no place.

    Raises:
      CgnrtError: the model's folder holds something and `force` is off, or a name on the way is a file's.
    """
    folder = repository / name
    try:
        taken = any(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failed(folder, error) from error
    if taken and not force:
        raise CgnrtError(
            f"write '{folder}': the folder is not empty, expected a new one. Pass --force to replace the model in it."
        )


def write_triton_model(
    plan: Path, repository: Path, name: str, *, decoupled: bool = False, force: bool = False
) -> Path:
    """Write a plan as version 1 of a model of Triton's Python backend.

    Args:
      plan: is copied.
      repository: the folder that `tritonserver --model-repository` names; made where it is missing.
      name: of the model.
      decoupled: requests are answered as streams, over gRPC alone, instead of at once.
      force: replace config.pbtxt, model.py and the plan of a model that exists; other files there stay.
    Returns:
      The model's folder, which appears as a whole.
    Raises:
      PlanError: the file is not a good plan of a CGN.
      CgnrtError: the model exists, or writing failed.
      ValueError: `name` does not serve as the name of a model.
    """
    check_name(name)
    refuse_existing_model(repository, name, force=force)
    Plan.open(plan, verify=False).close()  # before a large copy of what is not a plan
    folder = repository / name
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with _copied(plan, repository, name) as copy:
            with Plan.open(copy) as opened:
                config = _config(name, opened, decoupled)
            if os.path.lexists(folder) and any(folder.iterdir()):
                _replace(folder, copy, config)
            else:
                _publish(folder, copy, config)
    except OSError as error:
        raise _failed(folder, error) from error
    return folder


@contextlib.contextmanager
def _copied(plan: Path, repository: Path, name: str) -> Iterator[Path]:
    """The plan as a hidden file in the repository, of whose folders alone Triton takes notice."""
    copy = repository / f".{name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        shutil.copyfile(plan, copy)
        _sync(copy)
        yield copy
    finally:
        discard(copy)


def _publish(folder: Path, copy: Path, config: str) -> None:
    """A new model: its folder is made beside, and takes its name when all is in it."""
    beside = copy.with_suffix(".folder")
    version = beside / VERSION
    try:
        version.mkdir(parents=True)
        (version / "model.py").write_text(_MODEL)
        (beside / "config.pbtxt").write_text(config)
        copy.rename(version / PLAN_NAME)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _replace(folder: Path, copy: Path, config: str) -> None:
    """A model that exists: file by file, each at once, so that what else lies there stays."""
    version = folder / VERSION
    version.mkdir(exist_ok=True)
    copy.rename(version / PLAN_NAME)
    for target, text in ((version / "model.py", _MODEL), (folder / "config.pbtxt", config)):
        with written_beside(target, force=True) as beside:
            beside.write_text(text)


def _config(name: str, plan: Plan, decoupled: bool) -> str:
    inputs = [_entry(key, *form, optional=key != "count") for key, form in INPUT_TYPES.items()]
    outputs = [_entry(key, *form) for key, form in output_types(plan).items()]
    return _CONFIG.format(
        name=name, inputs=",\n".join(inputs), outputs=",\n".join(outputs), decoupled=str(decoupled).lower()
    )


def _entry(name: str, datatype: str, shape: tuple[int, ...], *, optional: bool = False) -> str:
    rest = " optional: true" if optional else ""
    return f'  {{ name: "{name}" data_type: TYPE_{datatype} dims: {list(shape)}{rest} }}'


def _sync(path: Path) -> None:
    """Bring a file's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _failed(folder: Path, error: OSError) -> CgnrtError:
    return CgnrtError(
        f"write '{folder}': {error.strerror or error}, expected a writable place. What was there before is whole."
    )
