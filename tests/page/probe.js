// What the tests ask of the page as it is drawn. An object of functions, which the test puts into the page.
({
  // Texts of which the contrast to what is behind them is below what WCAG 2.2 AA asks: 4.5, or 3 for large ones.
  faint() {
    const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = ([red, green, blue]) => {
      const linear = [red, green, blue].map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
      return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const ratio = (a, b) => {
      const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
      return (light + 0.05) / (dark + 0.05);
    };
    const isSvg = (element) => element instanceof SVGElement;
    const behind = (element) => {
      const box = element.closest(".stage")?.querySelector(".box");
      if (box) return numbers(getComputedStyle(box).fill);
      for (let at = element; at; at = at.parentElement) {
        const colour = numbers(getComputedStyle(at).backgroundColor);
        if (colour.length === 3 || colour[3] > 0) return colour;
      }
      return [255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      const text = walker.currentNode.data.trim();
      if (!text || element.closest(".unseen, noscript, [hidden], title, desc") || !element.checkVisibility()) continue;
      const style = getComputedStyle(element);
      const contrast = ratio(numbers(isSvg(element) ? style.fill : style.color), behind(element));
      const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
      if (contrast < (isLarge ? 3 : 4.5)) found.push(`${text}: ${contrast.toFixed(2)}`);
    }
    return found;
  },

  // What reaches over the right edge of the window, or over the edge of what it stands in.
  overflowing() {
    const width = document.documentElement.clientWidth;
    const isSeen = (element) => !element.closest(".unseen, .skip, [hidden]") && !element.closest("thead") && element.checkVisibility();
    const found = [...document.body.querySelectorAll("*")]
      .filter((element) => isSeen(element) && element.getBoundingClientRect().right > width + 0.5)
      .map((element) => `${element.tagName} ${element.className.baseVal ?? element.className}: ${element.textContent.slice(0, 40)}`);
    const sideways = [...document.querySelectorAll(".panel, .scroll, main, body, html")]
      .filter((element) => element.scrollWidth > element.clientWidth + 1)
      .map((element) => `${element.tagName} ${element.className} scrolls sideways`);
    return [...found, ...sideways];
  },

  // The stages whose texts lie over one another.
  overlapping() {
    const found = [];
    for (const stage of document.querySelectorAll("#journey .stage")) {
      const boxes = [...stage.querySelectorAll("text")].filter((text) => text.textContent).map((text) => [text.textContent, text.getBoundingClientRect()]);
      boxes.forEach(([a, one], index) => boxes.slice(index + 1).forEach(([b, other]) => {
        // Line boxes of neighbouring lines may touch; two texts on one line may not.
        const deep = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 6;
        if (deep && one.left < other.right && other.left < one.right) found.push(`${stage.dataset.stage}: ${a} | ${b}`);
      }));
    }
    return found;
  },

  // What assistive technology would miss.
  missing() {
    const found = [];
    const want = (holds, what) => holds || found.push(what);
    const labelled = (element) => (element.getAttribute("aria-labelledby") ?? "").split(" ")
      .map((id) => document.getElementById(id)?.textContent ?? "").join("");
    for (const landmark of ["main", "header", "footer", "h1"]) want(document.querySelectorAll(landmark).length === 1, `one ${landmark}`);
    want(document.documentElement.lang === "en", "a language");
    want(document.title.includes("contentflow"), "a title");
    document.querySelectorAll("section").forEach((section) =>
      want(labelled(section) || section.getAttribute("aria-label"), `a name for section ${section.className}`));
    let level = 0;
    document.querySelectorAll("h1, h2, h3").forEach((heading) => {
      want(Number(heading.tagName[1]) <= level + 1, `a level before ${heading.textContent}`);
      level = Number(heading.tagName[1]);
    });
    document.querySelectorAll("table").forEach((table) => {
      want(table.caption?.textContent, `a caption for ${table.id}`);
      table.querySelectorAll("th").forEach((head) => want(head.scope, `a scope for ${head.textContent}`));
      for (const row of table.tBodies[0].rows) want(row.cells[0].tagName === "TH" || table.id === "letters", `a row heading in ${table.id}`);
    });
    document.querySelectorAll("[role=img]").forEach((image) => want(labelled(image), "a name for a drawing"));
    document.querySelectorAll("[role=slider]").forEach((slider) => {
      want(slider.getAttribute("aria-label"), "a name for a chart");
      want(slider.getAttribute("aria-valuetext")?.includes(":"), "the figures of a chart in words");
    });
    want(document.querySelectorAll("[aria-live], [role=status], [role=alert]").length === 1, "one place that is read out, not more");
    return found;
  },

  // What has the focus: its name, and whether one sees that it has it.
  focus() {
    const element = document.activeElement;
    const style = getComputedStyle(element);
    const isSeen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 && element.getBoundingClientRect().bottom > 0;
    const name = element.getAttribute("aria-label")
      ?? document.getElementById(element.getAttribute("aria-labelledby"))?.textContent ?? element.textContent;
    return `${isSeen ? "" : "UNSEEN "}${name.trim()}`;
  },
})
