/** Colours of the style sheet: a canvas cannot use custom properties itself. */

export function colour(property: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(property).trim();
}
