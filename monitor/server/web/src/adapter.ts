/** The only module that constructs uPlot charts. */

import uPlot from "uplot";
import { colour } from "./colours";
import { type Mark, marksPlugin } from "./marks";
import { axisNumber, linearRange, logRange, logTicks, marginRange } from "./scale";
import { type Axis, makeBands, makeSeries } from "./series";
import { axisLabels, clock, day, type Span } from "./times";
import type { Columns } from "./twin";

export interface ChartOptions {
  readonly series: readonly string[];
  readonly axis: Axis;
  readonly height: number;
  readonly marks: readonly Mark[];
  readonly span: Span | null;
  /** Called with the part of the time axis that the reader has selected. */
  readonly onSelect: (span: Span) => void;
}

export interface Chart {
  readonly destroy: () => void;
}

const FONT = "12px system-ui, sans-serif";
const NARROW_PX = 500;

function axes(axis: Axis, narrow: boolean): uPlot.Axis[] {
  const shared = {
    stroke: () => colour("--ink-2"),
    font: FONT,
    ticks: { stroke: () => colour("--line-2"), width: 1, size: 4 },
  };
  const values = (_plot: uPlot, ticks: number[]): string[] => ticks.map(axisNumber);
  const log: uPlot.Axis = {
    splits: (_plot, _index, low, high) => logTicks(low, high),
    filter: (_plot, splits) => splits,
  };
  return [
    { ...shared, grid: { show: false }, space: narrow ? 64 : 80, size: 28, values: (_plot, ticks) => axisLabels(ticks) },
    {
      ...shared,
      grid: { stroke: () => colour("--line"), width: 1 },
      size: narrow ? 46 : 54,
      space: 32,
      values,
      ...(axis === "log" ? log : {}),
    },
  ];
}

function valueScale(axis: Axis): uPlot.Scale {
  switch (axis) {
    case "log":
      return { distr: 3, log: 10, range: (_plot, low, high) => logRange(low, high) };
    case "asinh":
      return { distr: 4, asinh: 1, range: (_plot, low, high) => marginRange(low, high) };
    case "linear":
      return { range: (_plot, low, high) => marginRange(low, high) };
    case "count":
      return { range: (_plot, _low, high) => linearRange(high) };
  }
}

function scales(axis: Axis, span: Span | null): uPlot.Scales {
  const time: uPlot.Scale = span === null ? { time: true } : { time: true, range: () => [span.from, span.to] };
  return { x: time, y: valueScale(axis) };
}

function selectHook(onSelect: (span: Span) => void): (plot: uPlot) => void {
  return (plot) => {
    const { left, width } = plot.select;
    if (width < 4) return;
    const span = { from: plot.posToVal(left, "x"), to: plot.posToVal(left + width, "x") };
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    onSelect(span);
  };
}

/** Draw a chart into `box`, in place of its content. The cursors of all charts of a page are linked. */
export function drawChart(box: HTMLElement, columns: Columns, options: ChartOptions): Chart {
  const pick = (name: string): readonly (number | null)[] => columns.data[columns.names.indexOf(name)] ?? [];
  const data = [columns.data[0] ?? [], ...options.series.map(pick)] as uPlot.AlignedData;
  const narrow = box.clientWidth < NARROW_PX;
  const time: uPlot.Series = {
    label: "UTC",
    value: (_plot, value: number | null) => (value === null ? "–" : `${day(value)} ${clock(value)}`),
  };
  box.replaceChildren();
  const plot = new uPlot(
    {
      width: box.clientWidth,
      height: options.height,
      padding: [18, 10, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
      cursor: {
        sync: { key: "outrider", scales: ["x", null] },
        points: { size: 6 },
        y: false,
        drag: { x: true, y: false, setScale: false },
      },
      legend: { live: true },
      series: [time, ...options.series.map(makeSeries)],
      bands: makeBands(options.series),
      scales: scales(options.axis, options.span),
      axes: axes(options.axis, narrow),
      plugins: [marksPlugin(options.marks)],
      hooks: { setSelect: [selectHook(options.onSelect)] },
    },
    data,
    box,
  );
  let width = box.clientWidth;
  const observer = new ResizeObserver(() => {
    if (box.clientWidth !== width && box.clientWidth > 0) {
      width = box.clientWidth;
      plot.setSize({ width, height: options.height });
    }
  });
  observer.observe(box);
  return {
    destroy: () => {
      observer.disconnect();
      plot.destroy();
    },
  };
}
