// The page of a running pipeline: follows the stream of snapshots and draws each.
//
// page/link.js      the stream, and coming back to it
// page/summary.js   the figures on top, the servers, what limits
// page/journey.js   the dataflow graph
// page/charts.js    the last 15 minutes
// page/workers.js   workers as lanes, epochs
// page/partitions.js, page/outcomes.js   the tables
// page/units.js, page/dom.js             numbers for people; every value as text

import { chart } from "./page/charts.js";
import { at, mark, put } from "./page/dom.js";
import { journey } from "./page/journey.js";
import { follow } from "./page/link.js";
import { letters, outcomes, stages } from "./page/outcomes.js";
import { partitions, sortable } from "./page/partitions.js";
import { nameOf, summary } from "./page/summary.js";
import { duration, rate, roughly, round } from "./page/units.js";
import { epochs, workers } from "./page/workers.js";

// ------------------------------------------------------------------------------------------------ what is drawn

const shared = { back: 0, charts: [] };
const milliseconds = (value) => duration(typeof value === "number" ? value / 1000 : null);
const drawJourney = journey(at("journey"));

chart(at("throughput"), {
  label: "Throughput of the last 15 minutes",
  lines: [{ kind: "first", name: "", of: (history) => history.records_per_s }],
  format: rate,
  tick: (value) => round(rate(value)),
  readout: at("throughput-readout"),
  shared,
});
chart(at("latency"), {
  label: "Latency of the last 15 minutes",
  lines: [
    { kind: "second", name: "p99 ", of: (history) => history.latency_p99_ms },
    { kind: "first", name: "median ", of: (history) => history.latency_p50_ms },
  ],
  format: milliseconds,
  tick: (value) => (value < 1000 ? round(milliseconds(value)) : `${value / 1000} s`),
  isLogarithmic: true,
  readout: at("latency-readout"),
  shared,
});

function render(snapshot) {
  drawHead(snapshot);
  summary(snapshot);
  drawJourney(snapshot);
  stages(snapshot);
  workers(snapshot);
  epochs(snapshot);
  partitions(snapshot);
  outcomes(snapshot);
  letters(snapshot);
  const { history } = snapshot;
  if (history) shared.charts.forEach((show) => show({ ...history, step_s: history.step_s || 5 }));
}

// ------------------------------------------------------------------------------------------------ the state of things

const STATES = {
  running: ["●", "running", "#1f8a4c"],
  held: ["▲", "held", "#c77700"],
  starting: ["○", "starting", "#5f6b76"],
  draining: ["■", "draining", "#5f6b76"],
  away: ["✕", "no connection", "#c02b2b"],
};

function drawHead({ topic, group, version, started_ms, now_ms, state }) {
  put(at("place"), `${topic} → ${group} · ${version} · up ${roughly((now_ms - started_ms) / 1000)}`);
  drawState(state);
}

function drawState(state) {
  const [glyph, word, colour] = STATES[state] ?? ["○", state ?? "unknown", "#5f6b76"];
  mark(at("state"), { "data-state": state });
  put(at("state").firstElementChild, glyph);
  put(at("state-word"), word);
  const topic = last?.topic ? `${last.topic} · contentflow` : "contentflow";
  const title = state === "running" ? topic : `${glyph} ${word} · ${topic}`;
  if (document.title !== title) document.title = title;
  // The same sign in the browser's tab.
  const shape = state === "held" ? "M8 2L15 14H1Z" : state === "away" ? "M3 3L13 13M13 3L3 13" : "M8 2a6 6 0 1 0 .01 0Z";
  const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="${shape}" fill="${colour}" stroke="${colour}" stroke-width="2" stroke-linejoin="round"/></svg>`;
  mark(at("icon"), { href: `data:image/svg+xml,${encodeURIComponent(icon)}` });
}

// ------------------------------------------------------------------------------------------------ what is announced

// Tells those who listen, not look: only when something has come or gone.
function announce(text) {
  put(at("announcement"), text);
}

function announceChanges(before, now) {
  const stateOf = (snapshot, name) => snapshot?.dependencies?.find((server) => server.name === name)?.state;
  const news = [];
  for (const server of now.dependencies ?? []) {
    const was = stateOf(before, server.name);
    if (server.state === "held" && was !== "held") news.push(`${nameOf(server)} is held: ${server.error ?? "no answer"}.`);
    if (server.state === "up" && was === "held") news.push(`${nameOf(server)} is up again.`);
  }
  if (before && before.state !== now.state) news.push(`The pipeline is ${now.state}.`);
  if (news.length > 0) announce(news.join(" "));
}

// ------------------------------------------------------------------------------------------------ live, away, paused

let last = null; // the newest snapshot
let lastAt = 0; // when it came, by this browser's clock, ms
let awaySince = 0;
let isRefused = false;
let isPaused = false;

const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

function take(snapshot) {
  // Another version of the program may have another page.
  if (last && last.version !== snapshot.version) location.reload();
  const before = last;
  last = snapshot;
  lastAt = Date.now();
  announceChanges(before, snapshot);
  // Of a page that nobody sees or that is to stand still, only the state is kept up.
  if (isPaused || document.hidden) drawState(snapshot.state);
  else render(snapshot);
}

function drawLink() {
  const isAway = awaySince > 0;
  mark(document.body, { "data-link": isAway ? "away" : last ? "live" : "opening", "data-paused": isPaused ? "" : null });
  at("away").hidden = !isAway;
  if (isAway) {
    const seconds = (Date.now() - (lastAt || awaySince)) / 1000;
    const figures = lastAt ? ` These are the figures of ${clock(lastAt)}.` : "";
    put(at("away-words"), isRefused
      ? "contentflow asks for a token: open this page once with ?token=… at the end of its address."
      : `No answer from contentflow for ${roughly(seconds)}.${figures} Trying again until it is back.`);
    put(at("link"), "trying again");
    drawState("away");
  } else if (last) {
    put(at("link"), isPaused ? "paused" : "live");
  }
}

at("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  mark(at("pause"), { "aria-pressed": String(isPaused) });
  put(at("pause"), isPaused ? "Go on" : "Pause");
  if (!isPaused && last) render(last);
  drawLink();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !isPaused && last) render(last);
});

sortable();

// A token in the address has become a cookie by now: it is not to stand where others look over one's shoulder.
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname);

follow("events", {
  snapshot: take,
  live() {
    if (awaySince > 0) announce("Connected again.");
    awaySince = 0;
    isRefused = false;
    drawLink();
  },
  away() {
    if (awaySince === 0) {
      awaySince = Date.now();
      announce("The connection to contentflow is lost. The figures are stale.");
    }
    drawLink();
  },
  refused() {
    isRefused = true;
    drawLink();
  },
});
setInterval(drawLink, 1_000);
