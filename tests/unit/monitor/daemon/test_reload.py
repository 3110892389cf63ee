"""The comparison of the settings in effect with those of the file."""

from datetime import timedelta
from typing import Any

from config.settings import Settings
from monitor.daemon.reload import ReloadPlan, plan_reload

SECRET = "hunter2-hunter2"


def settings(*, notify: dict[str, Any] | None = None, **stream: Any) -> Settings:
    source = {"type": "synthetic"}
    return Settings.model_validate({"streams": {"a": {"source": source, **stream}}, "notify": notify or {}})


def webhook(url: str) -> dict[str, Any]:
    return {"type": "webhook", "url": url, "secret": SECRET}


def test_equal_settings_change_nothing() -> None:
    plan = plan_reload(settings(), settings())
    assert (plan.applied, plan.pending) == ((), ())
    assert plan.describe() == "Reloaded the configuration; no setting has changed."


def test_channels_routes_and_deadline_take_effect() -> None:
    before = settings(notify={"channels": {"old": {"type": "log"}, "ops": webhook("http://a/1")}})
    routes = [{"match": {"kind": ["spike"]}, "channels": ["ops"]}]
    notify = {"channels": {"ops": webhook("http://b/1"), "new": {"type": "log"}}, "routes": routes, "deadline": "1h"}
    plan = plan_reload(before, settings(notify=notify))
    channels = ("notify.channels.new", "notify.channels.old", "notify.channels.ops")
    assert plan.applied == (*channels, "notify.deadline", "notify.routes")
    assert plan.pending == ()
    assert list(plan.settings.notify.channels) == ["ops", "new"]
    assert plan.settings.notify.channels_for(stream="a", kind="spike", severity="warning") == ("ops",)


def test_other_settings_are_named_and_keep_their_effective_values() -> None:
    before = settings(window={"size": "1m"})
    written = settings(window={"size": "2m"}, notify={"max_age": "2h", "channels": {"x": {"type": "log"}}})
    plan = plan_reload(before, written)
    assert plan.applied == ("notify.channels.x",)
    assert plan.scheduled == ("streams.a.window.size",)
    assert plan.pending == ("notify.max_age",)
    assert plan.settings.streams == written.streams, "the shared settings are proposed"
    assert plan.settings.notify.max_age == before.notify.max_age
    assert plan.describe() == (
        "Reloaded the configuration; in effect now: notify.channels.x; proposed to the schedule of the stream's "
        "settings: streams.a.window.size; in effect after a restart: notify.max_age."
    )
    assert plan_reload(plan.settings, written).pending == plan.pending, "they are named again until the restart"


def test_changed_secret_takes_effect_and_is_not_shown() -> None:
    before = settings(notify={"channels": {"ops": webhook("http://a/1")}})
    changed = {"channels": {"ops": webhook("http://a/1") | {"secret": f"{SECRET}-2"}}}
    plan = plan_reload(before, settings(notify=changed))
    assert plan.applied == ("notify.channels.ops",)
    assert SECRET not in plan.describe()


def test_added_and_removed_streams_need_a_restart() -> None:
    other = Settings.model_validate({"streams": {"b": {"source": {"type": "synthetic"}}}})
    assert plan_reload(settings(), other).pending == ("streams.a", "streams.b")


def changed(**sections: Any) -> ReloadPlan:
    before = settings().model_dump(mode="json")
    return plan_reload(Settings.model_validate(before), Settings.model_validate(before | sections))


def test_log_and_retention_take_effect() -> None:
    plan = changed(logging={"level": "warning"}, retention={"scores": "3d"})
    assert (plan.applied, plan.scheduled, plan.pending) == (("logging.level", "retention.scores"), (), ())
    assert plan.settings.logging.level == "warning"
    assert plan.settings.retention.scores == timedelta(days=3)
    assert plan.changes("logging")
    assert not plan.changes("notify")


def test_retention_waits_while_a_look_back_needs_the_windows() -> None:
    stream = {"source": {"type": "synthetic"}, "threshold": {"look_back": "2h"}}
    plan = changed(streams={"a": stream}, retention={"windows": "3h"})
    assert (plan.applied, plan.scheduled, plan.pending) == (
        (),
        ("streams.a.threshold.look_back",),
        ("retention.windows",),
    )
    assert plan.describe().startswith("Reloaded the configuration; no change takes effect now; proposed to ")


def test_each_waiting_key_is_named_by_what_it_waits_for() -> None:
    source = {"type": "synthetic", "seed": 2}
    stream = {
        "source": source,
        "timezone": "Europe/Berlin",
        "event": {"time": {"field": "ts"}},
        "model": {"warm_up": 20},
    }
    plan = changed(streams={"a": stream, "b": {"source": source}}, device="cpu", kafka={"bootstrap_servers": ["x:1"]})
    assert plan.scheduled == ("streams.a.event.time", "streams.a.model.warm_up", "streams.a.timezone")
    assert plan.pending == ("device", "kafka.bootstrap_servers", "streams.a.source.seed", "streams.b")
    assert plan.applied == ()
