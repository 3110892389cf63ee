"""The comparison of the settings in effect with those of the file."""

from typing import Any

from config.settings import Settings
from monitor.daemon.reload import plan_reload

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
    assert plan.pending == ("notify.max_age", "streams.a.window.size")
    assert plan.settings.streams == before.streams
    assert plan.settings.notify.max_age == before.notify.max_age
    assert plan.describe() == (
        "Reloaded the configuration; in effect now: notify.channels.x; in effect after a restart: notify.max_age, "
        "streams.a.window.size."
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
