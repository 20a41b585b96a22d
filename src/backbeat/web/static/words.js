/* Numbers and words as people write them, and the few lines that make page elements. */
"use strict";
globalThis.backbeat = globalThis.backbeat || {};
(() => {
  const THIN = "\u202f"; // narrow no-break space, between a number and its unit
  const known = (value) => typeof value === "number" && Number.isFinite(value);

  const digits = (value, n = 3) => value.toLocaleString("en", { maximumSignificantDigits: n });

  function count(value) {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e9) return digits(value / 1e9) + THIN + "billion";
    if (size >= 1e7) return digits(value / 1e6) + THIN + "million";
    return size >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : digits(value);
  }

  function seconds(value) {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    if (size === 0) return "0" + THIN + "s";
    if (size >= 119.5) {
      const whole = Math.round(value);
      const minutes = Math.floor(whole / 60);
      if (minutes < 60) return `${minutes}${THIN}min ${whole % 60}${THIN}s`;
      return `${Math.floor(minutes / 60)}${THIN}h ${minutes % 60}${THIN}min`;
    }
    const [least, unit] = [
      [1, "s"],
      [1e-3, "ms"],
      [1e-6, "µs"],
      [1e-9, "ns"],
    ].find(([l]) => size >= 0.9995 * l) || [1e-9, "ns"];
    return digits(value / least) + THIN + unit;
  }

  function number(value, n = 3) {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size >= 1e-4 && size < 1e7) return digits(value, size >= 1000 ? 5 : n);
    const power = Math.floor(Math.log10(size));
    const raised = [...String(power)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[+c])).join("");
    return `${digits(value / 10 ** power, n)}${THIN}×${THIN}10${raised}`;
  }

  /* A number in a table: always three digits, so that 0.14 stands as 0.140 beside 0.126. */
  const exact = (value) =>
    known(value) && Math.abs(value) >= 1e-3 && Math.abs(value) < 1000
      ? value.toLocaleString("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 })
      : number(value);

  function percent(value) {
    if (!known(value)) return "–";
    const places = Math.abs(value) >= 0.9995 && Math.abs(value) < 1.0005 ? 0 : Math.abs(value) < 0.01 ? 2 : 1;
    return (
      (100 * value).toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places }) + THIN + "%"
    );
  }
  const roughly = (value) => (known(value) ? digits(100 * value, 2) + THIN + "%" : "–");
  /* A written sentence whose numbers are not parted from their units at the end of a line. */
  const kept = (sentence) => String(sentence).replace(/(\d) (?=(?:%|[nµm]?s|min|h|times)(?![\w]))/g, "$1\u00a0");

  // How each measured quantity is written.
  const writers = { updates: count, examples: count, epochs: exact, seconds };
  const score = (name) => (name === "accuracy" ? percent : exact);
  const scoreName = (name) => ({ r2: "R²", mse: "mean squared error" })[name] || name;

  /* A cadence in words: "every example, repeated until loss<0.1, at most 10 times". */
  function everyName(every) {
    const [first, ...rest] = String(every).split(" ");
    const name = { 1: "every example", dataset: "whole data set", noise: "as the noise asks" }[first] || `every ${first}`;
    const more = rest
      .join(" ")
      .replace("repeat ", "repeated ")
      .replace(/ at most (\d+)/, ", at most $1 times");
    return more ? `${name}, ${more}` : name;
  }
  const shortName = (every) => String(every).replace(/ .*/, " …").replace("dataset", "all");

  function list(words) {
    return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
  }
  const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

  /* make("td", {class: "x", text: "hello", onclick: f}, child, …): an element. Text is never parsed as HTML. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "text") element.textContent = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  /* A paragraph in which S_min, B_crit and B_n are written with their indices below. */
  function formula(attributes, text) {
    const parts = text.split(/\b([SB])_(min|crit|n)\b/);
    const p = make("p", attributes);
    for (let i = 0; i < parts.length; i += 3) {
      p.append(parts[i]);
      if (i + 2 < parts.length) p.append(make("i", { text: parts[i + 1] }), make("sub", { text: parts[i + 2] }));
    }
    return p;
  }

  /* A median, with its range beneath where there is one. */
  function spread(value, write) {
    if (!value || !known(value.median)) return [make("span", { class: "none", text: "–" })];
    const [low, high] = [write(value.low), write(value.high)];
    const parts = [make("span", { class: "value", text: write(value.median) })];
    if (known(value.low) && known(value.high) && low !== high) {
      parts.push(make("span", { class: "range", text: `${low} to ${high}` }));
    }
    return parts;
  }

  /* A table in its own scroll container, which the keyboard can reach. */
  function scrolling(label, table) {
    return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": label }, table);
  }

  function section(id, title, ...children) {
    return make(
      "section",
      { id, "aria-labelledby": `${id}-title` },
      make("h2", { id: `${id}-title`, text: title }),
      ...children,
    );
  }

  function facts(pairs) {
    const dl = make("dl", { class: "facts" });
    for (const [name, value] of pairs) {
      if (value === null || value === undefined || value === "") continue;
      const said = formula({}, String(value)).childNodes;
      dl.append(make("div", {}, make("dt", { text: name }), make("dd", {}, ...said)));
    }
    return dl;
  }

  /* One choice of several, as radio buttons: choice("Show", [["a", "A"], …], "a", (value) => …). */
  let groups = 0;
  function choice(label, options, chosen, pick) {
    const name = `choice-${++groups}`;
    const set = make("fieldset", { class: "choice" }, make("legend", { text: label }));
    for (const [value, text] of options) {
      const input = make("input", {
        type: "radio",
        name,
        value,
        checked: value === chosen,
        onchange: () => pick(value),
      });
      set.append(make("label", {}, input, make("span", { text })));
    }
    return set;
  }

  function environment(record) {
    const e = record.environment || {};
    const rest = Object.entries(e).filter(
      ([name]) => !["processor", "cores", "platform", "device", "backbeat"].includes(name),
    );
    return section(
      "environment",
      "Environment",
      facts([
        ["processor", e.processor],
        ["cores", e.cores],
        ["device", e.device],
        ["system", e.platform],
        ["backbeat", record.backbeat],
        ...rest,
        [
          "measured",
          record.created
            ? String(record.created)
                .replace("T", " ")
                .replace(/\+00:00$|Z$/, " UTC")
            : null,
        ],
        ["data (SHA-256)", record.data && record.data.sha256],
      ]),
    );
  }

  backbeat.words = {
    known,
    digits,
    count,
    seconds,
    number,
    exact,
    percent,
    roughly,
    kept,
    writers,
    score,
    scoreName,
    everyName,
    shortName,
    list,
    plural,
    make,
    formula,
    spread,
    scrolling,
    section,
    facts,
    choice,
    environment,
  };
})();
