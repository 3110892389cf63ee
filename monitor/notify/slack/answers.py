"""The interpretation of Slack's answers. Pure.

The Web API answers 200 with `ok` and an error as a word; an incoming webhook answers a status and a word as text.
"""

import json
from typing import Any

from monitor.notify.delivery import FailureReason
from monitor.notify.http_post import HttpResponse

_AUTH_ERRORS = frozenset(
    {
        "access_denied",
        "account_inactive",
        "ekm_access_denied",
        "enterprise_is_restricted",
        "invalid_auth",
        "missing_scope",
        "no_permission",
        "not_allowed_token_type",
        "not_authed",
        "org_login_required",
        "team_access_not_granted",
        "token_expired",
        "token_revoked",
        "two_factor_setup_required",
    }
)
_CLIENT_ERRORS = frozenset(
    {
        "as_user_not_supported",
        "channel_not_found",
        "invalid_arg_name",
        "invalid_arguments",
        "invalid_array_arg",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_charset",
        "invalid_form_data",
        "invalid_json",
        "invalid_post_type",
        "is_archived",
        "is_inactive",
        "markdown_text_conflict",
        "message_limit_exceeded",
        "messages_tab_disabled",
        "metadata_too_large",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_text",
        "not_in_channel",
        "restricted_action",
        "restricted_action_non_threadable_channel",
        "restricted_action_read_only_channel",
        "restricted_action_thread_locked",
        "restricted_action_thread_only_channel",
        "team_not_found",
        "too_many_attachments",
        "user_is_restricted",
    }
)
GONE_ERRORS = frozenset(
    {"cant_update_message", "edit_window_closed", "message_not_found", "thread_not_found", "block_mismatch"}
)
"""Errors after which the message of an incident is posted anew, because the old one cannot be changed any more."""


def read_error(response: HttpResponse) -> str | None:
    """Return the error of an answer of the Web API as Slack's word, or None for `ok`."""
    content = read_content(response)
    if content.get("ok") is True:
        return None
    error = content.get("error")
    return error if isinstance(error, str) and error.isascii() and error.isprintable() else "unreadable_answer"


def read_content(response: HttpResponse) -> dict[str, Any]:
    """Return the JSON object of an answer; empty if it is none."""
    try:
        content = json.loads(response.body_excerpt)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def classify_error(error: str) -> tuple[FailureReason, bool]:
    """Return the reason of an error of the Web API, and whether only a person can correct it.

    An error that is not known is retried: Slack has posted nothing, so that a repetition is harmless.
    """
    if error in _AUTH_ERRORS:
        return FailureReason.AUTH, True
    if error in _CLIENT_ERRORS:
        return FailureReason.CLIENT_ERROR, True
    return FailureReason.SERVER_ERROR, False
