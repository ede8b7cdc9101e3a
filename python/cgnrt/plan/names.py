"""Names that people read: which characters they may hold, and when two look the same.

If only a program can tell the names of two classes apart, a person cannot ask for the right one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from cgnrt.errors import refuse, show

# Control characters (a name must not steer the terminal it is printed on), lone surrogates (they cannot be printed at
# all), line separators and bidirectional controls (a name must look like what it is), and what has no ink. Those that
# scripts and emoji need (the two joiners, variation selectors) are left.
_REFUSED = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff]"
)
_JOINERS = re.compile("[\u200c\u200d\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Letters and signs that most fonts draw like those of ASCII: Greek, Cyrillic, Armenian, Latin ones with other names.
_DRAWN_LIKE = {
    "A": "\u0391\u0410", "B": "\u0392\u0412", "C": "\u03f9\u0421", "D": "\u0500", "E": "\u0395\u0415",
    "G": "\u050c", "H": "\u0397\u041d", "I": "\u0399\u0406\u04c0\u01c0", "J": "\u037f\u0408",
    "K": "\u039a\u041a", "M": "\u039c\u041c", "N": "\u039d", "O": "\u039f\u041e\u0555", "P": "\u03a1\u0420",
    "Q": "\u051a", "S": "\u0405\u054f", "T": "\u03a4\u0422", "V": "\u0474", "W": "\u051c", "X": "\u03a7\u0425",
    "Y": "\u03a5\u04ae", "Z": "\u0396", "a": "\u03b1\u0430\u0251", "c": "\u03f2\u0441", "d": "\u0501",
    "e": "\u0435", "g": "\u0261\u0581", "h": "\u04bb\u0570", "i": "\u03b9\u0456\u0131", "j": "\u03f3\u0458",
    "k": "\u03ba\u043a", "l": "\u04cf", "n": "\u0578", "o": "\u03bf\u043e\u0585", "p": "\u03c1\u0440",
    "q": "\u051b", "s": "\u0455", "u": "\u03c5\u057d", "v": "\u03bd\u0475", "w": "\u051d", "x": "\u0445\u03c7",
    "y": "\u0443\u03b3\u04af", "-": "\u2010\u2012\u2013\u2014\u2015\u2212\u02d7",
    "'": "\u2018\u2019\u02bc\u2032", "/": "\u2044\u2215",
}  # fmt: skip
_ASCII = {ord(other): letter for letter, others in _DRAWN_LIKE.items() for other in others}


def refused_character(text: str) -> str | None:
    """The first character that no string of a manifest may hold, or None."""
    found = _REFUSED.search(text)
    return found.group() if found else None


def look(name: str) -> str:
    """What a name looks like: equal for names that people cannot tell apart.

    Spaces are counted once and not at the ends; joiners and variants do not count; letters of other scripts are those
    that they look like; and whatever Unicode calls equal or compatible is.
    """
    if not name.isascii():
        name = unicodedata.normalize("NFKC", _JOINERS.sub("", name)).translate(_ASCII)
    return " ".join(name.split())


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two of the names that are equal or look the same, or None."""
    seen: dict[str, str] = {}
    for name in names:
        shown = look(name)
        if shown in seen:
            return seen[shown], name
        seen[shown] = name
    return None


def check_classes(path: str, classes: Sequence[str]) -> None:
    """Class names are in Unicode's usual form, and no two are equal or look the same."""
    for label in classes:
        if not unicodedata.is_normalized("NFC", label):
            rule = "Unicode's composed form (NFC), in which names are looked up"
            raise refuse(path, f"a list with {ascii(label)[:80]}", rule)
    if (pair := alike(classes)) is not None:
        one, other = pair
        if one == other:
            raise refuse(path, f"a list with {show(one)} twice", "unique names")
        found = f"a list with {ascii(one)[:80]} and {ascii(other)[:80]}, which look the same"
        raise refuse(path, found, "names that people can tell apart")
