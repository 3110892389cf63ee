// Builds the bundle that the wheel contains, or with `--tests` the unit tests for node's test runner.
import { readFileSync, readdirSync } from "node:fs";
import { build } from "esbuild";

const uplot = JSON.parse(readFileSync("node_modules/uplot/package.json", "utf8"));
const tests = process.argv.includes("--tests");
const shared = { bundle: true, target: "es2022", charset: "utf8", logLevel: "warning" };

if (tests) {
  const names = readdirSync("test").filter((name) => name.endsWith(".test.ts"));
  await build({
    ...shared,
    entryPoints: names.map((name) => `test/${name}`),
    outdir: "build",
    outExtension: { ".js": ".mjs" },
    platform: "node",
    format: "esm",
  });
} else {
  await build({
    ...shared,
    entryPoints: ["src/main.ts"],
    outfile: "../static/outrider.js",
    format: "iife",
    minify: true,
    legalComments: "none",
    banner: { js: `/* Outrider, Apache-2.0. Contains uPlot ${uplot.version}, (c) Leon Sorokin, MIT License. */` },
  });
}
