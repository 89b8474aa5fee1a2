// A small line chart of the last minutes, drawn as SVG; its newest number stands beside its name.

import { h, replace, svg } from "../core/dom.js";
import { WINDOW_MS } from "../state/series.js";

const WIDTH = 240;
const HEIGHT = 56;
const PAD = 3;

export class Chart {
  // `lines` are {name, series}; `format(value)` writes a number.
  constructor({ title, lines, format }) {
    Object.assign(this, { title, lines, format });
    this.value = h("strong.chart-value");
    this.picture = svg("svg.chart-lines", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.most = h("small.chart-most");
    const names = lines.length > 1 ? h("p.chart-names", null, lines.map((line, i) => h(`span.line-${i}`, null, line.name))) : null;
    this.element = h("figure.chart", null, h("figcaption", null, h("span", null, title), this.value), this.picture, this.most, names);
  }

  draw(nowMs) {
    const top = Math.max(...this.lines.map((line) => line.series.most), 0);
    const values = this.lines.map((line) => this.format(line.series.last));
    replace(this.value, values.join(" · "));
    replace(this.most, top > 0 ? `↑ ${this.format(top)}` : "");
    this.picture.setAttribute("aria-label", `${this.title}: ${values.join(", ")}`);
    const paths = this.lines.flatMap((line, i) => parts(line.series.points, nowMs, top || 1).map((d) => path(d, i)));
    replace(this.picture, svg("line.chart-floor", { x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }), paths);
  }
}

const path = (d, index) => svg(`path.line-${index}`, { d, "vector-effect": "non-scaling-stroke" });

// One path for each stretch without a hole.
function parts(points, nowMs, top) {
  const found = [];
  let current = "";
  for (const point of points) {
    if (point.value === null) {
      if (current) found.push(current);
      current = "";
      continue;
    }
    const x = (WIDTH * (point.at - nowMs + WINDOW_MS)) / WINDOW_MS;
    const y = HEIGHT - PAD - ((HEIGHT - 2 * PAD) * point.value) / top;
    current += `${current ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  }
  if (current) found.push(current);
  return found;
}
