// Numbers as people read them: 12.3 k/s, 4 ms, 3 min ago.
//
// The words of the page are English, so are its numbers, whatever the browser prefers: a page that is read out over the
// phone or pasted into a ticket says the same everywhere.

// Shown where a figure is unknown. Zero is a figure, this is none.
export const UNKNOWN = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

// Three digits: enough to see a change, few enough to read while they change.
function digits(value) {
  if (value >= 99.95) return value.toFixed(0);
  return value.toFixed(value >= 9.995 ? 1 : 2);
}

// A count of things: 1,234,567.
export function count(value) {
  return isKnown(value) ? whole.format(value) : UNKNOWN;
}

// A large number, short: 812, 12.3 k, 4.56 M.
export function short(value) {
  if (!isKnown(value)) return UNKNOWN;
  if (value < 9.95) return Number.isInteger(value) ? String(value) : value.toFixed(1);
  if (value < 999.5) return value.toFixed(0);
  for (const [unit, size] of [["k", 1e3], ["M", 1e6]]) {
    if (value < 999.5 * size) return `${digits(value / size)} ${unit}`;
  }
  return `${digits(value / 1e9)} G`;
}

// A rate: 12.3 k/s.
export function rate(value) {
  return isKnown(value) ? `${short(value)}/s`.replace(/(\d)\/s$/, "$1 /s") : UNKNOWN;
}

// A share from 0 to 1: 31 %. What is there but rounds to nothing is not called nothing.
export function percent(share) {
  if (!isKnown(share)) return UNKNOWN;
  if (share > 0 && share < 0.005) return "< 1 %";
  return `${(100 * share).toFixed(0)} %`;
}

// How long, from seconds: 0.4 ms, 4 ms, 1.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h.
export function duration(seconds) {
  if (!isKnown(seconds)) return UNKNOWN;
  if (seconds <= 0) return "0 s";
  if (seconds < 0.00995) return `${(1000 * seconds).toFixed(1)} ms`.replace(".0 ", " ");
  if (seconds < 0.9995) return `${(1000 * seconds).toFixed(0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const total = Math.round(seconds);
  for (const [large, size, small, part] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (total < size) continue;
    const rest = Math.floor((total % size) / part);
    return `${Math.floor(total / size)} ${large}` + (rest > 0 ? ` ${rest} ${small}` : "");
  }
  return `${total} s`;
}

// A round number without its zeros behind the point, as an axis has it: 50 k/s for 50.0 k/s.
export function round(text) {
  return text.replace(/\.0+(?= )/, "");
}

// How long, in whole steps that do not flicker: for times that grow while one looks.
export function roughly(seconds) {
  if (!isKnown(seconds)) return UNKNOWN;
  return seconds < 1 ? "0 s" : duration(Math.floor(seconds) < 10 ? Math.floor(seconds) : seconds).replace(".0 s", " s");
}

// How long ago: now, 12 s ago, 3 min ago.
export function ago(seconds) {
  if (!isKnown(seconds)) return UNKNOWN;
  if (seconds < 2) return "now";
  if (seconds < 90) return `${Math.floor(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

// One thing, two things.
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
