/*
 * The list of runs, and the curves of the chosen ones over each other. backbeat.overview(host, state, api) returns
 * {update(rows)}; api.curves(names) promises [{name, version, history}].
 */
"use strict";
(() => {
  const { words, charts } = backbeat;
  const { known, count, seconds, number, make, section, scrolling } = words;
  const CLOCKS = { updates: "updates", examples: "examples", epochs: "epochs", wall_seconds: "time" };
  const VALUES = {
    held_out_loss_mean: "held-out loss",
    train_loss_mean: "training loss",
    loss_mean: "loss of the batches",
    held_out_accuracy: "held-out accuracy",
    held_out_r2: "held-out R²",
  };
  const COLOURS = 8;
  const FEW = 12; // so many are drawn until somebody chooses

  /* An exponential mean that starts at the first value: each point weighs (1 − s) of what is shown there. */
  function smooth(points, s) {
    let mean;
    return points.map((p) => {
      mean = mean === undefined ? p.y : s * mean + (1 - s) * p.y;
      return { ...p, y: mean };
    });
  }

  function rowOf(row, chosen, paint, pick) {
    const box = make("input", { type: "checkbox", "aria-label": `Draw ${row.name}`, onchange: () => pick(row.name, box.checked) });
    box.checked = chosen;
    const swatch = make("i", { class: chosen ? `swatch c${paint}` : "swatch" });
    const bar = make("progress", { max: "1", "aria-label": `how far ${row.name} is` });
    bar.value = row.progress || 0;
    const scores = row.scores || {};
    const shown = ["held_out_accuracy", "held_out_r2", "held_out_loss_mean", "loss_mean"].filter((n) => known(scores[n]));
    const name = shown[0];
    const short = name && name.replace("held_out_", "").replace("_mean", "");
    const score = name ? `${VALUES[name]} ${words.score(short)(scores[name])}` : "–";
    const link = make("a", { href: `#/${encodeURIComponent(row.name)}`, text: row.name });
    return make(
      "tr",
      {},
      make("td", {}, row.kind === "run" ? box : null),
      make("th", { scope: "row" }, swatch, link),
      make("td", { class: "left" }, make("span", { class: `state ${row.state.replace(" ", "-")}`, text: row.state })),
      make(
        "td",
        { class: "left" },
        known(row.progress) ? bar : null,
        known(row.seconds_left) ? ` ${seconds(row.seconds_left)} left` : "",
      ),
      make("td", { class: "left", text: row.kind === "run" ? words.everyName(row.every || "?") : row.kind }),
      make("td", { class: "left", text: [row.model, row.data].filter(Boolean).join(" on ") }),
      make("td", { text: known(row.updates) ? count(row.updates) : "–" }),
      make("td", { text: known(row.wall_seconds) ? seconds(row.wall_seconds) : "–" }),
      make("td", { text: score }),
    );
  }

  backbeat.overview = (host, state, api) => {
    Object.assign(state, { clock: "updates", value: "held_out_loss_mean", logX: false, logY: true, smooth: 0, ...state });
    const found = new Map(); // name -> {version, history}
    let rows = [];
    let handle = null;
    const card = charts.card("Runs over each other", "", null);
    const body = make("tbody", {});
    const heads = ["run", "state", "progress", "updated", "what", "updates", "time", "newest score"];
    const left = new Set(["run", "state", "progress", "updated", "what"]);
    const head = make(
      "thead",
      {},
      make("tr", {}, make("td", {}), ...heads.map((text) => make("th", { scope: "col", class: left.has(text) ? "left" : "", text }))),
    );
    const table = make("table", { id: "runs" }, head, body);
    const empty = make("p", { class: "empty", text: "There are no runs here yet; `backbeat train` makes one." });
    const chosen = () => {
      const runs = rows.filter((row) => row.kind === "run").map((row) => row.name);
      return state.chosen ? runs.filter((name) => state.chosen.has(name)) : runs.slice(0, FEW);
    };
    const paints = () => new Map(chosen().map((name, i) => [name, i % COLOURS]));

    function pick(name, on) {
      state.chosen = new Set(chosen());
      if (on) state.chosen.add(name);
      else state.chosen.delete(name);
      list();
      fetchCurves();
    }
    function pickAll(on) {
      state.chosen = new Set(on ? rows.filter((row) => row.kind === "run").map((row) => row.name) : []);
      list();
      fetchCurves();
    }
    function list() {
      const paint = paints();
      const held = document.activeElement && document.activeElement.getAttribute("aria-label");
      body.replaceChildren(...rows.map((row) => rowOf(row, paint.has(row.name), paint.get(row.name), pick)));
      if (held) body.querySelector(`input[aria-label="${CSS.escape(held)}"]`)?.focus();
      empty.hidden = rows.length > 0;
      parts.forEach((part) => (part.hidden = rows.length === 0));
    }

    function draw() {
      if (handle) handle.destroy();
      const paint = paints();
      const time = state.clock === "wall_seconds";
      const lines = [...paint].flatMap(([name, colour]) => {
        const history = (found.get(name) || {}).history;
        if (!history || !history[state.value] || !history[state.clock]) return [];
        const points = history[state.value]
          .map((y, i) => ({ x: history[state.clock][i], y }))
          .filter((p) => known(p.x) && known(p.y));
        if (!points.length) return [];
        const stroke = () => charts.css(`--cadence-${colour}`);
        return [{ title: name, width: paint.size > 20 ? 1 : 2, stroke, quiet: paint.size > 40, points: smooth(points, state.smooth) }];
      });
      const short = state.value.replace("held_out_", "").replace("_mean", "");
      card.said.textContent = lines.length
        ? `The ${VALUES[state.value]} of ${words.plural(lines.length, "run")}. Drag to look closer, double click for all.`
        : `None of the chosen runs has a ${VALUES[state.value]} yet.`;
      handle = charts.chart(card.host, {
        label: `${VALUES[state.value]} against ${CLOCKS[state.clock]}`,
        height: 380,
        room: 16,
        log: { x: state.logX, y: state.logY },
        x: {
          label: CLOCKS[state.clock],
          unit: time ? "seconds" : "count",
          write: time ? seconds : state.clock === "epochs" ? (v) => number(v) : (v) => count(Math.round(v)),
          word: time ? "" : CLOCKS[state.clock],
        },
        y: { label: VALUES[state.value], write: words.score(short) },
        lines: lines.length ? lines : [{ title: "", stroke: () => "transparent", points: [], quiet: true }],
      });
    }

    let asking = false;
    async function fetchCurves() {
      if (asking) return;
      asking = true;
      const version = new Map(rows.map((row) => [row.name, row.version]));
      const wanted = chosen().filter((name) => (found.get(name) || {}).version !== version.get(name));
      try {
        for (const curve of wanted.length ? await api.curves(wanted) : []) found.set(curve.name, curve);
      } finally {
        asking = false;
      }
      draw();
    }

    const redraw = (change) => (v) => {
      change(v);
      draw();
    };
    const lines = [["linear", "linear"], ["log", "logarithmic"]];
    const slider = make("input", { type: "range", min: "0", max: "0.98", step: "0.02", "aria-label": "smoothing" });
    slider.value = state.smooth;
    slider.oninput = () => redraw((v) => (state.smooth = v))(Number(slider.value));
    const toolbar = make(
      "div",
      { class: "toolbar" },
      words.choice("show", Object.entries(VALUES), state.value, redraw((v) => (state.value = v))),
      words.choice("against", Object.entries(CLOCKS), state.clock, redraw((v) => (state.clock = v))),
      words.choice("horizontal axis", lines, state.logX ? "log" : "linear", redraw((v) => (state.logX = v === "log"))),
      words.choice("vertical axis", lines, state.logY ? "log" : "linear", redraw((v) => (state.logY = v === "log"))),
      make("label", { class: "smooth" }, "smoothing", slider),
    );
    const buttons = make(
      "div",
      { class: "legend" },
      make("button", { type: "button", text: "Draw all", onclick: () => pickAll(true) }),
      make("button", { type: "button", text: "Draw none", onclick: () => pickAll(false) }),
    );
    const parts = [
      section("curves", "How they learn", toolbar, card.box),
      section("list", "Runs", buttons, scrolling("Runs", table)),
    ];
    host.append(make("h1", { text: "Runs" }), empty, ...parts);
    return {
      update(newest) {
        rows = newest;
        list();
        return fetchCurves();
      },
    };
  };
})();
