// The last 15 minutes as a line chart, drawn in pixels for the width that there is.
//
// A chart is a slider in the terms of assistive technology: the arrow keys move a mark through time, and the figures at the
// mark are its value. The mouse and the finger move the same mark.

import { element, mark, put, svg } from "./dom.js";
import { ago } from "./units.js";

// The fewest points that a drawing has room for: the first seconds do not fill it, three minutes do.
const POINTS_MIN = 37;

const HEIGHT = 150;
const EDGE = { left: 52, right: 10, top: 10, bottom: 22 };

// Round numbers around the largest value, from zero.
function linear(largest) {
  const about = Math.max(largest, 1) / 3;
  const power = 10 ** Math.floor(Math.log10(about));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= about) ?? 10 * power;
  const top = step * Math.ceil(Math.max(largest, 1) / step);
  const ticks = [];
  for (let tick = 0; tick <= top + step / 2; tick += step) ticks.push(tick);
  return { ticks, part: (value) => value / top };
}

// Whole decades around the values, two at least: latencies of an outage and of a calm minute fit into one picture.
function logarithmic(largest, smallest) {
  let low = Math.floor(Math.log10(Math.max(smallest, 0.1)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(largest, 0.1))), low + 2);
  low = Math.min(low, high - 2);
  const ticks = [];
  for (let decade = low; decade <= high; decade += 1) ticks.push(10 ** decade);
  return { ticks, part: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low) };
}

// The points of a line, with gaps where nothing is known.
function path(values, x, y) {
  let [d, isOpen] = ["", false];
  values.forEach((value, index) => {
    const isKnown = typeof value === "number";
    if (isKnown) d += `${isOpen ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    // A single point between two gaps is seen as a dot.
    if (isKnown && !isOpen && typeof values[index + 1] !== "number") d += "h0.01";
    isOpen = isKnown;
  });
  return d;
}

// The line, closed to areas beneath each of its pieces.
function areas(values, x, y) {
  let [d, start] = ["", -1];
  for (let index = 0; index <= values.length; index += 1) {
    const isKnown = typeof values[index] === "number";
    if (isKnown && start < 0) start = index;
    if (isKnown || start < 0) continue;
    d += `M${x(start).toFixed(1)} ${y(0).toFixed(1)}`;
    for (let point = start; point < index; point += 1) d += `L${x(point).toFixed(1)} ${y(values[point]).toFixed(1)}`;
    d += `L${x(index - 1).toFixed(1)} ${y(0).toFixed(1)}Z`;
    start = -1;
  }
  return d;
}

// A sample of a line, for the legend.
function sample(kind) {
  return svg("svg", { width: 18, height: 4, "aria-hidden": "true" }, svg("path", { class: `line ${kind}`, d: "M1 2H17" }));
}

// A chart in that element. `lines` are { kind, name, of: history -> values }; `format` writes a value, `tick` a round one; `shared` moves the
// marks of several charts together.
export function chart(parent, { label, lines, format, tick, isLogarithmic, readout, shared }) {
  const drawing = svg("svg", { role: "slider", tabindex: 0, "aria-label": label, "aria-orientation": "horizontal" });
  const grid = svg("g", { class: "grid" });
  const area = svg("path", { class: "area" });
  const drawn = lines.map(({ kind }) => svg("path", { class: `line ${kind}` }));
  const cursor = svg("g", { class: "cursor" }, svg("line", {}), ...lines.map(({ kind }) => svg("circle", { class: kind, r: 3 })));
  drawing.append(grid, ...(isLogarithmic ? [] : [area]), ...drawn, cursor);
  parent.append(drawing);

  let width = 0;
  let history = null;
  shared.charts.push(show);

  // How many points there are, the last one at the right edge.
  const points = () => Math.max(0, ...lines.map(({ of }) => of(history)?.length ?? 0));
  const span = () => Math.max(POINTS_MIN, points());

  function show(given) {
    history = given ?? history;
    if (!history || width === 0) return;
    const inner = { w: width - EDGE.left - EDGE.right, h: HEIGHT - EDGE.top - EDGE.bottom };
    const series = lines.map(({ of }) => of(history) ?? []);
    const known = series.flat().filter((value) => typeof value === "number");
    const [largest, smallest] = [Math.max(0, ...known), Math.min(Infinity, ...known)];
    const scale = isLogarithmic ? logarithmic(known.length ? largest : 100, known.length ? smallest : 1) : linear(largest);
    const y = (value) => EDGE.top + inner.h * (1 - scale.part(value));
    const shift = (values) => span() - values.length;
    const x = (values) => (index) => EDGE.left + (inner.w * (index + shift(values))) / (span() - 1);
    mark(drawing, { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` });
    drawGrid(scale, y, inner);
    series.forEach((values, index) => mark(drawn[index], { d: path(values, x(values), y) }));
    mark(area, { d: isLogarithmic ? "" : areas(series[0], x(series[0]), y) });
    drawCursor(series, x, y, inner);
  }

  function drawGrid(scale, y, inner) {
    const parts = scale.ticks.flatMap((value) => [
      svg("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(value).toFixed(1), y2: y(value).toFixed(1) }),
      svg("text", { x: EDGE.left - 8, y: (y(value) + 4).toFixed(1), "text-anchor": "end" }, tick(value)),
    ]);
    const minutes = ((span() - 1) * history.step_s) / 60;
    const step = [1, 2, 5].find((step) => minutes / step < 4) ?? 10;
    for (let before = 0; before <= minutes + 0.1; before += step) {
      const x = EDGE.left + inner.w * Math.max(0, 1 - before / minutes);
      const anchor = before === 0 ? "end" : x < EDGE.left + 20 ? "start" : "middle";
      const words = before === 0 ? "now" : `−${before} min`;
      parts.push(svg("text", { x: x.toFixed(1), y: HEIGHT - 5, "text-anchor": anchor }, words));
    }
    grid.replaceChildren(...parts);
  }

  function drawCursor(series, x, y, inner) {
    const back = Math.min(shared.back, Math.max(0, points() - 1));
    const [line, ...dots] = cursor.children;
    const left = EDGE.left + (inner.w * (span() - 1 - back)) / (span() - 1);
    mark(line, { x1: left.toFixed(1), x2: left.toFixed(1), y1: EDGE.top, y2: EDGE.top + inner.h });
    const figures = series.map((values, index) => {
      const at = values.length - 1 - back;
      const value = values[at];
      const isKnown = typeof value === "number";
      mark(dots[index], isKnown ? { cx: x(values)(at).toFixed(1), cy: y(value).toFixed(1), display: null } : { display: "none" });
      return format(value);
    });
    mark(cursor, { "data-back": back > 0 ? "" : null });
    const known = series.flat().filter((value) => typeof value === "number");
    tell(back === 0 ? "now" : ago(back * history.step_s), figures, known.length > 0 ? `highest ${format(Math.max(...known))}` : "nothing yet");
    mark(drawing, { "aria-valuemin": -Math.max(0, points() - 1) * history.step_s, "aria-valuemax": 0, "aria-valuenow": -back * history.step_s });
  }

  // The figures at the mark: beside a sample of their line, and in words.
  const [when, values] = [element("span"), lines.map(() => element("b"))];
  const most = element("span");
  readout.replaceChildren(when, ...lines.map(({ kind, name }, index) => element("span", {}, sample(kind), name, values[index])), most);

  function tell(moment, figures, highest) {
    put(when, `${moment}:`);
    figures.forEach((figure, index) => put(values[index], figure));
    put(most, highest);
    const each = lines.map(({ name }, index) => `${name}${figures[index]}`).join(", ");
    mark(drawing, { "aria-valuetext": `${moment}: ${each}; ${highest}` });
  }

  function move(back) {
    shared.back = Math.max(0, Math.min(points() - 1, back));
    shared.charts.forEach((each) => each());
  }

  const KEYS = { ArrowLeft: 1, ArrowDown: 1, ArrowRight: -1, ArrowUp: -1, PageDown: 12, PageUp: -12, Home: 1e6, End: -1e6 };
  drawing.addEventListener("keydown", (event) => {
    if (!history || !(event.key in KEYS) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    move(shared.back + KEYS[event.key]);
  });
  drawing.addEventListener("pointermove", (event) => {
    if (!history) return;
    const from = drawing.getBoundingClientRect().left + EDGE.left;
    const part = (event.clientX - from) / (width - EDGE.left - EDGE.right);
    move(Math.round((1 - Math.max(0, Math.min(1, part))) * (span() - 1)));
  });
  drawing.addEventListener("pointerleave", () => move(0));
  drawing.addEventListener("blur", () => move(0));
  new ResizeObserver(([entry]) => {
    width = Math.floor(entry.contentRect.width);
    show();
  }).observe(parent);
  return show;
}
