"use strict";
(() => {
  const data = charts.data(), {axes, looks} = data;
  const find = id => document.getElementById(id);
  const SLIDERS = ["inner_lr", "inner_steps", "sample_size"];
  const WORDS = {inner_lr: "step size α", inner_steps: "inner steps K", sample_size: "trajectories per estimate"};
  const START = {inner_lr: 10, inner_steps: 1, sample_size: 32};
  const PARTS = ["inner gradient", "Hessian", "outer gradient"];

  const make = (kind, text, attributes) => {
    const element = document.createElement(kind);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
    return element;
  };

  // "the inner gradient and the Hessian"
  const listed = words => words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;

  function slider(id, values, start, changed) {
    const input = find(id), output = document.querySelector(`output[for=${id}]`);
    Object.assign(input, {min: 0, max: values.length - 1, step: 1, value: start});
    input.value = start;
    const show = () => {
      output.textContent = charts.digits(values[input.value]);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => { show(); changed(); });
    show();
    return {get: () => values[input.value], index: () => Number(input.value)};
  }

  // several changes within one frame are drawn once
  function once(draw) {
    let waiting = false;
    return () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(); });
    };
  }

  function nearest(values, wanted) {
    const off = values.map(value => Math.abs(Math.log(value / wanted)));
    return off.indexOf(Math.min(...off));
  }

  // a table of one row per estimator; a cell is [number, what stands small below it, whether it is drawn]
  function table(element, heads, rows) {
    const head = make("tr");
    heads.forEach(text => head.append(make("th", text, {scope: "col"})));
    const body = rows.map(({name, cells}) => {
      const row = make("tr"), first = make("th", undefined, {scope: "row"});
      const swatch = make("span", "", {class: "swatch", "aria-hidden": "true"});
      swatch.style.background = looks[name] ? charts.readable(looks[name].colour) : charts.tone("--text");
      const label = first.appendChild(make("span", undefined, {class: "named"}));
      label.append(swatch, looks[name]?.label ?? name);
      row.append(first, ...cells.map(([number, below, drawn]) => {
        const cell = make("td", number, {"data-value": number});
        if (drawn) cell.className = "drawn";
        if (below) cell.append(make("small", below));
        return cell;
      }));
      return row;
    });
    const [top, rest] = [make("thead"), make("tbody")];
    top.append(head); rest.append(...body);
    element.replaceChildren(top, rest);
  }

  // within a page of a site, which has a heading of its own
  document.documentElement.classList.toggle("framed", self !== top);

  // The measured grid

  const changed = once(draw), all = Object.keys(looks);
  const at = Object.fromEntries(SLIDERS.map(id => [id, slider(id, axes[id], nearest(axes[id], START[id]), changed)]));
  const metric = find("metric"), axis = find("axis"), exact = [0, 1, 2].map(i => find(`exact${i}`));
  const chosen = charts.chooser(find("names"), looks, changed);
  for (const [name, {name: words}] of Object.entries(data.metrics)) metric.append(make("option", words, {value: name}));
  for (const control of [metric, axis, ...exact]) control.addEventListener("change", changed);
  find("controls").addEventListener("submit", event => event.preventDefault());
  find("exact2").checked = axes.permutation.includes("SSE");

  // the values lie in order of α, K, trajectories, permutation and estimator
  function point(measured, indices, permutation, name) {
    const place = [...SLIDERS.map(id => [indices[id], axes[id].length]),
      [axes.permutation.indexOf(permutation), axes.permutation.length], [axes.estimator.indexOf(name), axes.estimator.length]];
    const [mean, low, high] = data.values[measured][place.reduce((index, [i, size]) => index * size + i, 0)];
    return {mean, low, high};
  }

  function draw() {
    const permutation = exact.map(box => box.checked ? "E" : "S").join(""), known = axes.permutation.includes(permutation);
    const indices = Object.fromEntries(SLIDERS.map(id => [id, at[id].index()])), names = chosen();
    const sampled = PARTS.filter((_, i) => permutation[i] === "S");
    find("sampled").textContent = sampled.length === 3 ? "Everything is sampled, as in practice."
      : sampled.length === 0 ? "Nothing is sampled: this is the true meta-gradient, and no estimate of it."
      : known ? `Sampled: ${listed(sampled)}.` : "This was not measured.";
    find("says").textContent = `${data.metrics[metric.value].name}: ${data.metrics[metric.value].says}.`;
    find("tie").textContent = permutation[1] === "E" && known ? "With an exact Hessian, AD, Loaded-DiCE and LVC are one estimator." : "";
    const where = `α = ${charts.digits(at.inner_lr.get())}, K = ${at.inner_steps.get()}, ${at.sample_size.get()} trajectories`;
    find("here").textContent = `At ${where}`;
    const rows = known ? names.flatMap(name => axes[axis.value].map((x, i) =>
      ({name, x, ...point(metric.value, {...indices, [axis.value]: i}, permutation, name)}))) : [];
    charts.embed(find("chart"), charts.lines({
      rows, looks: Object.fromEntries(all.map(name => [name, looks[name]])),
      xTitle: WORDS[axis.value], yTitle: data.metrics[metric.value].name, at: at[axis.value].get(), ticks: axes[axis.value],
      xLog: axis.value !== "inner_steps", height: matchMedia("(max-width: 56rem)").matches ? 230 : 340, yLog: metric.value === "deviation" || metric.value === "error",
      description: `${data.metrics[metric.value].name} of each estimator against ${WORDS[axis.value]}`}));
    table(find("numbers"), ["", ...Object.values(data.metrics).map(each => each.name)], known ? names.map(name => ({name,
      cells: Object.keys(data.metrics).map(each => {
        const found = point(each, indices, permutation, name);
        return [charts.digits(found.mean), charts.interval(found).replace(/^\S+ ?/, ""), each === metric.value];
      })})) : []);
    find("best").textContent = known && names.length > 1 ? best(names.map(name => ({name, ...point(metric.value, indices, permutation, name)}))) : "";
    find("command").textContent = known && names.length ? command(permutation, names) : "Choose an estimator, and something to sample.";
  }

  // which estimator has the best mean, and which intervals overlap its own
  function best(found) {
    const quantity = data.metrics[metric.value].name, words = {accuracy: "Highest", bias: "Smallest"}[metric.value] ?? "Lowest";
    const worth = ({mean}) => metric.value === "accuracy" ? -mean : metric.value === "bias" ? Math.abs(mean) : mean;
    const [first, ...others] = [...found].sort((one, other) => worth(one) - worth(other));
    const overlapping = others.filter(({low, high}) => low <= first.high && first.low <= high).map(({name}) => looks[name].label);
    return `${words} ${quantity} here: ${looks[first.name].label}, ${charts.interval(first)}`
      + (overlapping.length ? `. The interval${overlapping.length > 1 ? "s" : ""} of ${listed(overlapping)} overlap${overlapping.length > 1 ? "" : "s"} it.`
        : ". No other interval overlaps it.");
  }

  function command(permutation, names) {
    return `uv run apps/maml_tabular.py --figure fig4 --inner-lrs ${at.inner_lr.get()} --inner-steps ${at.inner_steps.get()}`
      + ` --sample-sizes ${at.sample_size.get()} --permutations ${permutation} --estimators ${names.join(" ")}`
      + (data.flags ? ` ${data.flags}` : "");
  }

  find("copy").addEventListener("click", async () => {
    const text = find("command").textContent, button = find("copy");
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // a file's page may not: select it instead
      getSelection().selectAllChildren(find("command"));
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });

  find("about").textContent = `MAML on ${data.mdps} random MDPs with the true meta-gradient computed exactly, ${data.repeats} independent `
    + "estimates of it on each. Every point of the sliders was computed.";

  // The tiny MDP

  const NAMES = ["ad", "dice", "loaded_dice", "lvc"].filter(name => looks[name]), TRUE = "exact";
  const prepared = tiny.prepare(data.tiny, NAMES), redrawn = once(drawTiny), curves = new Map();
  const rate = slider("rate", data.tiny.rates, Math.floor(data.tiny.rates.length / 2), redrawn);
  const few = slider("few", Array.from({length: data.tiny.most}, (_, i) => i + 1), 0, redrawn);
  const tinyExact = [0, 1].map(i => find(`tiny-exact${i}`));
  const tinyLooks = Object.fromEntries(NAMES.map(name => [name, looks[name]]));
  const tinyChosen = charts.chooser(find("tiny-names"), tinyLooks, redrawn);
  tinyExact.forEach(box => box.addEventListener("change", redrawn));
  find("tiny-controls").addEventListener("submit", event => event.preventDefault());

  const logit = vector => [vector[1], vector[3]];

  // the mean estimate and its bias at one α
  function biased(name, alpha, count, sampled) {
    const key = [name, alpha, count, sampled.inner, sampled.hessian].join();
    if (!curves.has(key)) {
      const truth = tiny.metaGradient(prepared, alpha), mean = tiny.expectation(prepared, name, alpha, count, sampled);
      curves.set(key, {mean, share: tiny.norm(tiny.add(mean, truth, -1)) / tiny.norm(truth)});
    }
    return curves.get(key);
  }

  function drawTiny() {
    const [inner, hessian] = tinyExact.map(box => !box.checked), sampled = {inner, hessian}, names = tinyChosen();
    const alpha = rate.get(), count = few.get(), truth = tiny.metaGradient(prepared, alpha);
    const found = names.map(name => ({name, ...biased(name, alpha, count, sampled)}));
    find("tiny-here").textContent = `On average at α = ${charts.digits(alpha)}, K = 1`;
    table(find("tiny-numbers"), ["", "towards action 2 in state 1", "in state 2", "bias, share of the true length", "bias of the Hessian"], [
      {name: "true", cells: [...logit(truth).map(value => [charts.digits(value)]), ["0"], ["0"]]},
      ...found.map(({name, mean, share}) => ({name, cells: [...logit(mean).map(value => [charts.digits(value)]),
        [charts.digits(Math.abs(share) < 1e-12 ? 0 : share), "", true], [charts.digits(hessianOf(name, hessian))]]}))]);
    find("arrows-words").textContent = "The true meta-gradient (thick) and what each estimator is on average.";
    charts.embed(find("arrows"), arrows([{name: TRUE, label: "true", mean: truth}, ...found], names));
    const rows = names.flatMap(name => data.tiny.rates.map(x => ({name, x, mean: biased(name, x, count, sampled).share, low: null, high: null})));
    charts.embed(find("curve"), charts.lines({rows, looks: tinyLooks, xTitle: "step size α", yTitle: "bias ÷ true length", at: alpha,
      zero: true, height: 260, marks: false, description: "Bias of each estimator against the step size"}));
  }

  function hessianOf(name, sampled) {
    const off = sampled ? tiny.hessianBias(prepared, name) : 0;
    return off < 1e-12 ? 0 : off;
  }

  // arrows from the origin in the plane of the two logits, on one scale for both
  function arrows(found) {
    const ends = found.map(({name, label, mean}) => ({name, zero: 0, label: label ?? looks[name].label, x: logit(mean)[0], y: logit(mean)[1],
      value: `${charts.digits(logit(mean)[0])}, ${charts.digits(logit(mean)[1])}`}));
    const span = key => { const values = ends.map(end => end[key]); return [Math.min(0, ...values), Math.max(0, ...values)]; };
    const [[left, right], [low, high]] = [span("x"), span("y")], width = Math.max(find("arrows").clientWidth - 60, 100), height = 260;
    const unit = 1.25 * Math.max((right - left) / width, (high - low) / height);
    const domain = (from, to, pixels) => [(from + to - unit * pixels) / 2, (from + to + unit * pixels) / 2];
    const color = {field: "name", type: "nominal", legend: null, scale: {domain: [TRUE, ...NAMES],
      range: [charts.tone("--text"), ...NAMES.map(name => charts.readable(looks[name].colour))]}};
    const x = {field: "x", type: "quantitative", title: "action 2 in state 1", scale: {domain: domain(left, right, width), nice: false}, axis: {tickCount: 5}};
    const y = {field: "y", type: "quantitative", title: "action 2 in state 2", scale: {domain: domain(low, high, height), nice: false}, axis: {tickCount: 5}};
    const tooltip = [{field: "label", title: "title"}, {field: "value", title: "mean"}];
    return {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height, data: {values: ends},
      description: "Arrows of the true meta-gradient and of the mean of each estimator", padding: {left: 2, top: 6, right: 6, bottom: 2},
      autosize: {type: "fit-x", contains: "padding"},
      layer: [
        {mark: {type: "rule", strokeWidth: 2.5}, encoding: {x: {...x, field: "zero"}, y: {...y, field: "zero"},
          x2: {field: "x"}, y2: {field: "y"}, color, strokeWidth: {condition: {test: `datum.name === '${TRUE}'`, value: 4}, value: 2.2}}},
        {mark: {type: "point", filled: true, opacity: 1, size: 90}, encoding: {x, y, color,
          shape: {field: "name", type: "nominal", legend: null, scale: {domain: [TRUE, ...NAMES], range: ["circle", ...NAMES.map(name => looks[name].shape)]}}, tooltip}},
      ],
    };
  }

  const {transition, reward, horizon, discount, params, start} = data.tiny;
  find("count").textContent = `all ${prepared.all.length} trajectories, and over every way to draw up to ${data.tiny.most} of them`;
  table(find("mdp"), ["", "reward", "to state 1", "to state 2", "policy"], reward.flatMap((row, s) => row.map((value, a) => ({
    name: `state ${s + 1}, action ${a + 1}`, cells: [[charts.digits(value)], ...transition[s][a].map(p => [charts.digits(p)]),
      [charts.digits(Math.exp(params[s][a]) / tiny.sum(params[s].map(Math.exp)))]]}))));
  find("mdp-words").textContent = `It begins in state ${start + 1} and ends after ${horizon} steps; γ = ${discount}, K = 1. The policy is a softmax `
    + "over logits, from which the inner step starts. AD, LVC and Loaded-DiCE have the exact values as baseline, DiCE has none; the outer gradient is unbiased.";
  document.querySelectorAll("#mdp .swatch").forEach(swatch => swatch.remove());

  draw();
  drawTiny();
  charts.dark.addEventListener("change", () => { draw(); drawTiny(); });
  addEventListener("resize", redrawn);
})();
