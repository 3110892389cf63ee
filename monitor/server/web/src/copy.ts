/** Buttons that copy a text of the page. Browsers offer the clipboard under https and on loopback only. */

export function showCopyButtons(root: ParentNode): void {
  if (!("clipboard" in navigator)) return;
  for (const button of root.querySelectorAll<HTMLButtonElement>("button[data-copy]")) button.hidden = false;
}

export function startCopy(): void {
  document.addEventListener("click", (event) => {
    const button = (event.target as Element | null)?.closest<HTMLButtonElement>("button[data-copy]");
    const text = button ? document.querySelector(button.dataset["copy"] ?? "")?.textContent : null;
    if (!button || text === null || text === undefined) return;
    const label = button.textContent;
    navigator.clipboard.writeText(text).then(
      () => (button.textContent = "Copied"),
      () => (button.textContent = "Not copied: select the text"),
    );
    setTimeout(() => (button.textContent = label), 2_000);
  });
}
