/** "Try a threshold": a slider that picks a row of the table of back-tests. */

/** Return the value of a row's attribute for a slider position, clamped to the table. Pure. */
export function pick<Row>(rows: readonly Row[], position: number): Row | undefined {
  return rows[Math.max(0, Math.min(rows.length - 1, Math.round(position)))];
}

function show(form: HTMLElement): void {
  const range = form.querySelector<HTMLInputElement>("input[type=range]");
  const output = form.querySelector("output");
  const panel = form.closest<HTMLElement>("[data-panel]");
  if (range === null || output === null || panel === null) return;
  const rows = Array.from(panel.querySelectorAll<HTMLElement>("tr[data-says]"));
  const chosen = pick(rows, Number(range.value));
  for (const row of rows) row.classList.toggle("chosen", row === chosen);
  const says = chosen?.dataset["says"] ?? "";
  output.textContent = says;
  range.setAttribute("aria-valuetext", says);
  const yaml = panel.querySelector("pre[data-yaml]");
  if (yaml !== null) yaml.textContent = chosen?.dataset["yaml"] ?? "";
  remember(chosen?.dataset["percentile"]);
}

/** Keep the percentile in the address, so that a link shows what the reader sees. */
function remember(percentile: string | undefined): void {
  const address = new URL(location.href);
  if (percentile === undefined || address.searchParams.get("percentile") === percentile) return;
  address.searchParams.set("percentile", percentile);
  history.replaceState(null, "", address);
}

export function startWhatIf(): void {
  document.addEventListener("input", (event) => {
    const form = (event.target as Element | null)?.closest<HTMLElement>("[data-whatif]");
    if (form) show(form);
  });
}
