/** Reads a chart's data from its table twin, so that chart and table cannot differ. */

export interface Columns {
  readonly names: readonly string[];
  /** One array per column; the first holds times in seconds since 1970. Empty cells are null. */
  readonly data: readonly (readonly (number | null)[])[];
}

/** Return seconds since 1970 of a text such as "2026-11-30 10:35" or "2026-11-30T10:35:20Z", in UTC. */
export function parseTime(text: string): number {
  const iso = text.trim().replace(" ", "T");
  return Date.parse(iso.endsWith("Z") ? iso : `${iso}Z`) / 1000;
}

/** Return the number in a cell, or null if the cell holds none. */
export function parseNumber(text: string): number | null {
  const plain = text.trim().replaceAll(",", "").replace("−", "-");
  if (plain === "" || plain === "–") return null;
  const value = Number(plain);
  return Number.isFinite(value) ? value : null;
}

/** Return columns for rows of texts; the first column holds times. */
export function toColumns(names: readonly string[], rows: readonly (readonly string[])[]): Columns {
  const data = names.map((_, j) => rows.map((row) => (j === 0 ? parseTime(row[0] ?? "") : parseNumber(row[j] ?? ""))));
  return { names, data };
}

export function readTable(table: HTMLTableElement): Columns {
  const head = table.tHead?.rows[0];
  const names = Array.from(head?.cells ?? [], (cell) => cell.dataset["name"] ?? "");
  const body = table.tBodies[0];
  const rows = Array.from(body?.rows ?? [], (row) => Array.from(row.cells, (cell) => cell.textContent ?? ""));
  return toColumns(names, rows);
}
