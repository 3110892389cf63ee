/** The live state of the page: events of the server, a heartbeat, and what the page says when it is missed. */

import { clock } from "./times";
import { findPanels, refreshPanel } from "./panels";

export type Connection = "connecting" | "live" | "polling" | "paused" | "stale";

/** Return the connection by the age of the last proof that the server answers. Pure. */
export function judge(ageS: number, beatS: number, paused: boolean, streaming: boolean): Connection {
  if (paused) return "paused";
  if (ageS > 1.5 * beatS) return "stale";
  return streaming ? "live" : "polling";
}

/** Return the words for a connection, with the time of the last proof (seconds since 1970). */
export function describe(connection: Connection, provedAt: number): string {
  const at = clock(provedAt, true);
  switch (connection) {
    case "connecting":
      return "connecting";
    case "live":
      return "live";
    case "polling":
      return "live, by polling";
    case "paused":
      return `paused at ${clock(provedAt)}`;
    case "stale":
      return `no contact since ${at}: states are unknown`;
  }
}

const REFRESH_MS = 2_000;

class Live {
  private provedAt = Date.now() / 1000;
  private pausedAt: number | null = null;
  private streaming = false;
  private source: EventSource | null = null;
  private readonly changed = new Set<string>();
  private refreshing = false;
  private shown: Connection = "connecting";

  constructor(
    private readonly box: HTMLElement,
    private readonly url: string,
    private readonly beatS: number,
  ) {}

  start(): void {
    const button = this.box.querySelector<HTMLButtonElement>("[data-live-pause]");
    if (button !== null) {
      button.hidden = false;
      button.addEventListener("click", () => this.togglePause(button));
    }
    this.connect();
    setInterval(() => this.tick(), 1_000);
    setInterval(() => void this.poll(), this.beatS * 1_000);
    setInterval(() => void this.refreshChanged(), REFRESH_MS);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) void this.poll();
    });
  }

  private connect(): void {
    const source = new EventSource(this.url);
    this.source = source;
    // A heartbeat proves the server, not the database behind it: only an answer that was read there proves the page.
    source.addEventListener("heartbeat", () => (this.streaming = true));
    source.addEventListener("revision", (event: MessageEvent<string>) => {
      this.streaming = true;
      this.prove();
      const message = JSON.parse(event.data) as { stream?: string };
      this.changed.add(message.stream ?? "");
    });
    source.addEventListener("open", () => (this.streaming = true));
    source.addEventListener("error", () => {
      this.streaming = false;
      if (source.readyState === EventSource.CLOSED && this.source === source) {
        this.source = null;
        setTimeout(() => this.connect(), this.beatS * 1_000);
      }
    });
  }

  /** Note that the server has answered from its database. */
  private prove(): void {
    const wasStale = this.shown === "stale";
    this.provedAt = Date.now() / 1000;
    if (wasStale) this.changed.add("");
    this.tick();
  }

  /** Ask for a proof; where no events arrive, because a proxy holds them back, refresh all panels as well. */
  private async poll(): Promise<void> {
    if (this.pausedAt !== null || document.hidden) return;
    try {
      const answer = await fetch(this.url.replace(/live$/, "streams"), { credentials: "same-origin" });
      if (!answer.ok) return;
      this.prove();
      if (!this.streaming) this.changed.add("");
    } catch {
      this.tick();
    }
  }

  private async refreshChanged(): Promise<void> {
    if (this.refreshing || this.pausedAt !== null || this.changed.size === 0 || document.hidden) return;
    const changed = new Set(this.changed);
    this.changed.clear();
    this.refreshing = true;
    const due = findPanels("[data-panel]:not([data-still])").filter((panel) => {
      const stream = panel.dataset["stream"];
      return stream === undefined || changed.has(stream) || changed.has("");
    });
    try {
      for (const panel of due) await refreshPanel(panel, new URL(location.href));
    } finally {
      this.refreshing = false;
    }
  }

  private togglePause(button: HTMLButtonElement): void {
    this.pausedAt = this.pausedAt === null ? Date.now() / 1000 : null;
    button.textContent = this.pausedAt === null ? "Pause" : "Resume";
    if (this.pausedAt === null) this.changed.add("");
    this.tick();
    void this.refreshChanged();
  }

  private tick(): void {
    const age = Date.now() / 1000 - this.provedAt;
    const connection = judge(age, this.beatS, this.pausedAt !== null, this.streaming);
    const state = this.box.querySelector<HTMLElement>("[data-live-state]");
    const time = this.box.querySelector<HTMLElement>("[data-live-time]");
    const words = describe(connection, this.pausedAt ?? this.provedAt);
    if (state !== null && state.textContent !== words) state.textContent = words;
    if (time !== null && connection !== "paused") time.textContent = `as of ${clock(this.provedAt, true)} UTC`;
    if (connection === this.shown) return;
    this.shown = connection;
    document.documentElement.dataset["connection"] = connection;
    if (connection === "stale") withdrawGreen(this.provedAt);
  }
}

/** Turn every state "well" into "unknown": without contact nobody can say it. */
export function withdrawGreen(provedAt: number): void {
  for (const state of document.querySelectorAll<HTMLElement>(".is-well")) {
    state.classList.replace("is-well", "is-unknown");
    if (state.textContent?.trim()) state.append(` until ${clock(provedAt)}, now unknown`);
  }
}

export function startLive(): void {
  const box = document.querySelector<HTMLElement>("[data-live]");
  if (box === null || typeof EventSource === "undefined") return;
  new Live(box, box.dataset["live"] ?? "", Number(box.dataset["beat"] ?? 15)).start();
}
