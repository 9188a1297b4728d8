"""Deploy, inspect or remove a model on a running Ray cluster.

python -m cluster.serving --config FILE.json            deploy and wait until it runs
python -m cluster.serving --config FILE.json --status   print Serve's status as JSON
python -m cluster.serving --config FILE.json --delete   drain and remove the model
"""

import argparse
import json
import logging
import os
import socket
import sys
from pathlib import Path

from cluster.serving.settings import DeploySettings, brief, with_secrets


def main() -> None:
    options = arguments()
    # Serve reports its progress on the terminal; one line of result is what a script can use.
    logging.disable(logging.INFO)
    try:
        config = load(options.config)
    except (OSError, ValueError) as error:
        sys.exit(f"cluster.serving: {options.config}: {brief(error)}")
    connect(config.ray_address)
    if options.status:
        print(json.dumps(status()))
    elif options.delete:
        delete(config)
    else:
        deploy(config)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cluster.serving", description="Engine replicas on Ray Serve.")
    parser.add_argument("--config", type=Path, required=True)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--status", action="store_true", help="print the state of the replicas as JSON")
    action.add_argument("--delete", action="store_true", help="drain the replicas and remove the model")
    return parser.parse_args()


def load(path: Path) -> DeploySettings:
    """Raises OSError or ValueError (of which pydantic's and json's errors are kinds)."""
    document = json.loads(path.read_text())
    if not isinstance(document, dict):
        raise ValueError("holds no JSON object")
    return DeploySettings.model_validate(with_secrets(document, os.environ))


def connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        knock(address)
        ray.init(address=address, namespace="headrace", log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"cluster.serving: no Ray at {address}: {brief(error)}")


def knock(address: str) -> None:
    """Raise OSError when nobody listens on "host:port": Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=5).close()


def deploy(config: DeploySettings) -> None:
    from ray import serve

    from cluster.serving.app import build
    from cluster.serving.names import slug

    serve.start(proxy_location="Disabled")
    name = slug(config.settings.model)
    try:
        serve.run(build(config), name=name, route_prefix=None)
    except RuntimeError as error:
        sys.exit(f"cluster.serving: {name} does not start: {why(name) or cause(str(error))}")
    scaling = config.autoscaling
    count = f"{scaling.min_replicas} to {scaling.max_replicas}" if scaling else config.replicas
    print(f"{name} runs with {count} replicas")


def why(name: str) -> str:
    """The cause as the deployment tells it: the application only says that a deployment failed."""
    from ray import serve

    states = serve.status().applications[name].deployments.values()
    return next((text for state in states if (text := cause(state.message))), "")


def delete(config: DeploySettings) -> None:
    from ray import serve

    from cluster.serving.names import slug

    serve.delete(slug(config.settings.model))


def status() -> dict[str, object]:
    from ray import serve

    applications = serve.status().applications
    return {
        name: {
            "status": application.status.value,
            "message": cause(application.message),
            "deployments": {
                deployment: {
                    "status": state.status.value,
                    "replicas": {str(key): count for key, count in state.replica_states.items()},
                    "message": cause(state.message),
                }
                for deployment, state in application.deployments.items()
            },
        }
        for name, application in applications.items()
    }


def cause(message: str) -> str:
    """The line of Serve's message, a traceback at times, that names the error."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0] or line.startswith("cluster.")]
    return (errors or lines or [""])[-1]


if __name__ == "__main__":
    main()
