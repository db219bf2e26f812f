"""The OpenAPI description of the service, made from the wire types, and a page that shows it. Nothing from outside."""

import html
import json
from typing import Any

import msgspec

from zhiyin.service import wire

_BODIES = (
    wire.Retrieve,
    wire.RetrieveMany,
    wire.Events,
    wire.Answer,
    wire.Answers,
    wire.Accepted,
    wire.Item,
    wire.NewItems,
    wire.Kept,
    wire.Deleted,
    wire.Block,
    wire.BlockedItems,
    wire.DeletedItems,
    wire.Refusal,
)

_ROUTES: tuple[tuple[str, str, str, tuple[type, ...], tuple[type, ...], object], ...] = (
    (
        "post",
        "/v1/retrieve",
        'Candidates for one user, or for many: {"requests": […]}',
        (wire.Retrieve, wire.RetrieveMany),
        (wire.Answer, wire.Answers),
        {"user_id": "196", "k": 10, "hydrate": ["title"]},
    ),
    (
        "post",
        "/v1/events",
        "Keep events; the next request of their users sees them",
        (wire.Events,),
        (wire.Accepted,),
        {"events": [{"user_id": "196", "item_id": "50"}]},
    ),
    (
        "put",
        "/v1/items",
        "Add or replace items: they can be found at once",
        (wire.NewItems,),
        (wire.Kept,),
        {"items": [{"item_id": "new-1", "values": {"title": "A new one", "tags": ["a"]}}]},
    ),
    ("get", "/v1/items/{item_id}", "An item's card", (), (wire.Item,), None),
    ("delete", "/v1/items/{item_id}", "Take an item away, until it is put again", (), (wire.Deleted,), None),
    ("get", "/v1/deletions?after&limit", "Which items are deleted now, by pages", (), (wire.DeletedItems,), None),
    ("get", "/v1/blocks?after&limit", "Which items are blocked now, by pages", (), (wire.BlockedItems,), None),
    ("put", "/v1/blocks/{item_id}", "Block an item: it is not found, until it is unblocked", (), (wire.Block,), None),
    ("delete", "/v1/blocks/{item_id}", "Unblock an item: it is found again, as it is now", (), (wire.Block,), None),
    ("put", "/v1/users/{user_id}/profile", "Set a user's profile, replaced whole", (), (), {"country": "CN"}),
    ("get", "/v1/releases/live", "What is live: id, size, proof, metrics", (), (), None),
    ("get", "/healthz", "200 while the process lives", (), (), None),
    ("get", "/readyz", "200 once a release is live, 503 with the reason before", (), (), None),
)


def document(version: str) -> dict[str, Any]:
    """OpenAPI 3.1."""
    _, components = msgspec.json.schema_components(_BODIES, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for method, path, summary, bodies, answers, example in _ROUTES:
        paths.setdefault(path.partition("?")[0], {})[method] = _operation(path, summary, bodies, answers, example)
    return {
        "openapi": "3.1.0",
        "info": {"title": "zhiyin", "version": version, "description": "Candidate retrieval."},
        "paths": paths,
        "components": {"schemas": components},
    }


def page(description: dict[str, Any]) -> str:
    """The same for a person: every route with its fields, an example body, and a form to try it."""
    routes = "".join(
        _section(method, path, operation, description["components"]["schemas"])
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    return _PAGE.replace("{{routes}}", routes).replace("{{version}}", description["info"]["version"])


def _operation(path: str, summary: str, bodies: tuple[type, ...], answers: tuple[type, ...], example: object) -> Any:
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "OK"}}}
    if answers:
        operation["responses"]["200"]["content"] = {"application/json": {"schema": _any_of(answers)}}
    refused = {"description": "Refused", "content": {"application/json": {"schema": _any_of((wire.Refusal,))}}}
    operation["responses"]["4XX"] = refused
    path, _, query = path.partition("?")
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    parameters += [{"name": n, "in": "query", "schema": {"type": "integer"}} for n in query.split("&") if n]
    if parameters:
        operation["parameters"] = parameters
    if example is not None:
        schema = _any_of(bodies) if bodies else {"type": "object"}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    return operation


def _any_of(kinds: tuple[type, ...]) -> dict[str, Any]:
    refs = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _section(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    example = json.dumps(content["example"], indent=2) if "example" in content else ""
    body = f"<textarea rows={example.count(chr(10)) + 1}>{html.escape(example)}</textarea>" if example else ""
    path_field = f'<input value="{html.escape(path)}">' if operation.get("parameters") else ""
    return (
        f'<section data-method="{method}" data-path="{html.escape(path)}">'
        f"<h2><b>{method.upper()}</b> {html.escape(path)}</h2>"
        f"<p>{html.escape(operation['summary'])}</p>{_fields(content.get('schema', {}), schemas)}"
        f"{path_field}{body}<button>try it</button><pre hidden></pre></section>"
    )


def _fields(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    names = [part["$ref"].rsplit("/", 1)[1] for part in schema.get("anyOf", [schema]) if "$ref" in part]
    if not names:
        return ""
    first = schemas[names[0]]
    rows = "".join(
        f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(_type(field))}</td>"
        f"<td>{_default(name, field, first)}</td></tr>"
        for name, field in first["properties"].items()
    )
    return f"<p class=about>{html.escape(first.get('description', ''))}</p><table>{rows}</table>"


def _default(name: str, field: dict[str, Any], schema: dict[str, Any]) -> str:
    return "required" if name in schema.get("required", ()) else f"default {json.dumps(field.get('default'))}"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"].rsplit("/", 1)[1])
    if "anyOf" in field:
        return " or ".join(_type(part) for part in field["anyOf"])
    inner = f" of {_type(field['items'])}" if "items" in field else ""
    return str(field.get("type", "any")) + inner


_PAGE = """<!doctype html><meta charset=utf-8><meta name=viewport content="width=device-width"><title>zhiyin</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
section{border-top:1px solid #ddd;padding:.5rem 0 1rem}h2{font:600 1rem ui-monospace,monospace}h2 b{color:#06c}
textarea,input{width:100%;box-sizing:border-box;font:13px ui-monospace,monospace;padding:.4rem;border:1px solid #bbb;
margin:.2rem 0}
td{padding:.1rem 1rem .1rem 0;vertical-align:top}pre{background:#f5f5f5;padding:.6rem;overflow:auto;max-height:24rem}
.about{color:#555}button{padding:.3rem .8rem}table{font-size:.9rem}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre,textarea,input{background:#242424;color:#ddd}
h2 b{color:#6af}section{border-color:#333}.about{color:#aaa}}
</style>
<h1>zhiyin <small>{{version}}</small></h1>
<p>Candidate retrieval. Machine-readable: <a href=openapi.json>openapi.json</a></p>
{{routes}}
<script>
for(const s of document.querySelectorAll("section"))s.querySelector("button").onclick=async()=>{
 const out=s.querySelector("pre"),path=s.querySelector("input"),body=s.querySelector("textarea");out.hidden=false;
 try{const r=await fetch(path?path.value:s.dataset.path,{method:s.dataset.method.toUpperCase(),
  ...(body?{body:body.value,headers:{"content-type":"application/json"}}:{})});
  const t=await r.text();let shown=t;try{shown=JSON.stringify(JSON.parse(t),null,2)}catch{}
  out.textContent=r.status+"\\n"+shown}catch(e){out.textContent=String(e)}}
</script>
"""
