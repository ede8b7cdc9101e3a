"""Which device a job trains on."""

from __future__ import annotations

import re
import warnings

import torch

from cgnrt.errors import BackendError

DEVICES = re.compile(r"cpu|cuda(:\d+)?")


def open_device(name: str) -> torch.device:
    """`"cpu"`, `"cuda"` or `"cuda:<index>"`, if torch can use it here.

    Raises:
      ValueError: another name.
      BackendError: torch cannot use it; the message says why.
    """
    if not DEVICES.fullmatch(name):
        raise ValueError(f"train: device is {name!r}, expected cpu, cuda or cuda:<index>.")
    device = torch.device(name)
    if device.type == "cpu":
        return device
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # A bare "cuda" would mean whichever device is current.
    device = torch.device("cuda", device.index or 0)
    if device.index < count:
        return device
    if torch.version.cuda is None:
        reason = (
            f"torch {torch.__version__} is built without CUDA. Install a build with it, or leave --device out"
        )
    elif count:
        reason = f"there are {count} devices. Take cuda:0 to cuda:{count - 1}"
    else:
        cause = f" ({' '.join(str(caught[0].message).split())})" if caught else ""
        reason = f"torch {torch.__version__} finds no GPU or no driver{cause}. Run nvidia-smi, or leave --device out"
    raise BackendError(f"train: device is {name}, expected one that torch can use: {reason}.")
