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
  const NONE = "There are no runs here yet; `backbeat train` makes one.";
  const COLOURS = 8;
  const ORDER = [0, 5, 2, 6, 4, 1, 7, 3]; // the first few as far apart as they can be
  const STROKES = ORDER.map((_, k) => () => charts.css(`--cadence-${k}`));
  const FEW = 12; // so many are drawn until somebody chooses

  /* A row of the list, whose elements stay: nobody's click or focus is lost when it is filled anew. */
  function rowOf(name, pick) {
    const box = make("input", { type: "checkbox", "aria-label": `Draw ${name}`, onchange: () => pick(name, box.checked) });
    const swatch = make("i", { class: "swatch" });
    const bar = make("progress", { max: "1", "aria-label": `how far ${name} is` });
    const left = make("span", {});
    const link = make("a", { href: `#/${encodeURIComponent(name)}`, text: name });
    const [first, state, progress] = [make("td", {}, box), make("span", {}), make("td", { class: "left" }, bar, left)];
    const texts = ["left", "left", null, null, null].map((kind) => make("td", { class: kind }));
    const element = make(
      "tr",
      {},
      first,
      make("th", { scope: "row" }, swatch, link),
      make("td", { class: "left" }, state),
      progress,
      ...texts,
    );
    function fill(row, paint) {
      const run = row.kind === "run";
      box.hidden = !run;
      box.checked = paint !== undefined;
      swatch.className = paint === undefined ? "swatch" : `swatch c${paint}`;
      state.className = `state ${row.state.replace(" ", "-")}`;
      state.textContent = row.paused ? "paused" : row.state;
      bar.hidden = !known(row.progress);
      bar.value = row.progress || 0;
      left.textContent = known(row.seconds_left) ? ` ${row.at_most ? "at most " : ""}${seconds(row.seconds_left)} left` : "";
      const scores = row.scores || {};
      const value = ["held_out_accuracy", "held_out_r2", "held_out_loss_mean", "loss_mean"].find((n) => known(scores[n]));
      const short = value && value.replace("held_out_", "").replace("_mean", "");
      [
        run ? words.everyName(row.every || "?") : row.kind,
        [row.model, row.data].filter(Boolean).join(" on "),
        known(row.updates) ? count(row.updates) : "–",
        known(row.wall_seconds) ? seconds(row.wall_seconds) : "–",
        value ? `${VALUES[value]} ${words.score(short)(scores[value])}` : "–",
      ].forEach((text, i) => {
        if (texts[i].textContent !== text) texts[i].textContent = text;
      });
    }
    return { element, fill };
  }

  /* The value of a curve at x, between its points. */
  function at(points, x) {
    let [low, high] = [0, points.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle].x <= x) low = middle;
      else high = middle;
    }
    const [a, b] = [points[low], points[high]];
    return b.x > a.x ? a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x) : b.y;
  }

  /* Runs that differ only in the seed as one line: at each x that all of them have reached, median, lowest, highest. */
  function together(curves) {
    const [start, end] = [Math.max(...curves.map((c) => c[0].x)), Math.min(...curves.map((c) => c.at(-1).x))];
    const xs = new Set(curves.flatMap((c) => c.map((p) => p.x)).filter((x) => x >= start && x <= end));
    return [...xs]
      .sort((a, b) => a - b)
      .map((x) => {
        const ys = curves.map((c) => at(c, x)).sort((a, b) => a - b);
        const half = ys.length >> 1;
        return { x, y: ys.length % 2 ? ys[half] : (ys[half - 1] + ys[half]) / 2, low: ys[0], high: ys.at(-1) };
      });
  }

  backbeat.overview = (host, state, api) => {
    Object.assign(state, { clock: "updates", value: "held_out_loss_mean", logX: false, logY: true, smooth: 0, seeds: "each", ...state });
    const painted = (state.painted ||= new Map()); // name -> colour: whoever has one keeps it
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
    const empty = make("p", { class: "empty", text: NONE });
    const chosen = () => {
      const runs = rows.filter((row) => row.kind === "run").map((row) => row.name);
      return state.chosen ? runs.filter((name) => state.chosen.has(name)) : runs.slice(0, FEW);
    };
    const elements = new Map(); // name -> its row
    /* Name -> colour of the chosen ones: a new one gets that which the fewest of them have. */
    function paints() {
      const names = chosen();
      const used = new Array(COLOURS).fill(0);
      for (const name of names) if (painted.has(name)) used[painted.get(name)] += 1;
      for (const name of names) {
        if (painted.has(name)) continue;
        const colour = ORDER.reduce((best, k) => (used[k] < used[best] ? k : best), ORDER[0]);
        painted.set(name, colour);
        used[colour] += 1;
      }
      return new Map(names.map((name) => [name, painted.get(name)]));
    }

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
      for (const row of rows) {
        if (!elements.has(row.name)) elements.set(row.name, rowOf(row.name, pick));
        elements.get(row.name).fill(row, paint.get(row.name));
      }
      const wanted = rows.map((row) => elements.get(row.name).element);
      if (wanted.length !== body.children.length || wanted.some((row, i) => row !== body.children[i])) body.replaceChildren(...wanted);
      empty.hidden = rows.length > 0;
      parts.forEach((part) => (part.hidden = rows.length === 0));
    }

    function draw() {
      if (handle) handle.destroy();
      const paint = paints();
      const time = state.clock === "wall_seconds";
      const curves = [...paint].flatMap(([name, colour]) => {
        const history = (found.get(name) || {}).history;
        if (!history || !history[state.value] || !history[state.clock]) return [];
        const points = history[state.value]
          .map((y, i) => ({ x: history[state.clock][i], y }))
          .filter((p) => known(p.x) && known(p.y));
        return points.length ? [{ name, colour, points: charts.smooth(points, state.smooth) }] : [];
      });
      const groups = new Map();
      const alike = new Map(rows.map((row) => [row.name, row.alike]));
      for (const curve of curves) {
        const key = state.seeds === "band" ? alike.get(curve.name) : curve.name;
        groups.set(key, [...(groups.get(key) || []), curve]);
      }
      const lines = [...groups.values()].map((group) => {
        const several = group.length > 1;
        const title = several ? `${group[0].name} and ${words.plural(group.length - 1, "other seed")}` : group[0].name;
        const points = several ? together(group.map((curve) => curve.points)) : group[0].points;
        return { title, width: groups.size > 12 ? 1.2 : 2, band: several, stroke: STROKES[group[0].colour], points };
      });
      const banded = lines.filter((line) => line.band).length;
      const short = state.value.replace("held_out_", "").replace("_mean", "");
      card.said.textContent = lines.length
        ? `The ${VALUES[state.value]} of ${words.plural(curves.length, "run")}. ` +
          (banded ? "Where several differ only in the seed, the line is their median, the band their lowest and highest. " : "") +
          "Drag to look closer, double click for all."
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

    let asking = null;
    /* One question at a time; what is chosen or changes meanwhile is asked for after it. */
    async function fetchCurves() {
      if (asking) return asking;
      asking = (async () => {
        let before = null; // what is asked for twice the server does not have
        for (let wanted = missing(); wanted.length && `${wanted}` !== before; wanted = missing()) {
          before = `${wanted}`;
          for (const curve of await api.curves(wanted.map((row) => row.name))) found.set(curve.name, curve);
        }
      })();
      try {
        await asking;
      } finally {
        asking = null;
      }
      draw();
    }
    function missing() {
      const names = new Set(chosen());
      const late = rows.filter((row) => names.has(row.name) && !((found.get(row.name) || {}).version >= row.version));
      late.toString = () => late.map((row) => `${row.name} ${row.version}`).join();
      return late;
    }

    const redraw = (change) => (v) => {
      change(v);
      draw();
    };
    const lines = [["linear", "linear"], ["log", "logarithmic"]];
    const toolbar = make(
      "div",
      { class: "toolbar" },
      words.choice("show", Object.entries(VALUES), state.value, redraw((v) => (state.value = v))),
      words.choice("against", Object.entries(CLOCKS), state.clock, redraw((v) => (state.clock = v))),
      words.choice("horizontal axis", lines, state.logX ? "log" : "linear", redraw((v) => (state.logX = v === "log"))),
      words.choice("vertical axis", lines, state.logY ? "log" : "linear", redraw((v) => (state.logY = v === "log"))),
      words.choice("seeds", [["each", "one by one"], ["band", "median and band"]], state.seeds, redraw((v) => (state.seeds = v))),
      charts.smoothing(state, draw),
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
      update(newest, none) {
        rows = newest;
        empty.textContent = none || NONE;
        list();
        return fetchCurves();
      },
    };
  };
})();
