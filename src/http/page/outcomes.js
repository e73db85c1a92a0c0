// What became of the records, why some were rejected, and the last dead letters. No payload is shown anywhere.

import { at, cell, draw, element, heading, list, mark, put, row } from "./dom.js";
import { TITLES, placeOf } from "./journey.js";
import { ago, count, percent, rate } from "./units.js";

// The outcomes that add up to what was read, with their meaning.
const OUTCOMES = [
  ["applied", "rows updated"],
  ["duplicate", "job seen before"],
  ["superseded", "a newer event is in the row"],
  ["skipped", "other event types"],
  ["rejected", "dead-lettered"],
];

function outcome([name]) {
  const head = heading();
  head.append(element("i", { "data-outcome": name, "aria-hidden": "true" }), element("span"), element("small"));
  const made = row(head, cell("number"), cell("number share"));
  mark(made, { "data-figure": name });
  return made;
}

function fillOutcome(made, [name, meaning, number, total]) {
  const [head, value, share] = made.children;
  put(head.children[1], name);
  put(head.children[2], meaning);
  put(value, count(number));
  put(share, total > 0 && typeof number === "number" ? percent(number / total) : "");
}

export function outcomes({ outcomes: sums = {}, rejected_by_reason: reasons = {} }) {
  const total = OUTCOMES.reduce((sum, [name]) => sum + (sums[name] ?? 0), 0);
  const lines = [
    ["read", "records", sums.read, 0],
    ...OUTCOMES.map(([name, meaning]) => [name, meaning, sums[name], total]),
    ["deletes", "cache keys, answered", sums.deletes, 0],
    ["keys deleted", "of them found one", sums.keys_deleted, 0],
    ...(sums.job_reused > 0 ? [["job reused", "one job for two drafts", sums.job_reused, 0]] : []),
  ];
  list(at("outcomes").tBodies[0], lines, ([name]) => name, outcome, fillOutcome);
  list(at("outcome-bar"), OUTCOMES.filter(([name]) => sums[name] > 0), ([name]) => name,
    ([name]) => element("i", { "data-outcome": name }),
    (piece, [name]) => draw(piece, "--share", (sums[name] / total).toFixed(5)));

  const sorted = Object.entries(reasons).filter(([, number]) => number > 0).sort(([a, m], [b, n]) => n - m || a.localeCompare(b));
  const most = Math.max(1, ...sorted.map(([, number]) => number));
  at("no-reasons").hidden = sorted.length > 0;
  at("reasons").hidden = sorted.length === 0;
  list(at("reasons").tBodies[0], sorted, ([reason]) => reason, () => row(heading(), cell("number lag")), (made, [reason, number]) => {
    const [name, value] = made.children;
    put(name, reason);
    put(value, count(number));
    draw(value, "--share", (number / most).toFixed(3));
  });
}

function letter() {
  const when = cell("when", "When");
  when.append(element("time"));
  return row(when, cell("code", "Reason"), cell("", "Stage"), cell("number", "Partition:offset"), cell("message", "Message"));
}

// How long ago is told by the server's clock: the reader's own may be wrong.
export function letters({ dead_letters: all = [], now_ms: now }) {
  const sorted = [...all].sort((a, b) => b.at_ms - a.at_ms);
  at("no-letters").hidden = sorted.length > 0;
  at("letters").hidden = sorted.length === 0;
  const key = ({ partition, offset, at_ms }) => `${partition}:${offset}:${at_ms}`;
  list(at("letters").tBodies[0], sorted, key, letter, (made, item) => {
    const [when, reason, stage, position, message] = made.children;
    const moment = new Date(item.at_ms);
    put(when.firstChild, ago((now - item.at_ms) / 1000));
    mark(when.firstChild, { datetime: moment.toISOString(), title: moment.toLocaleString() });
    put(reason, item.reason);
    put(stage, TITLES[item.stage] ? TITLES[item.stage].toLowerCase() : item.stage);
    put(position, `${item.partition}:${item.offset}`);
    put(message, item.message);
  });
}

// The stages as a table, for those who do not see the drawing, and for copying.
export function stages({ stages: all = [] }) {
  list(at("stages").tBodies[0], all, ({ name }) => name, () => row(heading(), ...[1, 2, 3, 4].map(() => cell("number"))), (made, stage) => {
    const [name, records, busy, queue, errors] = made.children;
    put(name, `${TITLES[stage.name] ?? stage.name}, ${placeOf(stage)}`);
    put(records, rate(stage.records_per_s));
    put(busy, percent(stage.busy));
    put(queue, count(stage.queue));
    put(errors, count(stage.errors));
  });
}
