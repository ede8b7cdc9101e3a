"""Opening a session of ONNX Runtime, for the CPU and for devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt._support.forking import never_freed_in_child
from cgnrt._support.machine import available_cores
from cgnrt.errors import BackendError, one_line
from cgnrt.plan import Network

_FATAL_ONLY = 4  # its own log on stderr adds nothing to the exception

Provider = tuple[str, dict[str, str]]


def open_session(
    network: Network,
    providers: Sequence[Provider],
    *,
    graph: bytes | None = None,
    weights: Any = None,
    threads: int | None = None,
    config: Mapping[str, str] | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` that runs on the first of `providers`, or nowhere.

    Args:
      graph, weights: instead of the network's own. The session may read the weights where they lie, so their
        owner must outlive it.
      config: session config entries.
    Raises:
      BackendError: the graph is refused, or the library went on without the first provider.
    """
    import onnxruntime

    subject = f"load mechanism '{network.name}'"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    weights = network.weights if graph is None else weights
    if weights is not None and len(weights):
        location = str(network.spec.weights).rpartition("/")[2]
        buffer = np.frombuffer(weights, np.uint8)
        options.add_external_initializers_from_files_in_memory([location], [buffer], [buffer.nbytes])
    try:
        session = onnxruntime.InferenceSession(
            network.model.data if graph is None else graph,
            options,
            providers=list(providers),
            enable_fallback=0,  # else it prints, and tries the CPU
        )
    except Exception as error:
        raise BackendError(f"{subject}: ONNX Runtime refused the graph: {one_line(error)}") from error
    # A provider whose libraries are missing is left out without an error.
    if (wanted := providers[0][0]) not in session.get_providers():
        raise BackendError(
            f"{subject}: providers are {', '.join(session.get_providers())}, expected {wanted}: ONNX Runtime could not "
            "start it and said why on stderr. Check its CUDA and cuDNN libraries."
        )
    return never_freed_in_child(session)
