/** Keys: elements name their own key, so that the list of keys is always that of the page. */

interface Key {
  readonly keys: string;
  readonly help: string;
  readonly press: () => void;
}

/** Return the keys of the page, each once, in the order of the page. */
export function collectKeys(root: ParentNode): Key[] {
  const found = new Map<string, Key>();
  for (const element of root.querySelectorAll<HTMLElement>("[data-key]")) {
    const keys = element.dataset["key"] ?? "";
    const help = element.dataset["keyHelp"] ?? element.textContent?.trim() ?? "";
    if (!found.has(keys)) found.set(keys, { keys, help, press: () => press(element) });
  }
  return [...found.values()];
}

function press(element: HTMLElement): void {
  if (element.matches("input, select, textarea, [tabindex]")) element.focus();
  else element.click();
}

/** Return the sequence so far and the key that it completes, for keys such as "g o". Pure. */
export function advance(typed: string, key: string, known: readonly string[]): { typed: string; hit: string | null } {
  for (const sequence of typed === "" ? [key] : [`${typed} ${key}`, key]) {
    if (known.includes(sequence)) return { typed: "", hit: sequence };
    if (known.some((each) => each.startsWith(`${sequence} `))) return { typed: sequence, hit: null };
  }
  return { typed: "", hit: null };
}

function makeDialog(): HTMLDialogElement {
  const dialog = document.createElement("dialog");
  dialog.className = "keys";
  dialog.setAttribute("aria-labelledby", "keys-title");
  document.body.append(dialog);
  return dialog;
}

function showKeys(dialog: HTMLDialogElement): void {
  const title = document.createElement("h2");
  title.id = "keys-title";
  title.textContent = "Keys";
  const list = document.createElement("dl");
  const rows = [{ keys: "?", help: "show or hide this list" }, ...collectKeys(document), { keys: "Esc", help: "close" }];
  for (const { keys, help } of rows) {
    const term = document.createElement("dt");
    for (const each of keys.split(" ")) {
      const key = document.createElement("kbd");
      key.textContent = each;
      term.append(key, " ");
    }
    const meaning = document.createElement("dd");
    meaning.textContent = help;
    list.append(term, meaning);
  }
  const form = document.createElement("form");
  form.method = "dialog";
  const close = document.createElement("button");
  close.textContent = "Close";
  form.append(close);
  dialog.replaceChildren(title, list, form);
  dialog.showModal();
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || target.matches("textarea, select, input:not([type=range], [type=checkbox], [type=radio])");
}

export function startKeys(): void {
  const dialog = makeDialog();
  let typed = "";
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || isTyping(event.target)) return;
    if (event.key === "?") {
      event.preventDefault();
      if (dialog.open) dialog.close();
      else showKeys(dialog);
      return;
    }
    if (dialog.open) return;
    const keys = collectKeys(document);
    const step = advance(
      typed,
      event.key,
      keys.map((key) => key.keys),
    );
    typed = step.typed;
    const hit = keys.find((key) => key.keys === step.hit);
    if (hit === undefined) return;
    event.preventDefault();
    hit.press();
  });
}
