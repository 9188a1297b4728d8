"""The API server: objects as plain dictionaries, failures as one line with what to do. The one user of `kubernetes`."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, ApiException, Configuration
from oauthlib.oauth2 import OAuth2Error

from services.cli.cluster.kubeconfig import check, login
from services.cli.exits import FAILED, REFUSED, UNREACHABLE, USAGE, CliError, stop

try:
    from google.auth.exceptions import GoogleAuthError
except ImportError:  # an extra of the library, for a way to log in that kubectl has given up
    GoogleAuthError = config.ConfigException

Object = dict[str, Any]
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT = (5.0, 30.0)  # seconds to connect, and between two bytes
PAGE = 500  # objects of an answer
CORE = "api/v1"
GROUPS = {
    **dict.fromkeys(("pods", "nodes", "events", "services", "configmaps", "secrets", "namespaces"), CORE),
    **dict.fromkeys(("deployments", "statefulsets"), "apis/apps/v1"),
    **dict.fromkeys(("rayservices", "rayclusters"), "apis/ray.io/v1"),
    "jobs": "apis/batch/v1",
    "horizontalpodautoscalers": "apis/autoscaling/v2",
    "poddisruptionbudgets": "apis/policy/v1",
    "networkpolicies": "apis/networking.k8s.io/v1",
    "scaledobjects": "apis/keda.sh/v1alpha1",
    "certificates": "apis/cert-manager.io/v1",
}
CLUSTER_SCOPED = ("nodes", "namespaces")
PART_OF = "app.kubernetes.io/part-of"  # engines have KubeRay's own app.kubernetes.io/name
OURS = f"{PART_OF}=headrace"
# Of a kubeconfig: the library's own, its files', and those of ways to log in.
UNUSABLE = (
    config.ConfigException, yaml.YAMLError, OSError, ValueError, ImportError, OAuth2Error, GoogleAuthError,
)  # fmt: skip
ERRNO = re.compile(r"\[Errno \d+\] ")
MEDIA = {"PATCH": "application/merge-patch+json", "POST": "application/json"}


class KubeError(CliError):
    """The API server refused. `status` is the HTTP code, `message` its own words."""

    def __init__(self, what: str, do: str, *, code: int, status: int, message: str) -> None:
        super().__init__(what, do, code=code)
        self.status, self.message = status, message

    @property
    def passes(self) -> bool:
        """Whether the same question may be answered later, as after a restart of the API server."""
        return self.status == 429 or self.status >= 500


class Away(KubeError):
    """No answer at all: from the API server, or from the pod that it asks on our behalf."""

    def __init__(self, server: str, why: str) -> None:
        do = "Check the network, the context (`kubectl config get-contexts`) and its certificate."
        what = f"the API server {server} does not answer: {why}"
        super().__init__(what, do, code=UNREACHABLE, status=0, message=f"no answer: {why}")

    @property
    def passes(self) -> bool:
        return True


@dataclass(slots=True)
class Outage:
    """For who looks again and again: says once that the API server is away, and once that it is back."""

    _on: bool = False

    def note(self, error: KubeError) -> None:
        """Raises the error again unless it passes by itself."""
        if not error.passes:
            raise error
        if not self._on:
            print(f"{error.what}; looking again", flush=True)
        self._on = True

    def over(self) -> None:
        if self._on:
            print("the API server answers again", flush=True)
        self._on = False


@dataclass(frozen=True, slots=True)
class Kube:
    client: Any
    namespace: str
    server: str

    def path(self, plural: str, name: str = "", part: str = "", *, everywhere: bool = False) -> str:
        scoped = plural in CLUSTER_SCOPED or everywhere
        steps = [GROUPS[plural], "" if scoped else f"namespaces/{self.namespace}", plural, name, part]
        return "/" + "/".join(step for step in steps if step)

    def every(
        self, plural: str, labels: str = "", fields: str = "", *, everywhere: bool = False
    ) -> list[Object]:
        """All objects of a kind. Raises KubeError, with status 404 if the cluster does not know the kind."""
        found: list[Object] = []
        query = {"limit": str(PAGE)} | _given(labelSelector=labels, fieldSelector=fields)
        while True:
            answer = self.get(self.path(plural, everywhere=everywhere), query)
            found += _told(answer)
            more = answer["metadata"].get("continue")
            if not more:
                return found
            query["continue"] = more

    def get(self, path: str, query: dict[str, str] | None = None) -> Object:
        return dict(json.loads(self.text(path, query)))

    def text(self, path: str, query: dict[str, str] | None = None) -> str:
        return self._exchange("GET", path, query or {}, None)

    def send(self, method: str, path: str, body: Object, query: dict[str, str] | None = None) -> Object:
        return dict(json.loads(self._exchange(method, path, query or {}, body)))

    def _exchange(self, method: str, path: str, query: dict[str, str], body: Object | None) -> str:
        headers = {"Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = MEDIA[method]
        asked = self.client.param_serialize(
            method=method,
            resource_path=path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self.client.call_api(*asked, _request_timeout=TIMEOUT)
            raw = answer.read()
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise Away(self.server, _why(error)) from error
        text = bytes(raw).decode(errors="replace")
        if not 200 <= answer.status < 300:
            self._refuse(answer.status, text, method, path)
        return text

    def _refuse(self, status: int, text: str, method: str, path: str) -> NoReturn:
        message = _message(text) or f"{method} {path}: HTTP {status}"
        what, do, code = message, "", FAILED
        if status == 401:
            what, do, code = (
                f"{self.server} does not know who you are",
                "Log in to the cluster again.",
                REFUSED,
            )
        elif status == 403:
            do, code = "Ask for the Role that `headrace cluster role` prints.", REFUSED
        elif status >= 500:
            what, code = f"the API server {self.server} is in trouble: {message}", UNREACHABLE
        raise KubeError(what.rstrip("."), do, code=code, status=status, message=message)


def connect(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Kube:
    """By file, environment or, in a pod, its account. Raises CliError."""
    settings = Configuration()
    settings.retries = False
    named = str(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    if any(Path(each).exists() for each in named.split(os.pathsep)):
        place = _from_file(named, context, settings)
    elif kubeconfig is None and ACCOUNT.exists():
        _load(lambda: config.load_incluster_config(client_configuration=settings), "the pod's account")
        place = (ACCOUNT / "namespace").read_text().strip()
    else:
        do = "Set KUBECONFIG or --kubeconfig; your cluster's provider says how to get one."
        stop(f"no kubeconfig: {named} is not there", do, code=USAGE)
    return Kube(ApiClient(settings), namespace or place, str(settings.host))


def _from_file(named: str, context: str | None, settings: Any) -> str:
    _load(lambda: _read_file(named, context, settings), named)
    contexts, current = config.list_kube_config_contexts(named)
    chosen = next((each for each in contexts if each["name"] == context), current)
    return str(chosen.get("context", {}).get("namespace") or "default")


def _read_file(named: str, context: str | None, settings: Any) -> None:
    with login():
        config.load_kube_config(named, context, settings, persist_config=False)
    check(settings)


def _load(load: Callable[[], object], named: str) -> None:
    try:
        load()
    except (KeyError, TypeError, AttributeError) as error:
        raise _unusable(named, "it has not the form of a kubeconfig") from error
    except UnicodeDecodeError as error:
        raise _unusable(named, "it is not text") from error
    except UNUSABLE as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise _unusable(named, ERRNO.sub("", first).rstrip(".")) from error


def _unusable(named: str, why: str) -> CliError:
    return CliError(f"{named} cannot be used: {why}", "Compare with `kubectl config view`.", code=USAGE)


def _told(answer: Object) -> list[Object]:
    """Items with what they are: in a list of a built-in kind only the list says it."""
    is_ = {"apiVersion": answer.get("apiVersion", ""), "kind": answer.get("kind", "").removesuffix("List")}
    return [is_ | item for item in answer.get("items") or ()]


def _given(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message", ""))
    except (ValueError, AttributeError):
        return ""


def _why(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"silent for {TIMEOUT[1]:g} s"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "connection refused, or the name is not known"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {TIMEOUT[0]:g} s"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is not trusted"
    return type(error).__name__
