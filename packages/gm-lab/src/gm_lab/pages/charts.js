"use strict";
// Line charts with intervals, for every page: colours that are readable on dark, too, numbers as people read them.
const charts = (() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const tone = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const data = () => JSON.parse(document.getElementById("data").textContent);

  // three significant digits, without an exponent as long as a number is readable
  function digits(value) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    const rounded = Number(value.toPrecision(3));
    return rounded !== 0 && (Math.abs(rounded) < 1e-4 || Math.abs(rounded) >= 1e6)
      ? rounded.toExponential() : String(rounded).replace("-", "−");
  }

  const interval = point => digits(point.mean)
    + (Number.isFinite(point.low) && point.low !== null && Number.isFinite(point.high) && point.high !== null
      ? ` [${digits(point.low)}, ${digits(point.high)}]` : "");

  function luminance([red, green, blue]) {
    const part = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
  }
  const parts = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));

  // a colour as it is, or lighter on a dark page until its contrast is 4.5 : 1
  function readable(colour) {
    if (!dark.matches) return colour;
    const back = luminance(parts("#111418"));
    for (let white = 0; white < 1; white += 0.05) {
      const mixed = parts(colour).map(value => Math.round(value + (255 - value) * white));
      if ((luminance(mixed) + 0.05) / (back + 0.05) >= 4.5)
        return "#" + mixed.map(value => value.toString(16).padStart(2, "0")).join("");
    }
    return "#ffffff";
  }

  function config() {
    const [text, soft, line] = ["--text", "--soft", "--line"].map(tone);
    const font = "system-ui, sans-serif";
    return {
      background: "transparent", font, view: {stroke: null},
      axis: {labelColor: text, titleColor: text, domainColor: soft, tickColor: soft, gridColor: line,
        labelFontSize: 12.5, titleFontSize: 13, titleFontWeight: "normal", labelFont: font, titleFont: font,
        titlePadding: 8, labelOverlap: true},
      axisY: {titleAlign: "left", titleAngle: 0, titleAnchor: "end", titleX: -40, titleY: -14, domain: false, ticks: false},
    };
  }

  // draws a chart in an element; of several that are asked for meanwhile, the last
  const drawn = new WeakMap();
  async function embed(element, spec) {
    const state = drawn.get(element) ?? {};
    drawn.set(element, state);
    state.wanted = spec;
    if (state.busy) return;
    state.busy = true;
    try {
      while (state.wanted) {
        const next = state.wanted;
        state.wanted = null;
        element.style.minHeight = `${element.offsetHeight}px`;  // lest the page jumps
        state.view?.finalize();
        state.view = await vegaEmbed(element, next, {ast: true, renderer: "svg", actions: false, config: config(),
          tooltip: {theme: dark.matches ? "dark" : "light"}});
        element.style.minHeight = "";
      }
    } finally {
      state.busy = false;
    }
  }

  // what a line looks like beside its name
  function sample(look) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", 30); svg.setAttribute("height", 12); svg.setAttribute("aria-hidden", "true");
    const draw = (kind, attributes) => {
      const shape = svg.appendChild(document.createElementNS(svg.namespaceURI, kind));
      for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    };
    const colour = readable(look.colour);
    draw("line", {x1: 0, x2: 30, y1: 6, y2: 6, stroke: colour, "stroke-width": 2.2, "stroke-dasharray": look.dash.join(" ")});
    const marks = {circle: "M15 2a4 4 0 1 0 .01 0z", square: "M11 2h8v8h-8z", "triangle-up": "M15 1l5 9h-10z",
      "triangle-down": "M15 11l5 -9h-10z", "triangle-left": "M10 6l9 -5v10z", "triangle-right": "M20 6l-9 -5v10z", diamond: "M15 1l5 5l-5 5l-5 -5z", cross: "M13 2h4v2h2v4h-2v2h-4v-2h-2v-4h2z"};
    draw("path", {d: marks[look.shape] ?? marks.circle, fill: colour});
    return svg;
  }

  // checkboxes that name the lines and choose among them; `changed` gets the names that are on
  function chooser(element, looks, changed) {
    const boxes = Object.entries(looks).map(([name, look]) => {
      const label = element.appendChild(document.createElement("label"));
      const box = label.appendChild(document.createElement("input"));
      box.type = "checkbox"; box.checked = true; box.value = name;
      box.addEventListener("change", () => changed(chosen()));
      label.append(sample(look), look.label ?? name);
      return box;
    });
    const chosen = () => boxes.filter(box => box.checked).map(box => box.value);
    dark.addEventListener("change", () => boxes.forEach((box, i) =>
      box.nextSibling.replaceWith(sample(Object.values(looks)[i]))));
    return chosen;
  }

  // a chart of rows {name, x, mean, low, high}: means as lines, intervals as bands, numbers under the pointer
  function lines({rows, looks, xTitle, yTitle, xLog, yLog, ticks, at, height, zero, marks, description}) {
    const positive = rows.map(row => row.mean).filter(mean => mean > 0);
    const floor = Math.min(...positive) / 10;
    const shown = rows.filter(row => row.mean !== null && (!yLog || row.mean > 0)).map(row => ({
      ...row, label: looks[row.name].label ?? row.name, value: interval(row), place: digits(row.x),
      low: yLog && row.low !== null ? Math.max(row.low, floor) : row.low}));
    const names = Object.keys(looks);
    const scale = range => ({domain: names, range: names.map(name => range(looks[name]))});
    const colour = {field: "name", type: "nominal", scale: scale(look => readable(look.colour)), legend: null};
    const dash = {field: "name", type: "nominal", scale: scale(look => look.dash.length ? look.dash : [1, 0]), legend: null};
    const shape = {field: "name", type: "nominal", scale: scale(look => look.shape), legend: null};
    const x = {field: "x", type: "quantitative", title: xTitle, scale: {type: xLog ? "log" : "linear", zero: false, nice: false,
      padding: 8}, axis: {grid: false, format: ",~r", ...(ticks ? {values: ticks} : {tickCount: 8})}};
    const y = {field: "mean", type: "quantitative", title: yTitle, scale: {type: yLog ? "log" : "linear", zero: Boolean(zero),
      nice: !yLog}, axis: {tickCount: 6, ...(yLog ? {format: Math.min(...positive) < 1e-4 || Math.max(...positive) >= 1e6 ? "~e" : ",~r"} : {})}};
    const band = shown.filter(row => Number.isFinite(row.low) && row.low !== null && row.high !== null);
    const bounds = {...y, field: "low"};
    const tooltip = [{field: "label", title: "title"}, {field: "place", title: xTitle}, {field: "value", title: yTitle}];
    return {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json", description, width: "container", height: height ?? 340,
      autosize: {type: "fit-x", contains: "padding"}, padding: {left: 2, top: 6, right: 6, bottom: 2},
      layer: [
        ...(at === undefined ? [] : [{data: {values: [{x: at}]}, mark: {type: "rule", color: tone("--soft"), strokeWidth: 1.5,
          strokeDash: [3, 3]}, encoding: {x}}]),
        {data: {values: band}, mark: {type: "area", opacity: Number(tone("--shade")), clip: true, aria: false},
          encoding: {x, y: bounds, y2: {field: "high"}, color: colour}},
        {data: {values: shown}, mark: {type: "line", strokeWidth: 2.2, clip: true, aria: false},
          params: [{name: "zoom", bind: "scales", select: {type: "interval",
            translate: "[pointerdown[event.pointerType !== 'touch'], window:pointerup] > window:pointermove!",
            zoom: "wheel![event.shiftKey]"}}],
          encoding: {x, y, color: colour, strokeDash: dash}},
        ...(marks === false ? [] : [{data: {values: shown}, mark: {type: "point", filled: true, size: 55, opacity: 1, clip: true},
          encoding: {x, y, color: colour, shape}}]),
        {data: {values: shown}, mark: {type: "point", filled: true, size: 500, opacity: 0, clip: true, aria: false},
          encoding: {x, y, tooltip}},
      ],
    };
  }

  return {chooser, dark, data, digits, embed, interval, lines, readable, sample, tone};
})();
