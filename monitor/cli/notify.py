"""`outrider notify`: list the channels with their message counts, test one, or print the webhook schema."""

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import click

from config.errors import ConfigError, OutriderError
from config.notify import NotifySettings, suggest_channel
from config.time_format import format_optional_time
from monitor.cli.command_group import DefaultVerbGroup
from monitor.cli.database import open_database
from monitor.cli.output.tables import format_option, write_rows
from monitor.cli.settings import load_settings
from storage.control.outbox import ChannelCounts, Message, Outbox

if TYPE_CHECKING:
    from monitor.notify.channel import Channel

_COLUMNS = (
    "channel",
    "type",
    "target",
    "pending",
    "delivered",
    "dead",
    "skipped",
    "oldest_pending",
    "last_delivered",
    "last_error",
)

_TRANSITIONS = ("opened", "resolved")
"""The samples of a test."""


@click.group(name="notify", cls=DefaultVerbGroup)
def command() -> None:
    """List the notification channels, or test one."""


@command.command(name="list")
@format_option
@click.pass_context
def list_channels(ctx: click.Context, form: str) -> None:
    """List the channels with their numbers of pending, delivered, dead (given up) and skipped (too old) messages."""
    settings = load_settings(ctx)
    with open_database(settings) as db:
        counts = Outbox(db).count_by_channel()
    names = dict.fromkeys(["log", *settings.notify.channels, *counts])
    rows = [_build_row(name, settings.notify, counts.get(name, ChannelCounts())) for name in names]
    write_rows(rows, _COLUMNS, form)


@command.command(name="test")
@click.argument("channel")
@click.pass_context
def test(ctx: click.Context, channel: str) -> None:
    """Send an opened and a resolved sample to CHANNEL, marked as a test, as incidents are sent; nothing is stored."""
    settings = load_settings(ctx)
    if channel != "log" and channel not in settings.notify.channels:
        raise ConfigError(f"there is no channel {channel!r}; {suggest_channel(channel, settings.notify.channels)}")
    from monitor.cli.output.logs import set_up_logging
    from monitor.notify.channel import ClosableChannel
    from monitor.notify.channels import build_channels

    set_up_logging("debug" if ctx.obj["debug"] else "info")
    failed: list[str] = []
    receiver = build_channels(settings, None, lambda _, cause: failed.append(cause))[channel]
    target = _channel_target(settings.notify, channel)
    try:
        for transition in _TRANSITIONS:
            _send_sample(receiver, channel, target, transition)
    finally:
        if isinstance(receiver, ClosableChannel):
            receiver.close()
    if failed:
        raise ConfigError(
            f"notify.channels.{channel}.template: fails ({failed[0]}): the built-in text was sent; see docs/alerts.md"
        )


def _send_sample(receiver: "Channel", channel: str, target: str, transition: str) -> None:
    """Send a sample and print the answer.

    Raises:
        OutriderError: The receiver did not accept it.
    """
    started_s = time.monotonic()
    answer = receiver.send(_build_test_message(channel, transition))
    took_ms = (time.monotonic() - started_s) * 1e3
    if answer.outcome != "delivered":
        consequence = "would be retried" if answer.outcome == "retry" else "would be given up at once"
        raise OutriderError(
            f"channel {channel} ({target}) did not accept the message `{transition}`: {answer.detail}; it {consequence}"
        )
    click.echo(f"{channel} ({target}): {transition}: {answer.detail} in {took_ms:.0f} ms")


@command.command(name="schema")
def schema() -> None:
    """Print the JSON Schema of a webhook's request body."""
    from monitor.notify.payload import payload_schema

    click.echo(json.dumps(payload_schema(), indent=2))


def _build_row(name: str, settings: NotifySettings, counts: ChannelCounts) -> dict[str, Any]:
    return {
        "channel": name,
        "type": _channel_type(settings, name),
        "target": _channel_target(settings, name),
        "pending": counts.pending,
        "delivered": counts.delivered,
        "dead": counts.dead,
        "skipped": counts.skipped,
        "oldest_pending": format_optional_time(counts.oldest_pending_us),
        "last_delivered": format_optional_time(counts.last_delivered_us),
        "last_error": counts.last_error,
    }


def _channel_type(settings: NotifySettings, name: str) -> str:
    if name == "log":
        return "log"
    return settings.channels[name].type if name in settings.channels else "not configured"


def _channel_target(settings: NotifySettings, name: str) -> str:
    channel = settings.channels.get(name)
    return "the log" if channel is None else channel.target


def _build_test_message(channel: str, transition: str) -> Message:
    now_us = time.time_ns() // 1_000
    return Message(
        id=f"test-{uuid.uuid4().hex}",
        channel=channel,
        attempt=1,
        created_at_us=now_us,
        stream="test",
        incident_id=0,
        kind="test",
        severity="warning",
        transition=transition,
        window_start_us=now_us,
        at_us=now_us,
        summary=f"this is a test of the channel {channel} by `outrider notify test`; there is no incident",
        details={},
        sequence=_TRANSITIONS.index(transition),
        opened_at_us=now_us,
        test=True,
    )
