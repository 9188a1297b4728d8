"""A route's Gateway speaks TLS to gateways that do, and trusts a name that their certificate has."""

import pytest

from tests.chart.cases import CASES
from tests.chart.helm import Question
from tests.chart.manifests import manifests

FROM_SECRET = 'gateway.tls={"enabled": true, "existingSecret": "public", "caKey": ""}'


def test_the_gateway_asks_for_a_name_that_the_certificate_has() -> None:
    found = manifests(Question(CASES["everything"]))
    policy, certificate = found.of("BackendTLSPolicy")[0], found.of("Certificate")[0]
    assert policy["spec"]["validation"]["hostname"] in certificate["spec"]["dnsNames"]


@pytest.mark.parametrize("case", ["grpc-route", "http-route"])
def test_a_public_certificate_is_trusted_as_the_system_does(case: str) -> None:
    name = 'gateway.tls.backend.hostname="inference.example.com"'
    (policy,) = manifests(Question(CASES[case], (FROM_SECRET, name))).of("BackendTLSPolicy")
    assert policy["spec"]["validation"] == {
        "hostname": "inference.example.com",
        "wellKnownCACertificates": "System",
    }


@pytest.mark.parametrize("case", ["grpc-route", "http-route", "mtls"])
def test_there_is_none_without_tls_or_without_a_route(case: str) -> None:
    assert not manifests(Question(CASES[case])).of("BackendTLSPolicy")
