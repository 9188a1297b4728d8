"""What `headrace cluster bundle` takes out of text, and what it leaves in."""

import base64
import gzip
import json
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.cli.cluster.known import COMMON, known_in
from services.cli.cluster.mask import Mask, secret
from services.cli.cluster.shapes import MASK, secret_name

KEY = "hr_live_abcdefgh_" + "A" * 43 + "_abcdef"
NONE = Mask()


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:s3cret-word@host:6379/0",
        "redis://user:s3cret/word@s3cret-word@host:6379/0",
        "redis+sentinel://:s3cret-word@a,b/main",
        "redis+sentinel://:s3cret-word@a,[::1]:26379/main",
        "https://s3cret-word-of-somebody@host/x",
        "Authorization: Bearer s3cret-word-of-somebody",
        "Authorization: Token s3cret-word",
        "HEADRACE_LINK_TOKEN=s3cret-word",
        "DB_PASS=s3cret-word",
        "dbPass: s3cret-word",
        "db_pwd: s3cret-word",
        "encryption_key: s3cret-word",
        "signing-key = s3cret-word",
        "REDISCLI_AUTH=s3cret-word",
        '"password": "s3cret-word"',
        '{"password":"a, b \\" s3cret-word"}',
        r'{"msg": "{\"password\":\"s3cret-word\"}"}',
        r'{"msg": "{\"password\":\"a b, s3cret-word\"}"}',
        r'"{\"a\": \"{\\\"password\\\":\\\"s3cret-word\\\"}\"}"',
        "{'password': 's3cret-word'}",
        "password=b's3cret-word'",
        "password=some,s3cret-word",
        'password=some"s3cret-word',
        "password: some long s3cret-word",
        "2026-01-02T03:04:05.6Z password: some long s3cret-word",
        "level=info password: some long s3cret-word",
        "redis_password = 's3cret-word'",
        'redis_password = """\ns3cret-word"""',
        "passwords = ['s3cret-word']",
        "--api-key=s3cret-word",
        "--redis-password s3cret-word",
        '["--requirepass", "s3cret-word"]',
        "args:\n  - --requirepass\n  - s3cret-word",
        "redisPassword: {value: s3cret-word}",
        "redisPassword:\n  value: s3cret-word",
        '{"redisPassword": {"value": "s3cret-word"}}',
        '{"name": "DB_PASS", "value": "s3cret-word"}',
        "- name: DB_PASS\n  value: s3cret-word",
        "password: |\n  a line\n\n  s3cret-word\nother: x",
        "  password: >-\n    s3cret-word\n    s3cret-word",
        "requirepass s3cret-word",
        "user default on >s3cret-word ~* &* +@all",
        "redis-cli -h host -a s3cret-word ping",
        "connecting with password s3cret-word@1",
        '{"auths": {"registry.example": {"auth":"s3cret-word"}}}',
        "-----BEGIN EC PRIVATE KEY-----\ns3cret-word\n-----END EC PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\ns3cret-word\n-----END PGP PRIVATE KEY BLOCK-----",
        "-----BEGIN PRIVATE KEY-----\ns3cret-word and no end",
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    found = NONE.text(text)
    assert "s3cret" not in found and MASK in found


@pytest.mark.parametrize(
    "token",
    [
        KEY,
        "hf_" + "a" * 34,
        "AKIAABCDEFGHIJKLMNOP",
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln",
        "github_pat_" + "a" * 40,
        "gho_" + "a" * 36,
        base64.b64encode(b"-----BEGIN PRIVATE KEY-----\nabc\n-----END").decode(),
    ],
)
def test_tokens_of_known_shapes_are_masked(token: str) -> None:
    assert NONE.text(f"key {token} used") == f"key {MASK} used"


@pytest.mark.parametrize(
    "text",
    [
        'headrace_completion_tokens_total{model="m"} 7',
        "max_tokens=512 completion_tokens: 12",
        "tokenizer: /models/m/tokenizer.json",
        "secretName: headrace-tls",
        "      secret:\n        secretName: headrace-tls\n        defaultMode: 420",
        'MountVolume.SetUp failed for volume "tls" : secret "headrace-tls-2" not found',
        "prompt_tokens 12, turn 3 completed in 2.1 s",
        "password authentication failed for user bob",
        "http://10.0.0.1:8000/-/healthz",
        "docker-pullable://registry.example:5000/engine@sha256:0a1b",
        "registry.example:5000/headrace/engine:1.2.3",
        "image: registry.example/engine:1\nlimits: {cpu: 500m, memory: 2Gi, nvidia.com/gpu: 2}",
        "passwordFile=/run/secrets/a",
        "redis_password: null",
        'redis_password = ""',
        "--requirepass $(REDIS_PASSWORD) --port 6379",
        "PWD=/home/ray",
        "tokenExpirationSeconds: 3600",
        "passed 12, bypass: no, compass: 1",
        "password: ********",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert NONE.text(text) == text


def test_a_mask_takes_no_more_of_a_line_of_json_than_the_value() -> None:
    line = '{"msg":"call with token=s3cret-word","model":"m","password":"s3cret-word","turn":7}'
    shown = {"msg": f"call with token={MASK}", "model": "m", "password": MASK, "turn": 7}
    assert json.loads(NONE.text(line)) == shown


@given(st.text(string.ascii_letters + string.digits + "-_@:/+%&\"' ", min_size=6, max_size=80).map(str.strip))
def test_a_known_value_is_in_no_text_in_any_spelling(value: str) -> None:
    assume(len(value) >= 6 and value.lower() not in COMMON)
    encoded = base64.b64encode(value.encode()).decode()
    mask = Mask(known_in([{"data": {"a": encoded}}]))
    for text in (f"x {value} y", json.dumps({"q": value}), f"q={encoded}"):
        found = mask.text(text)
        assert value not in found.replace(MASK, "") and encoded.rstrip("=") not in found


def test_a_password_within_an_address_is_known_by_itself() -> None:
    address = base64.b64encode(b"redis://u:pa%2Fss-word@host/0").decode()
    mask = Mask(known_in([{"data": {"url": address}}]))
    assert mask.text("login failed with pa/ss-word or pa%2Fss-word") == f"login failed with {MASK} or {MASK}"


DOCKER = {
    "auths": {
        "registry.example": {"username": "robot", "password": "dockerpass", "auth": "cm9ib3Q6aHVudGVyMg=="}
    }
}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (".dockerconfigjson", json.dumps(DOCKER), ("dockerpass", "cm9ib3Q6aHVudGVyMg==", "hunter2")),
        (
            "users.acl",
            "user default on >aclpass ~* &* +@all\nuser b on #0123456789abcdef",
            ("aclpass", "0123456789abcdef"),
        ),
        (
            "config.yaml",
            "tenants:\n  - name: a\n    key: tenantkey\n  - {password: abcd}",
            ("tenantkey", "abcd"),
        ),
        ("netrc", "machine host.example login bob password correcthorse", ("correcthorse",)),
        (".pgpass", "host:5432:db:bob:correcthorse", ("correcthorse",)),
        ("htpasswd", "bob:$apr1$abcdefgh$ijklmnop", ("$apr1$abcdefgh$ijklmnop",)),
        ("tokens.txt", "first-token-1\nsecond-token-2 bob", ("first-token-1", "second-token-2")),
        ("redis.conf", "port 6379\nrequirepass correcthorse\n", ("correcthorse",)),
        ("password", "abc", ("abc",)),
        ("empty", "", ()),
    ],
)
def test_secrets_within_a_structured_secret_are_known_by_themselves(
    name: str, value: str, said: tuple[str, ...]
) -> None:
    data = {name: base64.b64encode(value.encode()).decode()}
    mask = Mask(known_in([{"data": data}]))
    for each in said:
        assert mask.text(f"x {each} y") == f"x {MASK} y"
    words = "default gateway warning port user abcdefg engine 6379"
    assert mask.text(words) == words


def test_a_binary_value_is_known_as_it_is_encoded() -> None:
    encoded = base64.b64encode(bytes(range(128, 160))).decode()
    assert encoded not in Mask(known_in([{"data": {"key": encoded}}])).text(f"x {encoded} y")


def test_a_public_name_that_a_secret_repeats_stays_readable_unless_it_is_the_secret() -> None:
    data = {"user": base64.b64encode(b"gpt-oss-120b").decode()}
    text = "model gpt-oss-120b is ready"
    assert Mask(known_in([{"data": data}], frozenset({"gpt-oss-120b"}))).text(text) == text
    data = {"password": base64.b64encode(b"gpt-oss-120b").decode()}
    assert "gpt" not in Mask(known_in([{"data": data}], frozenset({"gpt-oss-120b"}))).text(text)


@pytest.mark.parametrize(("name", "stays"), [("username", True), ("a", False), ("password", False)])
def test_a_common_word_is_sought_unless_it_is_plainly_no_secret(name: str, stays: bool) -> None:
    mask = Mask(known_in([{"data": {name: base64.b64encode(b"default").decode()}}]))
    assert (mask.text("by default") == "by default") is stays


def test_helm_s_record_gives_away_what_it_holds_to_the_mask() -> None:
    """Values of the command line, and Secrets as they once were."""
    old = base64.b64encode(b"once-a-token").decode()
    manifest = f"kind: Service\n---\nkind: Secret\ndata:\n  link-token: {old}\n"
    record = {"config": {"redis": {"password": "given-by-hand"}, "replicas": 2}, "manifest": manifest}
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(record).encode()))).decode()
    mask = Mask(known_in([{"type": "helm.sh/release.v1", "data": {"release": packed}}]))
    assert mask.text("given-by-hand, once-a-token, 2") == f"{MASK}, {MASK}, 2"
    assert list(known_in([{"type": "helm.sh/release.v1", "data": {"release": "bm90IG9uZQ=="}}])) == []


def test_a_secret_shows_names_and_sizes() -> None:
    """Also where the item does not say that it is one, as in a list of the API server."""
    item = {"metadata": {"name": "a", "annotations": {"x": "value"}}, "data": {"k": "YWJj"}}
    shown = json.dumps(secret(item))
    assert "(3 bytes)" in shown and "YWJj" not in shown and "annotations" not in shown


def test_environments_are_masked_by_name_and_references_stay() -> None:
    env = [
        {"name": "MY_TOKEN", "value": "abc"},
        {"name": "LEVEL", "value": "info"},
        {"name": "KEY_PEPPER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pepper"}}},
    ]
    shown = NONE.item({"kind": "Pod", "spec": {"env": env}})["spec"]["env"]
    assert shown == [{"name": "MY_TOKEN", "value": MASK}, env[1], env[2]]


def test_objects_are_masked_by_their_names_and_stay_readable() -> None:
    args = ["valkey-server", "--requirepass", "s3cret", "--masterauth", "$(AUTH)", "--port", "6379"]
    inner = {"a": {"password": "s3cret"}, "image": "engine:1"}
    template = {"name": "redisPassword", "value": "s3cret"}
    secret_volume = {
        "name": "v",
        "secret": {"secretName": "headrace-tls", "items": [{"key": "a", "path": "b"}]},
    }
    limits = {"cpu": "500m", "memory": "2Gi", "nvidia.com/gpu": 2}
    item = {
        "metadata": {"name": "headrace", "annotations": {"example.com/x": json.dumps(inner)}},
        "spec": {
            "args": args,
            "command": ["redis-cli", "-a", "s3cret", "ping"],
            "shell": ["sh", "-c", "exec valkey-server --redis-password s3cret --port 6379"],
            "template": template,
            "gcs": {"redisPassword": {"value": "s3cret"}, "redisAddress": "valkey:6379"},
            "later": {"redisPassword": {"valueFrom": {"secretKeyRef": {"name": "s", "key": "pepper"}}}},
            "passwords": {"alice": "s3cret", "bob": 12345678},
            "password": 12345678,
            "volumes": [secret_volume],
            "resources": {"limits": limits},
            "binaryData": {"x": "czNjcmV0"},
        },
    }
    shown = NONE.item(item)
    spec = shown["spec"]
    assert "s3cret" not in json.dumps(shown) and "12345678" not in json.dumps(spec["password"])
    assert spec["args"] == [args[0], args[1], MASK, *args[3:]]
    assert spec["command"] == ["redis-cli", "-a", MASK, "ping"] and spec["shell"][2].endswith("--port 6379")
    assert spec["gcs"] == {"redisPassword": {"value": MASK}, "redisAddress": "valkey:6379"}
    assert json.loads(shown["metadata"]["annotations"]["example.com/x"])["image"] == "engine:1"
    unchanged = item["spec"]
    assert all(spec[each] == unchanged[each] for each in ("later", "volumes", "resources"))  # type: ignore[index]
    assert "czNjcmV0" not in json.dumps(spec)


def test_names_of_secrets_are_told_from_names_of_counts_and_places() -> None:
    secrets = (
        "DB_PASS",
        "pwd",
        "encryption_key",
        "signing-key",
        "example.com/token",
        "HEADRACE_LINK_TOKEN",
        "password",
        "redisPassword",
        "apiKey",
        "master-key",
        "client_secret",
    )
    other = (
        "max_tokens",
        "tokens_total",
        "secretName",
        "tokenizer",
        "passwordFile",
        "bypass",
        "PWD",
        "passed",
        "model",
        "keys",
    )
    assert all(map(secret_name, secrets)) and not any(map(secret_name, other))


@pytest.mark.parametrize(
    "word",
    [
        "token",
        "token=",
        "pass:'",
        "eyJ-",
        "a://",
        "a://b:",
        "bearer ",
        "-",
        "--token ",
        "x",
        "\\",
        "-----BEGIN PRIVATE KEY-----",
        "password: |\n ",
        "name: token\n",
        "LS0tLS1CRUdJTi",
        "user a >",
        "redis-cli -",
        "token:{ ",
    ],
)
@pytest.mark.timeout(10)
def test_a_text_that_is_one_long_word_is_masked_in_a_time_that_grows_with_its_length(word: str) -> None:
    assert NONE.text(word * (200_000 // len(word))) is not None
