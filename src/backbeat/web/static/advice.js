/* The page of advice: what to set first, then how sure that is and what it rests on. */
"use strict";
(() => {
  const { words } = backbeat;
  const { known, count, seconds, number, exact, kept, make, formula, spread, scrolling, section, facts } = words;
  const { capital, readable } = backbeat.measured;
  const { after, whole, widthOf, hardware, updates, time, rate, noise } = backbeat.adviceCharts;
  const WISHES = [
    ["finish_first", "Finish first"],
    ["fewest_examples", "Fewest examples"],
    ["fewest_updates", "Fewest updates"],
  ];

  /* ------------------------------------------------------------------ parts of tables */

  const value = (text, warn) => make("span", { class: warn ? "value warn" : "value", text });
  const range = (text, warn) => make("span", { class: warn ? "range warn" : "range", text });
  const nothing = (text = "–") => make("span", { class: "none", text });
  const badge = (text) => make("span", { class: "best", text });
  const interval = (v, write) => spread(v && { median: v.value, low: v.low, high: v.high }, write);
  const spanOf = (values, write) => {
    const seen = values.filter(known);
    if (seen.length < 2 || Math.min(...seen) === Math.max(...seen)) return null;
    return range(`${write(Math.min(...seen))} to ${write(Math.max(...seen))}`);
  };

  /* A table: columns are [name, class]; each row is [its head, cell contents, …], each of them a list. */
  function table(id, columns, rows) {
    const head = columns.map(([name, of]) => make("th", { scope: "col", class: of, text: name }));
    const body = rows.map(([first, ...cells]) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, ...first.filter(Boolean)),
        ...cells.map((cell, i) => make("td", { class: columns[i + 1][1] }, ...cell.filter(Boolean))),
      ),
    );
    return make("table", { id }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  }

  /* ------------------------------------------------------------------ the answer */

  function heading(record) {
    const data = record.data || {};
    const held = data.n_held_out ? `, ${count(data.n_held_out)} held out` : "";
    const parts = [
      data.n_train ? `${count(data.n_train)} training examples${held}` : null,
      record.n_parameters ? `${record.model} with ${count(record.n_parameters)} parameters` : record.model,
      record.target ? `target: ${readable(record.target)}` : null,
      record.optimizer ? `optimizer: ${record.optimizer}` : null,
      known(record.took_seconds) ? `measured in ${seconds(record.took_seconds)}` : null,
    ];
    const [model, name] = [record.model || "the model", data.name || "the data"];
    return [
      make("h1", { text: `After how many examples should ${model} be updated on ${name}, and with which learning rate?` }),
      make("p", { class: "context", text: parts.filter(Boolean).join(" · ") }),
    ];
  }

  function answer(record) {
    const box = make("section", { id: "answer", "aria-label": "The answer" });
    const elsewhere = new Set((record.what_if || {}).sentences || []);
    const sentences = (record.answer || []).filter((sentence) => !elsewhere.has(sentence));
    const lead = (sentence) => (sentence.length > 110 ? "lead long" : "lead");
    sentences.forEach((sentence, i) => box.append(formula({ class: i ? "more" : lead(sentence) }, kept(sentence))));
    if (record.next) box.append(formula({ class: "more next" }, kept(record.next)));
    return box;
  }

  function wishes(record) {
    const rows = WISHES.filter(([name]) => record[name]).map(([name, title]) => {
      const wish = record[name];
      const level = (wish.level || []).map((m) => count(m));
      return [
        [make("span", { class: "every", text: title })],
        [value(after(wish)), wish.every === "dataset" ? range(`M = ${count(wish.batch_size)}`) : null],
        [record.tunable === false ? nothing("the optimizer’s own") : value(number(wish.learning_rate))],
        interval(wish.updates, whole),
        interval(wish.examples, whole),
        interval(wish.epochs, exact),
        interval(wish.seconds, seconds),
        [level.length ? value(words.list(level)) : nothing("no other")],
      ];
    });
    if (!rows.length) return null;
    const columns = [["wish"], ["update after"], ["learning rate"], ["updates"], ["examples"], ["epochs"], ["time"]];
    return section(
      "wishes",
      "Three wishes",
      make("p", {
        class: "seen",
        text:
          `What one run takes until ${readable(record.target || "the target")}, and below it the range in which 95 % ` +
          "of runs should lie. Time is that of updates alone, on this machine.",
      }),
      scrolling("What serves each wish", table("wishes-table", [...columns, ["also within 10 %"]], rows)),
    );
  }

  function verdict(one) {
    const seen = one.seen_updates || [];
    const met = seen.filter(known).length;
    if (!seen.length) return [nothing("not run, for lack of time")];
    if (met < seen.length) return [value(`${met} of ${seen.length} runs met the target`, true)];
    return [one.agrees ? badge("as predicted") : value("disagrees", true)];
  }

  function confirmed(record) {
    const rows = (record.confirmed || []).map((one) => {
      const [ups, times] = [one.seen_updates || [], one.seen_seconds || []];
      const each = (values, write) => (values.length ? values.map((v) => (known(v) ? write(v) : "–")).join(", ") : "–");
      const mid = (values, write) => {
        const found = values.filter(known);
        return [
          found.length && found.length === values.length ? value(write(backbeat.measured.middle(found))) : nothing(),
          values.length ? range(each(values, write)) : null,
        ];
      };
      return [
        [make("span", { class: "every", text: after(one) })],
        [record.tunable === false ? nothing() : value(number(one.learning_rate))],
        interval(one.predicted_updates, whole),
        mid(ups, whole),
        interval(one.predicted_seconds, seconds),
        mid(times, seconds),
        verdict(one),
      ];
    });
    if (!rows.length) return null;
    const columns = [
      ["update after"],
      ["learning rate"],
      ["updates predicted"],
      ["updates seen"],
      ["time predicted"],
      ["time seen"],
      ["verdict"],
    ];
    return section(
      "confirmed",
      "Predicted, and seen in real runs",
      make("p", {
        class: "seen",
        text:
          "The recommended setting and its neighbours, run for real on seeds that nothing was tuned on. Seen: the " +
          "median, and each run. As predicted means updates within a factor 1.3 and time within a factor 1.5.",
      }),
      scrolling("Predicted and seen", table("confirmed-table", columns, rows)),
    );
  }

  /* ------------------------------------------------------------------ what it rests on */

  function restsOn(id, title, sentence, drawn, layout) {
    const shown = drawn.filter(Boolean);
    if (!shown.length) return null;
    const element = section(
      id,
      title,
      make("p", { class: "seen", text: sentence }),
      make("div", { class: layout }, ...shown.map((d) => d.element)),
    );
    return { element, draw: () => shown.forEach((d) => d.draw()) };
  }

  function charts(record) {
    const width = widthOf(record);
    if (!width) return [];
    const scale = noise(record);
    const product = [hardware(record, width), updates(record, width), time(record, width)];
    return [
      restsOn(
        "time",
        "Time to the target = updates × the time of one",
        product[1]
          ? "A larger batch needs fewer updates, and each of them takes longer. All axes are logarithmic."
          : `No batch size ${record.underway ? "has met the target yet" : "met the target"}, so there are no updates and no time to draw.`,
        product,
        "three",
      ),
      restsOn(
        "steering",
        "Learning rate and noise",
        (record.tunable === false ? "The learning rate is the optimizer’s own. " : "The rate is tuned for each batch size. ") +
          (scale
            ? "The noise scale is a rough guide to which batch sizes pay."
            : `The noise scale along a run ${record.underway ? "is measured at the end" : "was not measured"}.`),
        [rate(record, width), scale],
        "two",
      ),
    ].filter(Boolean);
  }

  function remark(record, size) {
    const of = WISHES.filter(([name]) => (record[name] || {}).batch_size === size.batch_size);
    return [
      ...of.map(([, title]) => badge(title.toLowerCase())),
      size.why_not ? range(`not measured: ${size.why_not}`) : null,
      !size.why_not && !size.reached ? range("not met with every seed", true) : null,
      size.on_edge ? range("rate on the edge of those tried, left out of the fit", true) : null,
    ];
  }

  function sizes(record) {
    const rows = (record.sizes || []).map((size) => {
      const tried = (size.tuning || []).map((t) => t.learning_rate).filter(known);
      const seen = size.updates || [];
      const met = seen.filter(known).length;
      const how = size.seconds_how === "measured" ? null : size.seconds_how;
      return [
        [make("span", { class: "every", text: after(size) })],
        known(size.learning_rate)
          ? [value(number(size.learning_rate)), tried.length ? range(`${tried.length} tried`) : null]
          : [nothing()],
        [seen.length ? value(`${met} of ${seen.length}`, met < seen.length) : nothing()],
        size.why_not
          ? [nothing("not measured")]
          : known(size.updates_to_target)
            ? [value(whole(size.updates_to_target)), spanOf(seen, whole)]
            : [nothing("not reached"), spanOf(seen, whole)],
        [value(seconds(size.seconds_per_update)), how ? range(how) : null],
        known(size.seconds_to_target) ? [value(seconds(size.seconds_to_target))] : [nothing()],
        remark(record, size),
      ];
    });
    if (!rows.length) return null;
    const columns = [
      ["update after"],
      ["learning rate"],
      ["runs that met it"],
      ["updates"],
      ["time of an update"],
      ["time to the target"],
      ["", "remark"],
    ];
    return section(
      "sizes",
      "Every batch size",
      make("p", {
        class: "seen",
        text:
          "At the best learning rate found for each: the median of its seeds, with the range from the lowest to the " +
          "highest; the time is their product. What was not measured says so.",
      }),
      scrolling("Every batch size", table("sizes-table", columns, rows)),
    );
  }

  function elsewhere(record) {
    const plan = record.what_if;
    if (!plan) return null;
    const best = (plan.best || {}).batch_size;
    const all = (record.data || {}).n_train;
    const rows = (plan.rows || []).map((row) => [
      [make("span", { class: "every", text: after({ every: row.batch_size === all ? "dataset" : "", ...row }) })],
      interval(row.updates, whole),
      [value(seconds(row.seconds_per_update))],
      interval({ value: row.seconds, low: row.low, high: row.high }, seconds),
      row.batch_size === best ? [badge("quickest there")] : [],
    ]);
    const columns = [["update after"], ["updates"], ["time of an update"], ["time to the target"], ["", "remark"]];
    return section(
      "elsewhere",
      `What if: ${plan.name}`,
      make("p", { class: "computed", text: "Computed, not measured" }),
      ...(plan.sentences || []).map((sentence) => formula({ class: "seen" }, kept(sentence))),
      rows.length ? scrolling("Computed for another machine", table("elsewhere-table", columns, rows)) : null,
    );
  }

  function notes(record) {
    const all = [...(record.notes || []), ...((record.data || {}).notes || [])];
    if (!all.length) return null;
    const items = all.map((note) => {
      const item = make("li");
      item.append(...formula({}, kept(note)).childNodes);
      return item;
    });
    return section("notes", "What else was seen", make("ul", { class: "notes" }, ...items));
  }

  /* The numbers behind the two charts whose points stand in no table above. */
  function numbers(record) {
    const { points = [], alpha, beta } = record.hardware || {};
    const law = (m) => (alpha && beta ? alpha.value + beta.value * m : null);
    const costs = points.map((p) => [
      [value(count(p.batch_size))],
      spread(p, seconds),
      [value(seconds(p.median / p.batch_size))],
      [value(seconds(law(p.batch_size)))],
      [value(count(p.n_rounds))],
      [p.block && p.block !== p.batch_size ? value(count(p.block)) : nothing("whole")],
    ]);
    const scale = ((record.noise_scale || {}).points || []).map((p) => [
      [value(count(p.updates))],
      [value(exact(p.train_loss_mean))],
      known(p.scale) ? interval({ value: p.scale, low: p.low, high: p.high }, number) : [nothing("not known")],
      [value(exact(p.gradient_squared))],
      [value(exact(p.trace))],
    ]);
    const folded = (title, label, made) =>
      make("details", {}, make("summary", { text: title }), scrolling(label, made));
    const costNames = [["M"], ["time of an update"], ["per example"], ["α + β M"], ["rounds"], ["block"]];
    const noiseNames = [["updates"], ["training loss"], ["noise scale"], ["|G|²"], ["tr Σ"]];
    const parts = [
      costs.length ? folded("Time of an update", "Time of an update", table("hardware-table", costNames, costs)) : null,
      scale.length ? folded("Noise scale along a run", "Noise scale", table("noise-table", noiseNames, scale)) : null,
    ].filter(Boolean);
    return parts.length ? section("numbers", "The numbers of the charts", ...parts) : null;
  }

  function method(record) {
    const data = record.data || {};
    const fit = record.critical_batch || {};
    const shape = (data.input_shape || []).join(" × ") || "–";
    const pairs = [
      ["Update", "One change of the parameters: the optimizer is applied once to the mean gradient of a batch."],
      [
        "Target",
        record.target
          ? `${capital(readable(record.target))}: the first evaluation at which a run meets it counts, and every seed ` +
            "has to meet it."
          : null,
      ],
      [
        "Time",
        "Updates to the target times the time of one, without evaluation and compilation. Batch sizes are timed in " +
          "turn, round after round, so that a slow moment hits all alike.",
      ],
      [
        "Learning rates",
        record.tunable === false
          ? "The optimizer’s own: it was given as it is, and nothing was tuned."
          : `Tuned for each batch size with ${words.plural(record.seeds, "seed")} at a time; real runs have others.`,
      ],
      ["Critical batch", fit.definition ? `Here ${fit.definition}.` : "Not known: too few batch sizes met the target."],
      ["Noise scale", "tr Σ / |G|²: how much the gradients of single examples differ, beside their mean."],
      [
        "Data",
        `${data.name || "–"}: ${count(data.n_examples)} examples of shape ${shape}` +
          `${data.n_classes ? `, ${count(data.n_classes)} classes` : ""}.`,
      ],
      [
        "Training",
        `${record.model}, loss ${String(record.loss || "–").replaceAll("_", " ")}, optimizer ` +
          `${record.optimizer || "–"}, examples ${record.order || "in order"}; first seed ${record.seed}.`,
      ],
      [
        "Budget",
        known(record.within_seconds)
          ? `${seconds(record.within_seconds)}, of which ${seconds(record.took_seconds)} were used.`
          : null,
      ],
    ];
    const element = section("method", "How this was measured", facts(pairs));
    element.querySelector("dl").classList.add("long");
    return element;
  }

  backbeat.advice = (record, root) => {
    const drawn = charts(record);
    root.append(
      ...heading(record),
      ...[
        record.underway ? backbeat.underway(record) : answer(record),
        wishes(record),
        confirmed(record),
        ...drawn.map((d) => d.element),
        sizes(record),
        elsewhere(record),
        ...(record.underway ? [] : [notes(record), numbers(record), method(record), words.environment(record)]),
      ].filter(Boolean),
    );
    drawn.forEach((d) => d.draw());
  };
})();
