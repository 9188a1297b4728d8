"""Writes what the chart ships into its folder, which is all that Helm reads: rules as they are, dashboards as JSON.

python -m deploy.observability [--check]     --check: exits 1 if what is there differs
"""

import argparse
import json
import sys
from pathlib import Path

from deploy.observability.dashboards import ALL
from deploy.observability.grafana import as_json

ROOT = Path(__file__).resolve().parents[2]
RULES = Path(__file__).with_name("rules")
SHIPPED = ROOT / "helm/headrace/files"


def wanted() -> dict[Path, str]:
    rules = {SHIPPED / "rules" / path.name: path.read_text() for path in sorted(RULES.glob("*.yaml"))}
    pages = {
        SHIPPED / f"dashboards/{page.name}.json": json.dumps(as_json(page), indent=1) + "\n" for page in ALL
    }
    return rules | pages


def there() -> dict[Path, str]:
    folders = (SHIPPED / "rules", SHIPPED / "dashboards")
    return {path: path.read_text() for folder in folders for path in folder.glob("*")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.observability")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    want, have = wanted(), there()
    stale = sorted(path for path in want.keys() | have.keys() if want.get(path) != have.get(path))
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is not what deploy/observability says: run 'make generate'")
        elif path in want:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(want[path])
        else:
            path.unlink()
    sys.exit(check and bool(stale))


if __name__ == "__main__":
    main()
