"""Writes gateway/openapi.json: what the routes take and give, from the tables that requests are checked against.

    python -m tools.openapi

A test compares the file with what this would write, so it cannot go stale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from preprocessing import fields
from preprocessing.body import SCHEMAS
from preprocessing.embeddings import EmbeddingBody
from preprocessing.errors import ROWS
from preprocessing.tokenization import DetokenizeBody, TokenizeBody

FILE = Path(__file__).resolve().parent.parent / "gateway" / "openapi.json"
GATEWAY_STATUSES = (400, 401, 404, 405, 413, 414, 415, 429, 431, 500, 503)
"""What the gateway itself may answer, besides the errors of the model."""
SUMMARIES = {
    "chat/completions": "An answer to a conversation",
    "completions": "A continuation of a text",
    "embeddings": "Vectors that stand for texts",
    "tokenize": "The token ids of a text or a conversation",
    "detokenize": "The text of token ids",
}
BODIES: dict[str, type[BaseModel]] = {
    **{endpoint: schema.body for endpoint, schema in SCHEMAS.items()},
    "embeddings": EmbeddingBody,
    "tokenize": TokenizeBody,
    "detokenize": DetokenizeBody,
}
TABLES: dict[str, Mapping[str, fields.Field]] = {
    **{endpoint: schema.fields for endpoint, schema in SCHEMAS.items()},
    "embeddings": fields.EMBEDDINGS,
}
"""The endpoints that have a table of fields."""
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def body_schema(endpoint: str) -> dict[str, Any]:
    """JSON schema of a request body; explicit nulls are left out: they mean that a field is absent."""
    schema = schema_of(BODIES[endpoint])
    honoured = schema["properties"]
    known = TABLES.get(endpoint)
    if known is not None:
        schema["properties"] = {name: field_schema(field, honoured.get(name)) for name, field in known.items()}
    return schema


def field_schema(field: fields.Field, honoured: Mapping[str, Any] | None) -> dict[str, Any]:
    note = {"description": field.note} if field.note else {}
    if field.use == "honoured" and honoured is not None:
        return {**honoured, **note}
    if field.use == "refused":
        return {"enum": [*field.neutral, None], **note}
    return note


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return dict(without(schema, "title"))


def without(schema: Any, key: str) -> Any:
    """`schema` without pydantic's titles, which say what the names say. (A field called so is a dict, a title text.)"""
    if isinstance(schema, dict):
        return {
            name: without(value, key) for name, value in schema.items() if name != key or not isinstance(value, str)
        }
    return [without(each, key) for each in schema] if isinstance(schema, list) else schema


def answers(*, streams: bool = False) -> dict[str, Any]:
    good: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if streams:
        good["text/event-stream"] = {"schema": {"type": "string"}}
    statuses = sorted({*GATEWAY_STATUSES, *(row.status for row in ROWS.values())})
    error = {"$ref": "#/components/responses/Error"}
    return {"200": {"description": "OK", "content": good}} | {str(status): error for status in statuses}


def document() -> dict[str, Any]:
    shared: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for endpoint, summary in SUMMARIES.items():
        schema = body_schema(endpoint)
        shared |= schema.pop("$defs", {})
        paths[f"/{endpoint}"] = {
            "post": {
                "summary": summary,
                "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
                "responses": answers(streams=endpoint in SCHEMAS),
            }
        }
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    paths["/models"] = {"get": {"summary": "The models", "responses": answers()}}
    paths["/models/{model}"] = {"get": {"summary": "One model", "parameters": [name], "responses": answers()}}
    for verb in ("load", "unload"):
        about = {"summary": f"{verb.capitalize()} a model, where the operator allows it", "parameters": [name]}
        paths[f"/models/{{model}}/{verb}"] = {"post": {**about, "responses": answers()}}
    paths["/health/ready"] = {"get": {"summary": "Whether requests can be answered", "responses": answers()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "openai_bls", "version": "1", "description": "OpenAI's API, served by NVIDIA Triton."},
        "servers": [{"url": "/v1"}],
        "security": [{}, {"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "responses": {"Error": {"description": "Error", "content": {"application/json": {"schema": ERROR}}}},
            "schemas": dict(sorted(shared.items())),
        },
    }


def text() -> str:
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
