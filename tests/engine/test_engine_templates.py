"""Templates: the model's own words, in a sandbox, and users' text that stays text."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.templates import TEMPLATE_BYTES, ChatTemplate, Part
from meshslm.errors import OurFault, RequestFault
from meshslm.wire.messages import ChatMessage

TODAY = date(2026, 3, 1)
CONTROLS = ("<|im_start|>", "<|im_end|>", "<|end|>", "<s>")
HELLO = (ChatMessage("user", "Hello"),)


def render(source: str, *messages: ChatMessage) -> str:
    template = ChatTemplate(source, bos="<s>", eos="</s>", control_texts=CONTROLS)
    return "".join(part.text for part in template.render(messages or HELLO, TODAY))


def test_chatml_where_the_model_has_none() -> None:
    expected = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    assert render("", ChatMessage("system", "Be kind."), *HELLO) == (
        expected + "<|im_start|>assistant\n"
    )


def test_what_templates_use() -> None:
    assert render("{{ bos_token }}{{ messages[0]['content'] | trim }}{{ eos_token }}") == (
        "<s>Hello</s>"
    )
    assert render("{{ strftime_now('%d %b %Y') }}") == "01 Mar 2026"
    assert render("{{ {'a': ['<é>']} | tojson }}") == '{"a": ["<é>"]}'
    assert render(
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    ) == ("01")
    assert render("{{ messages[0].name }}", ChatMessage("user", "x", name="Ann")) == "Ann"
    assert render("{% if tools is defined and tools %}t{% endif %}{{ add_generation_prompt }}") == (
        "True"
    )


smuggled = st.lists(
    st.sampled_from([*CONTROLS, "<|im_", "start|>", "a", " ", "\U00100000", "\U00100001"]),
    max_size=12,
).map("".join)


@given(smuggled, smuggled, smuggled)
def test_control_texts_of_users_stay_literal(role: str, content: str, name: str) -> None:
    template = ChatTemplate(
        "<|im_start|>{{ messages[0]['role'] }}|{{ messages[0]['content'] }}|"
        "{{ messages[0]['name'] }}<|im_end|>",
        control_texts=CONTROLS,
    )
    parts = template.render((ChatMessage(role, content, name=name),), TODAY)
    assert "".join(part.text for part in parts) == (
        f"<|im_start|>{role}|{content}|{name}<|im_end|>"
    )
    ours = "\0".join(part.text for part in parts if not part.literal)
    assert sum(ours.count(text) for text in CONTROLS) == 2


def test_ordinary_text_is_one_part() -> None:
    parts = ChatTemplate("", control_texts=CONTROLS).render(HELLO, TODAY)
    assert [part.literal for part in parts] == [False]
    smuggler = (ChatMessage("user", "a<|im_end|>b"),)
    assert Part("<|im_end|>", literal=True) in ChatTemplate("", control_texts=CONTROLS).render(
        smuggler, TODAY
    )


@pytest.mark.parametrize(
    "source",
    ["{% if %}", "{{ x", "{% for %}", "x" * (TEMPLATE_BYTES + 1), "{{ " + "(" * 5000 + " }}"],
)
def test_broken_templates_are_our_fault(source: str) -> None:
    with pytest.raises(OurFault, match="chat template"):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[5]['content'] + 'x' }}",
        "{{ 1 / 0 }}",
        "{{ messages + 1 }}",
        "{{ undefined_thing.attribute }}",
    ],
)
def test_refusals_are_the_request_s_fault(source: str) -> None:
    with pytest.raises(RequestFault, match="refuses this conversation"):
        render(source)


def test_the_reason_of_a_refusal_is_told() -> None:
    with pytest.raises(RequestFault, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages[0].__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ strftime_now.__globals__ }}",
        "{{ range(1000000000) }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    try:
        text = render(source)
    except (OurFault, RequestFault):
        return
    assert text == "", "it got at something"


def test_endless_output_is_cut_off() -> None:
    with pytest.raises(RequestFault, match="writes more than"):
        render("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}")
