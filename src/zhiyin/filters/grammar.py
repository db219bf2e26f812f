"""What a filter can say, and how its text is read.

    filter    := every ("or" every)*
    every     := one ("and" one)*
    one       := "not" one | "(" filter ")" | condition
    condition := name | name comparison value | name ("in" | "any" | "all") "[" values "]" | "missing" "(" name ")"
    comparison := "==" | "!=" | "<" | "<=" | ">" | ">="
    value     := "text" | 'text' | number | "true" | "false"

Names are letters, digits and underscores; others, and words of the grammar, stand in backquotes: `release year`.
Text has JSON's escapes, and \\'. Whatever is not of this form is refused, with the place and what could stand there.
"""

from collections.abc import Callable
from dataclasses import dataclass

from zhiyin.errors import RequestError
from zhiyin.filters.tokens import END, Token, tokens

MOST_DEEP = 32
"""Parentheses and `not`s that may lie in each other."""

MOST_CONDITIONS = 64
"""Conditions that one filter may set: each looks at the whole catalogue."""

Value = str | int | float | bool

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
MEMBERSHIPS = ("in", "any", "all")


@dataclass(frozen=True, slots=True)
class Condition:
    """An attribute beside some values: one for a comparison, any number for `in`, `any`, `all`; none for the operators
    "true" (the attribute itself) and "missing". `at`: the character where it begins, from 0."""

    name: str
    operator: str
    values: tuple[Value, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Not:
    part: "Expression"


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Expression", ...]


Expression = Condition | Not | And | Or


def parse(text: str) -> Expression:
    """What a filter's text says. Raises `RequestError` naming the character and what was expected there, for a filter
    that is too long or too deep, or sets too many conditions."""
    return _Parser(tokens(text)).whole()


class _Parser:
    """One function for each line of the grammar."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._next, self._deep, self._conditions = tokens, 0, 0, 0

    def whole(self) -> Expression:
        found = self._or()
        if self._token.kind != END:
            raise self._token.refused("'and', 'or' or the end")
        return found

    def _or(self) -> Expression:
        parts = self._joined("or", self._and)
        return parts[0] if len(parts) == 1 else Or(parts)

    def _and(self) -> Expression:
        parts = self._joined("and", self._one)
        return parts[0] if len(parts) == 1 else And(parts)

    def _one(self) -> Expression:
        token = self._token
        if self._took("not"):
            self._enter(token)
            found: Expression = Not(self._one())
            self._deep -= 1
            return found
        if self._took("("):
            self._enter(token)
            found = self._or()
            self._expect(")", "'and', 'or' or ')'")
            self._deep -= 1
            return found
        return self._missing(token) if self._took("missing") else self._condition()

    def _missing(self, first: Token) -> Condition:
        self._expect("(", "'(' and an attribute")
        name = self._name("an attribute")
        self._expect(")", "')'")
        return self._counted(Condition(name, "missing", (), first.at))

    def _condition(self) -> Condition:
        first = self._token
        name = self._name("an attribute, 'not', 'missing' or '('")
        for operator in COMPARISONS:
            if self._took(operator):
                return self._counted(Condition(name, operator, (self._value(),), first.at))
        for operator in MEMBERSHIPS:
            if self._took(operator):
                return self._counted(Condition(name, operator, self._list(), first.at))
        if self._token.kind in ("name", "text", "number") or self._token.word in ("not", "true", "false", "missing"):
            raise self._token.refused("an operator: == != < <= > >= in any all")
        return self._counted(Condition(name, "true", (), first.at))

    def _list(self) -> tuple[Value, ...]:
        self._expect("[", "'[' and values")
        if self._took("]"):
            return ()
        values = [self._value()]
        while self._took(","):
            values.append(self._value())
        self._expect("]", "',' or ']'")
        return tuple(values)

    def _value(self) -> Value:
        token = self._token
        if token.value is None:
            raise token.refused('a value: "text", a number, true or false')
        self._next += 1
        return token.value

    def _name(self, expected: str) -> str:
        token = self._token
        if token.kind != "name":
            raise token.refused(expected)
        self._next += 1
        return token.word

    def _joined(self, word: str, part: Callable[[], Expression]) -> tuple[Expression, ...]:
        parts = [part()]
        while self._took(word):
            parts.append(part())
        return tuple(parts)

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _took(self, word: str) -> bool:
        there = self._token.kind == "word" and self._token.word == word
        self._next += there
        return there

    def _expect(self, word: str, expected: str) -> None:
        if not self._took(word):
            raise self._token.refused(expected)

    def _enter(self, token: Token) -> None:
        self._deep += 1
        if self._deep > MOST_DEEP:
            raise RequestError(
                f"{token.place}: nested {self._deep} deep", expected=f"at most {MOST_DEEP} parentheses and 'not's"
            )

    def _counted(self, condition: Condition) -> Condition:
        self._conditions += 1
        if self._conditions > MOST_CONDITIONS:
            raise RequestError(
                f"character {condition.at + 1}: condition number {self._conditions}",
                expected=f"at most {MOST_CONDITIONS}",
                remedy="Say many values of one attribute as one condition: x in […].",
            )
        return condition
