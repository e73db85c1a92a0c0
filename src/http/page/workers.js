// Workers as lanes, so that skew is seen, and the epochs that go through them.

import { at, cell, draw, element, heading, list, mark, put, row } from "./dom.js";
import { TITLES } from "./journey.js";
import { count, duration, percent, rate, short } from "./units.js";

// From this on one worker has so much more to do than the mean that it holds the others up; but not while it is at ease.
const SKEWED = 1.25;
const AT_EASE = 0.5;

// The parts of a worker's time, in the order of the journey.
const PARTS = ["decode", "dedupe", "latest", "write", "invalidate", "dead-letter", "commit", "other"];

function lane() {
  const bar = element("div", { class: "lane", "aria-hidden": "true" });
  const cellOfBar = cell("bar");
  cellOfBar.append(bar);
  return row(heading(), cellOfBar, cell("number"), cell("number"), cell("number"));
}

// A worker's time by stage. What its stages do not account for (moving data between workers, keeping track) is "other".
function parts(worker) {
  const stages = { ...(worker.stages ?? {}) };
  const known = Object.values(stages).reduce((sum, share) => sum + (share ?? 0), 0);
  const rest = (worker.busy ?? 0) - known;
  if (rest > 0.005) stages.other = (stages.other ?? 0) + rest;
  const names = [...PARTS, ...Object.keys(stages).filter((name) => !PARTS.includes(name))];
  return names.filter((name) => stages[name] > 0.002).map((name) => ({ name, share: stages[name] }));
}

function fillLane(made, worker) {
  const [name, bar, share, records, queue] = made.children;
  put(name, String(worker.worker));
  put(share, percent(worker.busy));
  put(records, rate(worker.records_per_s));
  put(queue, short(worker.queue));
  list(bar.firstChild, parts(worker), ({ name }) => name, ({ name }) => element("i", { "data-part": name }), (piece, part) => {
    draw(piece, "--share", part.share.toFixed(4));
    mark(piece, { title: `${TITLES[part.name] ?? part.name} ${percent(part.share)}` });
  });
}

function skew(workers) {
  if (workers.length === 0) return "No worker yet.";
  if (workers.length === 1) return "One worker: no skew.";
  const shares = workers.map((worker) => worker.busy ?? 0);
  const [most, mean] = [Math.max(...shares), shares.reduce((sum, share) => sum + share, 0) / shares.length];
  if (most < AT_EASE) return `At ease: the busiest is at work ${percent(most)} of the time.`;
  const factor = (most / mean).toFixed(2);
  if (most < SKEWED * mean) return `Even: the busiest is at work ${factor} times as much as the mean.`;
  const busiest = workers[shares.indexOf(most)].worker;
  return `Skewed: worker ${busiest} is at work ${factor} times as much as the mean. Where a few drafts have most of the events, more workers do not help.`;
}

export function workers(snapshot) {
  const all = snapshot.workers ?? [];
  put(at("skew"), skew(all));
  list(at("workers").tBodies[0], all, ({ worker }) => worker, lane, fillLane);
  const names = new Set(all.flatMap((worker) => parts(worker).map(({ name }) => name)));
  list(at("lanes-legend"), [...PARTS, ...names].filter((name, index, them) => names.has(name) && them.indexOf(name) === index),
    (name) => name,
    (name) => element("li", {}, element("i", { "data-part": name, "aria-hidden": "true" }), TITLES[name] ?? name),
    () => {});
}

// The epochs around the frontier: what is durable, what is under way, what is being filled.
function epochLine({ open, in_flight = 0, done_below }) {
  if (typeof open !== "number") return [];
  const shown = [];
  if (done_below > 0) shown.push({ number: done_below - 1, what: "durable" });
  const first = Math.max(done_below ?? open - in_flight, open - 6);
  for (let number = first; number < open; number += 1) shown.push({ number, what: "in flight" });
  shown.push({ number: open, what: "open" });
  return shown;
}

export function epochs({ epochs = {} }) {
  const { in_flight, limit, oldest_age_s, records_in_flight, done_below, open } = epochs;
  const words = in_flight > 0
    ? `${count(in_flight)} of at most ${count(limit)} under way; the frontier is ${duration(oldest_age_s)} behind.`
    : "Nothing under way: everything read is durable.";
  put(at("epochs-words"), typeof open === "number" ? words : "None yet.");
  list(at("epochs"), epochLine(epochs), ({ number }) => number, () => element("li", {}, element("b"), " ", element("span")), (made, epoch) => {
    mark(made, { "data-what": epoch.what });
    put(made.firstChild, count(epoch.number));
    put(made.lastChild, epoch.what);
  });
  const pairs = [
    ["Records in flight", count(records_in_flight)],
    ["Durable below epoch", count(done_below)],
    ["Being filled", typeof open === "number" ? `epoch ${count(open)}` : count(null)],
  ];
  list(at("epoch-pairs"), pairs, ([name]) => name, () => element("div", {}, element("dt"), element("dd")), (made, [name, value]) => {
    put(made.firstChild, name);
    put(made.lastChild, value);
  });
}
