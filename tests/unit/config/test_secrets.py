"""Secret files, and masking of secrets."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from config.masking import Secret, mask_url, mask_webhook
from config.settings import Settings, WebhookChannelSettings

from .conftest import ONE_STREAM

PASSWORD = "hunter2"
Load = Callable[..., Settings]
Problem = Callable[..., str]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n", encoding="utf-8")
    return path


@pytest.fixture
def address(tmp_path: Path) -> Path:
    path = tmp_path / "address"
    path.write_text(f"postgresql://ann:{PASSWORD}@db/outrider\n", encoding="utf-8")
    return path


def test_database_address_is_read_from_a_file(load_text: Load, address: Path) -> None:
    settings = load_text(f"database: {{url_file: {address}}}\n" + ONE_STREAM)
    assert settings.database.url == f"postgresql://ann:{PASSWORD}@db/outrider"


def test_secret_file_can_be_set_by_a_variable(load_text: Load, address: Path) -> None:
    settings = load_text(ONE_STREAM, {"OUTRIDER_DATABASE__URL_FILE": str(address)})
    assert settings.database.url == f"postgresql://ann:{PASSWORD}@db/outrider"


@pytest.mark.parametrize("option", ["sasl_plain_password", "ssl_password", "some_future_option"])
def test_any_client_option_is_read_from_a_file(load_text: Load, secret: Path, option: str) -> None:
    settings = load_text(f"kafka: {{client: {{{option}_file: {secret}}}}}\n" + ONE_STREAM)
    assert settings.kafka.client == {option: PASSWORD}


def test_webhook_url_secret_and_headers_are_read_from_files(load_text: Load, secret: Path) -> None:
    (secret.parent / "url").write_text(f"https://hooks.example.org/{PASSWORD}\n", encoding="utf-8")
    text = f"url_file: url, secret_file: {secret}, headers: {{Authorization_file: {secret}, X-Team: ops}}"
    settings = load_text(f"notify: {{channels: {{ops: {{type: webhook, {text}}}}}}}\n" + ONE_STREAM)
    channel = settings.notify.channels["ops"]
    assert isinstance(channel, WebhookChannelSettings)
    assert (channel.url, channel.secret) == (f"https://hooks.example.org/{PASSWORD}", PASSWORD)
    assert channel.headers == {"Authorization": PASSWORD, "X-Team": "ops"}
    assert settings.masked()["notify"]["channels"]["ops"] == {
        "type": "webhook",
        "url": "https://hooks.example.org/***",
        "url_file": "url",
        "secret": "***",
        "secret_file": str(secret),
        "headers": {"Authorization": "***", "X-Team": "***"},
        "timeout": "10s",
        "concurrency": 4,
    }
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize("option", ["ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"])
def test_files_read_by_the_client_stay_paths(load_text: Load, option: str) -> None:
    settings = load_text(f"kafka: {{client: {{{option}: /certs/x.pem}}}}\n" + ONE_STREAM)
    assert settings.kafka.client[option] == "/certs/x.pem"
    assert settings.masked()["kafka"]["client"][option] == "/certs/x.pem"


def test_secret_with_both_keys_in_one_place_is_an_error(problem_of: Problem, address: Path) -> None:
    line = problem_of(f"database: {{url: 'sqlite:///a.db', url_file: {address}}}\n" + ONE_STREAM)
    assert line.endswith("database.url_file: is given together with url; leave one of them out")


def test_plain_variable_overrides_a_secret_file_of_the_configuration(load_text: Load, address: Path) -> None:
    settings = load_text(
        f"database: {{url_file: {address}}}\n" + ONE_STREAM, {"OUTRIDER_DATABASE__URL": "sqlite:///env.db"}
    )
    assert settings.database.url == "sqlite:///env.db"


def test_secret_file_of_a_variable_overrides_a_plain_configuration(load_text: Load, secret: Path) -> None:
    settings = load_text(
        "kafka: {client: {sasl_plain_password: old}}\n" + ONE_STREAM,
        {"OUTRIDER_KAFKA__CLIENT__SASL_PLAIN_PASSWORD_FILE": str(secret)},
    )
    assert settings.kafka.client["sasl_plain_password"] == PASSWORD


def test_missing_secret_file_is_an_error_that_names_the_key(problem_of: Problem) -> None:
    line = problem_of("database: {url_file: /nowhere/url}\n" + ONE_STREAM)
    assert line.startswith("outrider.yaml:1: database.url_file: /nowhere/url cannot be read: No such file")


def test_empty_secret_file_is_an_error(problem_of: Problem, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert "empty is empty; write the secret into it" in problem_of("database: {url_file: empty}\n" + ONE_STREAM)


def test_secret_file_that_is_not_text_is_an_error(problem_of: Problem, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    assert "is not UTF-8 text" in problem_of("database: {url_file: raw}\n" + ONE_STREAM)


def test_secret_file_key_that_is_not_a_path_is_an_error(problem_of: Problem) -> None:
    assert "must be the path of a file" in problem_of("kafka: {client: {ssl_password_file: 7}}\n" + ONE_STREAM)


def test_masked_settings_contain_no_secrets(load_text: Load, secret: Path) -> None:
    text = (
        f"database: {{url: 'postgresql://ann:{PASSWORD}@db/o?sslpassword={PASSWORD}&x=1'}}\n"
        f"kafka: {{client: {{sasl_plain_password: {PASSWORD}, sasl_plain_username_file: {secret},\n"
        f"  proxy_url: 'http://p:{PASSWORD}@proxy:3128', client_id: mine}}}}\n" + ONE_STREAM
    )
    settings = load_text(text)
    shown = settings.masked()
    assert shown["database"]["url"] == "postgresql://ann:***@db/o?sslpassword=***&x=1"
    assert shown["kafka"]["client"]["client_id"] == "mine"
    assert PASSWORD not in json.dumps(shown)
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize(
    "text",
    [
        f"database: {{url: 'postgrs://u:{PASSWORD}@h/db'}}",
        f"database: {{url: 'postgresql://u:{PASSWORD}@h'}}",
        f"database: {{url: 'u:{PASSWORD}@h'}}",
        f"database: {{urll: 'postgresql://u:{PASSWORD}@h/db'}}",
        f"kafka: {{client: {{sasl_plain_pasword: {PASSWORD}}}}}",
        f"kafka: {{client: {{sasl_plain_password: {PASSWORD}, group_id: x}}}}",
        f"notify: {{channels: {{ops: {{type: webhook, url: '{PASSWORD}'}}}}}}",
        f"notify: {{channels: {{ops: {{type: webhook, url: 'https://h:x/{PASSWORD}'}}}}}}",
        f"notify: {{channels: {{ops: {{type: webhook, url: 'https://h/x', secret: [{PASSWORD}]}}}}}}",
        f"notify: {{channels: {{ops: {{type: webhook, url: 'https://h/x', headers: {{A: \"{PASSWORD}\\n\"}}}}}}}}",
    ],
)
def test_error_does_not_contain_a_secret(problems_of: Callable[..., tuple[str, ...]], text: str) -> None:
    lines = problems_of(text + "\n" + ONE_STREAM)
    assert lines
    assert PASSWORD not in "".join(lines)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("sqlite:///outrider.db", "sqlite:///outrider.db"),
        ("postgresql://ann@db:5432/o", "postgresql://ann@db:5432/o"),
        ("postgresql://ann:pw@db/o", "postgresql://ann:***@db/o"),
        ("postgresql://ann:p@w/d#?x@db/o", "postgresql://ann:***@db/o"),
        ("postgresql:///o?user=ann&password=pw", "postgresql:///o?user=ann&password=***"),
        ("no address:pw@db", "***"),
    ],
)
def test_password_in_a_url_is_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_webhook_url_is_masked_except_for_the_host() -> None:
    assert mask_webhook("https://u:pw@hooks.example.org/services/T0/key?a=b") == "https://hooks.example.org/***"
    assert mask_webhook("nothing") == "***"


def test_secret_is_a_text_with_a_masked_representation() -> None:
    held = Secret(PASSWORD)
    assert held == PASSWORD
    assert PASSWORD not in repr({"password": held})
