#!/usr/bin/env python3
"""Trims Kubernetes' published OpenAPI v3 files to the kinds kip-cluster serves.

Usage (needs Go for the module proxy; the module is about 13 MB):

    dir=$(go mod download -json k8s.io/kubernetes@v1.37.2 | python3 -c 'import json,sys; print(json.load(sys.stdin)["Dir"])')
    python3 trim.py "$dir/api/openapi-spec/v3" kubernetes.json

The input is Apache-2.0 (The Kubernetes Authors). The output holds one member "definitions" with every schema reachable
from the roots below, descriptions included (they are what `kubectl explain` prints), one definition a line so
that a change of version is a readable diff.
"""

import json
import pathlib
import sys

CORE, META = "io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1."
ROOTS = {
    "api__v1": [CORE + k for k in (
        "Namespace Pod Node Event ConfigMap Secret Service Endpoints ServiceAccount Binding PodList NodeList "
        "NamespaceList EventList ConfigMapList SecretList ServiceList EndpointsList ServiceAccountList").split()]
        + ["io.k8s.api.authentication.v1.TokenRequest", "io.k8s.api.policy.v1.Eviction",
           META + "DeleteOptions", META + "Status"],
    "apis__coordination.k8s.io__v1": ["io.k8s.api.coordination.v1.Lease", "io.k8s.api.coordination.v1.LeaseList"],
    "apis__events.k8s.io__v1": ["io.k8s.api.events.v1.Event", "io.k8s.api.events.v1.EventList"],
    "apis__node.k8s.io__v1": ["io.k8s.api.node.v1.RuntimeClass", "io.k8s.api.node.v1.RuntimeClassList"],
    "apis__scheduling.k8s.io__v1": ["io.k8s.api.scheduling.v1.PriorityClass",
                                    "io.k8s.api.scheduling.v1.PriorityClassList"],
    "apis__authentication.k8s.io__v1": ["io.k8s.api.authentication.v1.TokenReview",
                                        "io.k8s.api.authentication.v1.SelfSubjectReview"],
    "apis__authorization.k8s.io__v1": ["io.k8s.api.authorization.v1." + k for k in (
        "SubjectAccessReview SelfSubjectAccessReview LocalSubjectAccessReview SelfSubjectRulesReview").split()],
    "apis__apiextensions.k8s.io__v1": [
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionList"],
    "apis__rbac.authorization.k8s.io__v1": ["io.k8s.api.rbac.v1." + k for k in (
        "ClusterRole ClusterRoleBinding Role RoleBinding ClusterRoleList ClusterRoleBindingList RoleList "
        "RoleBindingList").split()],
}
PREFIX = "#/components/schemas/"


def references(schema):
    """Every definition name a schema mentions."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(PREFIX)
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def simplify(schema):
    """Replaces {"allOf": [{"$ref": x}], ...} by {"$ref": x, ...} and drops generated zero-value defaults."""
    if isinstance(schema, list):
        return [simplify(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key == "allOf" and len(value) == 1 and set(value[0]) == {"$ref"}:
            out["$ref"] = value[0]["$ref"]
        elif key == "default" and value in ("", 0, False, {}):
            continue
        else:
            out[key] = simplify(value)
    return out


def main():
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    definitions = {}
    for stem, roots in ROOTS.items():
        schemas = json.loads((source / f"{stem}_openapi.json").read_text())["components"]["schemas"]
        pending = list(roots)
        while pending:
            name = pending.pop()
            if name not in definitions:
                definitions[name] = simplify(schemas[name])
                pending.extend(references(definitions[name]))
    lines = ",\n".join(f"{json.dumps(name)}:{json.dumps(definitions[name], sort_keys=True, separators=(',', ':'))}"
                       for name in sorted(definitions))
    text = '{"definitions":{\n' + lines + "\n}}\n"
    target.write_text(text)
    print(f"{len(definitions)} definitions, {len(text)} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
