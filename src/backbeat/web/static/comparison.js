/* The page of a comparison: the answer first, then what it rests on. */
"use strict";
(() => {
  const { words } = backbeat;
  const {
    known,
    count,
    seconds,
    number,
    exact,
    roughly,
    kept,
    make,
    formula,
    spread,
    scrolling,
    section,
    facts,
    everyName,
  } = words;
  const { CLOCKS, middle, readable, capital, scoreText, best, paletteIndex, cadenceHead, share, table } =
    backbeat.measured;
  const { curves, needs, gradients } = backbeat.curves;

  /* ------------------------------------------------------------------ the answer */

  function heading(record) {
    const data = record.data || {};
    const parts = [
      data.n_train
        ? `${count(data.n_train)} training examples${data.n_held_out ? `, ${count(data.n_held_out)} held out` : ""}`
        : null,
      record.n_parameters ? `${record.model} with ${count(record.n_parameters)} parameters` : record.model,
      record.target ? `target: ${readable(record.target)}` : null,
      record.seeds ? words.plural(record.seeds.length, "seed") : null,
    ];
    return [
      make("h1", { text: `How often should ${record.model || "the model"} be updated on ${data.name || "the data"}?` }),
      make("p", { class: "context", text: parts.filter(Boolean).join(" · ") }),
    ];
  }

  function answer(record) {
    const box = make("section", { id: "answer", "aria-label": "The answer" });
    const sentences = record.answer || [];
    const lead = (sentence) => (sentence.length > 110 ? "lead long" : "lead");
    sentences.forEach((sentence, i) => box.append(formula({ class: i ? "more" : lead(sentence) }, kept(sentence))));
    for (const note of [...(record.notes || []), ...((record.data || {}).notes || [])])
      box.append(make("p", { class: "note", text: kept(note) }));
    return box;
  }

  /* Without a target: who has the lowest loss once all have spent the same. */
  function equalTiles(record) {
    const box = make("div", { class: "tiles" });
    for (const clock of ["seconds", "examples", "updates"]) {
      const { at, rows } = (record.equal || {})[clock] || {};
      const rated = (rows || [])
        .filter((row) => row.train_loss_mean)
        .sort((a, b) => a.train_loss_mean.median - b.train_loss_mean.median);
      if (!rated.length) continue;
      const [first, ...others] = rated;
      const i = record.cadences.findIndex((c) => String(c.every) === String(first.every));
      const near = others
        .filter((row) => row.train_loss_mean.low <= first.train_loss_mean.high)
        .map((row) => everyName(row.every));
      box.append(
        make(
          "div",
          { class: "tile" },
          make("p", {
            class: "what",
            text: `Lowest after ${clock === "seconds" ? seconds(at) : `${count(at)} ${clock}`}`,
          }),
          make(
            "p",
            { class: "who" },
            make("i", { class: `swatch c${paletteIndex(i, record.cadences.length)}` }),
            everyName(first.every),
          ),
          make("p", { class: "how", text: `training loss ${exact(first.train_loss_mean.median)}` }),
          near.length ? make("p", { class: "near", text: `within the seeds’ spread of ${words.list(near)}` }) : null,
        ),
      );
    }
    return box.children.length ? box : null;
  }

  function tiles(record) {
    if (!record.target) return equalTiles(record);
    const box = make("div", { class: "tiles" });
    for (const [clock, title] of [
      ["seconds", "Quickest here"],
      ["examples", "Fewest examples"],
      ["updates", "Fewest updates"],
    ]) {
      const found = best(record, clock);
      const i = found ? record.cadences.indexOf(found.cadence) : -1;
      const swatch = make("i", { class: `swatch c${paletteIndex(i, record.cadences.length)}` });
      box.append(
        make(
          "div",
          { class: "tile" },
          make("p", { class: "what", text: title }),
          make("p", { class: "who" }, found ? swatch : null, found ? everyName(found.cadence.every) : "not reached"),
          make("p", {
            class: "how",
            text: found
              ? `${words.writers[clock](found.value.median)}${clock === "seconds" ? "" : ` ${clock}`} to the target`
              : "no cadence reached the target in every run",
          }),
          found && found.near.length
            ? make("p", {
                class: "near",
                text: `within the seeds’ spread of ${words.list(found.near.map((c) => everyName(c.every)))}`,
              })
            : null,
        ),
      );
    }
    return box;
  }

  /* ------------------------------------------------------------------ the main table */

  function mainTable(record) {
    const write = words.score(record.score);
    const leaders = Object.fromEntries(
      ["updates", "examples", "epochs", "seconds"].map((clock) => {
        const found = best(record, clock);
        return [clock, found ? [found.cadence, ...found.near] : []];
      }),
    );
    const least = (clock, cadence) => {
      if (record.underway || !leaders[clock].includes(cadence)) return null; // what is not measured yet may need less
      const word = clock === "seconds" ? "quickest" : "fewest";
      return make("span", { class: "best", text: leaders[clock].length > 1 ? `${word}, tied` : word });
    };
    const columns = [
      [
        "learning rate",
        "",
        (c) => [
          make("span", { class: "value", text: number(c.learning_rate) }),
          c.on_edge ? make("span", { class: "range warn", text: "at the grid’s edge" }) : null,
        ],
      ],
      ...["updates", "examples", "epochs", "seconds"].map((clock) => [
        clock === "seconds" ? "time" : clock,
        "To the target",
        (c) => [...spread(c.to_target && c.to_target[clock], words.writers[clock]), least(clock, c)],
      ]),
      ["reached by", "To the target", (c) => [share(c.reached_share, c.runs)]],
      [scoreText(record), "At the end", (c) => spread(c.final_score, write)],
      ["diverged", "At the end", (c) => [share(c.diverged_share, c.runs)]],
      [
        "gradient norm",
        "On the way",
        (c) =>
          c.gradient_norm && known(c.gradient_norm.median)
            ? [
                make("span", { class: "value", text: exact(c.gradient_norm.median) }),
                known(c.gradient_norm.spread)
                  ? make("span", { class: "range", text: `± ${roughly(c.gradient_norm.spread)}` })
                  : null,
              ]
            : spread(null),
      ],
      ["time per update", "On the way", (c) => spread(c.seconds_per_update, seconds)],
      ["compilation", "On the way", (c) => [make("span", { class: "value", text: seconds(c.compile_seconds) })]],
    ];
    return table(
      "main-table",
      ["cadence"],
      columns.filter(([, group]) => record.target || group !== "To the target"),
      record,
    );
  }

  /* ------------------------------------------------------------------ tables further down */

  function equal(record) {
    const budgets = CLOCKS.filter(
      (clock) => record.equal && record.equal[clock] && (record.equal[clock].rows || []).length,
    );
    if (!budgets.length) return null;
    const write = words.score(record.score);
    const lower = ["loss", "mse"].includes(record.score);
    const columns = budgets.flatMap((clock) => {
      const { at, rows } = record.equal[clock];
      const group = clock === "seconds" ? `After ${seconds(at)}` : `After ${count(at)} ${clock}`;
      const row = (c) => rows.find((r) => String(r.every) === String(c.every)) || {};
      return [
        ["train_loss_mean", "training loss", exact, true],
        ["score", scoreText(record), write, lower],
      ].map(([key, name, writer, less]) => {
        const values = rows
          .map((r) => r[key])
          .filter((v) => v && known(v.median))
          .sort((a, b) => (less ? a.median - b.median : b.median - a.median));
        const leaders =
          values.length > 1 ? values.filter((v) => (less ? v.low <= values[0].high : v.high >= values[0].low)) : [];
        const word = (less ? "lowest" : "highest") + (leaders.length > 1 ? ", tied" : "");
        return [
          name,
          group,
          (c) => [
            ...spread(row(c)[key], writer),
            leaders.includes(row(c)[key]) ? make("span", { class: "best", text: word }) : null,
          ],
        ];
      });
    });
    return section(
      "equal",
      "At equal budgets",
      make("p", {
        class: "seen",
        text:
          "Where each cadence stands once it has been given the same number of examples, of updates, and the " +
          "same time. A dash: it did not run that long.",
      }),
      scrolling("At equal budgets", table("equal-table", ["cadence"], columns, record)),
    );
  }

  function tuning(record) {
    const most = Math.max(0, ...record.cadences.map((c) => (c.tuning || []).length));
    if (!most) return null;
    const write = record.target ? (v) => count(Math.round(v)) : exact;
    const what = record.target
      ? "median of the updates to the target"
      : "median of the loss at the last evaluation that all had";
    const order = record.target ? "the sooner; a dash where most seeds did not reach it" : "the lower";
    const head = make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "col", text: "cadence" }),
        make("th", {
          scope: "col",
          colspan: most,
          class: "left",
          text: "learning rates, from the smallest to the largest",
        }),
        make("th", { scope: "col", class: "left", text: "the grid" }),
      ),
    );
    const body = make(
      "tbody",
      {},
      ...record.cadences.map((cadence, i) => {
        const tried = [...(cadence.tuning || [])]
          .sort((a, b) => a.learning_rate - b.learning_rate)
          .map((t) => {
            const times = t.updates_to_target || [];
            const values = times.filter(known);
            if (!record.target) return { ...t, n: 0, some: 0, median: t.score };
            return {
              ...t,
              n: times.length,
              some: values.length,
              median: values.length * 2 > times.length ? middle(values) : null,
            };
          });
        const least = Math.min(...tried.map((t) => t.median).filter(known));
        const cells = tried.map((t) => {
          const level = known(t.median) ? Math.max(1, 5 - Math.round(2 * Math.log2(t.median / least))) : 0;
          return make(
            "td",
            { class: `heat level-${level}${t.chosen ? " chosen" : ""}` },
            make("span", { class: "rate", text: number(t.learning_rate) }),
            make("span", { class: "value", text: known(t.median) ? write(t.median) : "–" }),
            t.chosen ? make("span", { class: "best", text: "chosen" }) : null,
            t.some && t.some < t.n ? make("span", { class: "range", text: `${t.some} of ${t.n} seeds` }) : null,
            t.diverged ? make("span", { class: "range warn", text: `${count(t.diverged)} diverged` }) : null,
          );
        });
        if (cells.length < most) cells.push(make("td", { colspan: most - cells.length }));
        const times = cadence.widened === 1 ? "once" : cadence.widened === 2 ? "twice" : `${cadence.widened} times`;
        return make(
          "tr",
          {},
          cadenceHead(record, i),
          ...cells,
          make(
            "td",
            { class: "left" },
            make("span", {
              class: cadence.on_edge ? "value warn" : "value",
              text: !cadence.tuning ? "" : cadence.on_edge ? "best at its edge" : "best inside",
            }),
            cadence.widened ? make("span", { class: "range", text: `widened ${times}` }) : null,
          ),
        );
      }),
    );
    return section(
      "tuning",
      "How the learning rates were chosen",
      make("p", {
        class: "seen",
        text:
          `In each cell the learning rate, and below it the ${what} on ` +
          `${seedsText(record.tuning_seeds) || "other seeds"}; the deeper the colour, ${order}. Where the best lay ` +
          `at the edge of the grid, the grid was widened.`,
      }),
      scrolling("Learning rates tried", make("table", { id: "tuning-table" }, head, body)),
    );
  }

  const seedsText = (seeds) =>
    seeds && seeds.length ? `${seeds.length === 1 ? "seed" : "seeds"} ${words.list(seeds.map(String))}` : "";

  function method(record) {
    const data = record.data || {};
    const score = scoreText(record);
    const pairs = [
      [
        "Example",
        `One input with its label; ${count(data.n_train)} of them train, ${count(data.n_held_out)} are held out and ` +
          `only measured.`,
      ],
      ["Batch", "The M examples behind one update; its loss is the mean of their losses."],
      ["Update", "One change of the parameters: the optimizer is applied once to the mean gradient of a batch."],
      ["Epoch", `As many examples as the training data holds (${count(data.n_train)}), whatever the batch.`],
      [
        "Time",
        "Seconds of one run on its own (not several at once), with the program already compiled. Evaluation is left " +
          "out, compilation is reported apart.",
      ],
      [
        "Target",
        !record.target
          ? null
          : `${capital(readable(record.target || "–"))}: the first evaluation at which a run meets it counts. ` +
            `Medians are given where every seed did.`,
      ],
      [
        "Learning rates",
        `Tuned for each cadence on ${seedsText(record.tuning_seeds) || "seeds of their own"}; all that is reported ` +
          `was run on ${seedsText(record.seeds) || "others"}, so that luck in tuning is not counted twice.`,
      ],
      [
        "Gradient norm",
        "The length of the batch’s mean gradient; ± is its standard deviation over updates divided by its mean.",
      ],
      [
        "Data",
        `${data.name || "–"}: ${count(data.n_examples)} examples of shape ` +
          `${(data.input_shape || []).join(" × ") || "–"}` +
          `${data.n_classes ? `, ${count(data.n_classes)} classes` : ""}.`,
      ],
      [
        "Training",
        `${record.model}, loss ${String(record.loss || "–").replaceAll("_", " ")}, optimizer ` +
          `${record.optimizer || "–"}, examples ${record.order || "in order"}; final score: ${score}.`,
      ],
      [
        "Budget",
        known(record.budget_seconds)
          ? `${seconds(record.budget_seconds)}, of which ${seconds(record.took_seconds)} were used.`
          : null,
      ],
    ];
    const element = section("method", "How this was measured", facts(pairs));
    element.querySelector("dl").classList.add("long");
    return element;
  }

  backbeat.comparison = (record, root, state) => {
    record = { ...record, cadences: record.cadences || [] };
    Object.assign(state, {
      hidden: new Set(),
      logX: { examples: true, updates: true, seconds: true },
      logY: true,
      logNorm: true,
      ...state,
    });
    const drawn = [curves(record, state), needs(record), gradients(record, state)];
    const now = record.underway;
    root.append(
      ...heading(record),
      ...(now ? [backbeat.underway(record)] : [answer(record), tiles(record)].filter(Boolean)),
    );
    if (!record.cadences.length) return;
    root.append(
      section(
        "results",
        now ? "Known so far" : record.target ? "Until the target was reached" : "What came out",
        make("p", {
          class: "seen",
          text:
            "Medians over seeds, with the range from the lowest to the highest; where ranges overlap, the lead " +
            "is tied.",
        }),
        scrolling("Results for each cadence", mainTable(record)),
      ),
      ...[
        ...drawn.map((d) => d && d.element),
        equal(record),
        tuning(record),
        ...(now ? [] : [method(record), words.environment(record)]),
      ].filter(Boolean),
    );
    drawn.filter(Boolean).forEach((d) => d.draw());
  };
})();
