"""Small templates of our own, in the forms that published model families have."""

from __future__ import annotations

HERMES = """{%- macro call(c) %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endmacro %}
{%- if tools %}<|begin|>system
Tools:{% for tool in tools %}
{{ tool | tojson }}{% endfor %}<|end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|begin|>user
<tool_response>
{{ m.content }}
</tool_response><|end|>
{% elif m.tool_calls %}<|begin|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls %}{{ call(c) }}{% endfor %}<|end|>
{% else %}<|begin|>{{ m.role }}
{{ m.content }}<|end|>
{% endif %}
{%- endfor %}<|begin|>assistant{{ '\\n' }}"""
"""Hermes and Qwen: tools in the system turn, calls between tags."""

QWEN3 = HERMES + (
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
)
"""Thinks unless it is told not to."""

R1 = """{%- for m in messages %}<|begin|>{{ m.role }}
{%- set content = m.content.split('</think>') | last %}
{{ content }}<|end|>
{% endfor %}<|begin|>assistant
<think>
"""
"""Always thinks: the prompt opens the thoughts."""

EFFORT = """<|begin|>system
Effort: {{ reasoning_effort | default('medium') }}<|end|>
{% for m in messages %}<|begin|>{{ m.role }}
{{ m.reasoning_content }}{{ m.content }}<|end|>
{% endfor %}<|begin|>assistant
"""

LLAMA3 = """{%- if tools %}<|begin|>system
Environment: ipython
{% for tool in tools %}{{ tool | tojson(indent=4) }}
{% endfor %}<|end|>{%- endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}<|begin|>ipython
{{ m.content | tojson }}<|end|>
{%- elif m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('one call a turn') }}{% endif %}
{%- set c = m.tool_calls[0].function %}<|begin|>assistant
{"name": "{{ c.name }}", "parameters": {{ c.arguments | tojson }}}<|end|>
{%- else %}<|begin|>{{ m.role }}
{{ m.content }}<|end|>
{%- endif %}
{%- endfor %}<|begin|>assistant
"""
"""Llama 3.1: the whole answer is the call, one a turn."""

ALTERNATING = """{%- for m in messages %}
{%- if m.role not in ('system', 'user', 'assistant') %}{{ raise_exception('role') }}{% endif %}
{%- if not loop.first and m.role == loop.previtem.role %}{{ raise_exception('twice') }}{% endif %}
{{- '<|begin|>' + m.role + '\\n' + m.content + '<|end|>\\n' }}
{%- endfor %}<|begin|>assistant
"""
"""Knows no tools, and wants turns to alternate."""

OTHER_TOOLS = """{%- if tools %}[TOOLS] {{ tools | tojson }} [/TOOLS]{% endif %}
{%- for m in messages %}{% if m.tool_calls %}[CALLS] {{ m.tool_calls | tojson }}
{%- else %}[{{ m.role }}] {{ m.content }}{% endif %}{% endfor %}"""
"""Knows tools in a notation of its own."""
