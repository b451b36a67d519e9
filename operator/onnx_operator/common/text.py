"""Foreign text, made safe to be looked at: names in models, answers of stores, messages of pods.

A terminal obeys control sequences, and shows text with bidirectional controls in another order than it has. Whoever
wrote a model's names could hide or forge lines of what people read about it.
"""

import unicodedata

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks by their class, which show as nothing."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _is_safe(character: str) -> bool:
    if character.isprintable():
        return character not in _INVISIBLE
    # Wide and unbreakable spaces; line and paragraph separators are of other classes.
    return unicodedata.category(character) == "Zs"


def visible(text: str, *, lines: bool = False) -> str:
    r"""``text`` with all that does not show, or steers a terminal, written out: ``\x1b``, ``\u202e``, ``\n``.

    Among it are C0 and C1 controls, bidirectional controls, zero-width characters, line and paragraph separators and
    lone surrogates. With ``lines``, line feeds and tabs stay. What went through once does not change any more.
    """
    if text.isprintable() and _INVISIBLE.isdisjoint(text):
        return text
    return "".join(c if _is_safe(c) or (lines and c in "\n\t") else _written_out(c) for c in text)


def _written_out(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_json(document: str) -> str:
    r"""A JSON document in which such characters are JSON's own escapes: it means the same, and is safe to look at."""
    if document.isascii():
        return document
    return "".join(c if c == "\n" or _is_safe(c) else _json_escape(c) for c in document)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
