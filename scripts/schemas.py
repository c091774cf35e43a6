#!/usr/bin/env python3
"""Writes JSON schemas, one a kind, for kubeconform.

    scripts/schemas.py FOLDER swagger.json [CRD.json...]

From Kubernetes' own OpenAPI document and from CustomResourceDefinitions in JSON. They are strict: a field that the
schema does not name is refused. Each file holds every definition that it refers to, so that none is looked up elsewhere.
"""

import json
import pathlib
import sys

INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
# The document calls these strings; YAML writes them as numbers too.
ALSO_NUMBERS = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": INT_OR_STRING,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}
MAPS_OF_SCHEMAS = ("properties", "patternProperties", "definitions")
SCHEMAS = ("items", "additionalProperties", "not")
LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf")


def strict(schema):
    if not isinstance(schema, dict):  # additionalProperties: true
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    out = {}
    for key, value in schema.items():
        if key in MAPS_OF_SCHEMAS:
            out[key] = {name: strict(part) for name, part in value.items()}
        elif key in SCHEMAS:
            out[key] = strict(value)
        elif key in LISTS_OF_SCHEMAS:
            out[key] = [strict(part) for part in value]
        elif not key.startswith("x-kubernetes-") and key not in ("description", "default"):
            out[key] = value
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not open_ended:
        out["additionalProperties"] = False
    return out


def references(schema):
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix("#/definitions/")
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def write(folder, group, version, kind, schema, definitions):
    schema = dict(schema, properties=dict(schema["properties"]))
    schema["properties"]["apiVersion"] = {"enum": [f"{group}/{version}" if group else version]}
    schema["properties"]["kind"] = {"enum": [kind]}
    schema["required"] = sorted({"apiVersion", "kind", *schema.get("required", [])})
    needed, waiting = {}, list(references(schema))
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = definitions[name]
            waiting.extend(references(definitions[name]))
    # As kubeconform asks for them: {{.ResourceKind}}{{.KindSuffix}}, with the group's first word.
    words = [kind, group.split(".")[0], version] if group else [kind, version]
    name = "-".join(words).lower() + ".json"
    (folder / name).write_text(json.dumps({**schema, "definitions": needed}))


def main(folder, swagger, *crds):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = json.loads(pathlib.Path(swagger).read_text())["definitions"]
    definitions = {name: ALSO_NUMBERS.get(name) or strict(schema) for name, schema in source.items()}
    for name, schema in source.items():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if len(kinds) == 1 and "properties" in schema:  # DeleteOptions and their like belong to every group.
            kind = kinds[0]
            write(folder, kind["group"], kind["version"], kind["kind"], definitions[name], definitions)
    metadata = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    for path in crds:
        crd = json.loads(pathlib.Path(path).read_text())["spec"]
        for version in crd["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = metadata
            write(folder, crd["group"], version["name"], crd["names"]["kind"], schema, definitions)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
