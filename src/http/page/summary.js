// What one wants to know first: the figures on top, the servers, and what limits.

import { at, element, list, mark, put } from "./dom.js";
import { count, duration, percent, plural, rate, roughly, short } from "./units.js";

// The last figure of a history that is known.
const newest = (values) => (values ?? []).findLast((value) => typeof value === "number");

// The mean of what is known of the last minute.
function lastMinute(values, step) {
  const known = (values ?? []).slice(-Math.max(1, Math.round(60 / step))).filter((value) => typeof value === "number");
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

const milliseconds = (value) => duration(typeof value === "number" ? value / 1000 : null);

// The tiles on top: what it is, the figure, and what it means.
function tiles(snapshot) {
  const { history = {}, epochs = {}, outcomes = {}, partitions = [], stages = [] } = snapshot;
  const now = stages.find((stage) => stage.name === "commit")?.records_per_s;
  const lags = partitions.map((partition) => partition.lag).filter((lag) => typeof lag === "number");
  const lag = lags.length ? lags.reduce((sum, each) => sum + each, 0) : null;
  const share = outcomes.read > 0 ? outcomes.rejected / outcomes.read : 0;
  return [
    { name: "Throughput", value: rate(now), note: `${rate(lastMinute(history.records_per_s, history.step_s ?? 5))} in the last minute` },
    { name: "Latency, median", value: milliseconds(newest(history.latency_p50_ms)), note: `p99 ${milliseconds(newest(history.latency_p99_ms))}` },
    { name: "Lag", value: short(lag), note: behind(lag, now) },
    { name: "Frontier behind", value: duration(epochs.oldest_age_s), note: "oldest epoch under way" },
    { name: "In flight", value: short(epochs.records_in_flight), note: `records, ${count(epochs.in_flight)} of ${count(epochs.limit)} epochs` },
    { name: "Rejected", value: short(outcomes.rejected), note: outcomes.rejected > 0 ? `${percent(share)} of ${short(outcomes.read)} read` : `of ${short(outcomes.read)} read` },
  ];
}

function behind(lag, now) {
  if (lag === null) return "records, not known yet";
  if (lag === 0) return "records, caught up";
  return now > 0 ? `records, ${duration(lag / now)} at this rate` : "records";
}

function tile({ name }) {
  return element("div", { "data-figure": name }, element("dt"), element("dd", { class: "value" }), element("dd", { class: "note" }));
}

// What the states of a server are called. Each has a sign of its own, so that colour is not needed.
const STATES = { up: ["●", "up"], held: ["▲", "held"], unknown: ["○", "unknown"] };
const NAMES = { kafka: "Kafka", postgresql: "PostgreSQL", redis: "Redis", "dead-letters": "Dead-letter topic" };

export const nameOf = (server) => NAMES[server.name] ?? server.name;

function server() {
  return element(
    "li", {},
    element("span", { class: "glyph", "aria-hidden": "true" }),
    element("span", { class: "name" }),
    element("span", { class: "how" }),
    element("span", { class: "error" }),
  );
}

function fillServer(item, server) {
  const [glyph, name, how, error] = item.children;
  const [sign, word] = STATES[server.state] ?? STATES.unknown;
  const isHeld = server.state === "held";
  mark(item, { "data-state": server.state, "data-server": server.name });
  put(glyph, sign);
  put(name, nameOf(server));
  put(how, isHeld ? heldFor(server) : server.since_s > 0 ? `${word} for ${roughly(server.since_s)}` : word);
  put(error, isHeld ? (server.error ?? "") : "");
}

function heldFor({ since_s, tries, retry_in_s }) {
  const said = [`held for ${roughly(since_s)}`];
  if (tries > 0) said.push(plural(tries, "try", "tries"));
  if (typeof retry_in_s === "number") said.push(retry_in_s > 0.05 ? `next in ${duration(Math.max(0.1, retry_in_s)).replace(/(\d)00 ms/, "0.$1 s")}` : "trying now");
  return said.join(", ");
}

export function summary(snapshot) {
  list(at("tiles"), tiles(snapshot), ({ name }) => name, tile, (made, { name, value, note }) => {
    [name, value, note].forEach((text, index) => put(made.children[index], text));
  });
  list(at("servers"), snapshot.dependencies ?? [], ({ name }) => name, server, fillServer);
  put(at("limit-words"), snapshot.limit?.words ?? "Nothing is measured yet.");
  put(at("limit-advice"), snapshot.limit?.advice ?? "");

  const reasons = snapshot.ready === false ? (snapshot.not_ready ?? []) : [];
  at("not-ready").hidden = reasons.length === 0;
  list(at("not-ready-reasons"), reasons, (_, index) => index, () => element("li"), put);
}
