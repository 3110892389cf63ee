/** Entry of the bundle. Every part enhances HTML that works without it. */

import { drawCharts, redrawCharts } from "./charts";
import { showCopyButtons, startCopy } from "./copy";
import { startKeys } from "./keys";
import { startLive } from "./live";
import { onPanel, startPanels } from "./panels";
import { startWhatIf } from "./whatif";

onPanel(drawCharts);
onPanel(showCopyButtons);
drawCharts(document);
showCopyButtons(document);
startPanels();
startWhatIf();
startCopy();
startKeys();
startLive();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawCharts);
