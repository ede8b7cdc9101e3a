"""What a misspelt word may have meant."""

from __future__ import annotations

from collections.abc import Iterable

# A longer word is cut, because comparing takes time that grows with the square of the length.
_LONGEST_WORD = 60
_SHORTEST_START = 3  # letters that say enough of a name that begins with them


def did_you_mean(word: object, names: Iterable[str]) -> str:
    """` Did you mean 'close'?` for the end of an error's message; empty if no name is close."""
    import difflib  # here, because it is needed only for errors

    wanted = str(word)[:_LONGEST_WORD].casefold()
    folded = {name.casefold(): name for name in reversed(list(names))}
    close = difflib.get_close_matches(wanted, list(folded), n=1)
    if not close and len(wanted) >= _SHORTEST_START:
        close = [name for name in folded if name.startswith(wanted)]
    return f" Did you mean {folded[close[0]]!r}?" if close else ""
