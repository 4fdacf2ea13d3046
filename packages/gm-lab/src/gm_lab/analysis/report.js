"use strict";
(() => {
  const make = (kind, text, attributes) => {
    const element = document.createElement(kind);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
    return element;
  };

  // a label with a select of some values
  function select(parent, words, values, changed) {
    const label = parent.appendChild(make("label", words)), input = label.appendChild(make("select"));
    values.forEach((value, i) => input.append(make("option", value === "" ? "–" : value, {value: i})));
    input.addEventListener("change", changed);
    return {get: () => values[input.value], index: () => Number(input.value)};
  }

  function toggle(parent, words, changed) {
    const label = parent.appendChild(make("label")), input = label.appendChild(make("input", undefined, {type: "checkbox"}));
    label.append(words);
    input.addEventListener("change", changed);
    return input;
  }

  // values that multiply rather than add: few of them, positive, over a wide range
  function spread(values, factor) {
    const known = values.filter(value => value !== null);
    return known.length > 0 && Math.min(...known) > 0 && Math.max(...known) / Math.min(...known) >= factor;
  }

  function touch(section, charted) {
    const choices = section.querySelector(".choices"), names = section.querySelector(".names"), place = section.querySelector(".chart");
    const titles = charted.map(({title, x}, i) => [title || x, charted.some((other, j) => j !== i && other.title === title) ? ` over ${x}` : ""].join(""));
    const which = charted.length > 1 ? select(choices, "figure", titles, rebuild) : {index: () => 0};
    const rest = choices.appendChild(make("span", undefined, {class: "choices"}));

    function rebuild() {
      const chart = charted[which.index()];
      rest.replaceChildren();
      names.replaceChildren(names.querySelector("legend"));
      const metric = select(rest, "metric", chart.metrics, () => { suit(); draw(); });
      const filters = Object.entries(chart.choices).map(([column, values]) => select(rest, column, values, draw));
      const chosen = charts.chooser(names, chart.looks, draw);
      const log = toggle(rest, "logarithmic", draw), xs = [...new Set(chart.rows.map(row => row[2]))].sort((a, b) => a - b);
      const numbers = () => chart.rows.map(row => row[3 + 3 * metric.index()]);
      const suit = () => { log.checked = spread(numbers(), 100); };

      function draw() {
        const wanted = filters.map(filter => filter.get()), shown = new Set(chosen()), at = 3 + 3 * metric.index();
        const rows = chart.rows.filter(([chosenBy, name]) => shown.has(name) && wanted.every((value, i) => chosenBy[i] === value))
          .map(row => ({name: row[1], x: row[2], mean: row[at], low: row[at + 1], high: row[at + 2]}));
        charts.embed(place, charts.lines({rows, looks: chart.looks, xTitle: chart.x, yTitle: metric.get(), xLog: spread(xs, 30) && xs.length <= 20,
          yLog: log.checked, marks: xs.length <= 30, ticks: xs.length <= 10 ? xs : undefined,
          description: `${metric.get()} over ${chart.x}, a line for each ${chart.line || "run"}`}));
      }

      suit();
      draw();
      section.redraw = draw;
    }

    rebuild();
    charts.dark.addEventListener("change", () => section.redraw());
  }

  // heads of tables become buttons that sort the rows below
  function sortable(table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const worth = (row, column) => {
      const cell = row.cells[column], value = Number(cell.dataset.value ?? NaN);
      return Number.isNaN(value) ? cell.textContent.trim() : value;
    };
    heads.forEach((head, column) => {
      const button = make("button", head.textContent, {type: "button"});
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const compare = (one, other) => {
          const [left, right] = [worth(one, column), worth(other, column)];
          return typeof left === "number" && typeof right === "number" ? left - right
            : String(left).localeCompare(String(right), undefined, {numeric: true});
        };
        body.append(...[...body.rows].sort((one, other) => down ? compare(other, one) : compare(one, other)));
      });
    });
  }

  // on a small screen the contents are a bar that opens
  function contents(list) {
    const small = matchMedia("(max-width: 63.99rem)"), suit = () => { list.open = !small.matches; };
    small.addEventListener("change", suit);
    list.addEventListener("click", event => { if (small.matches && event.target.closest("a")) list.open = false; });
    suit();
  }

  contents(document.querySelector(".contents details"));
  document.querySelectorAll(".sortable").forEach(sortable);
  const data = charts.data();
  document.querySelectorAll(".touch").forEach(section => touch(section, data[section.dataset.run]));
})();
