"""Answers of a given form: schemas, grammars, and matchers that can be rebuilt."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.gbnf import GrammarFault, to_lark
from meshslm.engine.grammar import (
    KEPT,
    Grammars,
    Matcher,
    check_schema,
    literal,
    together,
    with_options,
)
from meshslm.engine.schemas import SchemaFault, read_schema
from tests.engine.byte_vocabulary import ByteVocabulary
from tests.engine.schema_set import REFUSED, SUPPORTED, Case, closed

VOCABULARY = ByteVocabulary()
GRAMMARS = Grammars(VOCABULARY)
LONGEST = 3000
CLOSING = frozenset(b'"}],')


def matcher_of(schema: dict[str, Any]) -> Matcher:
    return GRAMMARS.matcher(together("start: @s\n", {"s": with_options(schema)}))


def walk(matcher: Matcher, chance: random.Random) -> list[int]:
    """Tokens drawn among those that are allowed, with a liking for coming to an end."""
    made: list[int] = []
    while not matcher.done and len(made) < LONGEST:
        allowed = [int(token) for token in matcher.allowed()]
        closing = [token for token in allowed if token in CLOSING]
        if VOCABULARY.eos in allowed and chance.random() < 0.5:
            return made
        token = chance.choice(closing if closing and chance.random() < 0.4 else allowed)
        if token == VOCABULARY.eos:
            return made
        assert matcher.allows(token)
        matcher.accept(token)
        made.append(token)
    return made


@pytest.mark.parametrize("case", SUPPORTED, ids=lambda case: case.name)
def test_answers_are_valid(case: Case) -> None:
    schema = read_schema(case.text)
    assert check_schema(with_options(schema)) == ""
    chance = random.Random(case.name)
    for _ in range(5):
        matcher = matcher_of(schema)
        text = VOCABULARY.text(walk(matcher, chance))
        assert matcher.whole, text
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        jsonschema.validate(json.loads(text), schema, format_checker=checker)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_refused_with_the_reason(case: Case) -> None:
    try:
        reason = check_schema(with_options(read_schema(case.text)))
    except SchemaFault as fault:
        reason = str(fault)
    assert case.refused in reason


def test_spaces_are_not_the_model_s_choice() -> None:
    matcher = matcher_of(closed(a={"type": "null"}, b={"type": "null"}))
    assert VOCABULARY.text(matcher.ahead()) == '{"a": null, "b": null}'
    for space in " \n\t":
        assert not matcher.allows(ord(space))


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_rebuilt_from_its_tokens(seed: int, place: int) -> None:
    case = SUPPORTED[seed % len(SUPPORTED)]
    schema = read_schema(case.text)
    tokens = walk(matcher_of(schema), random.Random(seed))
    tokens = tokens[: place % (len(tokens) + 1)]
    one, other = matcher_of(schema), matcher_of(schema)
    one.replay(tokens)
    for token in tokens:
        other.accept(token)
    for matcher in (other, one.copy()):
        assert (one.done, one.whole) == (matcher.done, matcher.whole)
        if not one.done:
            assert one.allowed().tolist() == matcher.allowed().tolist()


def test_what_must_not_come_is_refused() -> None:
    matcher = matcher_of({"type": "boolean"})
    assert not matcher.allows(ord("x"))
    with pytest.raises(GrammarFault):
        matcher.accept(ord("x"))
    with pytest.raises(GrammarFault):
        matcher.allowed()


def test_a_grammar_that_no_token_can_write() -> None:
    vocabulary = ByteVocabulary()
    vocabulary._pieces[ord("q")] = vocabulary._pieces[ord("Q")] = b"z"
    matcher = Grammars(vocabulary).matcher(together("start: /[qQ]/\n", {}))
    with pytest.raises(GrammarFault):
        matcher.allowed()


def test_a_grammar_that_takes_too_much_fails_alone() -> None:
    pattern = "^(.*a.{18}b.{18}){9}$"
    matcher = matcher_of({"type": "string", "pattern": pattern})
    chance = random.Random(1)

    def follow() -> None:
        for _ in range(20_000):
            matcher.accept(ord('"') if not matcher.allows(ord("a")) else ord(chance.choice("ab")))
            matcher.allowed()

    with pytest.raises(GrammarFault):
        follow()
    assert matcher_of({"type": "boolean"}).allows(ord("t"))


def test_compiled_once() -> None:
    grammars = Grammars(VOCABULARY)
    for number in range(KEPT + 3):
        grammars.matcher(together(f'start: "{number}"\n', {}))
    assert len(grammars._kept) == KEPT


def test_texts_of_control_tokens_stand_for_them() -> None:
    assert literal('a"<|end|>é\n', {"<|end|>": 7}) == '"a\\"" <[7]> "é\\n"'
    assert literal("", {}) == '""'


# --- GBNF ---------------------------------------------------------------------------------------
JSON = r"""
# a comment
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value
  ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
LANGUAGES = (
    ('root ::= "yes" | "no"', ("yes", "no"), ("maybe", "yesno", "")),
    ('root ::= [a-z]* "end"', ("end", "abend", "endend"), ("en", "endx")),
    ('root ::= ("ab"){2} "c"? .', ("abab!", "ababc\n"), ("ab!", "ababcc!")),
    ('root ::= "a"{2,3}', ("aa", "aaa"), ("a", "aaaa")),
    ('root ::= "ab"* [^x-z]{1,}', ("ababq", "q"), ("ababx",)),
    ('root ::= "é" [\\u00e0-\\u00ff] "\\x41" "\\U0001F600"', ("éàA😀",), ("éaA😀",)),
    ('root ::= [a\\]-] "/" "\\\\" "\\""', ('a/\\"', ']/\\"', '-/\\"'), ('b/\\"',)),
    ('root ::= "(" root ")" | "x"', ("x", "((x))"), ("((x)", "()")),
    ('root ::= root "a" | "b"', ("b", "baa"), ("ab",)),
    ('root ::= [a-z] "x" | "t" "y" root?', ("ax", "tx", "ty", "tyty", "tyax"), ("t", "tyt")),
    ('root ::= one-two\none-two ::= "" |\n "z" # end\n', ("", "z"), ("zz",)),
    (JSON, ('{"a": [1, -2.5e3, {"b": null}], "c": "\\u00e9"}',), ('{"a"}', "[1]")),
)


def accepts(matcher: Matcher, text: str) -> bool:
    try:
        matcher.replay(VOCABULARY.tokens(text, special=False))
    except GrammarFault:
        return False
    return matcher.whole


@pytest.mark.parametrize(("grammar", "inside", "outside"), LANGUAGES)
def test_the_language_of_a_grammar(
    grammar: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    matcher = GRAMMARS.matcher(together(to_lark(grammar, "start"), {}))
    for text in inside:
        assert accepts(matcher.copy(), text), text
    for text in outside:
        assert not accepts(matcher.copy(), text), text


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("", "no rule `root`"),
        ('start ::= "a"', "no rule `root`"),
        ("root ::= a", "there is no rule `a`"),
        ('root ::= "a"\nb ::= c', "line 2: there is no rule `c`"),
        ('root ::= "a" root', "never comes to an end"),
        ("root ::= a\na ::= b\nb ::= a | a", "never comes to an end"),
        ('root ::= "a', "not closed"),
        ("root ::= [a", "not closed"),
        ("root ::= []", "empty class"),
        ("root ::= [z-a]", "down to"),
        ('root ::= ("a"', "not closed"),
        ('root ::= "a")', "not expected"),
        ('root = "a"', "expected `::=`"),
        ('root ::= "\\q"', "no escape"),
        ('root ::= "\\x4"', "no escape"),
        ('root ::= "\\uD800"', "no character"),
        ('root ::= "a"{3,2}', "at least 3 and at most 2"),
        ('root ::= "a"{99999}', "more than"),
        ('root ::= "a"{}', "expected"),
        ('root ::= "a"\nroot ::= "b"', "line 2: there are two rules"),
        ("root ::= <[5]>", "not supported"),
        ("root ::= " + "(" * 100 + '"a"' + ")" * 100, "brackets in brackets"),
        ('root ::= "a"\n' + "\n".join(f'r{n} ::= "a"' for n in range(3000)), "more than"),
        ("# " + "x" * 70_000, "bytes"),
    ],
)
def test_grammars_that_are_refused(grammar: str, reason: str) -> None:
    with pytest.raises(GrammarFault) as caught:
        to_lark(grammar, "start")
    assert reason in str(caught.value)


def compiling(lark: str) -> str:
    """Why it cannot be compiled."""
    try:
        GRAMMARS.matcher(together(lark, {}))
    except GrammarFault as fault:
        return str(fault)
    return ""


@given(st.text('abr:=|()[]*+?{},"\\-^.#\n 019xu', max_size=60))
def test_any_text_is_a_grammar_or_refused(text: str) -> None:
    try:
        lark = to_lark("root ::= " + text, "start")
    except GrammarFault:
        return
    refusal = compiling(lark)
    assert not refusal or re.search("too|limit|large", refusal)
