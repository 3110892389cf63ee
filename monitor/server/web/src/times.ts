/** Times as text, in UTC, and the `zoom` parameter of a page's address. */

export interface Span {
  /** Seconds since 1970. */
  readonly from: number;
  readonly to: number;
}

const DAY_S = 86_400;

const iso = (seconds: number): string => new Date(seconds * 1000).toISOString();

/** Return HH:MM, or HH:MM:SS where seconds matter. */
export function clock(seconds: number, withSeconds = false): string {
  return iso(seconds).slice(11, withSeconds ? 19 : 16);
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export function day(seconds: number): string {
  const date = new Date(seconds * 1000);
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()] ?? ""}`;
}

/** Return labels of axis ticks: the time of day, with the date where a day begins. */
export function axisLabels(ticks: readonly number[]): string[] {
  const step = (ticks[1] ?? 0) - (ticks[0] ?? 0);
  return ticks.map((tick) => {
    if (step >= DAY_S || (tick % DAY_S === 0 && ticks.length > 1)) return day(tick);
    return clock(tick, step > 0 && step < 60);
  });
}

/** Return the value of the parameter `zoom`, in whole seconds: "2026-11-30T10:35:00Z~2026-11-30T10:50:00Z". */
export function formatZoom(span: Span): string {
  const text = (seconds: number): string => `${iso(Math.round(seconds)).slice(0, 19)}Z`;
  return `${text(span.from)}~${text(span.to)}`;
}

export function parseZoom(text: string | null): Span | null {
  const [from, to] = (text ?? "").split("~").map((part) => Date.parse(part) / 1000);
  if (from === undefined || to === undefined || !(from < to)) return null;
  return { from, to };
}
