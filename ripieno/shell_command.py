"""Commands shown in messages, quoted for a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def shell(*words: object) -> str:
    """Join `words` into a shell command; prefix a path that starts with a dash so that it is not read as an option."""
    return shlex.join(_word(word) for word in words)


def command(verb: str, *arguments: object, **options: object) -> str:
    """Return the command `ripieno VERB` with `arguments` and `options`; options that are None are left out."""
    words = [_word(argument) for argument in arguments]
    named = [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", _word(value))
    ]
    dashed = any(word.startswith("-") for word in words)
    return shell("ripieno", verb, *([*named, "--", *words] if dashed else [*words, *named]))


def _word(word: object) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, Path) and text.startswith("-") else text
