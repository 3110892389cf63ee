/** The look of each series, by the name of its column in the table twin. */

import uPlot from "uplot";
import { colour } from "./colours";

export type Axis = "linear" | "log" | "asinh" | "count";

interface Look {
  readonly label: string;
  readonly digits: number;
  readonly draw: () => Omit<uPlot.Series, "label">;
}

const line = (property: string, width = 1.5): (() => uPlot.Series) => () => ({ stroke: colour(property), width });
const dashed = (property: string): (() => uPlot.Series) => () => ({
  stroke: colour(property),
  width: 1.5,
  dash: [6, 3],
});
const noPaths: uPlot.Series.PathBuilder = () => null;
const steps = uPlot.paths.stepped?.({ align: 1 }) ?? noPaths;
const bars = uPlot.paths.bars?.({ size: [0.8, 9], align: 1 }) ?? noPaths;
const edge = (): uPlot.Series => ({ stroke: "transparent", width: 0, paths: steps });

const LOOKS: Readonly<Record<string, Look>> = {
  p50: { label: "p50", digits: 2, draw: line("--data-2") },
  p99: { label: "p99", digits: 2, draw: line("--data") },
  max: {
    label: "max",
    digits: 2,
    draw: () => ({
      stroke: colour("--ink"),
      paths: noPaths,
      points: { show: true, size: 3, fill: colour("--ink"), stroke: colour("--ink") },
    }),
  },
  threshold: { label: "threshold", digits: 2, draw: () => ({ ...dashed("--critical-fill")(), paths: steps }) },
  lower: { label: "from", digits: 2, draw: edge },
  upper: { label: "to", digits: 2, draw: edge },
  outliers: {
    label: "outliers",
    digits: 0,
    draw: () => ({ stroke: colour("--data"), fill: colour("--data"), width: 0, paths: bars }),
  },
  expected: { label: "expected", digits: 1, draw: () => ({ ...line("--ink", 1)(), paths: steps }) },
  low: { label: "5%", digits: 0, draw: edge },
  high: { label: "95%", digits: 0, draw: edge },
  fires: { label: "fires at", digits: 0, draw: () => ({ ...dashed("--critical-fill")(), paths: steps }) },
  events: { label: "events", digits: 0, draw: () => ({ ...line("--data")(), paths: steps }) },
  late: { label: "late", digits: 0, draw: () => ({ ...line("--warning-fill")(), paths: steps }) },
  dead: { label: "dead", digits: 0, draw: () => ({ ...line("--critical-fill")(), paths: steps }) },
  filtered: { label: "filtered", digits: 0, draw: () => ({ ...line("--data-2")(), paths: steps }) },
};

/** Pairs of columns whose space between is filled. */
const BANDS: readonly (readonly [string, string, string])[] = [
  ["upper", "lower", "--critical-fill"],
  ["high", "low", "--ink-2"],
];

export function formatValue(value: number | null | undefined, digits: number): string {
  if (value === null || value === undefined) return "–";
  const shown = Math.abs(value) >= 100 ? 0 : digits;
  return value.toLocaleString("en", { minimumFractionDigits: shown, maximumFractionDigits: shown });
}

export function makeSeries(name: string): uPlot.Series {
  const look = LOOKS[name];
  if (look === undefined) return { label: name, points: { show: false }, stroke: colour("--data") };
  return {
    points: { show: false },
    ...look.draw(),
    label: look.label,
    value: (_plot, value: number | null) => formatValue(value, look.digits),
  };
}

export function makeBands(names: readonly string[]): uPlot.Band[] {
  return BANDS.flatMap(([upper, lower, property]) => {
    const pair: [number, number] = [names.indexOf(upper) + 1, names.indexOf(lower) + 1];
    return pair.includes(0) ? [] : [{ series: pair, fill: `${colour(property)}40` }];
  });
}
