"""Look up known vulnerabilities of locked packages with pip-audit (`make audit`).

The exit code is 0 for none or not run, 1 for found or failed. pip-audit alone is not enough: it
exits with 1 for a finding and for a failed connection, and where a mirror has no advisories it
skips every package and still reports "No known vulnerabilities found".
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

UNREACHABLE = re.compile(r"connect|timed out|timeout|resolve|unreachable", re.IGNORECASE)


def main(lock: Path) -> int:
    # pip-audit wants hashes for all or for none, and torch has none.
    pins = re.findall(r"^[^\s#]+==\S+", lock.read_text(), re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "pins.txt")
        wanted.write_text("\n".join([*pins, lock.with_name("torch.txt").read_text()]))
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--progress-spinner=off",
            "--disable-pip",
            "--no-deps",
        ]
        done = subprocess.run(
            [*command, "--format=json", "-r", wanted], capture_output=True, text=True, check=False
        )
    if not done.stdout:
        if UNREACHABLE.search(done.stderr):
            print("not run: the advisory service cannot be reached")
            return 0
        print(done.stderr, file=sys.stderr)
        return 1
    packages = json.loads(done.stdout)["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        print("not run: the advisory service answered for none of the packages")
        return 0
    found = [
        (package, vulnerability)
        for package in packages
        for vulnerability in package.get("vulns", [])
    ]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    print(f"{len(packages) - len(skipped)} packages checked, {len(found)} known vulnerabilities")
    if skipped:
        print(f"not checked: {', '.join(skipped)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
