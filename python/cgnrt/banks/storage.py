"""How the pictures of a bank that is made are stored."""

from __future__ import annotations

from dataclasses import dataclass

from cgnrt.plan.bank_writer import check_store


@dataclass(frozen=True)
class Storage:
    """Options of `cgnrt.plan.write_bank`, checked before the work whose result they are for.

    Raises:
      ValueError: they are not as there.
    """

    store: str = "raw"
    quality: int | None = None

    def __post_init__(self) -> None:
        check_store(self.store, self.quality)
