/** Panels: fetch the HTML of a panel and put it in place of the present one. */

const arrived: ((panel: HTMLElement) => void)[] = [];

/** Call `react` with every panel that has been replaced. */
export function onPanel(react: (panel: HTMLElement) => void): void {
  arrived.push(react);
}

export function findPanels(selector = "[data-panel]"): HTMLElement[] {
  return Array.from(document.querySelectorAll<HTMLElement>(selector));
}

const latest = new Map<string, number>();
let requests = 0;

async function fetchPanel(name: string, address: URL): Promise<HTMLElement> {
  const url = new URL(address);
  url.searchParams.set("panel", name);
  url.hash = "";
  const answer = await fetch(url, { headers: { Accept: "text/html" }, credentials: "same-origin" });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const panel = page.querySelector<HTMLElement>(`[data-panel="${CSS.escape(name)}"]`);
  if (!answer.ok || panel === null) throw new Error(`${url.pathname} answered ${answer.status}`);
  return panel;
}

/** Return whether the reader works in the panel: replacing it would lose a selection or what was typed. */
function isInUse(panel: HTMLElement): boolean {
  const selection = getSelection();
  const selects = selection !== null && !selection.isCollapsed && panel.contains(selection.anchorNode);
  const field = document.activeElement;
  const types = field instanceof HTMLElement && field.matches("input, select, textarea") && panel.contains(field);
  return selects || types || panel.querySelector("dialog[open]") !== null;
}

/** Carry open details, scroll positions and the focus over from the old panel to the new one. */
function carryOver(old: HTMLElement, fresh: HTMLElement): void {
  const freshDetails = fresh.querySelectorAll("details");
  old.querySelectorAll("details").forEach((details, i) => {
    const twin = freshDetails[i];
    if (twin !== undefined) twin.open = details.open;
  });
}

function restore(old: HTMLElement, fresh: HTMLElement, positions: readonly [number, number][], focus: string | null): void {
  fresh.querySelectorAll<HTMLElement>("[tabindex]").forEach((region, i) => {
    const position = positions[i];
    if (position !== undefined) [region.scrollLeft, region.scrollTop] = position;
  });
  if (focus !== null) fresh.querySelector<HTMLElement>(focus)?.focus({ preventScroll: true });
  for (const react of arrived) react(fresh);
  old.remove();
}

function focusSelector(panel: HTMLElement): string | null {
  const focused = document.activeElement;
  if (!(focused instanceof HTMLElement) || !panel.contains(focused)) return null;
  if (focused.id) return `#${CSS.escape(focused.id)}`;
  const href = focused.getAttribute("href");
  if (href !== null) return `a[href="${CSS.escape(href)}"]`;
  return focused.tagName === "SUMMARY" ? "summary" : null;
}

function replace(old: HTMLElement, fresh: HTMLElement): void {
  const positions = Array.from(old.querySelectorAll("[tabindex]"), (region): [number, number] => [
    region.scrollLeft,
    region.scrollTop,
  ]);
  const focus = focusSelector(old);
  carryOver(old, fresh);
  old.after(fresh);
  restore(old, fresh, positions, focus);
}

function showFailure(panel: HTMLElement, error: unknown): void {
  panel.dataset["failed"] = "";
  panel.removeAttribute("aria-busy");
  const reason = error instanceof Error ? error.message : String(error);
  const note = panel.querySelector("[data-failure]") ?? document.createElement("p");
  note.setAttribute("data-failure", "");
  note.setAttribute("role", "status");
  note.className = "failure";
  note.textContent = `This panel could not be read: ${reason}. It is tried again with the next change.`;
  panel.append(note);
}

/** Fetch a panel and replace it. With `force` also while the reader works in it. */
export async function refreshPanel(panel: HTMLElement, address: URL, force = false): Promise<void> {
  const name = panel.dataset["panel"] ?? "";
  const request = ++requests;
  latest.set(name, request);
  panel.setAttribute("aria-busy", "true");
  try {
    const fresh = await fetchPanel(name, address);
    if (latest.get(name) !== request || !panel.isConnected) return;
    panel.removeAttribute("aria-busy");
    if (!force && isInUse(panel)) return;
    replace(panel, document.adoptNode(fresh));
  } catch (error) {
    if (latest.get(name) === request) showFailure(panel, error);
  }
}

/** Load panels with another address of the page and put it into the address bar. */
export async function navigate(address: URL, names: readonly string[], push = true): Promise<void> {
  if (push) history.pushState(null, "", address);
  const panels = findPanels().filter((panel) => names.length === 0 || names.includes(panel.dataset["panel"] ?? ""));
  await Promise.all(panels.map((panel) => refreshPanel(panel, address, true)));
}

/** Fetch a panel again after the time that it names: its content is still being computed. */
function repeat(panel: HTMLElement): void {
  const waitMs = Number(panel.dataset["again"]);
  if (waitMs > 0) setTimeout(() => panel.isConnected && void refreshPanel(panel, new URL(location.href)), waitMs);
}

function isPlainClick(event: MouseEvent): boolean {
  return event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
}

/** Let links with `data-into` load panels instead of the whole page; load the panels that come after the first paint. */
export function startPanels(): void {
  document.addEventListener("click", (event) => {
    const link = (event.target as Element | null)?.closest<HTMLAnchorElement>("a[data-into]");
    if (!link || !isPlainClick(event)) return;
    event.preventDefault();
    void navigate(new URL(link.href), (link.dataset["into"] ?? "").split(" ").filter(Boolean));
  });
  addEventListener("popstate", () => void navigate(new URL(location.href), [], false));
  onPanel(repeat);
  for (const panel of findPanels("[data-panel][data-lazy]")) void refreshPanel(panel, new URL(location.href), true);
  findPanels("[data-panel][data-again]").forEach(repeat);
}
