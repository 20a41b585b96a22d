/* The page of one training: what came out, how the loss fell, how often batches were repeated, with which settings. */
"use strict";
(() => {
  const { words, charts } = backbeat;
  const { known, count, seconds, number, make, section, scrolling, facts } = words;
  const CLOCKS = { updates: "updates", examples: "examples", epochs: "epochs", wall_seconds: "time" };
  const LOSSES = [
    ["loss_mean", "loss of the batches", "--faint-line", 1],
    ["train_loss_mean", "training loss", "--cadence-5", 2.2],
    ["held_out_loss_mean", "held-out loss", "--cadence-0", 2.2],
  ];

  const has = (history, name) => (history[name] || []).some(known);
  const scoresOf = (history) =>
    Object.keys(history).filter(
      (name) => name.startsWith("held_out_") && name !== "held_out_loss_mean" && has(history, name),
    );
  const last = (values) => (values || []).findLast(known);
  /* An interrupted run ends without an evaluation: its last one is of an earlier update. */
  function measuredAt(record, name) {
    const history = record.history || {};
    const update = (history.updates || [])[(history[name] || []).findLastIndex(known)];
    const end = (record.finished || {}).updates;
    return known(update) && known(end) && update !== end ? `at update ${count(update)}` : "";
  }

  function heading(record) {
    const data = record.data || {};
    const often = record.every ? words.everyName(record.every) : null;
    const parts = [
      often && `updated: ${/^every \d+$/.test(often) ? `${often} examples` : often}`,
      known(record.learning_rate) ? `learning rate ${number(record.learning_rate)}` : null,
      record.optimizer,
      record.n_parameters ? `${count(record.n_parameters)} parameters` : null,
      known(record.seed) ? `seed ${record.seed}` : null,
    ];
    return [
      make("h1", { text: `${record.model || "A model"} on ${data.name || "the data"}` }),
      make("p", { class: "context", text: parts.filter(Boolean).join(" · ") }),
    ];
  }

  function outcome(record) {
    const done = record.finished || {};
    const spent = [
      known(done.updates) ? words.plural(done.updates, "update") : null,
      known(done.examples) ? words.plural(done.examples, "example") : null,
      known(done.epochs) ? `${number(done.epochs)} epochs` : null,
      known(done.seconds) ? seconds(done.seconds) : null,
    ].filter(Boolean);
    const scores = scoresOf(record.history || {}).map((name) => {
      const short = name.slice("held_out_".length);
      const when = measuredAt(record, name);
      return `held-out ${words.scoreName(short)} ${words.score(short)(last(record.history[name]))}${when && ` ${when}`}`;
    });
    const reason = done.reason ? done.reason[0].toUpperCase() + done.reason.slice(1) : `The training is ${record.paused ? "paused" : "under way"}`;
    const box = make(
      "section",
      { id: "answer", "aria-label": "The outcome" },
      make("p", {
        class: "lead",
        text: done.diverged
          ? `It diverged: ${done.reason || "the loss stopped being finite"}.`
          : `${reason}${scores.length ? `: ${scores.join(", ")}` : ""}.`,
      }),
    );
    if (spent.length)
      box.append(
        make("p", {
          class: "more",
          text:
            words.list(spent) +
            (known(record.compile_seconds) ? `, after ${seconds(record.compile_seconds)} of compilation.` : "."),
        }),
      );
    for (const note of (record.data || {}).notes || []) box.append(make("p", { class: "note", text: note }));
    const changed = (record.changes || []).map(({ sentence }) => sentence);
    if (changed.length) box.append(make("p", { class: "note", text: `Changed on its way: ${changed.join("; ")}.` }));
    if (record.thinned) {
      box.append(
        make("p", {
          class: "note",
          text:
            `Drawn are ${count(record.thinned.shown)} of ${count(record.thinned.rows)} rows of the history: of ` +
            `each stretch those with the lowest and the highest loss, and evaluations.`,
        }),
      );
    }
    return box;
  }

  function axisX(state) {
    const time = state.clock === "wall_seconds";
    return {
      label: CLOCKS[state.clock],
      unit: time ? "seconds" : "count",
      write: time ? seconds : state.clock === "epochs" ? (v) => number(v) : (v) => count(Math.round(v)),
      word: time ? "" : CLOCKS[state.clock],
    };
  }

  function curves(record, state, others) {
    const history = record.history || {};
    const clocks = Object.keys(CLOCKS).filter((clock) => has(history, clock));
    const losses = LOSSES.filter(([name]) => has(history, name));
    if (!clocks.length || !losses.length) return null;
    if (!clocks.includes(state.clock)) state.clock = clocks[0];
    const points = (name) =>
      charts.smooth(
        history[name].map((y, i) => ({ x: history[state.clock][i], y })).filter((p) => known(p.x) && known(p.y)),
        state.smooth,
      );
    const handles = [];
    const loss = charts.card(
      "Loss",
      "The mean loss of the batches, each before its update, and the losses over whole data sets where they were " +
        "evaluated.",
      words.choice(
        "loss axis",
        [
          ["log", "logarithmic"],
          ["linear", "linear"],
        ],
        state.logY ? "log" : "linear",
        (v) => {
          state.logY = v === "log";
          draw();
        },
      ),
    );
    const scores = scoresOf(history).map((name) => {
      const short = name.slice("held_out_".length);
      const when = measuredAt(record, name) || "at the end";
      return {
        name,
        short,
        card: charts.card(
          `Held-out ${words.scoreName(short)}`,
          `${words.score(short)(last(history[name]))} ${when}, on examples that were not trained on.`,
        ),
      };
    });
    function draw() {
      handles.splice(0).forEach((handle) => handle.destroy());
      const log = { x: state.logX, y: state.logY };
      handles.push(
        charts.chart(loss.host, {
          label: `loss against ${CLOCKS[state.clock]}`,
          height: 340,
          room: 16,
          log,
          x: axisX(state),
          y: { label: "loss, mean over examples", write: (v) => number(v) },
          lines: losses.map(([name, title, paint, width]) => ({
            title,
            width,
            stroke: () => charts.css(paint),
            points: points(name),
          })),
        }),
      );
      for (const { name, short, card } of scores) {
        handles.push(
          charts.chart(card.host, {
            label: `held-out ${short} against ${CLOCKS[state.clock]}`,
            height: 340,
            room: 16,
            log: { x: state.logX, y: false },
            x: axisX(state),
            y: { label: `held-out ${words.scoreName(short)}`, write: words.score(short) },
            lines: [
              {
                title: `held-out ${words.scoreName(short)}`,
                width: 2.2,
                stroke: () => charts.css("--cadence-4"),
                points: points(name),
              },
            ],
          }),
        );
      }
      for (const other of others) other.draw(state.clock, axisX(state), state.logX);
    }
    const key = make(
      "div",
      { class: "legend plain" },
      ...losses.map(([, title, paint]) => make("span", {}, make("i", { class: `swatch of${paint}` }), title)),
    );
    loss.box.insertBefore(key, loss.host);
    const element = section(
      "curves",
      "How it learned",
      make(
        "div",
        { class: "toolbar" },
        words.choice(
          "against",
          clocks.map((clock) => [clock, CLOCKS[clock]]),
          state.clock,
          (v) => {
            state.clock = v;
            draw();
          },
        ),
        words.choice(
          "horizontal axis",
          [
            ["linear", "linear"],
            ["log", "logarithmic"],
          ],
          state.logX ? "log" : "linear",
          (v) => {
            state.logX = v === "log";
            draw();
          },
        ),
        charts.smoothing(state, draw),
      ),
      make("div", { class: scores.length ? "two" : "" }, loss.box, ...scores.map((s) => s.card.box)),
    );
    return { element, draw };
  }

  /* How many updates the batches got: one row for each number, or for ranges of numbers where there are many. */
  function repeats(record) {
    const r = record.repeats;
    if (!r) return null;
    let rows = Object.entries(r.updates_per_batch || {})
      .map(([n, times]) => ({ low: +n, high: +n, times }))
      .sort((a, b) => a.low - b.low);
    const total = rows.reduce((sum, row) => sum + row.times, 0);
    const mean = rows.reduce((sum, row) => sum + row.low * row.times, 0) / total;
    if (rows.length > 16) {
      const width = Math.ceil((rows.at(-1).high - rows[0].low + 1) / 16);
      const bins = new Map();
      for (const row of rows) {
        const low = rows[0].low + width * Math.floor((row.low - rows[0].low) / width);
        bins.set(low, (bins.get(low) || 0) + row.times);
      }
      rows = [...bins].map(([low, times]) => ({ low, high: low + width - 1, times }));
    }
    const most = Math.max(...rows.map((row) => row.times));
    const body = make(
      "tbody",
      {},
      ...rows.map((row) => {
        const bar = make("i", { class: "bar" });
        bar.style.width = `${(100 * row.times) / most}%`;
        return make(
          "tr",
          {},
          make("th", {
            scope: "row",
            text: row.low === row.high ? count(row.low) : `${count(row.low)} to ${count(row.high)}`,
          }),
          make("td", {}, make("span", { class: "value", text: count(row.times) })),
          make("td", {}, make("span", { class: "value", text: words.percent(row.times / total) })),
          make("td", { class: "bars", "aria-hidden": "true" }, bar),
        );
      }),
    );
    const table = make(
      "table",
      { id: "repeats-table" },
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          make("th", { scope: "col", text: "updates on a batch" }),
          make("th", { scope: "col", text: "batches" }),
          make("th", { scope: "col", text: "share" }),
          make("td", {}),
        ),
      ),
      body,
    );
    const losses = make(
      "table",
      { id: "repeats-losses" },
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          ...["mean loss of", "before the updates", "after them", "change"].map((text) =>
            make("th", { scope: "col", text }),
          ),
        ),
      ),
      make(
        "tbody",
        {},
        ...[
          ["the batch itself", "batch"],
          ["the rest of the data", "rest"],
        ].map(([name, key]) => {
          const [before, after] = [r[`${key}_loss_before`], r[`${key}_loss_after`]];
          const change =
            known(before) && known(after) && before
              ? `${after > before ? "+" : "−"}${words.percent(Math.abs(after / before - 1))}`
              : "–";
          return make(
            "tr",
            {},
            make("th", { scope: "row", text: name }),
            ...[number(before), number(after), change].map((text) =>
              make("td", {}, make("span", { class: "value", text })),
            ),
          );
        }),
      ),
    );
    const ratio = r.rest_loss_after / r.rest_loss_before;
    const became = Math.abs(ratio - 1) < 0.01 ? "stayed" : ratio > 1 ? "rose" : "fell";
    const sentence =
      known(r.rest_loss_before) && known(r.rest_loss_after)
        ? ` The batch at hand was learned (${number(r.batch_loss_before)} to ${number(r.batch_loss_after)}); ` +
          `meanwhile the loss of the rest ${became} (${number(r.rest_loss_before)} to ${number(r.rest_loss_after)}).`
        : "";
    return section(
      "repeats",
      "How often batches were repeated",
      make("p", {
        class: "seen",
        text: `A batch got ${number(mean)} updates on average before the next one came.${sentence}`,
      }),
      make(
        "div",
        { class: "two" },
        scrolling("Updates on a batch", table),
        scrolling("Losses before and after", losses),
      ),
    );
  }

  /* The range test that found the learning rate: the loss after a few updates with each rate. */
  function rates(record) {
    const found = record.rate_range;
    if (!found) return null;
    const lowest = Math.min(...found.loss.filter(known));
    const top = 2 * found.first_loss - lowest;
    const within = (value) => (known(value) ? Math.min(value, top) : top);
    const card = charts.card(
      `Learning rate ${number(found.learning_rate)}, chosen by a range test`,
      `The loss of ${count(found.n_sample)} training examples after ${words.plural(found.updates_each, "update")} with ` +
        `each rate, from the run’s own initial weights; ${number(found.first_loss)} before. The rate is a factor √2 ` +
        `below the greatest with which the loss falls about as far as with any.` +
        (known(found.rises) ? ` With ${number(found.rises)} it rises.` : ""),
    );
    const points = found.rates.map((x, i) => ({
      x,
      y: within(found.loss[i]),
      low: within(found.low[i]),
      high: within(found.high[i]),
      exact: found.loss[i],
    }));
    const stroke = () => charts.css("--cadence-2");
    const draw = () =>
      charts.chart(card.host, {
        label: "loss against the learning rate, the horizontal axis logarithmic",
        height: 300,
        room: 16,
        log: { x: true, y: false },
        x: { label: "learning rate γ", unit: "count", write: (v) => number(v), word: "" },
        y: { label: `loss after ${words.plural(found.updates_each, "update")}`, write: (v) => number(v) },
        lines: [
          {
            title: found.repeats > 1 ? `median of ${found.repeats}` : "loss",
            width: 1.6,
            stroke,
            points,
            write: (y, p) => (known(p.exact) ? number(p.exact) : "not finite"),
          },
        ],
        marks: points.flatMap((p) => [
          { kind: "bar", x: p.x, low: p.low, high: p.high, stroke },
          { kind: "dot", x: p.x, y: p.y, stroke },
        ]),
        rules: [{ at: found.learning_rate, text: `chosen: ${number(found.learning_rate)}` }],
      });
    return { element: section("rates", "How the learning rate was found", card.box), draw };
  }

  function settings(record) {
    const data = record.data || {};
    const rest = Object.entries(record.settings || {}).map(([name, value]) => [
      name.replaceAll("_", " "),
      typeof value === "number" ? number(value, 6) : value,
    ]);
    const own = [
      ["data", data.name],
      ["examples", known(data.n_train) ? `${count(data.n_train)} to train, ${count(data.n_held_out)} held out` : null],
      ["input shape", (data.input_shape || []).join(" × ")],
      ["classes", data.n_classes],
      ["model", record.model],
      ["parameters", known(record.n_parameters) ? count(record.n_parameters) : null],
      ["loss", record.loss],
      ["optimizer", record.optimizer],
      ["learning rate", known(record.learning_rate) ? number(record.learning_rate) : null],
      ["every", record.every],
      ["seed", record.seed],
    ];
    const names = new Set(own.map(([name]) => name));
    return section("settings", "Settings", facts([...own, ...rest.filter(([name]) => !names.has(name))]));
  }

  backbeat.run = (record, root, state) => {
    Object.assign(state, { clock: "updates", logX: false, logY: true, smooth: 0, ...state });
    const others = [backbeat.along(record), backbeat.noise(record)].filter(Boolean);
    const drawn = curves(record, state, others);
    const ranged = rates(record);
    const parts = [
      drawn && drawn.element,
      backbeat.mistakes(record),
      ...(drawn ? others.map((other) => other.element) : []),
      repeats(record),
      ranged && ranged.element,
      settings(record),
    ];
    root.append(...heading(record), outcome(record), ...[...parts, words.environment(record)].filter(Boolean));
    if (drawn) drawn.draw();
    if (ranged) ranged.draw();
  };
})();
