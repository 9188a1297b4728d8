"""What an operator reads when a setting is wrong."""

import os

import pytest

from services.gateway.errors import EXIT_CONFIG, load_settings


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    for name, value in {"KEY_PEPPER": "p", "LINK_TOKEN": "t", "MODELS": "{}"}.items():
        monkeypatch.setenv(f"HEADRACE_{name}", value)
    return monkeypatch


@pytest.mark.parametrize(
    ("setting", "value", "what"),
    [
        ("redis_url", "redis+sentinel://u:hunter2@a,b", "name of the master"),
        ("redis_url", "redis+cluster://u:hunter2@a/3", "database 0"),
        ("redis_url", "rediss://u:hunter2@a?ssl_ca_certs=/none", "ssl_ca_certs names no file"),
        ("redis_url", "mysql://u:hunter2@a", "begins with one of"),
        ("redis_timeout", "0.01", "greater than or equal to 0.05"),
        ("retentions", '{"acme": -1}', "greater than 0"),
        ("linger", "inf", "less than or equal to 3600"),
    ],
)
def test_a_wrong_store_is_one_line_that_names_the_setting(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, value: str, what: str
) -> None:
    env.setenv(f"HEADRACE_{setting.upper()}", value)
    with pytest.raises(SystemExit) as end:
        load_settings()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == EXIT_CONFIG
    assert f"setting {setting}" in line and f"HEADRACE_{setting.upper()}" in line and what in line
    assert "hunter2" not in line


def test_every_kind_of_store_is_a_setting(env: pytest.MonkeyPatch) -> None:
    for url in ("redis+sentinel://u:p@a:1,b:2/main/1", "redis+cluster://a,b,c", "unix:///run/redis.sock"):
        env.setenv("HEADRACE_REDIS_URL", url)
        assert load_settings().redis_url.get_secret_value() == url
