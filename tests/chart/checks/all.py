from tests.chart.checks import Check, flows, grace, kuberay, references, security, selectors, serving

CHECKS: dict[str, Check] = {
    check.__name__: check
    for room in (selectors, security, references, grace, serving, kuberay, flows)
    for check in room.CHECKS
}
