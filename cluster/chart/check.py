"""Checks the chart: what it renders to, its values, alerts and dashboard. scripts/check-chart runs it.

  check.py rendered VALUES RENDERED   one rendering, against the Kubernetes schemas and what each container may do
  check.py sources                    values all used, alerts all tested and in the manual, metrics all exist
"""
import json
import pathlib
import re
import sys

import jsonschema
import kubernetes_validate
import yaml

root = pathlib.Path(__file__).resolve().parent.parent.parent
chart = root / "charts/chunkd"
# The least that Chart.yaml allows, and the newest there are schemas for.
VERSIONS = ["1.29.0", "1.37.0"]
# Kinds of operators, without a schema here: what must be in their spec.
CUSTOM = {
    "ServiceMonitor": {"selector", "endpoints"}, "PrometheusRule": {"groups"},
    "ClusterSPIFFEID": {"spiffeIDTemplate", "podSelector", "namespaceSelector"},
}
# Containers that reach the host. Every other one has no rights at all.
HOST = {"install", "gate"}
problems = []


def expect(condition, what):
    if not condition:
        problems.append(what)


def merged(base, over):
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        out[key] = merged(base[key], value) if both else value
    return out


def values_with(over):
    return merged(yaml.safe_load((chart / "values.yaml").read_text()), over)


def schema_errors(values):
    schema = json.loads((chart / "values.schema.json").read_text())
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(values)]


def check_pod(pod, values):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["initContainers"] + pod["containers"]:
        name, context = container["name"], container["securityContext"]
        expect(container["resources"].get("limits", {}).get("memory"), f"{name}: no memory limit")
        expect(context["readOnlyRootFilesystem"], f"{name}: may write to its root")
        mounts = [mount["name"] for mount in container["volumeMounts"]]
        expect(set(mounts) <= set(volumes), f"{name}: mounts {set(mounts) - set(volumes)}, which is no volume")
        if name in HOST:
            expect(context["privileged"] and "ports" not in container, f"{name}: must be privileged, without ports")
            continue
        expect(context.get("privileged") is False, f"{name}: privileged")
        expect(context["capabilities"] == {"drop": ["ALL"]}, f"{name}: has capabilities")
        expect(context["runAsNonRoot"] and context["runAsUser"] > 0, f"{name}: may be root")
        expect(context["allowPrivilegeEscalation"] is False, f"{name}: may gain rights")
        expect(context["seccompProfile"] == {"type": "RuntimeDefault"}, f"{name}: no seccomp profile")
        expect("host" not in mounts, f"{name}: sees the host")
    agent = next(container for container in pod["containers"] if container["name"] == "agent")
    expect(agent["livenessProbe"]["httpGet"]["path"] == "/livez", "agent: liveness is not /livez")
    expect(agent["readinessProbe"]["httpGet"]["path"] == "/readyz", "agent: readiness is not /readyz")
    gate = next(container for container in pod["containers"] if container["name"] == "gate")
    user = f"{values['agent']['uid']}:{values['agent']['gid']}"
    said = {variable["name"]: variable["value"] for variable in gate["env"]}
    expect(said["AGENT_USER"] == user, f"gate: expects the agent as {said['AGENT_USER']}, which is {user}")
    expect(said["LEASE_SECONDS"] == str(values["gate"]["leaseSeconds"]), "gate: another lease")
    expect(pod["priorityClassName"] == values["priorityClassName"], "priorityClassName is lost")
    expect("hostPID" not in pod and "hostIPC" not in pod, "the pod shares more with the host than it needs")


def rendered(values_file, rendered_file):
    over = yaml.safe_load(pathlib.Path(values_file).read_text()) or {}
    values = values_with(over)
    expect(schema_errors(values) == [], f"the schema refuses the values: {schema_errors(values)}")
    documents = [value for value in yaml.safe_load_all(pathlib.Path(rendered_file).read_text()) if value]
    kinds = [document["kind"] for document in documents]
    expect("DaemonSet" in kinds and "Service" in kinds, f"only {kinds}")
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    expect(len(names) == len(set(names)), f"two objects of one name: {names}")
    for document in documents:
        kind, labels = document["kind"], document["metadata"]["labels"]
        for label, value in values["commonLabels"].items():
            expect(labels.get(label) == value, f"{kind}: lacks the common label {label}")
        if kind in CUSTOM:
            expect(CUSTOM[kind] <= set(document["spec"]), f"{kind}: lacks {CUSTOM[kind] - set(document['spec'])}")
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                problems.append(f"{kind}, Kubernetes {version}: {list(error.path)}: {error.message}")
        if kind == "DaemonSet":
            check_pod(document["spec"]["template"]["spec"], values)
        if kind == "ConfigMap" and "config.yaml" in document["data"]:
            made = yaml.safe_load(document["data"]["config.yaml"])
            expect(merged(made, over.get("chunkd", {})) == made, "a key of the agent's configuration is lost")
            (pathlib.Path(rendered_file).parent / "config.yaml").write_text(document["data"]["config.yaml"])


def leaves(value, path):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, path + [key])
    else:
        yield path


def sources():
    templates = "".join(path.read_text() for path in sorted((chart / "templates").iterdir()))
    for path in leaves(values_with({}), []):
        used = any(re.search(r"\.Values\." + r"\.".join(path[:end]) + r"(?![A-Za-z.])", templates)
                   for end in range(1, len(path) + 1))
        expect(used, f"value {'.'.join(path)} is not used")
    for name, over in {
        "an unknown value": {"imag": {}}, "an unknown setting": {"chunkd": {"quota": {"highWatr": "1GiB"}}},
        "a size without unit": {"chunkd": {"quota": {"highWater": "50"}}}, "a short lease": {"gate": {"leaseSeconds": 5}},
        "a top directory": {"gate": {"hostDir": "/opt"}}, "root": {"agent": {"uid": 0}},
        "a mode there is not": {"certificates": {"mode": "magic"}},
    }.items():
        expect(schema_errors(values_with(over)), f"the schema takes {name}")
    operations = (root / "docs/operations.md").read_text()
    table = operations.split("<!-- metrics -->", 1)[1].split("\n\n", 1)[0]
    known = set(re.findall(r"^\| `([a-z_]+)`", table, re.M))
    expect(len(known) > 40, "the table of metrics was not understood")
    alerts = (chart / "files/alerts.yaml").read_text()
    dashboard = (chart / "files/dashboard.json").read_text()
    json.loads(dashboard)
    for file, text in (("alerts.yaml", alerts), ("dashboard.json", dashboard)):
        found = set(re.findall(r"\b((?:chunkd|process)_[a-z_]+)\b", text))
        expect(len(found) > 15, f"{file}: metrics were not found")
        for metric in sorted(found):
            expect(metric in known or metric.removesuffix("_bucket") in known, f"{file}: no metric {metric}")
    tests = (chart / "files/alerts.test.yaml").read_text()
    rules = [rule for group in yaml.safe_load(alerts)["groups"] for rule in group["rules"]]
    for rule in rules:
        expect(f'"{rule["alert"]}"' in tests, f"{rule['alert']} has no test")
        expect(f"| `{rule['alert']}` |" in operations, f"{rule['alert']} has no runbook in docs/operations.md")
    for name in re.findall(r"^\| `(Chunkd[A-Za-z]+)` \|", operations, re.M):
        expect(name in {rule["alert"] for rule in rules}, f"docs/operations.md: there is no alert {name}")


if sys.argv[1] == "rendered":
    rendered(*sys.argv[2:4])
else:
    sources()
for problem in problems:
    print(f"check-chart: {problem}", file=sys.stderr)
sys.exit(1 if problems else 0)
