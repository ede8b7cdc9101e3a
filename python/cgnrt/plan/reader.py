"""`Plan`: a checked, mapped plan file."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from cgnrt.errors import PlanError, refuse, within
from cgnrt.plan.archive import Content, open_content
from cgnrt.plan.bank import Bank, load_bank
from cgnrt.plan.contents import (
    check_hashes,
    check_members,
    copied_but_pictures,
    has_large_banks,
    hashed_whole,
    index_plan,
    manifest_bytes,
)
from cgnrt.plan.fields import parse_json
from cgnrt.plan.limits import MANIFEST_NAME, MAX_SMALL_FILE_BYTES
from cgnrt.plan.manifest import (
    BankSpec,
    CgnManifest,
    SaliencyManifest,
)
from cgnrt.plan.network import Mechanism, Network, SaliencyNetwork, load_graph, load_mechanism
from cgnrt.plan.schema import parse_manifest

_RENAME = "Open it again; replace plans by renaming, never by writing into them."


class PlanFile(ABC):
    """What plans of every kind have in common: a checked, mapped file.

    Attributes:
      path: as it was given.
      digest: SHA-256 (hex) of the manifest, which holds the SHA-256 of every other member.
      manifest: what the plan says of itself.
    """

    manifest: CgnManifest | SaliencyManifest

    def __init__(self, path: str, digest: str, members: Mapping[str, memoryview], content: Content) -> None:
        self.path = path
        self.digest = digest
        self._members: Mapping[str, memoryview] | None = members
        self._content: Content | None = content
        self.verified = False

    @property
    def members(self) -> tuple[str, ...]:
        """Names of all members but the manifest, in the order of the file."""
        return tuple(name for name in self._open_members() if name != MANIFEST_NAME)

    def member(self, name: str) -> memoryview:
        """The bytes of a member, read-only and in place. The view keeps the mapping alive.

        Raises:
          KeyError: the plan has no such member.
        """
        members = self._open_members()
        if name not in members:
            raise KeyError(f"member: name is {name!r}, expected one of {', '.join(members)}.")
        return members[name]

    def _open_members(self) -> Mapping[str, memoryview]:
        if self._members is None:
            raise ValueError(f"plan {self.path!r} is closed.")
        return self._members

    def release_pages(self) -> None:
        """Take what was read of the file off this process's resident memory; it stays in the system's file cache.

        For after an engine has made its own copy of the weights. Views stay good: what they read comes back. Weights
        that were widened are freed when their last view is gone.
        """
        for network in self._networks():
            if network.external is not None:
                network.external.release()
        if self._content is not None:
            self._content.release_pages()

    def check_digest(self, digest: str, since: str) -> None:
        """Make sure that the file is the one that was opened earlier, with this digest.

        Args:
          since: when that was, such as "this run was started".
        Raises:
          PlanError: it is another file.
        """
        if self.digest != digest:
            raise within(
                f"load {self.path!r}",
                refuse("digest", self.digest[:12], digest[:12], f"The file was replaced since {since}."),
            )

    def check_unchanged(self) -> None:
        """Make sure that a mapped file still has the bytes of its digest: quickly, while nobody touched it.

        Raises:
          PlanError: another program has written into the file, or cut it short.
        """
        content = self._content
        if content is None or not self.verified or not content.was_touched(stamp := content.stamp()):
            return
        try:
            if content.is_cut_short(stamp):
                raise refuse("file", "cut short", "no writing into an open plan", _RENAME)
            manifest = self.member(MANIFEST_NAME)
            if hashlib.sha256(manifest).hexdigest() != self.digest:
                raise refuse("manifest", "overwritten", "no writing into an open plan", _RENAME)
            check_hashes(hashed_whole(self.manifest), self._open_members(), content, _RENAME)
            for bank in self._open_banks():
                bank.check_again(_RENAME)
        except PlanError as error:
            raise within(f"read {self.path!r}", error) from None
        content.accept(stamp)

    def close(self) -> None:
        """Let go of the file. The mapping itself lives as long as any view of a member does."""
        content, self._content = self._content, None
        self._members = None
        self._drop_networks()
        if content is not None:
            content.close()

    def _open_banks(self) -> Iterable[Bank]:
        """The banks, until the plan is closed."""
        return ()

    @abstractmethod
    def _networks(self) -> Iterable[Network]:
        """The networks, until the plan is closed."""

    @abstractmethod
    def _drop_networks(self) -> None:
        """Let go of the views that the networks hold."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, family={self.manifest.family!r}, digest={self.digest[:12]!r})"


class Plan(PlanFile):
    """A plan of kind "cgn". Use `Plan.open`.

    Attributes:
      mechanisms: `shape`, `texture` and `background`.
    """

    manifest: CgnManifest

    def __init__(
        self,
        path: str,
        digest: str,
        manifest: CgnManifest,
        mechanisms: Mapping[str, Mechanism | Bank],
        members: Mapping[str, memoryview],
        content: Content,
    ) -> None:
        super().__init__(path, digest, members, content)
        self.manifest = manifest
        self._mechanisms: Mapping[str, Mechanism | Bank] | None = mechanisms

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = True, *, private: bool = False) -> Plan:
        """Map a plan and check it. Nothing in it is executed or unpickled.

        Args:
          path: the file.
          verify: compare every member with its SHA-256, but a bank's pictures only when they are first used. All other
            checks are made in any case.
          private: copy the file first, so that nothing that is done to it later reaches the plan: into memory, or of
            more than 64 MiB into a file without a name in the temporary folder (TMPDIR). Pictures of banks of more
            than 64 MiB are not copied: the file stays open, also if it is renamed or deleted, and if another program
            writes into it, sampling is an error.

        Raises:
          PlanError: the file is missing, foreign, damaged, hostile or a plan of another kind; the message names
            what was found.
        """
        plan = open_any(path, verify, private=private)
        if isinstance(plan, Plan):
            return plan
        plan.close()
        step = "It finds the objects of photos: open it with cgnrt.real.Saliency."
        raise within(f"load {plan.path!r}", refuse("kind", "'saliency'", "'cgn'", step))

    @property
    def mechanisms(self) -> Mapping[str, Mechanism | Bank]:
        if self._mechanisms is None:
            raise ValueError(f"plan {self.path!r} is closed.")
        return self._mechanisms

    @property
    def networks(self) -> Mapping[str, Mechanism]:
        """The mechanisms that are networks."""
        return {name: part for name, part in self.mechanisms.items() if isinstance(part, Mechanism)}

    @property
    def banks(self) -> Mapping[str, Bank]:
        """The mechanisms that are banks of pictures."""
        return {name: part for name, part in self.mechanisms.items() if isinstance(part, Bank)}

    @property
    def following(self) -> Mapping[str, str]:
        """The mechanisms whose entry and label are those of another one, each with that one's name."""
        return {name: bank.spec.follows for name, bank in self.banks.items() if bank.spec.follows is not None}

    def verify_banks(self, progress: Callable[[int], object] | None = None) -> None:
        """Compare all pictures of the banks with their hashes, those too that were not used yet.

        Args:
          progress: called with the number of bytes after each piece.
        Raises:
          PlanError: a piece has another hash.
        """
        for bank in self._open_banks():
            try:
                bank.verify(progress=progress)
            except PlanError as error:
                raise within(f"read {self.path!r}", error) from None
            self.release_pages()

    def _networks(self) -> Iterable[Network]:
        return () if self._mechanisms is None else self.networks.values()

    def _open_banks(self) -> Iterable[Bank]:
        return () if self._mechanisms is None else self.banks.values()

    def _drop_networks(self) -> None:
        self._mechanisms = None


class SaliencyPlan(PlanFile):
    """A plan of kind "saliency". Use `SaliencyPlan.open`.

    Attributes:
      network: its one network.
    """

    manifest: SaliencyManifest

    def __init__(
        self,
        path: str,
        digest: str,
        manifest: SaliencyManifest,
        network: SaliencyNetwork,
        members: Mapping[str, memoryview],
        content: Content,
    ) -> None:
        super().__init__(path, digest, members, content)
        self.manifest = manifest
        self._network: SaliencyNetwork | None = network

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = True) -> SaliencyPlan:
        """Map a plan and check it; arguments and errors as in `Plan.open`."""
        plan = open_any(path, verify)
        if isinstance(plan, SaliencyPlan):
            return plan
        plan.close()
        step = "It generates pictures: open it with cgnrt.Generator."
        raise within(f"load {plan.path!r}", refuse("kind", "'cgn'", "'saliency'", step))

    @property
    def network(self) -> SaliencyNetwork:
        if self._network is None:
            raise ValueError(f"plan {self.path!r} is closed.")
        return self._network

    def _networks(self) -> Iterable[Network]:
        return () if self._network is None else (self._network,)

    def _drop_networks(self) -> None:
        self._network = None


def open_any(
    path: str | os.PathLike[str], verify: bool = True, *, private: bool = False
) -> Plan | SaliencyPlan:
    """Open a plan of any kind; arguments and errors as in `Plan.open`."""
    return open_plan(os.fsdecode(path), verify, f"load {os.fsdecode(path)!r}", private)


def open_plan(path: str, verify: bool, operation: str, private: bool = False) -> Plan | SaliencyPlan:
    """`open_any` with its own words for the operation, so that the writer can check what it wrote."""
    try:
        plan = _load(path, verify, private)
    except PlanError as error:
        raise within(operation, error) from error.__cause__
    plan.verified = verify
    return plan


def _load(path: str, verify: bool, private: bool) -> Plan | SaliencyPlan:
    large_banks = private and has_large_banks(path)
    content = open_content(path, private and not large_banks)
    data = content.data
    entries = index_plan(data)
    members = {name: data[entry.start : entry.start + entry.size] for name, entry in entries.items()}
    raw = manifest_bytes(entries[MANIFEST_NAME], members[MANIFEST_NAME])
    digest = hashlib.sha256(raw).hexdigest()
    manifest = parse_manifest(parse_json(raw))
    if data.nbytes > MAX_SMALL_FILE_BYTES and manifest.format_version < 4:
        raise refuse(
            "file size", f"{data.nbytes} bytes", f"<= {MAX_SMALL_FILE_BYTES} before format version 4"
        )
    check_members(manifest.members, entries)
    if large_banks:
        members = copied_but_pictures(members, manifest)
    if verify:
        check_hashes(hashed_whole(manifest), members, content)
    if isinstance(manifest, SaliencyManifest):
        try:
            network = SaliencyNetwork("saliency", manifest.saliency, *load_graph(manifest.saliency, members))
        except PlanError as error:
            raise within("saliency", error) from None
        return SaliencyPlan(path, digest, manifest, network, members, content)
    mechanisms: dict[str, Mechanism | Bank] = {}
    for name, spec in manifest.mechanisms.items():
        if isinstance(spec, BankSpec):
            found = mechanisms.get(spec.follows or "")
            mechanisms[name] = load_bank(name, spec, members, found if isinstance(found, Bank) else None)
            continue
        try:
            mechanisms[name] = load_mechanism(name, spec, members)
        except PlanError as error:
            raise within(f"mechanism {name!r}", error) from None
    return Plan(path, digest, manifest, mechanisms, members, content)
