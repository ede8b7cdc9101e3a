"""A bank: pictures with classes, in the mapped file, of which noise picks one."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from cgnrt._support.forking import wait_first
from cgnrt._support.machine import available_cores
from cgnrt.errors import COPY_AGAIN, PlanError, refuse, show, within
from cgnrt.plan.bank_streams import check_index, decode_stream
from cgnrt.plan.limits import CHUNK_BYTES
from cgnrt.plan.manifest import BankSpec

_STEP = 1 << 20  # numbers that are looked at together
_DIGEST_BYTES = 32
_ASKED_AT_ONCE = 1024  # chunks


class Bank:
    """One mechanism of a CGN that is pictures. The file's pages come as they are used.

    Attributes:
      name: `shape`, `texture` or `background`.
      spec: its entry in the manifest.
      entry_shape: (c, h, w) of a picture.
      labels: int32 (count,), rising; `starts` has the first picture of each class, and their number at the end.
      weights: uint32 (count,), or None.
    """

    labels: np.ndarray
    starts: np.ndarray
    weights: np.ndarray | None
    _totals: np.ndarray | None

    def __init__(
        self, name: str, spec: BankSpec, members: Mapping[str, memoryview], leader: Bank | None = None
    ) -> None:
        self.name = name
        self.spec = spec
        self.entry_shape = tuple(int(size) for size in spec.outputs[0].shape[1:])
        self._data = members[spec.pictures]
        self._hashes = members[spec.hashes]
        self._entry_bytes = int(np.prod(self.entry_shape))
        self._index = None if spec.index is None else np.frombuffer(members[spec.index], "<u8")
        if self._index is not None:
            check_index(self._index, len(self._data), self._entry_bytes)
        self._checked = np.zeros(len(self._hashes) // _DIGEST_BYTES, bool)
        if spec.labels is None:
            assert leader is not None  # the schema has compared the two
            self.labels, self.starts = leader.labels, leader.starts
            self.weights, self._totals = leader.weights, leader._totals
            return
        self.labels = np.frombuffer(members[spec.labels], "<i4")
        _check_labels(self.labels, len(spec.classes))
        self.starts = np.searchsorted(self.labels, np.arange(len(spec.classes) + 1)).astype(np.int64)
        if (empty := np.flatnonzero(np.diff(self.starts) == 0)).size:
            label = int(empty[0])
            found = f"class {label} ({show(spec.classes[label])}) without a picture"
            raise refuse("labels", found, "at least one for each class")
        self.weights = None if spec.weights is None else np.frombuffer(members[spec.weights], "<u4")
        self._totals = None if self.weights is None else _totals(self.weights, self.starts, spec.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.spec.classes

    def entries(self, labels: np.ndarray, words: np.ndarray) -> np.ndarray:
        """The picture of each sample, int64 (n,), from its label, int64 (n,), and its noise, uint32 (n, 1)."""
        words = words.reshape(-1).astype(np.uint64)
        starts = self.starts[labels]
        if self._totals is None:
            sizes = (self.starts[labels + 1] - starts).astype(np.uint64)
            found: np.ndarray = starts + ((words * sizes) >> np.uint64(32)).astype(np.int64)
            return found
        before = np.where(starts > 0, self._totals[starts - 1], np.uint64(0))
        totals = self._totals[self.starts[labels + 1] - 1] - before
        # The first picture with which the sum of the weights of its class exceeds the drawn number.
        drawn = before + ((words * totals) >> np.uint64(32))
        found = np.searchsorted(self._totals, drawn, side="right").astype(np.int64)
        return found

    @property
    def is_raw(self) -> bool:
        """Whether the file has the pictures as they are, not as streams that are decoded."""
        return self._index is None

    @property
    def stored_bytes(self) -> int:
        """The bytes of the pictures in the file."""
        return len(self._data)

    @property
    def pictures(self) -> np.ndarray:
        """The pictures of a raw bank, uint8 (count, c, h, w), in the file. Call `check` before what is in it counts.

        Raises:
          ValueError: the pictures are stored as streams.
        """
        if self._index is not None:
            raise ValueError(
                f"bank {self.name!r}: pictures are {self.spec.store} streams, expected raw ones. Use Bank.read."
            )
        return np.frombuffer(self._data, np.uint8).reshape(self.spec.count, *self.entry_shape)

    def read(self, entries: np.ndarray) -> np.ndarray:
        """Copies of these pictures, checked, uint8 (n, c, h, w).

        Raises:
          PlanError: a chunk has another hash, or a stream is not a picture of this size.
        """
        entries = np.asarray(entries, np.int64)
        self.check(entries)
        if self._index is None:
            found: np.ndarray = self.pictures[entries]
            return found
        found = np.empty((len(entries), *self.entry_shape), np.uint8)
        for target, entry in zip(found, entries.tolist(), strict=True):
            self.decode(entry, target)
        return found

    def widened(self, entries: np.ndarray) -> np.ndarray:
        """`read` as float32: the numbers that `ops.compose` takes bytes for."""
        return widen(self.read(entries))

    def decode(self, entry: int, out: np.ndarray) -> None:
        """Decode one stream into uint8 (c, h, w). Call `check` before. May be called by several threads at once.

        Raises:
          PlanError: the stream is not a picture of this size.
        """
        index = self._index
        assert index is not None
        stream = bytes(self._data[int(index[entry]) : int(index[entry + 1])])
        try:
            out[...] = decode_stream(stream, self.spec.store, self.entry_shape)
        except PlanError as error:
            raise within(f"mechanism {self.name!r}: picture {entry}", error) from error.__cause__

    def check(self, entries: np.ndarray, threads: int | None = None) -> None:
        """Compare the chunks that these pictures lie in with their hashes, those that were not compared yet.

        Args:
          threads: that compare; None takes the cores that this process may use.
        Raises:
          PlanError: a chunk has another hash.
        """
        if self._checked.all():
            return
        begin, end = entries * self._entry_bytes, (entries + 1) * self._entry_bytes
        if self._index is not None:
            begin, end = self._index[entries].astype(np.int64), self._index[entries + 1].astype(np.int64)
        first, last = begin // CHUNK_BYTES, (end - 1) // CHUNK_BYTES
        if (last - first <= 1).all() and self._checked[first].all() and self._checked[last].all():
            return
        longest = int((last - first).max(initial=0))
        wanted = np.unique(np.minimum(first[:, None] + np.arange(longest + 1), last[:, None]))
        missing = wanted[~self._checked[wanted]]
        self._ask_for(missing[:_ASKED_AT_ONCE].tolist())
        self._compare(missing, COPY_AGAIN, threads=threads)

    def verify(self, next_step: str = COPY_AGAIN, progress: Callable[[int], object] | None = None) -> None:
        """Compare every chunk; errors as for `check`.

        Args:
          progress: called with the number of bytes after each chunk.
        """
        self._compare(np.arange(len(self._checked)), next_step, progress)

    def check_again(self, next_step: str) -> None:
        """Compare the chunks that were compared before."""
        self._compare(np.flatnonzero(self._checked), next_step)

    def _compare(
        self,
        chunks: np.ndarray,
        next_step: str,
        progress: Callable[[int], object] | None = None,
        threads: int | None = None,
    ) -> None:
        for chunk, found in zip(chunks.tolist(), self._digests(chunks.tolist(), threads), strict=True):
            rule = bytes(self._hashes[chunk * _DIGEST_BYTES : (chunk + 1) * _DIGEST_BYTES])
            if found != rule:
                error = refuse(
                    f"SHA-256 of chunk {chunk} of member {self.spec.pictures!r}",
                    f"{found.hex()[:16]}...",
                    f"{rule.hex()[:16]}... (in {self.spec.hashes!r})",
                    next_step,
                )
                raise within(f"mechanism {self.name!r}", error)
            self._checked[chunk] = True
            if progress is not None:
                progress(len(self._chunk(chunk)))

    def _digests(self, chunks: Sequence[int], threads: int | None) -> Iterator[bytes]:
        """The SHA-256 of each chunk, in this order; hashlib lets several threads run."""

        def digest(chunk: int) -> bytes:
            return hashlib.sha256(self._chunk(chunk)).digest()

        count = min(threads or available_cores(), len(chunks))
        if count < 2:
            yield from map(digest, chunks)
            return
        from concurrent.futures import ThreadPoolExecutor  # programs that read few pictures start faster

        wait_first()
        executor = ThreadPoolExecutor(count)
        try:
            yield from executor.map(digest, chunks)
        finally:
            executor.shutdown(cancel_futures=True)

    def _ask_for(self, chunks: Sequence[int]) -> None:
        """Let the system read chunks that are on the disk, all of them together: page by page it takes far longer."""
        if not isinstance(mapping := self._data.obj, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
            return
        begin = np.frombuffer(mapping, np.uint8).ctypes.data
        for chunk in chunks:
            part = self._chunk(chunk)
            start = np.frombuffer(part, np.uint8).ctypes.data - begin
            inside = start % mmap.PAGESIZE
            mapping.madvise(mmap.MADV_WILLNEED, start - inside, part.nbytes + inside)

    def _chunk(self, chunk: int) -> memoryview:
        return self._data[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]


def widen(pictures: np.ndarray) -> np.ndarray:
    """uint8 pictures of a bank, (n, c, h, w), as float32: masks in [0, 1], others in [-1, 1]."""
    numbers = pictures.astype(np.float32)
    if pictures.shape[1] == 1:
        numbers *= np.float32(1 / 255)
    else:
        numbers *= np.float32(2 / 255)
        numbers -= np.float32(1)
    return numbers


def load_bank(
    name: str, spec: BankSpec, members: Mapping[str, memoryview], leader: Bank | None = None
) -> Bank:
    """A bank of a plan whose manifest was compared with its members' sizes.

    Args:
      leader: the bank that this one follows.
    Raises:
      PlanError: labels or weights are not as the format says.
    """
    try:
        return Bank(name, spec, members, leader)
    except PlanError as error:
        raise within(f"mechanism {name!r}", error) from None


def chunk_hashes(pictures: memoryview) -> bytes:
    """The content of a hashes member."""
    chunks = range(0, pictures.nbytes, CHUNK_BYTES)
    return b"".join(hashlib.sha256(pictures[first : first + CHUNK_BYTES]).digest() for first in chunks)


def _check_labels(labels: np.ndarray, classes: int) -> None:
    """Refuse labels out of range or order, without memory for all of them."""
    before = 0
    for first in range(0, labels.size, _STEP):
        part = labels[first : first + _STEP]
        if part.min() < 0 or part.max() >= classes:
            wrong = int(part[(part < 0) | (part >= classes)][0])
            raise refuse("labels", f"a list with {wrong}", f"0..{classes - 1}")
        if part[0] < before or (np.diff(part) < 0).any():
            raise refuse("labels", "a list that falls", "one that rises: pictures lie class by class")
        before = int(part[-1])


def _totals(weights: np.ndarray, starts: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Running sums of the weights, uint64; a class's are below 2^32 and not 0."""
    totals = np.cumsum(weights, dtype=np.uint64)
    ends = np.concatenate([np.zeros(1, np.uint64), totals[starts[1:] - 1]])
    sums = np.diff(ends)
    wrong = np.flatnonzero((sums == 0) | (sums > 0xFFFF_FFFF))
    if wrong.size:
        found = f"{int(sums[wrong[0]])} in all for class {int(wrong[0])} ({show(classes[wrong[0]])})"
        raise refuse("weights", found, "1..4294967295 for the pictures of a class")
    return totals
