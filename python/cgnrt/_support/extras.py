"""Which extra of cgnrt installs a package that is missing."""

from __future__ import annotations

from cgnrt.errors import MissingDependencyError

# Modules of optional packages: what pip calls the package, and the extras that install it, the smallest first.
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "google": ("protobuf", ("serve",)),
    "grpc": ("grpcio", ("serve",)),
    "matplotlib": ("matplotlib", ("plot", "train")),
    "onnx": ("onnx", ("export", "gpu", "tensorrt", "tensorrt-rtx")),
    "onnxruntime": ("onnxruntime", ("cpu",)),
    "onnxscript": ("onnxscript", ("export",)),
    "openvino": ("openvino", ("cpu",)),
    "prometheus_client": ("prometheus-client", ("serve",)),
    "pyarrow": ("pyarrow", ("parquet",)),
    "pytorch_pretrained_biggan": ("pytorch-pretrained-biggan", ("train",)),
    "ray": ("ray", ("ray",)),
    "tensorboard": ("tensorboard", ("train",)),
    "tensorrt": ("tensorrt", ("tensorrt",)),
    "tensorrt_rtx": ("tensorrt-rtx", ("tensorrt-rtx",)),
    "torch": ("torch", ("torch", "train", "export")),
}


def missing_dependency(
    operation: str, error: ModuleNotFoundError, preferred: str | None = None
) -> MissingDependencyError:
    """The error that says what to install in place of one of Python's.

    Args:
      preferred: the extra to name where it installs the package.
    Raises:
      ModuleNotFoundError: `error` itself, where no extra installs the module: the installation is broken, or the
        module is the user's own.
    """
    package, extras = EXTRAS.get((error.name or "").partition(".")[0], ("", ()))
    if not extras:
        raise error
    extra = preferred if preferred in extras else extras[0]
    return MissingDependencyError(
        f"{operation}: package '{package}' is not installed. Run: pip install 'cgnrt[{extra}]'"
    )
