// The few things that are done to the document. Every value goes in as text: ids and reasons come from strangers.
//
// Nothing is written that is there already, so that a selection survives the next second's figures.

const SVG = "http://www.w3.org/2000/svg";

// The element of the page with that id.
export function at(id) {
  return document.getElementById(id);
}

function build(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // strings become text nodes, never markup
  return made;
}

export function element(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

// Sets the text of a node.
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Sets attributes of a node; null takes one away.
export function mark(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
}

// Sets a property that the style sheet draws with. (Through the object model: the policy allows no style attributes.)
export function draw(node, property, value) {
  if (node.style.getPropertyValue(property) !== String(value)) node.style.setProperty(property, value);
}

const made = new WeakMap();

// Makes the children of a node those of the items, in their order: what has the same key as before stays the same element.
// `make` gives an element, `fill` writes an item into it.
export function list(parent, items, key, make, fill) {
  const before = made.get(parent) ?? new Map();
  const names = items.map(key);
  const stay = new Set(names);
  before.forEach((child, name) => stay.has(name) || child.remove());
  const after = new Map();
  let place = parent.firstChild;
  items.forEach((item, index) => {
    const child = before.get(names[index]) ?? make(item);
    after.set(names[index], child);
    fill(child, item, index);
    // Moving an element takes the focus from it: only what stands elsewhere is moved.
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  });
  made.set(parent, after);
}

// A row of a table. The roles keep it one where a narrow screen shows it as a block.
export function row(...cells) {
  return element("tr", { role: "row" }, ...cells);
}

// A cell, under the heading that a narrow screen shows beside it.
export function cell(kind = "", heading = "") {
  return element("td", { role: "cell", class: kind, ...(heading && { "data-heading": heading }) });
}

// The first cell of a row, which names it.
export function heading(text = "") {
  return element("th", { role: "rowheader", scope: "row" }, text);
}
