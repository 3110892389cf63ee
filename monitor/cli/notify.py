"""`outrider notify`: the channels, what became of their messages, and a test of one."""

import json
import time
import uuid
from typing import Any

import click

from config.errors import ConfigError, OutriderError
from config.masking import mask_webhook
from config.notify import NotifySettings, WebhookChannel, nearest_channel
from config.units import format_time
from monitor.cli.nouns import Noun
from monitor.cli.settings import settings_of
from monitor.cli.stored import database_of
from monitor.cli.tables import format_of, format_option, write
from storage.outbox import ChannelCounts, Message, Outbox

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


@click.group(name="notify", cls=Noun)
def command() -> None:
    """List the channels, or try one."""


@command.command(name="list")
@format_option
@click.pass_context
def list_channels(ctx: click.Context, form: str | None) -> None:
    """List the channels, and how many messages are pending, delivered, dead (given up) or skipped (too old)."""
    settings = settings_of(ctx)
    with database_of(settings) as db:
        counts = Outbox(db).counts()
    names = dict.fromkeys(["log", *settings.notify.channels, *counts])
    rows = [_row(name, settings.notify, counts.get(name, ChannelCounts())) for name in names]
    write(rows, _COLUMNS, format_of(form))


@command.command(name="test")
@click.argument("channel")
@click.pass_context
def test(ctx: click.Context, channel: str) -> None:
    """Send a marked test message on CHANNEL, by the way that incidents go; nothing is stored."""
    settings = settings_of(ctx)
    if channel != "log" and channel not in settings.notify.channels:
        raise ConfigError(f"there is no channel {channel!r}; {nearest_channel(channel, settings.notify.channels)}")
    from monitor.cli.logs import set_up_logging
    from monitor.notify.couriers import channels_of

    set_up_logging(debug=ctx.obj["debug"])
    begin_s = time.monotonic()
    answer = channels_of(settings.notify)[channel].send(_message(channel))
    took_ms = (time.monotonic() - begin_s) * 1e3
    target = _target(settings.notify, channel)
    if answer.outcome != "delivered":
        what = "would be tried again" if answer.outcome == "retry" else "would be given up at once"
        raise OutriderError(f"channel {channel} ({target}) did not take the message: {answer.reason}; it {what}")
    click.echo(f"{channel} ({target}): {answer.reason} in {took_ms:.0f} ms")


@command.command(name="schema")
def schema() -> None:
    """Print the JSON Schema of what a webhook receives."""
    from monitor.notify.payload import payload_schema

    click.echo(json.dumps(payload_schema(), indent=2))


def _row(name: str, settings: NotifySettings, counts: ChannelCounts) -> dict[str, Any]:
    return {
        "channel": name,
        "type": _type(settings, name),
        "target": _target(settings, name),
        "pending": counts.pending,
        "delivered": counts.delivered,
        "dead": counts.dead,
        "skipped": counts.skipped,
        "oldest_pending": _time(counts.oldest_pending_us),
        "last_delivered": _time(counts.last_delivered_us),
        "last_error": counts.last_error,
    }


def _type(settings: NotifySettings, name: str) -> str:
    if name == "log":
        return "log"
    return settings.channels[name].type if name in settings.channels else "not configured"


def _target(settings: NotifySettings, name: str) -> str:
    channel = settings.channels.get(name)
    return mask_webhook(channel.url) if isinstance(channel, WebhookChannel) else "the log"


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else format_time(time_us)


def _message(channel: str) -> Message:
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
        transition="opened",
        window_start_us=now_us,
        at_us=now_us,
        summary=f"this is a test of the channel {channel} by `outrider notify test`; there is no incident",
        details={},
        test=True,
    )
