// The dataflow graph, drawn as the data's journey: from left to right where there is room, from top to bottom where not.
//
// The drawing is laid out in pixels for the width that there is, so its text is never scaled. For those who do not see
// it there is the table beneath, and one sentence.

import { mark, put, svg } from "./dom.js";
import { count, duration, percent, plural, rate, short } from "./units.js";

// The stages that most records pass, in order. The dead letters stand beside them.
const SPINE = ["source", "decode", "dedupe", "latest", "write", "invalidate", "commit"];
const ASIDE = "dead-letter";

// What the drawing calls them.
export const TITLES = {
  source: "Source",
  decode: "Decode",
  dedupe: "Dedupe",
  latest: "Latest",
  write: "Write",
  invalidate: "Invalidate",
  "dead-letter": "Dead letter",
  commit: "Commit",
};

// Where their work is done; the others work on the worker threads.
const PLACES = { source: "Kafka", write: "PostgreSQL", invalidate: "Redis", "dead-letter": "Kafka", commit: "Kafka" };

export const placeOf = ({ name, workers }) => PLACES[name] ?? plural(workers?.length ?? 0, "worker");

// The servers that a stage waits for.
const SERVERS = { source: "kafka", write: "postgresql", invalidate: "redis", "dead-letter": "dead-letters" };

// From this width on it goes from left to right, pixels: seven stages, each with its figures side by side.
const WIDE = 1120;

// A stage that is at work for a smaller share of its time limits nothing.
const LIMITING = 0.5;

// The widest line of a flow, pixels; the others are narrower by the root of their rate, so that small ones can be seen.
const FLOW_MAX = 7;

// ------------------------------------------------------------------------------------------------ where things stand

// A way along points with round corners.
function way(...points) {
  const [first, ...rest] = points;
  let path = `M${first[0]} ${first[1]}`;
  rest.forEach(([x, y], index) => {
    const next = rest[index + 1];
    if (!next) {
      path += `L${x} ${y}`;
      return;
    }
    const [fromX, fromY] = points[index];
    const towards = (ax, ay) => {
      const length = Math.hypot(ax - x, ay - y);
      const reach = Math.min(10, length / 2) / length;
      return `${x + (ax - x) * reach} ${y + (ay - y) * reach}`;
    };
    path += `L${towards(fromX, fromY)}Q${x} ${y} ${towards(...next)}`;
  });
  return path;
}

const TIP = 7; // an arrow's head stands between the end of its line and the stage

function across(width) {
  const [gap, height, top] = [30, 132, 34];
  const each = (width - 2 - gap * (SPINE.length - 1)) / SPINE.length;
  const place = {};
  SPINE.forEach((name, index) => (place[name] = { x: 1 + index * (each + gap), y: top, w: each, h: height }));
  const low = top + height + 36;
  place[ASIDE] = { x: place.write.x, y: low, w: each, h: height };

  const middle = top + height / 2;
  const centre = (name) => place[name].x + each / 2;
  const aside = low + height / 2;
  const edges = SPINE.slice(1).map((to, index) => {
    const from = SPINE[index];
    return { from, to, path: way([place[from].x + each, middle], [place[to].x - TIP, middle]) };
  });
  const arc = (from, to, words, shift) => ({
    from, to, words,
    path: way([centre(from), top], [centre(from), top - 20], [centre(to) + shift, top - 20], [centre(to) + shift, top - TIP]),
    at: [(centre(from) + centre(to)) / 2, top - 20],
  });
  edges.push(arc("dedupe", "invalidate", "duplicates", 0));
  edges.push({
    from: "decode", to: ASIDE, words: "rejected",
    path: way([centre("decode"), top + height], [centre("decode"), aside], [place[ASIDE].x - TIP, aside]),
    at: [centre("dedupe") + each / 2, aside],
  });
  edges.push({
    from: "write", to: ASIDE, words: "refused",
    path: way([centre("write"), top + height], [centre("write"), low - TIP]),
    at: [centre("write"), top + height + 14],
  });
  edges.push({
    from: ASIDE, to: "commit", words: "acknowledged",
    path: way([place[ASIDE].x + each, aside], [centre("commit"), aside], [centre("commit"), top + height + TIP]),
    at: [place[ASIDE].x + each + (centre("commit") - place[ASIDE].x - each) / 2, aside],
  });
  return { width, height: low + height + 2, place, edges, isWide: true };
}

function down(width) {
  const [gap, height, rail] = [24, 68, 26];
  const each = width - 2 * rail;
  const order = [...SPINE.slice(0, -1), ASIDE, "commit"];
  const place = {};
  order.forEach((name, index) => (place[name] = { x: rail, y: 1 + index * (height + gap), w: each, h: height }));

  const centre = rail + each / 2;
  const middle = (name) => place[name].y + height / 2;
  const edges = [];
  const straight = (from, to) =>
    edges.push({ from, to, path: way([centre, place[from].y + height], [centre, place[to].y - TIP]) });
  SPINE.slice(1, -1).forEach((to, index) => straight(SPINE[index], to));
  straight(ASIDE, "commit");
  // Beside the stages: what skips some of them on the left, what failed on the right.
  const left = (from, to, fromY, toY) =>
    edges.push({ from, to, path: way([rail, fromY], [8, fromY], [8, toY], [rail - TIP, toY]) });
  const right = (from, toY) =>
    edges.push({
      from, to: ASIDE,
      path: way([rail + each, middle(from)], [width - 8, middle(from)], [width - 8, toY], [rail + each + TIP, toY]),
    });
  left("dedupe", "invalidate", middle("dedupe"), middle("invalidate") - 8);
  left("invalidate", "commit", middle("invalidate") + 14, middle("commit"));
  right("decode", middle(ASIDE));
  right("write", middle(ASIDE));
  return { width, height: place.commit.y + height + 2, place, edges, isWide: false };
}

// ------------------------------------------------------------------------------------------------ one stage

// The parts of a stage that change, and the group that holds them.
function stage(name, { x, y, w, h }, isWide) {
  const text = (kind, left, base, anchor = "start", words = "") =>
    svg("text", { class: kind, x: left, y: base, "text-anchor": anchor }, words);
  const pad = 10;
  const right = w - pad;
  const column = right - 84; // the end of the middle column where stages stand below one another
  const title = text("title", pad, 21, "start", TITLES[name]);
  const [parts, fixed] = isWide
    ? [
        {
          flag: text("flag", right, 21, "end"),
          label: text("label", pad, 36),
          rate: text("rate", pad, 63),
          share: text("share", right, 63, "end"),
          queue: text("small", right, h - 26, "end"),
          errors: text("small errors", right, h - 10, "end"),
        },
        [text("small", pad, h - 26, "start", "queue"), text("small", pad, h - 10, "start", "errors")],
      ]
    : [
        {
          // Where there is no room beside the title, the flag takes the place of the label.
          flag: text("flag", pad, 40),
          label: text("label", pad, 40),
          rate: text("rate", right - 48, 26, "end"),
          share: text("share", right, 26, "end"),
          queue: text("small", column, 43, "end"),
          errors: text("small errors", right, 43, "end"),
        },
        [],
      ];
  const bars = svg("g", { class: "bars", transform: `translate(${pad} ${isWide ? 73 : h - 16})` });
  const box = svg("rect", { class: "box", width: w, height: h, rx: 7 });
  const group = svg(
    "g", { class: "stage", "data-stage": name, transform: `translate(${x} ${y})` },
    box, title, ...fixed, ...Object.values(parts), bars,
  );
  return { group, parts, bars, barWidth: w - 2 * pad, isWide, hasLabel: isWide || w > 240 };
}

// Writes a stage's figures; the flag is what sets it apart now.
function fillStage({ parts, isWide, hasLabel }, figures, flag) {
  const errors = `${figures.errors > 0 ? "✕ " : ""}${short(figures.errors)}`;
  put(parts.flag, flag);
  put(parts.label, hasLabel && (isWide || !flag) ? placeOf(figures) : "");
  put(parts.rate, rate(figures.records_per_s));
  put(parts.share, percent(figures.busy));
  put(parts.queue, isWide ? short(figures.queue) : `queue ${short(figures.queue)}`);
  put(parts.errors, isWide ? errors : `errors ${errors}`);
  mark(parts.errors, { "data-some": figures.errors > 0 ? "" : null });
}

// One line for each worker, as high as their number allows; one for all where there are no workers, or too many.
const BAR_HEIGHTS = [9, 9, 5, 3, 2, 1, 1];

function drawBars({ bars, barWidth }, figures) {
  const workers = (figures.workers ?? []).map((worker) => worker.busy);
  const shares = workers.length in BAR_HEIGHTS && workers.length > 0 ? workers : [figures.busy];
  const each = BAR_HEIGHTS[shares.length];
  while (bars.children.length > 2 * shares.length) bars.lastChild.remove();
  while (bars.children.length < 2 * shares.length) {
    bars.append(svg("rect", { class: bars.children.length % 2 === 0 ? "track" : "busy" }));
  }
  shares.forEach((share, index) => {
    const place = { y: index * (each + 1), height: each, rx: Math.min(2, each / 2) };
    const filled = Math.max(0, Math.min(1, share ?? 0)) * barWidth;
    mark(bars.children[2 * index], { ...place, width: barWidth });
    mark(bars.children[2 * index + 1], { ...place, width: filled.toFixed(1) });
  });
}

// ------------------------------------------------------------------------------------------------ the whole of it

// The drawing in that element; its result takes a snapshot.
export function journey(parent) {
  const title = svg("title", { id: "journey-drawing-title" }, "The dataflow graph");
  const words = svg("desc", { id: "journey-drawing-words" });
  const drawing = svg("svg", {
    role: "img", "aria-labelledby": "journey-drawing-title", "aria-describedby": "journey-drawing-words",
  });
  parent.append(drawing);
  let layout = null;
  let stages = {};
  let flows = [];
  let last = null;

  function arrange(width) {
    layout = width >= WIDE ? across(width) : down(width);
    mark(drawing, { width, height: layout.height, viewBox: `0 0 ${width} ${layout.height}` });
    const arrow = svg(
      "marker",
      { id: "arrow", markerUnits: "userSpaceOnUse", markerWidth: 8, markerHeight: 10, refX: 1, refY: 5, orient: "auto" },
      svg("path", { class: "tip", d: "M0 0L8 5L0 10Z" }),
    );
    flows = layout.edges.map((edge) => ({ ...edge, line: svg("path", { class: "flow", d: edge.path, "marker-end": "url(#arrow)" }) }));
    const labels = layout.edges.filter((edge) => edge.words).map(({ words, at: [x, y] }) =>
      svg("text", { class: "edge-words", x, y: y + 4, "text-anchor": "middle" }, words));
    stages = {};
    for (const [name, place] of Object.entries(layout.place)) stages[name] = stage(name, place, layout.isWide);
    drawing.replaceChildren(
      title, words, svg("defs", {}, arrow),
      ...flows.map((flow) => flow.line), ...labels, ...Object.values(stages).map(({ group }) => group),
    );
    if (last) show(last);
  }

  function show(snapshot) {
    last = snapshot;
    if (!layout) return;
    const figures = Object.fromEntries((snapshot.stages ?? []).map((stage) => [stage.name, stage]));
    const held = Object.fromEntries((snapshot.dependencies ?? []).map((server) => [server.name, server]));
    const most = Math.max(1, ...(snapshot.stages ?? []).map((stage) => stage.records_per_s ?? 0));
    for (const [name, drawn] of Object.entries(stages)) {
      const figure = figures[name] ?? { name };
      const server = held[SERVERS[name]];
      const isHeld = server?.state === "held";
      const isLimit = !isHeld && snapshot.limit?.node === name && snapshot.limit.busy >= LIMITING;
            fillStage(drawn, figure, isHeld ? "▲ held" : isLimit ? "limits" : "");
      mark(drawn.group, { "data-held": isHeld ? "" : null, "data-limit": isLimit ? "" : null });
      drawBars(drawn, figure);
    }
    for (const { from, to, line } of flows) {
      const flow = Math.max(0, through(figures, from, to));
      mark(line, { "stroke-width": flow > 0 ? Math.max(1.5, FLOW_MAX * Math.sqrt(flow / most)).toFixed(1) : 1 });
      mark(line, { "data-idle": flow > 0 ? null : "" });
    }
    put(words, inWords(snapshot, figures));
  }

  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 0 && width !== layout?.width) arrange(width);
  }).observe(parent);
  return show;
}

// How many records a second go that way, as far as the figures tell: what goes aside is what does not go on.
function through(figures, from, to) {
  const of = (name) => figures[name]?.records_per_s ?? 0;
  if (to === ASIDE) return Math.min(of(ASIDE), of(from));
  if (from === "dedupe" && to === "invalidate") return of("dedupe") - of("latest");
  if (from === ASIDE) return of(ASIDE);
  return Math.min(of(from), of(to));
}

function inWords(snapshot, figures) {
  const busiest = (snapshot.stages ?? []).filter((stage) => stage.busy > 0).sort((a, b) => b.busy - a.busy)[0];
  const held = (snapshot.dependencies ?? []).filter((server) => server.state === "held");
  const errors = (snapshot.stages ?? []).reduce((sum, stage) => sum + (stage.errors ?? 0), 0);
  const sentences = [`From Kafka to the committed offset, at ${rate(figures.source?.records_per_s)}.`];
  if (busiest) sentences.push(`Busiest: ${TITLES[busiest.name] ?? busiest.name}, at work ${percent(busiest.busy)} of the time.`);
  held.forEach((server) => sentences.push(`${server.name} is held since ${duration(server.since_s)}.`));
  sentences.push(`Errors: ${count(errors)}. The stages follow as a table.`);
  return sentences.join(" ");
}
