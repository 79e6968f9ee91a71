"""Text that comes from files and names, made fit to be shown."""

import re

# What moves a terminal's cursor, colours it or sets its title; line breaks; what turns the direction of writing round.
# Halves of characters, as which Python keeps bytes of names that are no UTF-8, are printed as escapes.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` on one line, every control character in it replaced by a question mark in a diamond (U+FFFD)."""
    return _CONTROL.sub("\ufffd", text)


def counted(number: int, what: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
