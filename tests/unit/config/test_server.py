"""The settings of the server refuse an address that others reach without a token."""

from collections.abc import Callable
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.loading import load
from config.server import fill_trace_url
from config.settings import Settings

Load = Callable[..., Settings]
Problem = Callable[..., str]
STREAM = "streams: {s: {source: {type: file, path: e.csv}}}\n"


@pytest.fixture
def server(load_text: Load) -> Load:
    return lambda text: load_text(f"{STREAM}server: {text}\n")


def test_without_a_section_there_is_no_server_in_the_daemon(load_text: Load) -> None:
    assert load_text(STREAM).server is None


def test_an_empty_section_listens_on_loopback(server: Load) -> None:
    settings = server("{}").server
    assert settings is not None
    assert settings.listen == "127.0.0.1:8080"


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "10.0.0.7:80", "[::]:8080", "outrider.example:80"])
def test_an_address_that_others_reach_needs_tokens(server: Load, problem_of: Problem, address: str) -> None:
    assert "needs server.tokens" in problem_of(f"{STREAM}server: {{listen: '{address}'}}\n")
    assert server(f"{{listen: '{address}', tokens: [{{name: ops, token: secret}}]}}").server is not None


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.9.1:1", "[::1]:8080", "localhost:8080"])
def test_loopback_needs_no_tokens(server: Load, address: str) -> None:
    assert server(f"{{listen: '{address}'}}").server is not None


def test_a_proxy_before_loopback_needs_tokens(server: Load, problem_of: Problem) -> None:
    assert "needs server.tokens" in problem_of(f"{STREAM}server: {{url: https://outrider.example}}\n")
    assert server("{url: http://localhost:9000}").server is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{url: ftp://localhost}", "must be an address"),
        ("{url: https://localhost/outrider}", "has a path"),
        ("{hosts: ['a b']}", "is not a host name"),
        ("{tokens: [{name: a}]}", "a token needs token or token_file"),
        ("{tokens: [{name: a b, token: x}]}", "must consist of letters"),
        ("{tokens: [{name: a, token: 'x y'}]}", "printable ASCII without spaces"),
        ("{tokens: [{name: a, token: x}, {name: a, token: y}]}", "is given twice"),
        ("{tokens: [{name: a, token: x}, {name: b, token: x}]}", "the same token"),
        ("{tokens: [{name: a, token: x, scopes: [write]}]}", "scopes"),
        ("{auth_proxy: {header: X-User, trusted_proxies: [here]}}", "is not an address or network"),
        ("{auth_proxy: {header: 'a:b', trusted_proxies: [127.0.0.1]}}", "is not the name of a header"),
    ],
)
def test_problems_are_named(problem_of: Problem, text: str, problem: str) -> None:
    assert problem in problem_of(f"{STREAM}server: {text}\n")


def test_tokens_and_the_secret_of_links_come_from_files_and_are_masked(server: Load, tmp_path: Path) -> None:
    (tmp_path / "ops").write_text("s3cret-token\n")
    (tmp_path / "links").write_text("link-secret-of-32-characters-or-more\n")
    tokens = f"[{{name: ops, token_file: {tmp_path}/ops, scopes: [read, act]}}]"
    settings = server(f"{{tokens: {tokens}, link_secret_file: {tmp_path}/links}}")
    assert settings.server is not None
    assert settings.server.tokens[0].token == "s3cret-token"
    assert settings.server.tokens[0].scopes == ("read", "act")
    assert settings.server.link_secret == "link-secret-of-32-characters-or-more"
    shown = str(settings.masked()) + repr(settings)
    assert "s3cret-token" not in shown
    assert "link-secret-of-32-characters-or-more" not in shown


def test_tokens_can_be_set_by_the_environment() -> None:
    env = {
        "OUTRIDER_STREAMS__S__SOURCE": '{"type": "file", "path": "e.csv"}',
        "OUTRIDER_SERVER__TOKENS": '[{"name": "ops", "token": "abc", "scopes": ["read"]}]',
        "OUTRIDER_SERVER__LISTEN": "0.0.0.0:80",
    }
    settings = load(None, env).server
    assert settings is not None
    assert [(each.name, each.token) for each in settings.tokens] == [("ops", "abc")]


def test_a_secret_of_links_has_two_lines_while_it_is_replaced(server: Load, tmp_path: Path) -> None:
    (tmp_path / "links").write_text(f"{'n' * 32}\n{'o' * 32}\n")
    settings = server(f"{{link_secret_file: {tmp_path}/links}}")
    assert settings.server is not None
    assert settings.server.link_secrets == ("n" * 32, "o" * 32)
    for content, message in (("short", "is too short"), ("\n".join(3 * ["x" * 32]), "more than two lines")):
        (tmp_path / "links").write_text(content)
        with pytest.raises(ConfigError, match=message):
            server(f"{{link_secret_file: {tmp_path}/links}}")


@pytest.mark.parametrize(
    "url", ["https://jaeger.example/trace/{trace_id}", "http://grafana:3000/explore?trace={trace_id}&org=1"]
)
def test_a_trace_url_has_the_trace_behind_the_host(server: Load, url: str) -> None:
    settings = server(f"{{trace_url: '{url}'}}").server
    assert settings is not None
    assert settings.trace_url == url
    assert fill_trace_url(url, "ab" * 16) == url.replace("{trace_id}", "ab" * 16)


@pytest.mark.parametrize(
    "url",
    [
        "https://jaeger.example/trace",
        "https://jaeger.example/{trace_id}/{trace_id}",
        "https://jaeger.example/{trace_id}/{other}",
        "https://{trace_id}.example/trace",
        "https://{trace_id}",
        "https:///{trace_id}",
        "https://u:p@jaeger.example/{trace_id}",
        "javascript:alert('{trace_id}')",
        "/trace/{trace_id}",
        "https://jaeger.example/a b/{trace_id}",
    ],
)
def test_a_trace_url_of_another_form_is_refused(problem_of: Problem, url: str) -> None:
    assert "must be an http or https address with {trace_id} once" in problem_of(
        f'{STREAM}server: {{trace_url: "{url}"}}\n'
    )
