/** Marks on the time axis: incidents, model changes, verdicts, and periods without learning. */

import type uPlot from "uplot";
import { colour } from "./colours";
import { parseTime } from "./twin";

export interface Mark {
  readonly kind: string;
  /** Seconds since 1970. */
  readonly at: number;
  readonly end: number | null;
}

export function readMarks(figure: Element): Mark[] {
  return Array.from(figure.querySelectorAll<HTMLElement>("[data-mark]"), (element) => ({
    kind: element.dataset["mark"] ?? "",
    at: parseTime(element.dataset["at"] ?? ""),
    end: element.dataset["end"] ? parseTime(element.dataset["end"]) : null,
  }));
}

type Shape = "triangle" | "diamond" | "square" | "ring" | "band";

const SHAPES: Readonly<Record<string, { shape: Shape; fill: string; tint: string | null }>> = {
  critical: { shape: "triangle", fill: "--critical-fill", tint: "--critical-tint" },
  warning: { shape: "diamond", fill: "--warning-fill", tint: "--warning-tint" },
  model: { shape: "square", fill: "--data", tint: null },
  verdict: { shape: "ring", fill: "--ink-2", tint: null },
  frozen: { shape: "band", fill: "--unknown", tint: "--sunken" },
};

function drawShape(context: CanvasRenderingContext2D, shape: Shape, x: number, y: number, size: number): void {
  context.beginPath();
  if (shape === "triangle") {
    context.moveTo(x, y - size);
    context.lineTo(x + size, y + size);
    context.lineTo(x - size, y + size);
  } else if (shape === "diamond") {
    context.moveTo(x, y - size);
    context.lineTo(x + size, y);
    context.lineTo(x, y + size);
    context.lineTo(x - size, y);
  } else if (shape === "square") {
    context.rect(x - size * 0.8, y - size * 0.8, size * 1.6, size * 1.6);
  } else {
    context.arc(x, y, size * 0.8, 0, 2 * Math.PI);
  }
  context.closePath();
  if (shape === "ring") context.stroke();
  else context.fill();
}

function drawMark(plot: uPlot, mark: Mark, ratio: number): void {
  const look = SHAPES[mark.kind];
  if (look === undefined) return;
  const context = plot.ctx;
  const { top, height } = plot.bbox;
  const from = plot.valToPos(mark.at, "x", true);
  const to = mark.end === null ? from : plot.valToPos(mark.end, "x", true);
  if (look.tint !== null) {
    context.fillStyle = colour(look.tint);
    context.fillRect(from, top, Math.max(to - from, 3 * ratio), height);
  }
  context.fillStyle = context.strokeStyle = colour(look.fill);
  context.lineWidth = ratio;
  if (look.shape === "band") {
    context.fillRect(from, top + height - 3 * ratio, Math.max(to - from, 3 * ratio), 3 * ratio);
    return;
  }
  context.setLineDash([3 * ratio, 3 * ratio]);
  context.beginPath();
  context.moveTo(from, top);
  context.lineTo(from, top + height);
  context.stroke();
  context.setLineDash([]);
  context.lineWidth = 1.5 * ratio;
  drawShape(context, look.shape, from, top - 8 * ratio, 5 * ratio);
}

/** Return a plugin that draws the marks behind the series, with their shapes above the plot. */
export function marksPlugin(marks: readonly Mark[]): uPlot.Plugin {
  const bandsFirst = [...marks].sort((a, b) => Number(b.kind === "frozen") - Number(a.kind === "frozen"));
  return {
    hooks: {
      drawAxes: (plot) => {
        const ratio = devicePixelRatio;
        const { left, top, width, height } = plot.bbox;
        plot.ctx.save();
        plot.ctx.beginPath();
        plot.ctx.rect(left, 0, width, top + height);
        plot.ctx.clip();
        for (const mark of bandsFirst) drawMark(plot, mark, ratio);
        plot.ctx.restore();
      },
    },
  };
}
