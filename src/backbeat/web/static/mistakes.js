/* What a run gets wrong: who is taken for whom, and the examples with the greatest losses, as pictures or in a table. */
"use strict";
(() => {
  const { words } = backbeat;
  const { known, count, number, percent, make, section, scrolling } = words;
  const LEVELS = 5; // shades of a cell, as in the other tables

  const cell = (text, attributes = {}) => make("td", attributes, make("span", { class: "value", text }));
  const heads = (names) => make("tr", {}, ...names.map((text) => make("th", { scope: "col", text })));
  const written = (value) =>
    Array.isArray(value) ? value.map((v) => number(v, 4)).join(", ") : value === undefined ? "–" : String(value);

  function matrix(found) {
    const { confusion, names } = found;
    const row = (counts, i) => {
      const total = counts.reduce((sum, n) => sum + n, 0);
      const shade = (n, j) => (i === j || !n ? 0 : Math.max(1, Math.ceil(LEVELS * Math.min(1, (4 * n) / total))));
      return make(
        "tr",
        {},
        make("th", { scope: "row", text: names[i] }),
        ...counts.map((n, j) => {
          const what = `${count(n)} of ${count(total)} that are ${names[i]} ${i === j ? "are recognised" : `are taken for ${names[j]}`}`;
          return cell(n ? count(n) : "·", { class: `heat level-${shade(n, j)}${i === j ? " right" : ""}`, title: what });
        }),
        cell(total ? percent(counts[i] / total) : "–"),
      );
    };
    const top = make(
      "tr",
      {},
      make("th", { scope: "col", text: "true ↓ predicted →" }),
      ...names.map((name) => make("th", { scope: "col", text: name })),
      make("th", { scope: "col", text: "right" }),
    );
    const table = make("table", { id: "confusion" }, make("thead", {}, top), make("tbody", {}, ...confusion.map(row)));
    return scrolling("Who is taken for whom", table);
  }

  function pairs(found) {
    const body = found.confused.map(([truth, guess, times]) =>
      make("tr", {}, make("th", { scope: "row", text: found.names[truth] }), cell(found.names[guess]), cell(count(times))),
    );
    if (!body.length) return null;
    const head = make("thead", {}, heads(["true class", "taken for", "times"]));
    return scrolling("The most frequent mistakes", make("table", { id: "confused" }, head, make("tbody", {}, ...body)));
  }

  function pictures(found) {
    const figure = (one) => {
      const sure = known(one.probability) ? `, held to be ${percent(one.probability)} likely` : "";
      const said = one.label === undefined ? `number ${count(one.number)}` : `${written(one.label)}, taken for ${written(one.prediction)}`;
      const values = Array.isArray(one.label) ? `${written(one.label)}, predicted ${written(one.prediction)}` : said;
      return make(
        "figure",
        { class: "wrong" },
        make("img", { src: one.picture, alt: `Example ${one.number}: ${values}${sure}`, title: `${values}${sure}` }),
        make("figcaption", {}, make("b", { text: values }), make("span", { text: `number ${count(one.number)}, loss ${number(one.loss)}` })),
      );
    };
    return make("div", { class: "gallery", id: "worst" }, ...found.worst.map(figure));
  }

  function table(found) {
    const likely = found.worst.some((one) => known(one.probability));
    const several = found.kind === "regression" && found.names.length > 1 ? ` (${found.names.join(", ")})` : "";
    const rows = found.worst.map((one) =>
      make(
        "tr",
        {},
        make("th", { scope: "row", text: count(one.number) }),
        cell(written(one.label)),
        cell(written(one.prediction)),
        likely ? cell(percent(one.probability)) : null,
        cell(number(one.loss)),
      ),
    );
    const names = ["example", `label${several}`, `prediction${several}`, ...(likely ? ["held to be likely by"] : []), "loss"];
    return scrolling(
      "The greatest losses",
      make("table", { id: "worst" }, make("thead", {}, heads(names)), make("tbody", {}, ...rows)),
    );
  }

  const whose = (found) =>
    (found.n < found.of ? `${count(found.n)} of the ${count(found.of)}` : `all ${count(found.of)}`) +
    ` examples of the ${found.part} part`;

  /* Returns a section, or null where nothing is known. */
  backbeat.mistakes = (record) => {
    const found = record.mistakes;
    if (!found) return null;
    const at = known(found.updates) ? `After ${words.plural(found.updates, "update")}` : "At the end";
    if (found.left_out) return section("mistakes", "What it gets wrong", make("p", { class: "seen", text: `${found.left_out}.` }));
    const classes = found.kind === "classification" || found.kind === "binary";
    const worst = found.worst || [];
    const parts = [];
    if (classes) {
      const wrong = `${count(found.n_wrong)} of ${words.plural(found.n_labels, "label")} wrong (${percent(found.n_labels ? found.n_wrong / found.n_labels : 0)})`;
      const shown = found.confusion
        ? " A row is a true class, a column what it is taken for; the deeper the colour of a cell off the diagonal, the greater its share of the row."
        : "";
      parts.push(make("p", { class: "seen", text: `${at}, of ${whose(found)}: ${wrong}.${shown}` }));
      parts.push(found.confusion ? matrix(found) : found.confused ? pairs(found) : null);
    } else {
      parts.push(make("p", { class: "seen", text: `${at}, looked for in ${whose(found)}.` }));
    }
    if (worst.length) {
      const drawn = worst.every((one) => one.picture);
      const first = classes ? "The wrongly labelled examples" : "The examples";
      parts.push(
        make("h3", { text: classes ? "Most wrong" : "Largest errors" }),
        make("p", {
          class: "seen",
          text:
            `${first} with the greatest losses, the greatest first, by their number in the data, from 0.` +
            (drawn ? " Pictures show what the network gets: the least value black, the greatest white." : ""),
        }),
        drawn ? pictures(found) : table(found),
      );
    }
    return section("mistakes", "What it gets wrong", ...parts.filter(Boolean));
  };
})();
