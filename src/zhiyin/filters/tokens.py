"""A filter's text, cut into names, words of the grammar, and values."""

import math
import re
from dataclasses import dataclass

from zhiyin.errors import RequestError

MOST_CHARACTERS = 1 << 16
"""A filter is no longer than this."""

END = "end"

_WORDS = {"and", "or", "not", "in", "any", "all", "missing", "true", "false"}

_TOKEN = re.compile(
    r"""(?P<name>[^\W\d]\w*)
    | `(?P<quoted>[^`]+)`
    | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<sign>==|!=|<=|>=|[<>()\[\],])""",
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {'"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

_REMEDIES = {
    "=": "To compare, write ==.",
    "&": "Write 'and'.",
    "|": "Write 'or'.",
    "!": "Write 'not'; to compare, !=.",
    '"': "The text does not end: it needs another quotation mark.",
    "'": "The text does not end: it needs another quotation mark.",
    "`": "The name does not end: it needs another backquote.",
    "null": "For a value that is not there, write missing(name).",
    "None": "For a value that is not there, write missing(name).",
    "not": "'not' stands before the whole test: not x in […].",
    **{word.upper(): f"Write '{word}'." for word in _WORDS},
    "True": "Write 'true'.",
    "False": "Write 'false'.",
}


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: "name", "word" (of the grammar), "text", "number" or "end"; `value`: of a literal; `at`: the character
    where it begins, from 0."""

    kind: str
    word: str
    at: int
    value: str | int | float | bool | None = None

    @property
    def place(self) -> str:
        return _place(self.at)

    def refused(self, expected: str) -> RequestError:
        """This cannot stand here."""
        what = "the filter ends" if self.kind == END else f"found {_short(self.word)}"
        return RequestError(f"{self.place}: {what}", expected=expected, remedy=_REMEDIES.get(self.word, ""))


def tokens(text: str) -> list[Token]:
    """The tokens of a filter, "end" the last. Raises `RequestError` for a text that is too long or no Unicode, and for
    a character that begins nothing."""
    _check(text)
    found, at = [], _after_space(text, 0)
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = f"{_place(at)}: {_short(text[at])} begins nothing that a filter knows"
            raise RequestError(what, remedy=_REMEDIES.get(text[at], ""))
        found.append(_token(match))
        at = _after_space(text, match.end())
    return [*found, Token(END, "", len(text))]


def _check(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise RequestError(f"{len(text):,} characters", expected=f"at most {MOST_CHARACTERS:,}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{_place(error.start)}: half of a surrogate pair", expected="Unicode text") from None


def _token(match: "re.Match[str]") -> Token:
    kind, said, at = match.lastgroup, match[0], match.start()
    if kind == "number":
        return Token("number", said, at, _number(said, at))
    if kind == "text":
        return Token("text", said, at, _text(said, at))
    if kind == "quoted":
        return Token("name", match["quoted"], at)
    if kind == "name" and said not in _WORDS:
        return Token("name", said, at)
    return Token("word", said, at, {"true": True, "false": False}.get(said))


def _number(said: str, at: int) -> int | float:
    value = float(said)
    if not math.isfinite(value):
        raise RequestError(f"{_place(at)}: {_short(said)} is too large", expected="a number below 1e308")
    return int(said) if said.lstrip("-").isdigit() else value


def _text(said: str, at: int) -> str:
    def one(match: "re.Match[str]") -> str:
        escaped = match[1]
        if len(escaped) == 5:
            return chr(int(escaped[1:], 16))
        if escaped not in _ESCAPED:
            place = _place(at + 1 + match.start())
            raise RequestError(
                f"{place}: {_short(match[0])} is no escape",
                expected=r"\" \' \\ \/ \b \f \n \r \t or \u and four digits",
            )
        return _ESCAPED[escaped]

    try:  # two escapes may be the halves of one character
        return _ESCAPE.sub(one, said[1:-1]).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        what = f"{_place(at)}: half of a surrogate pair"
        raise RequestError(what, expected=r"both halves, such as \ud83d\ude00") from None


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _place(at: int) -> str:
    return f"character {at + 1}"


def _short(said: str) -> str:
    return repr(said if len(said) <= 24 else said[:20] + "…")
