"""Who may do what, by the Roles and bindings in the store. Whoever shows the owner's token may do everything."""

from dataclasses import dataclass

from tests.chart.apiserver.failure import Failure, Object
from tests.chart.apiserver.kinds import Kind
from tests.chart.apiserver.store import Store

OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Act:
    verb: str
    group: str
    resource: str  # with its subresource: pods/log
    namespace: str
    name: str = ""


def allowed(store: Store, user: str, act: Act) -> bool:
    if user == OWNER:
        return True
    rules = [rule for role in _roles(store, user, act.namespace) for rule in role.get("rules") or ()]
    return any(_covers(rule, act) for rule in rules)


def _roles(store: Store, user: str, namespace: str) -> list[Object]:
    bindings = store.every("ClusterRoleBinding")
    bindings += store.every("RoleBinding", namespace) if namespace else []
    mine = [each for each in bindings if any(_is(subject, user) for subject in each.get("subjects", ()))]
    found = [store.find(b["roleRef"]["kind"], _home(b), b["roleRef"]["name"]) for b in mine]
    return [role for role in found if role is not None]


def _home(binding: Object) -> str:
    return binding["metadata"].get("namespace", "") if binding["roleRef"]["kind"] == "Role" else ""


def _is(subject: Object, user: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user == f"system:serviceaccount:{subject.get('namespace', '')}:{subject['name']}"
    return subject["kind"] == "User" and user == str(subject["name"])


def _covers(rule: Object, act: Act) -> bool:
    named = rule.get("resourceNames")
    return (
        _in(act.verb, rule.get("verbs", ()))
        and _in(act.group, rule.get("apiGroups", ()))
        and _in(act.resource, rule.get("resources", ()))
        and (not named or act.name in named)
    )


def _in(value: str, allowed_: list[str]) -> bool:
    return "*" in allowed_ or value in allowed_


def demand(store: Store, user: str, act: Act, kind: Kind) -> None:
    """Raises Failure (Forbidden) in the real server's words."""
    if allowed(store, user, act):
        return
    where = f' in the namespace "{act.namespace}"' if act.namespace else " at the cluster scope"
    name = f' "{act.name}"' if act.name else ""
    said = f'{act.resource}{name} is forbidden: User "{user}" cannot {act.verb} resource "{act.resource}" in API group'
    raise Failure("Forbidden", f'{said} "{act.group}"{where}', kind, act.name)
