/** Ranges and ticks of the value axis. Pure. */

/** Return the range of a linear axis: from 0, with a margin above the largest value. */
export function linearRange(largest: number | null): [number, number] {
  const top = largest === null || !Number.isFinite(largest) || largest <= 0 ? 1 : largest;
  return [0, top * 1.08];
}

/** Return the range of an axis that need not begin at 0: the extremes with a margin. */
export function marginRange(smallest: number | null, largest: number | null): [number, number] {
  if (smallest === null || largest === null) return [0, 1];
  const margin = 0.08 * (largest - smallest || Math.abs(largest) || 1);
  return [smallest - margin, largest + margin];
}

/** Return the text of a tick: short, so that the axis has the same width for all values. */
export function axisNumber(value: number): string {
  if (Math.abs(value) >= 10_000) return value.toLocaleString("en", { notation: "compact" });
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

/** Return the range of a log axis: one third of a decade beyond the extremes. */
export function logRange(smallest: number | null, largest: number | null): [number, number] {
  const low = smallest !== null && smallest > 0 ? smallest : 1;
  const high = largest !== null && largest > low ? largest : low * 10;
  return [low / 1.6, high * 1.6];
}

/** Return the powers of ten within a range; between them 2 and 5 where there are fewer than three. */
export function logTicks(low: number, high: number): number[] {
  const collect = (factors: readonly number[]): number[] => {
    const ticks: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const factor of factors) {
        const tick = factor * 10 ** power;
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks;
  };
  const decades = collect([1]);
  return decades.length >= 3 ? decades : collect([1, 2, 5]);
}

/** Return the extremes of some columns within rows that are in [from, to]; null if there is no value. */
export function extremes(
  times: readonly (number | null)[],
  columns: readonly (readonly (number | null)[])[],
  from: number,
  to: number,
): [number, number] | null {
  let low = Infinity;
  let high = -Infinity;
  times.forEach((time, row) => {
    if (time === null || time < from || time > to) return;
    for (const column of columns) {
      const value = column[row];
      if (value === null || value === undefined) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  });
  return high < low ? null : [low, high];
}
