/** Draws every `figure[data-chart]` from its table twin; the server's SVG stays where that fails. */

import { type Chart, drawChart } from "./adapter";
import { navigate } from "./panels";
import type { Axis } from "./series";
import { formatZoom, type Span } from "./times";
import { parseTime, readTable } from "./twin";
import { readMarks } from "./marks";

const drawn = new Map<HTMLElement, Chart>();

function readSpan(figure: HTMLElement): Span | null {
  const { from, to } = figure.dataset;
  return from && to ? { from: parseTime(from), to: parseTime(to) } : null;
}

function readAxis(scale: string | undefined): Axis {
  return scale === "log" || scale === "asinh" || scale === "linear" ? scale : "count";
}

/** Put the selected time into the address and reload the panels that show it. */
function zoomTo(figure: HTMLElement, span: Span): void {
  const address = new URL(location.href);
  address.searchParams.set("zoom", formatZoom(span));
  void navigate(address, (figure.dataset["into"] ?? "").split(" ").filter(Boolean));
}

function draw(figure: HTMLElement): void {
  const table = document.getElementById(figure.dataset["twin"] ?? "");
  const box = figure.querySelector<HTMLElement>(".chart");
  if (!(table instanceof HTMLTableElement) || box === null || table.tBodies[0]?.rows.length === 0) return;
  const chart = drawChart(box, readTable(table), {
    series: (figure.dataset["series"] ?? "").split(" "),
    axis: readAxis(figure.dataset["scale"]),
    height: Number(figure.dataset["height"] ?? 170),
    marks: readMarks(figure),
    span: readSpan(figure),
    onSelect: (span) => zoomTo(figure, span),
  });
  figure.dataset["drawn"] = "";
  drawn.set(figure, chart);
}

/** Draw the charts within `root` and forget those that are no longer in the page. */
export function drawCharts(root: ParentNode): void {
  for (const [figure, chart] of drawn) {
    if (!figure.isConnected) {
      chart.destroy();
      drawn.delete(figure);
    }
  }
  for (const figure of root.querySelectorAll<HTMLElement>("figure[data-chart]:not([data-drawn])")) draw(figure);
}

/** Draw all charts again, in the colours of the present scheme. */
export function redrawCharts(): void {
  for (const [figure, chart] of [...drawn]) {
    chart.destroy();
    drawn.delete(figure);
    draw(figure);
  }
}
