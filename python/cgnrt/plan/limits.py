"""Facts of the plan format: versions, names, and the caps that bound every allocation while loading.

`docs/plan-format.md` is the specification; what changes here changes there.
"""

from __future__ import annotations

import re
from typing import Final

FORMAT_VERSION: Final = 4
STREAM_VERSION: Final = 1  # of what sample i of a stream is (docs/sampling.md)

MANIFEST_NAME: Final = "manifest.json"
MECHANISMS: Final = ("shape", "texture", "background")
# The name of each mechanism's picture among its graph's outputs, and of the shape's second one.
PICTURES: Final = {"shape": "mask", "texture": "foreground", "background": "background"}
PRE_MASK: Final = "pre_mask"

ALIGNMENT: Final = 64  # bytes; a member's data starts at a multiple, so that engines can read it in place
MAX_SMALL_FILE_BYTES: Final = (
    0xFFFF_FFFE  # every offset and size fits 32 bits; a larger file is a zip64 archive
)
MAX_FILE_BYTES: Final = 1 << 44
MAX_MEMBERS: Final = 256
MAX_NAME_BYTES: Final = 128
MEMBER_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")

MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_JSON_DEPTH: Final = 16
MAX_JSON_VALUES: Final = 400_000
MAX_STRING_CHARS: Final = 4096
MAX_INTEGER_DIGITS: Final = 19

MAX_CLASSES: Final = 65_536
MAX_VECTOR: Final = 65_536  # elements of a noise vector or of a class embedding
MAX_RESOLUTION: Final = 8192  # pixels along one side

MAX_ENTRIES: Final = 1 << 26  # pictures of one bank
CHUNK_BYTES: Final = 1 << 20  # of a bank's pictures, with a hash of their own

MAX_GRAPH_BYTES: Final = 4 << 20
MAX_NODES: Final = 20_000
MAX_TENSORS: Final = 20_000  # initializers
MAX_NODE_LINKS: Final = 4096  # inputs and outputs of one node, numbers in an attribute
MAX_ATTRIBUTES: Final = 32  # of one node
MAX_RANK: Final = 8
MAX_LINKS: Final = 200_000  # inputs and outputs of all nodes of a graph
MAX_NUMBERS: Final = 250_000  # in attributes and typed data of all nodes and tensors of a graph
MAX_METADATA: Final = 16  # entries of a node, tensor or other part of a graph
# Elements of one tensor anywhere in a graph, per image of the batch: 512 MiB as float32.
MAX_ELEMENTS: Final = 1 << 27
# Those of all tensors that later nodes of a graph read, per image: 4 GiB as float32.
MAX_LIVE_ELEMENTS: Final = 1 << 30
MAX_BATCH: Final = 1 << 16  # images in one run of an engine
# Lowest and highest version of the default ONNX operator set that the shape rules of `onnx` cover.
MIN_OPSET: Final = 13
MAX_OPSET: Final = 24
