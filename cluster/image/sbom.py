"""Writes the image's bill of materials, SPDX 2.3 in JSON: sbom.py VERSION EPOCH PACKAGES, to standard output.

PACKAGES is a file with a line for each Debian package: role (linked, static or contained), name, version,
architecture. Swift packages come from Package.resolved, which the build made, each pinned in Package.swift or by those.
"""
import datetime
import hashlib
import json
import pathlib
import re
import subprocess
import sys

version, epoch, packages_file = sys.argv[1:]
root = pathlib.Path(__file__).resolve().parent.parent.parent
packages, relationships = [], []
RELATION = {"linked": "DYNAMIC_LINK", "static": "STATIC_LINK", "contained": "CONTAINS"}


def add(name, version_info, purl, location, relation, licence="NOASSERTION"):
    identifier = "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{name}-{version_info}")
    packages.append({
        "SPDXID": identifier, "name": name, "versionInfo": version_info, "downloadLocation": location,
        "filesAnalyzed": False, "licenseConcluded": licence, "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    })
    if relation:
        relationships.append({
            "spdxElementId": "SPDXRef-chunkd-" + version, "relationshipType": relation,
            "relatedSpdxElement": identifier})
    return identifier


top = add("chunkd", version, f"pkg:generic/chunkd@{version}", "NOASSERTION", None, "Apache-2.0")
pins = json.loads((root / "Package.resolved").read_text())["pins"]
for pin in sorted(pins, key=lambda pin: pin["identity"]):
    where, state = pin["location"].removesuffix(".git"), pin["state"]
    add(pin["identity"], state["version"], f"pkg:swift/{where.split('://', 1)[1]}@{state['version']}",
        f"git+{where}@{state['revision']}", "STATIC_LINK")
swift = subprocess.run(["swift", "--version"], capture_output=True, text=True, check=True).stdout
add("swift-runtime", re.search(r"Swift version ([0-9.]+)", swift)[1], "pkg:generic/swift", "NOASSERTION", "STATIC_LINK")
for line in sorted(set(pathlib.Path(packages_file).read_text().splitlines())):
    role, name, debian, architecture = line.split()
    add(name, debian, f"pkg:deb/debian/{name}@{debian}?arch={architecture}", "NOASSERTION", RELATION[role])
relationships.insert(0, {
    "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": top})
digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
created = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
print(json.dumps({
    "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"chunkd-{version}",
    "documentNamespace": f"https://spdx.org/spdxdocs/chunkd-{version}-{digest}",
    "creationInfo": {"created": created.strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: chunkd make image"]},
    "packages": packages, "relationships": relationships,
}, indent=1))
