// Position, committed offset, end and lag by partition.

import { at, cell, draw, heading, list, mark, put, row } from "./dom.js";
import { count, plural, short } from "./units.js";

// What the rows are sorted by, as the reader has asked: by number, or the largest lag first.
let sort = "partition";
let last = null;

const ORDERS = {
  partition: (a, b) => a.partition - b.partition,
  lag: (a, b) => (b.lag ?? -1) - (a.lag ?? -1) || a.partition - b.partition,
};

function line() {
  return row(heading(), cell("number", "Position"), cell("number", "Committed"), cell("number", "End"), cell("number lag", "Lag"));
}

export function partitions(snapshot) {
  last = snapshot;
  const all = [...(snapshot.partitions ?? [])].sort(ORDERS[sort]);
  const most = Math.max(1, ...all.map(({ lag }) => lag ?? 0));
  const sum = all.reduce((sum, { lag }) => sum + (lag ?? 0), 0);
  put(at("partitions-words"), all.length === 0
    ? "None assigned: other members of the group have them, or the group is being joined."
    : `${plural(all.length, "partition")}, ${count(sum)} records behind, at most ${count(most > 1 || sum > 0 ? most : 0)} in one.`);
  list(at("partitions").tBodies[0], all, ({ partition }) => partition, line, (made, item) => {
    const [name, position, committed, end, lag] = made.children;
    put(name, String(item.partition));
    put(position, count(item.position));
    put(committed, count(item.committed));
    put(end, count(item.end));
    put(lag, count(item.lag));
    draw(lag, "--share", ((item.lag ?? 0) / most).toFixed(3));
    mark(made, { title: `partition ${item.partition}: ${short(item.lag)} behind` });
  });
}

// The headings that sort.
export function sortable() {
  at("partitions").tHead.addEventListener("click", ({ target }) => {
    const button = target.closest("button[data-sort]");
    if (!button) return;
    sort = button.dataset.sort;
    for (const each of at("partitions").tHead.querySelectorAll("button[data-sort]")) {
      const order = each.dataset.sort === "lag" ? "descending" : "ascending";
      mark(each.closest("th"), { "aria-sort": each === button ? order : "none" });
    }
    if (last) partitions(last);
  });
}
