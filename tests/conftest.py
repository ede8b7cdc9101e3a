"""Plans that ship in the repo, and signals as a terminal has them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A shell starts background jobs with SIGINT ignored, and so would be the commands that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def golden_plan() -> Path:
    """A tiny plan of a CGN of the current format version: 8 x 8 px, 3 classes, rolls."""
    return ROOT / "tests" / "plan" / "golden" / "v4.plan"


@pytest.fixture(scope="session")
def golden_half_plan() -> Path:
    """The same with weights in half precision."""
    return ROOT / "tests" / "plan" / "golden" / "v4-half.plan"


@pytest.fixture(scope="session")
def golden_bank_plan() -> Path:
    """A tiny plan of three banks of the current format version: 8 x 8 px, 7 pictures each, 3 classes, rolls."""
    return ROOT / "tests" / "plan" / "golden" / "v4-bank.plan"


@pytest.fixture(scope="session")
def golden_bank_streams_plan() -> Path:
    """The same pictures as lossless WebP, textures following the shapes, and backgrounds as JPEG; no rolls."""
    return ROOT / "tests" / "plan" / "golden" / "v4-bank-streams.plan"


@pytest.fixture(scope="session")
def golden_saliency_plan() -> Path:
    """A tiny plan that finds objects, of the current format version: 8 x 8 px."""
    return ROOT / "tests" / "plan" / "golden" / "v4-saliency.plan"


@pytest.fixture(scope="session")
def demo_plan() -> Path:
    """The double-colored MNIST CGN that `make demo` runs."""
    return ROOT / "plans" / "double-colored.plan"
