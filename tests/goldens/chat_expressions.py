"""Single expressions that chat templates use, by topic: each is rendered on its own.

`rare` holds what the template language can do but hardly any chat template does.
"""

from __future__ import annotations

VALUE = (
    "{'text': 'Grüße, \"世界\" <b>&amp; it\\'s</b> \\\\ / \\t\\n😀', 'int': 7, 'float': 1.0, "
    "'small': 0.00001, 'yes': true, 'no': false, 'nothing': none, 'list': [1, [2, []], {}], "
    "'Zoo': {'b': 1, 'a': 2}}"
)
D = "{% set d = {'b': 1, 'a': {'c': [1, 2, 3]}} %}"

STRINGS = [
    "[{{ '  a b  '.strip() }}]", "[{{ '  a b  '.lstrip() }}]", "[{{ '  a b  '.rstrip() }}]",
    "{{ 'xxaxbxx'.strip('x') }}", "{{ 'abcba'.lstrip('ab') }}", "{{ 'abcba'.rstrip('ab') }}",
    "[{{ '\\n\\n text \\n'.strip('\\n') }}]", "{{ 'Grün ﬁ'.upper() }}", "{{ 'ÄB'.lower() }}",
    "{{ 'hello wORLD, it\\'s'.title() }}", "{{ 'hello wORLD'.capitalize() }}",
    "{{ 'a,b,,c'.split(',') | join('|') }}", "{{ ' a  b c '.split() | join('|') }}",
    "{{ 'a,b,c'.split(',', 1) | join('|') }}", "{{ 'a</think>b'.split('</think>')[-1] }}",
    "{{ '<think>why</think>\\n\\nso'.split('</think>')[0].split('<think>')[-1] }}",
    "{{ 'one\\ntwo\\r\\nthree'.splitlines() | join('|') }}", "{{ 'a-b-c'.replace('-', '+') }}",
    "{{ 'banana'.count('an') }}", "{{ 'banana'.find('n') }} {{ 'banana'.find('z') }}",
    "{{ 'banana'.startswith('ban') }}", "{{ 'banana'.endswith('ban') }}", "{{ '-'.join(['a', 'b']) }}",
    "{{ '12'.isdigit() }}", "{{ 'abcdef'[1:4] }}", "{{ 'abcdef'[:-2] }}", "{{ 'abcdef'[-2:] }}",
    "{{ 'äöü世'[1] }}{{ '👩‍💻x'[3:] }}", "{{ 'äöü世' | length }}", "{{ 'x' in 'xyz' }}", "{{ 'ab' * 3 }}",
    "{{ 1 ~ 2 ~ 'x' ~ none ~ true ~ 1.5 }}", "{{ 'it''s' 'joined' }}", "{{ \"tab\\tquote\\\"\\u00e9\" }}",
    "{{ 'a b' | title }} {{ 'Ab' | upper }} {{ 'Ab' | lower }} {{ 'ab' | capitalize }}",
    "[{{ ' x ' | trim }}]", "[{{ 'xxaxx' | trim('x') }}]", "{{ 'text' | replace('t', 'T') }}",
    "{{ 'abc' | first }}{{ 'abc' | last }}", "{{ '<b>&\"' }} {{ '<b>' | e }}", "{{ 'a\\nb' | indent(4) }}",
    "{{ 'a\\nb' | indent(2, true) }}", "{{ '<p>x</p>' | safe }}", "{{ 'a' < 'b' and 'B' < 'a' }}",
]

VALUES = [
    D + "{{ d.get('b') }} {{ d.get('z') }} {{ d.get('z', 'fallback') }}",
    D + "{{ d.a.c[-1] }} {{ d['a']['c'][1:] | join(',') }}",
    D + "{{ d.keys() | list | join(',') }} {{ d.values() | list | length }}",
    D + "{% for key, value in d.items() %}{{ loop.index }}{{ key }} {% endfor %}",
    D + "{% for key, value in d | items %}{{ key }} {% endfor %}",
    D + "{% for key, value in d | dictsort %}{{ key }} {% endfor %}",
    D + "{% for key in d %}{{ key }} {% endfor %}", D + "{{ 'b' in d }} {{ 'z' not in d }} {{ d | length }}",
    "{{ [1, 2, 3, 4][::2] | join(',') }} {{ [1, 2, 3][::-1] | join(',') }} {{ [1, 2, 3][5:] | length }}",
    "{{ ([1] + [2]) | length }} {{ [3, 1, 2] | sort | join(',') }} {{ [3, 1, 2] | max }}",
    "{{ ['b', 'a', 'b'] | unique | join(',') }} {{ ['a', 'b'] | reverse | join }} {{ [1, 2] | sum }}",
    "{{ messages | map(attribute='role') | join(',') }}", "{{ messages[-1].content }} {{ messages[1:] | length }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | map('trim') | join('; ') }}",
    "{{ messages | selectattr('tool_calls', 'defined') | list | length }} {{ messages | selectattr('role', 'in', ['system', 'tool']) | list | length }}",
    "{{ (messages | selectattr('role', '==', 'user') | first).content }} {{ (messages | last).role }}",
    "{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list | join(',') }}",
    "{{ 7 // 2 }} {{ 7 % 3 }} {{ 2 + 3 * 4 }} {{ -3 | abs }} {{ 10 - 4 - 3 }}", "{{ 7 / 2 }} {{ 8 / 2 }}",
    "{{ 1 == 1.0 }} {{ none == false }} {{ not [] }} {{ not 'x' }} {{ 'a' != 'b' }}", "{{ '3' | int + 1 }} {{ 'x' | int(9) }} {{ '2.5' | float }}",
    "{{ 3.14159 | round(2) }} {{ 2.5 | round | int }}", "{% for i in range(3) %}{{ i }}{% endfor %} {{ range(2, 8, 3) | list | join(',') }}",
    "{{ true }} {{ false }} {{ none }}", "{{ 1.0 }} {{ 2.50 }} {{ 10 | string }} {{ none | string }}",
    "{% set ns = namespace(a=1, b='x') %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{{ 'a' if messages else 'b' }} {{ (nothing or 'or') }} {{ ('x' and 'and') }} {{ '' or none or 'last' }}",
    "{{ dict(a=1, b=2).b }}",
    "{%- for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }} {% endfor %}{{ [1, 2, 3] | batch(2) | list | length }}",
    "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }} {% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '^' }}>{{ loop.nextitem.role if not loop.last else '$' }} {% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }} {% endfor %}",
]

TESTS = [
    "[{{ nothing }}]", "[{{ nothing | default('d') }}] [{{ '' | default('d') }}] [{{ '' | default('d', true) }}]",
    "[{{ messages[0].missing }}] [{{ messages[0]['missing'] | default('x') }}]", "[{{ messages[99] }}]",
    "[{{ 'yes' if nothing else 'no' }}] [{{ 'only if' if false }}]", "{{ nothing is defined }} {{ nothing is undefined }} {{ nothing is none }}",
    "{{ none is none }} {{ none is not none }} {{ none is defined }}", "{{ 'a' is string }} {{ 1 is string }} {{ 1 is number }} {{ 'a' is number }}",
    "{{ 1.5 is float }} {{ 1 is integer }} {{ true is boolean }} {{ true is number }}", "{{ {} is mapping }} {{ [] is mapping }} {{ [] is sequence }} {{ 'a' is sequence }}",
    "{{ 'a' is iterable }} {{ [] is iterable }} {{ {} is iterable }} {{ 1 is iterable }}", "{{ true is true }} {{ 1 is true }} {{ false is false }} {{ none is false }}",
    "{{ 4 is even }} {{ 4 is odd }} {{ 4 is divisibleby(2) }}", "{{ 'a' is in ['a'] }} {{ 2 is eq(2) }} {{ 2 is equalto 2 }} {{ 'ab' is lower }}",
    "{{ bos_token is defined }} {{ eos_token is defined }} {{ pad_token is defined }}", "{{ tools is defined }} {{ tools is none }} {{ not tools }} {{ documents is none }}",
    "{{ add_generation_prompt }} {{ strftime_now is defined }} {{ raise_exception is defined }} {{ range is callable }}",
    "{{ raise_exception('“Quoted” — with ünïcode: ' ~ messages | length ~ ' messages') }}", "{% if false %}{{ raise_exception('never') }}{% endif %}fine",
    "{% for item in nothing %}{{ item }}{% endfor %}fine", "{% for item in nothing or [] %}{{ item }}{% else %}empty{% endfor %}",
    "{{ nothing.attribute }}", "{{ nothing() }}", "{{ 'text' + none }}", "{{ 'text' + 1 }}", "{{ 'text' + nothing }}", "{{ 'text'.frobnicate() }}",
    "{% for item in none %}{% endfor %}", "{{ none.attribute }}|{{ 'text'.attribute }}", "{{ none.attribute.deeper }}", "{% if nothing == 'x' %}a{% else %}b{% endif %}",
    "{{ nothing | length }} {{ nothing | list | length }} [{{ nothing | trim }}] [{{ nothing ~ 'x' }}]",
]

TOJSON = [
    VALUE + " | tojson", VALUE + " | tojson(indent=2)", VALUE + " | tojson(indent=4)", VALUE + " | tojson(ensure_ascii=true)", VALUE + " | tojson(ensure_ascii=False)",
    VALUE + " | tojson(separators=(',', ':'))", VALUE + " | tojson(sort_keys=true)", VALUE + " | tojson(indent=2, sort_keys=true, separators=(', ', ' = '))",
    "'control \\u0001 \\u007f \\u2028' | tojson", "3 | tojson", "none | tojson", "[] | tojson(indent=2)", "{} | tojson(indent=2)", "'a' | tojson", "-7.25 | tojson", "100.0 | tojson",
    "messages | tojson", "messages[0] | tojson(indent=2)", "tools | tojson", "tools | tojson(indent=4)", "tools[0].function.parameters | tojson | length",
    "(messages[2].tool_calls[0].function.arguments | tojson)[:-1]", "extra_number | tojson", "extra_list | tojson",
]

REPR = [
    "{{ messages[0] }}", "{{ messages[2] }}", "{{ tools[0].function.parameters }}", "{{ {'a': none, 'b': [true, 1.0]} }}", "{{ ['it\\'s', 'say \"x\"', 'both \\' and \"'] }}",
    "{{ ['new\\nline\\t\\\\', 'ünï 世界 😀'] }}", "{{ [] }} {{ {} }}", "{{ ['x'] | string }}", "{{ 'x' ~ ['y'] }}", "{{ (1, 'two') }}", "{{ [1, 2, 3] | join }}", "{{ [['a'], ['b']] | join(' ') }}",
]

RARE = [
    "{{ 'a,b,c'.rsplit(',', 1) | join('|') }}", "{{ 'a-b-c'.replace('-', '+', 1) }}", "{{ 'banana'.endswith(('x', 'na')) }}", "{{ 'a=b=c'.partition('=') | join('|') }}",
    "{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.json'.removesuffix('.json') }}", "{{ 'abc'.isalpha() }} {{ 'abc'.islower() }} {{ ' '.isspace() }} {{ 'ABC'.isupper() }}",
    "{{ '%s has %d, %.2f' % ('x', 3, 2.5) }}", "{{ '{} and {}'.format(1, 'two') }}", "{{ '%s' | format('filter') }}", "{{ 'x'.center(5, '-') }} {{ '7'.zfill(3) }}", "{{ 'ab'.index('b') }}",
    "{{ 2 ** 10 }}", "{{ -7 // 2 }} {{ -7 % 3 }}", "{{ 0.1 + 0.2 }}", "{{ 1e16 }} {{ 1e-7 }} {{ 1e15 }}", "{{ 1e16 | tojson }} {{ 1.5e-7 | tojson }}", "{{ 12345678901234567890 | tojson }}", "{{ 1 < 2 < 3 }}",
    "{{ 100000000000000000000 }}", "{{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }}", "{{ 'abcdef'[::-1] }}", "{{ 'abcdef'[::2] }}", "{{ [1, 2, 3].index(2) }} {{ [1, 1].count(1) }}",
    "{% set list = [] %}{{ list.append(1) }}", "{% set d = {} %}{{ d.update({'a': 1}) }}", "{{ 'a'.__class__ }}", "{% set _ = messages.pop() %}",
    "{% for n in [1, 2] recursive %}{{ loop.depth }}{{ n }} {% endfor %}", "{{ messages | groupby('role') | map('first') | join(',') }}", "{{ 'a\\x41' }}", "{{ 'x' | center(5) }}|", "{{ [1, 2, 3] | random is number }}",
    "{{ 'a b c' | wordcount }} {{ 'https://x.y' | urlencode }}", "{{ [3, 1] | min }} {{ [[1, 2], [3]] | sum(start=[]) | length }}", "{{ 'Hello' | truncate(3, true, '…') }}", "{{ joiner is defined }} {{ cycler is defined }}",
    "{{ ('a', 'b')[1] }} {{ 1, 2 }}", "{{ 5 | filesizeformat }}", "{{ '%05d' % 42 }}", "{{ \"é\".encode('utf-8') | length }}",
]


def as_template(expression: str) -> str:
    """Lists above leave out the braces where every entry needs them."""
    return "{{ " + expression + " }}"


GROUPS: dict[str, tuple[str, list[str]]] = {
    "expr-strings": ("Strings: Python's methods, slices, filters", STRINGS),
    "expr-values": ("Numbers, lists, mappings, loops, scopes", VALUES),
    "expr-tests": ("Tests, undefined and none, and what breaks on them", TESTS),
    "expr-tojson": ("The filter tojson, as transformers defines it", [as_template(e) for e in TOJSON]),
    "expr-repr": ("Lists and mappings printed as Python prints them", REPR),
    "expr-rare": ("What hardly any chat template uses", RARE),
}
