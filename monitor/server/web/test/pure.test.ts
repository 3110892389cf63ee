import assert from "node:assert/strict";
import { test } from "node:test";
import { advance } from "../src/keys";
import { describe, judge } from "../src/live";
import { axisNumber, extremes, linearRange, logRange, logTicks, marginRange } from "../src/scale";
import { axisLabels, formatZoom, parseZoom } from "../src/times";
import { parseNumber, parseTime, toColumns } from "../src/twin";
import { pick } from "../src/whatif";

test("a table's texts become times in seconds and numbers, empty cells null", () => {
  const columns = toColumns(["at", "p50", "max"], [
    ["2026-11-30 10:35", "12.5", "1,204"],
    ["2026-11-30 10:36:30", "", "−3"],
  ]);
  const at = Date.UTC(2026, 10, 30, 10, 35) / 1000;
  assert.deepEqual(columns.data, [[at, at + 90], [12.5, null], [1204, -3]]);
});

test("texts without a number are null, never 0", () => {
  assert.deepEqual(["", "–", "none", " "].map(parseNumber), [null, null, null, null]);
});

test("times are UTC with and without the letter Z", () => {
  assert.equal(parseTime("2026-11-30T10:35:00Z"), parseTime("2026-11-30 10:35"));
});

test("a zoom survives the way through the address", () => {
  const span = { from: 1_796_000_000, to: 1_796_003_600 };
  assert.deepEqual(parseZoom(formatZoom(span)), span);
  assert.deepEqual([null, "", "x~y", formatZoom({ from: 5, to: 5 })].map(parseZoom), [null, null, null, null]);
});

test("ticks show the date at midnight and the time otherwise", () => {
  const midnight = Date.UTC(2026, 10, 30) / 1000;
  assert.deepEqual(axisLabels([midnight - 7200, midnight, midnight + 7200]), ["22:00", "30 Nov", "02:00"]);
});

test("a log axis has ticks within its range, and three at least where there is room", () => {
  assert.deepEqual(logTicks(8, 20_000), [10, 100, 1_000, 10_000]);
  assert.deepEqual(logTicks(9, 60), [10, 20, 50]);
  const [low, high] = logRange(10, 100);
  assert.ok(low < 10 && high > 100);
  assert.ok(logRange(null, null)[0] > 0);
});

test("a linear axis begins at zero and has a height without data", () => {
  assert.deepEqual(linearRange(null), [0, 1.08]);
  assert.ok(linearRange(50)[1] > 50);
});

test("an axis that need not begin at zero has a margin, also without data and for one value", () => {
  assert.deepEqual(marginRange(null, null), [0, 1]);
  const [low, high] = marginRange(-3, 5);
  assert.ok(low < -3 && high > 5);
  assert.ok(marginRange(7, 7)[0] < 7);
});

test("labels of the value axis stay short", () => {
  assert.deepEqual([0, 0.5, 1500, 100_000, 2_000_000].map(axisNumber), ["0", "0.5", "1,500", "100K", "2M"]);
});

test("extremes count the rows within the span only", () => {
  assert.deepEqual(extremes([1, 2, 3], [[9, 1, null], [null, 4, 7]], 2, 3), [1, 7]);
  assert.equal(extremes([1], [[null]], 0, 9), null);
});

test("a page is live only as long as the proof is fresh", () => {
  assert.equal(judge(14, 15, false, true), "live");
  assert.equal(judge(14, 15, false, false), "polling");
  assert.equal(judge(23, 15, false, true), "stale");
  assert.equal(judge(999, 15, true, true), "paused");
  assert.match(describe("stale", 0), /no contact since 00:00:00/);
});

test("keys of two letters wait for the second one", () => {
  const known = ["g o", "g i", "z"];
  assert.deepEqual(advance("", "g", known), { typed: "g", hit: null });
  assert.deepEqual(advance("g", "o", known), { typed: "", hit: "g o" });
  assert.deepEqual(advance("g", "z", known), { typed: "", hit: "z" });
  assert.deepEqual(advance("", "x", known), { typed: "", hit: null });
});

test("the slider stays within its table", () => {
  assert.deepEqual([-1, 0, 1.4, 9].map((position) => pick(["a", "b", "c"], position)), ["a", "a", "b", "c"]);
  assert.equal(pick([], 0), undefined);
});
