/* The charts of advice: an update's time, updates and time to the target, the learning rate, the gradient's noise. */
"use strict";
(() => {
  const { words, charts } = backbeat;
  const { known, count, seconds, number, roughly, make } = words;
  const SEEN = "--cadence-6";
  const REAL = "--cadence-0";
  const NOISE = "--cadence-3";
  const ALL = "--muted";
  const FITTED = "--ink";
  const paint = (name) => () => charts.css(name);

  /* When the weights change, in words: "each example", "32 examples", "the whole data set". */
  function after(of) {
    if (of.every === "dataset") return "the whole data set";
    return of.batch_size === 1 ? "each example" : `${count(of.batch_size)} examples`;
  }

  const whole = (value) => count(known(value) ? Math.round(value) : value);
  const rounded = (value) => count(known(value) && value >= 10 ? Math.round(value) : value);
  const size = (point) => `M = ${count(point.x)}`;
  const ranged = (write) => (y, p) =>
    known(p.low) && known(p.high) && write(p.low) !== write(p.high)
      ? `${write(y)} (${write(p.low)} to ${write(p.high)})`
      : write(y);
  const middle = (values) => backbeat.measured.middle(values);
  const reachedSizes = (record) => (record.sizes || []).filter((s) => s.reached && known(s.updates_to_target));
  const lawOf = (record) => {
    const fit = record.critical_batch;
    return fit && fit.known ? fit : null;
  };

  /* The batch sizes that any chart shows, and a little beside: all share one axis. */
  function widthOf(record) {
    const sizes = [...(record.sizes || []), ...((record.hardware || {}).points || [])].map((s) => s.batch_size);
    return sizes.length ? [Math.min(...sizes) / 1.5, Math.max(...sizes) * 1.5] : null;
  }

  const grid = (low, high, f) =>
    Array.from({ length: 120 }, (_, i) => low * (high / low) ** (i / 119)).map((x) => ({ x, y: f(x) }));

  function axisOf(record, range) {
    return {
      label: "examples in a batch, M",
      range: () => range,
      at: (x) => `at M ≈ ${count(x < 10 ? +x.toPrecision(2) : Math.round(x))}`,
    };
  }

  function recommended(record) {
    const best = record.finish_first;
    if (!best) return [];
    return [{ at: best.batch_size, text: `recommended: ${best.every === "dataset" ? "all" : count(best.batch_size)}` }];
  }

  const tall = (pad) => (u, low, high) => (known(low) && known(high) ? [low / pad, high * pad] : [0.1, 10]);

  /* A card with its key: [[name, colour], …]. */
  function card(title, sentence, key) {
    const made = charts.card(title, "");
    made.said.append(...words.formula({}, words.kept(sentence)).childNodes);
    const names = key.map(([name, colour]) =>
      make("span", {}, make("i", { class: `swatch of${colour}` }), ...words.formula({}, name).childNodes),
    );
    made.box.insertBefore(make("div", { class: "legend plain" }, ...names), made.host);
    return made;
  }

  const drawn = (made, spec) => ({ element: made.box, draw: () => charts.chart(made.host, spec) });

  /* ------------------------------------------------------------------ the time of an update */

  function hardware(record, range) {
    const { points = [], alpha, beta, residual } = record.hardware || {};
    if (!points.length) return null;
    const line = alpha && beta ? grid(range[0], range[1], (m) => alpha.value + beta.value * m) : [];
    const off = known(residual) && residual >= 0.001 ? `; it is ${roughly(Math.expm1(residual))} off typically` : "";
    const made = card(
      "What an update costs",
      line.length
        ? `The line is α + β M, α = ${seconds(alpha.value)} and β = ${seconds(beta.value)} for each example${off}.`
        : "No line was fitted.",
      [["measured, with the range of the rounds", SEEN], ...(line.length ? [["α + β M", FITTED]] : [])],
    );
    const stroke = paint(SEEN);
    return drawn(made, {
      label: "time of an update against the batch size M, both axes logarithmic",
      height: 320,
      room: 14,
      log: { x: true, y: true },
      lines: [
        {
          title: "measured",
          bare: true,
          stroke,
          say: (p) => `${size(p)}, measured`,
          write: ranged(seconds),
          points: points.map((p) => ({ x: p.batch_size, y: p.median, low: p.low, high: p.high })),
        },
        { title: "α + β M", width: 1.5, stroke: paint(FITTED), points: line },
      ],
      marks: points.flatMap((p) => [
        { kind: "bar", x: p.batch_size, low: p.low, high: p.high, stroke },
        { kind: "dot", x: p.batch_size, y: p.median, stroke },
      ]),
      x: axisOf(record, range),
      y: { label: "time of an update", unit: "seconds", write: seconds, range: tall(1.5) },
      rules: recommended(record),
    });
  }

  /* ------------------------------------------------------------------ updates to the target */

  function lawLines(fit, range) {
    if (!fit) return [];
    const least = fit.s_min / 1.6;
    const thin = { stroke: paint("--muted"), width: 1, quiet: true };
    return [
      {
        title: "S(M), fitted",
        width: 1.5,
        stroke: paint(FITTED),
        points: grid(range[0], range[1], (m) => fit.s_min * (1 + fit.b_crit / m)),
      },
      {
        ...thin,
        title: "perfect scaling",
        dash: [6, 4],
        points: grid(range[0], range[1], (m) => (fit.s_min * fit.b_crit) / m).filter((p) => p.y > least),
      },
      { ...thin, title: "floor", dash: [2, 3], points: grid(range[0], range[1], () => fit.s_min) },
    ];
  }

  /* What a further example in a batch buys: as much as the one before, less, or nothing. */
  function regimes(fit, [low, high]) {
    if (!fit) return [];
    const bounds = [low, fit.b_crit / 4, fit.b_crit * 4, high].map((m) => Math.min(high, Math.max(low, m)));
    const names = ["slope −1", "bend", "flat"].map((word, i) => ({ word, from: bounds[i], to: bounds[i + 1] }));
    return names
      .filter(({ from, to }) => Math.log(to / from) > 0.12 * Math.log(high / low))
      .map(({ word, from, to }) => ({ word, x: Math.sqrt(from * to) }));
  }

  function lawSentence(fit) {
    if (!fit) return "B_crit is not known from these runs, so no law is drawn.";
    return (
      `B_crit = ${rounded(fit.value)} examples (95 %: ${rounded(fit.low)} to ${rounded(fit.high)}, shaded): well below it ` +
      `twice the batch halves the updates (dashed), well above it saves hardly any (dotted: S_min = ` +
      `${rounded(fit.s_min)}).`
    );
  }

  function updates(record, range) {
    const able = reachedSizes(record);
    if (!able.length) return null;
    const fit = lawOf(record);
    const outside = new Set(
      fit ? (fit.rejected || []).map((r) => r.batch_size) : able.filter((s) => s.on_edge).map((s) => s.batch_size),
    );
    const never = (record.sizes || []).filter((s) => !s.reached && !s.why_not);
    const rest = [
      outside.size ? "A ring is left out of the fit." : "",
      never.length ? "A hollow triangle did not meet the target with every seed." : "",
    ].filter(Boolean);
    const made = card("How many updates are needed", [lawSentence(fit), ...rest].join(" "), [
      ["measured, with the range of the seeds", SEEN],
      ...(fit ? [["S_min (1 + B_crit / M)", FITTED]] : []),
    ]);
    const stroke = paint(SEEN);
    const points = able.map((s) => {
      const seen = s.updates.filter(known);
      return { x: s.batch_size, y: s.updates_to_target, low: Math.min(...seen), high: Math.max(...seen) };
    });
    return drawn(made, {
      label: "updates to the target against the batch size M, both axes logarithmic",
      height: 320,
      room: 14,
      log: { x: true, y: true },
      lines: [
        {
          title: "measured",
          bare: true,
          stroke,
          points,
          say: (p) => `${size(p)}, measured`,
          write: ranged(whole),
        },
        ...lawLines(fit, range),
      ],
      marks: [
        ...points.flatMap((p) => [
          { kind: "bar", x: p.x, low: p.low, high: p.high, stroke },
          { kind: outside.has(p.x) ? "ring" : "dot", x: p.x, y: p.y, stroke },
        ]),
        ...never.map((s) => ({ kind: "never", x: s.batch_size, stroke })),
      ],
      x: axisOf(record, range),
      y: { label: "updates to the target", unit: "count", write: whole, range: tall(1.6) },
      rules: [
        ...(fit ? [{ low: fit.low, high: fit.high }] : []),
        ...regimes(fit, range),
        ...recommended(record),
      ],
    });
  }

  /* ------------------------------------------------------------------ time to the target */

  function time(record, range) {
    const able = reachedSizes(record).filter((s) => known(s.seconds_to_target));
    const real = (record.confirmed || [])
      .map((c) => ({ ...c, seen: (c.seen_seconds || []).filter(known) }))
      .filter((c) => c.seen.length);
    if (!able.length && !real.length) return null;
    const model = record.time_model;
    const best = record.finish_first;
    const made = card(
      "Time to the target",
      (best ? `Quickest: updates after ${after(best)}, ${seconds(best.seconds.value)}. ` : "") +
        (model
          ? "The thin line multiplies the two fits; dots multiply what was measured."
          : "Dots multiply updates with the time of one."),
      [
        ["predicted, with 95 % of runs", SEEN],
        ...(real.length ? [["real runs", REAL]] : []),
        ...(model ? [["both fits multiplied", FITTED]] : []),
      ],
    );
    const told = new Map((record.confirmed || []).map((c) => [c.batch_size, c.predicted_seconds]));
    const predicted = able.map((s) => {
      const { value, low, high } = told.get(s.batch_size) || { value: s.seconds_to_target };
      return { x: s.batch_size, y: value, low, high };
    });
    const product = (m) => model.s_min * (1 + model.b_crit / m) * (model.alpha + model.beta * m);
    const seen = real.map((c) => ({
      x: c.batch_size,
      y: middle(c.seen),
      low: Math.min(...c.seen),
      high: Math.max(...c.seen),
    }));
    return drawn(made, {
      label: "time to the target against the batch size M, both axes logarithmic",
      height: 320,
      room: 14,
      log: { x: true, y: true },
      lines: [
        ...(model ? [{ title: "both fits", width: 1, stroke: paint(FITTED), points: grid(...range, product) }] : []),
        {
          title: "predicted",
          width: 1.5,
          stroke: paint(SEEN),
          points: predicted,
          say: (p) => `${size(p)}, predicted`,
          write: ranged(seconds),
        },
        {
          title: "real runs",
          bare: true,
          stroke: paint(REAL),
          points: seen,
          say: (p) => `${size(p)}, real runs`,
          write: ranged(seconds),
        },
      ],
      marks: [
        ...predicted.flatMap((p) => [
          ...(known(p.low) ? [{ kind: "bar", x: p.x, low: p.low, high: p.high, stroke: paint(SEEN) }] : []),
          { kind: "dot", x: p.x, y: p.y, stroke: paint(SEEN) },
        ]),
        ...real.flatMap((c) => c.seen.map((s) => ({ kind: "ring", x: c.batch_size, y: s, stroke: paint(REAL) }))),
      ],
      x: axisOf(record, range),
      y: { label: "time to the target", unit: "seconds", write: seconds, range: tall(1.6) },
      rules: recommended(record),
    });
  }

  /* ------------------------------------------------------------------ learning rate and noise */

  function rate(record, range) {
    if (record.tunable === false) return null;
    const tuned = (record.sizes || []).filter((s) => known(s.learning_rate) && s.learning_rate > 0);
    if (!tuned.length) return null;
    const law = (record.rate_law || {}).rows || [];
    const edge = tuned.some((s) => s.on_edge) ? " A ring: the best rate lies on the edge of those tried." : "";
    const none = record.underway ? "" : "No law was fitted.";
    const said = record.rate_law ? `The law of ${record.optimizer}: ${record.rate_law.text}.` : none;
    const made = card("The learning rate over the batch size", said + edge, [
      ["tuned, with the range of rates tried", SEEN],
      ...(law.length ? [["law", FITTED]] : []),
    ]);
    const stroke = paint(SEEN);
    const points = tuned.map((s) => {
      const tried = (s.tuning || []).map((t) => t.learning_rate).filter((v) => known(v) && v > 0);
      const all = [...tried, s.learning_rate];
      return { x: s.batch_size, y: s.learning_rate, low: Math.min(...all), high: Math.max(...all), edge: s.on_edge };
    });
    return drawn(made, {
      label: "tuned learning rate against the batch size M, both axes logarithmic",
      height: 320,
      room: 14,
      log: { x: true, y: true },
      lines: [
        {
          title: "tuned",
          bare: true,
          stroke,
          points,
          say: (p) => `${size(p)}, tuned`,
          write: (y, p) => (p.low < p.high ? `${number(y)} (tried ${number(p.low)} to ${number(p.high)})` : number(y)),
        },
        {
          title: "law",
          width: 1.5,
          stroke: paint(FITTED),
          points: law.map((row) => ({ x: row.batch_size, y: row.learning_rate })),
        },
      ],
      marks: points.flatMap((p) => [
        { kind: "bar", x: p.x, low: p.low, high: p.high, stroke },
        { kind: p.edge ? "ring" : "dot", x: p.x, y: p.y, stroke },
      ]),
      x: axisOf(record, range),
      y: { label: "learning rate γ", unit: "count", write: (v) => number(v), range: tall(1.4) },
      rules: recommended(record),
    });
  }

  function noise(record) {
    const found = record.noise_scale || {};
    const points = (found.points || []).filter((p) => known(p.scale) && p.scale > 0);
    if (!points.length) return null;
    const best = record.finish_first;
    const all = found.known
      ? ` All points together: ${number(found.value)} examples (95 %: ${number(found.low)} to ${number(found.high)}).`
      : " All points together leave it unknown.";
    const made = card(
      "The gradient’s noise scale along a run",
      `tr Σ / |G|², ${best ? `in a run that updates after ${after(best)}` : "along a run"}.${all}`,
      [["noise scale, with its 95 % interval", NOISE], ...(found.known ? [["all points together", ALL]] : [])],
    );
    return drawn(made, {
      label: "noise scale against updates, the vertical axis logarithmic",
      height: 320,
      room: 14,
      log: { x: false, y: true },
      lines: [
        {
          title: "noise scale",
          band: true,
          stroke: paint(NOISE),
          write: ranged(number),
          points: points.map((p) => ({ x: p.updates, y: p.scale, low: p.low, high: p.high })),
        },
      ],
      marks: points.map((p) => ({ kind: "dot", x: p.updates, y: p.scale, stroke: paint(NOISE) })),
      x: { label: "updates", write: count, word: "updates" },
      y: { label: "noise scale, examples", unit: "count", write: number, range: tall(1.4) },
      rules: found.known ? [{ y: found.value, text: "" }] : [],
    });
  }

  backbeat.adviceCharts = { after, whole, widthOf, hardware, updates, time, rate, noise };
})();
