#!/usr/bin/env python3
"""Makes protobuf.json: which field number means which JSON member, for the kinds kip-cluster serves.

kubectl and other Go clients send built-in kinds as protobuf. Usage (both modules come from the Go module proxy):

    python3 protobuf.py "$(go list -m -f '{{.Dir}}' k8s.io/api)" "$(go list -m -f '{{.Dir}}' k8s.io/apimachinery)" \
        kubernetes.json protobuf.json

Input and output are Apache-2.0 (The Kubernetes Authors). A message is {number: [member, type, flags]}; type is s (string),
b (bytes), i (integer), t (bool), d (double), or the name of a message; flags has "r" for repeated, "m" for a map from
strings, "e" when the members are embedded in the parent. Embedded is what the OpenAPI schema does not know as a member.
"""

import json
import pathlib
import re
import sys

SCALARS = {"string": "s", "bytes": "b", "int32": "i", "int64": "i", "uint32": "i", "uint64": "i", "bool": "t", "double": "d"}
FIELD = re.compile(r"^  (optional|repeated|required)? ?(map<string, ([\w.]+)>|[\w.]+) (\w+) = (\d+);")


def openapi_name(message):
    return message.replace("k8s.io.", "io.k8s.", 1)


def main():
    api, machinery, schema, target = (pathlib.Path(argument) for argument in sys.argv[1:5])
    definitions = json.loads(schema.read_text())["definitions"]
    messages = {}
    for path in [*api.rglob("generated.proto"), *machinery.rglob("generated.proto")]:
        package = message = None
        for line in path.read_text().splitlines():
            if found := re.match(r"^package ([\w.]+);", line):
                package = found[1]
            elif found := re.match(r"^message (\w+) \{", line):
                message = messages.setdefault(f"{package}.{found[1]}", {})
                known = definitions.get(openapi_name(f"{package}.{found[1]}"), {}).get("properties")
            elif message is not None and (found := FIELD.match(line)):
                label, kind, value, name, number = found.groups()
                kind = value or kind
                full = SCALARS.get(kind) or (kind.lstrip(".") if "." in kind else f"{package}.{kind}")
                flags = ("r" if label == "repeated" else "") + ("m" if value else "")
                if known is not None and name not in known and full not in SCALARS.values():
                    flags += "e"
                message[number] = [name, full, flags]
    wanted, pending = set(), [name for name in messages if openapi_name(name) in definitions]
    while pending:
        name = pending.pop()
        if name in wanted or name not in messages:
            continue
        wanted.add(name)
        pending.extend(kind for _, kind, _ in messages[name].values() if kind in messages)
    lines = ",\n".join(f"{json.dumps(name)}:{json.dumps(messages[name], separators=(',', ':'))}" for name in sorted(wanted))
    target.write_text("{\n" + lines + "\n}\n")
    print(f"{len(wanted)} messages, {target.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
