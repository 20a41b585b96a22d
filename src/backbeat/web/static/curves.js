/* The charts of a comparison: curves on three clocks, what the target takes with the fitted law, gradient norms. */
"use strict";
(() => {
  const { words, charts } = backbeat;
  const { known, count, number, roughly, make, formula, section, everyName, shortName } = words;
  const { CLOCKS, clockName, band, heightAt, measuresOf, targetOf, capital, best, tied, paletteIndex } =
    backbeat.measured;

  /* ------------------------------------------------------------------ curves */

  function curves(record, state) {
    const measures = measuresOf(record);
    if (!measures.length) return null;
    if (!measures.some((m) => m.key === state.measure)) state.measure = measures[0].key;
    const measureNow = () => measures.find((m) => m.key === state.measure);
    const sharesLog = () => measureNow().share && state.logY;
    const handles = new Map();
    const cards = CLOCKS.map((clock) => {
      const card = charts.card(
        "",
        "",
        words.choice(
          `${clockName(clock)} axis`,
          [
            ["log", "logarithmic"],
            ["linear", "linear"],
          ],
          state.logX[clock] ? "log" : "linear",
          (value) => {
            state.logX[clock] = value === "log";
            draw(clock);
          },
        ),
      );
      card.box.dataset.clock = clock;
      return card;
    });
    function draw(clock) {
      const measure = measureNow();
      const card = cards[CLOCKS.indexOf(clock)];
      const flip = sharesLog();
      const name = flip ? `1 − ${measure.text}` : measure.text;
      const write = flip || measure.loss ? (v) => number(v) : words.score(measure.name);
      if (handles.has(clock)) handles.get(clock).destroy();
      const lines = record.cadences.map((cadence, i) => ({
        name: shortName(cadence.every),
        title: everyName(cadence.every),
        band: true,
        stroke: () => charts.colour(i, record.cadences.length),
        points: band(cadence, clock, measure.key, flip ? (v) => 1 - v : undefined),
      }));
      const target = targetOf(record);
      const hasTarget = target && target.key === measure.key;
      card.box.querySelector("h3").textContent = `${capital(name)} by ${clockName(clock)}`;
      const found = best(record, clock);
      card.said.textContent = seen(clock, found);
      handles.set(
        clock,
        charts.chart(card.host, {
          label: `${name} against ${clockName(clock)}`,
          height: 320,
          log: { x: state.logX[clock], y: state.logY },
          x: {
            label: clockName(clock),
            unit: clock === "seconds" ? "seconds" : "count",
            write: words.writers[clock],
            word: clock === "seconds" ? "" : clock,
          },
          y: { label: name, unit: "count", write },
          lines,
          marks: marksOf(record, clock, measure.key, lines, flip),
          hidden: state.hidden,
          rules: hasTarget ? [{ y: flip ? 1 - target.value : target.value, text: "target" }] : [],
        }),
      );
    }
    const drawAll = () => CLOCKS.forEach(draw);
    const yAxis = words.choice(
      "vertical axis",
      [
        ["log", "logarithmic"],
        ["linear", "linear"],
      ],
      state.logY ? "log" : "linear",
      (value) => {
        state.logY = value === "log";
        drawAll();
      },
    );
    const pick = words.choice(
      "show",
      measures.map((m) => [m.key, m.text]),
      state.measure,
      (value) => {
        state.measure = value;
        state.logY = measureNow().loss;
        yAxis.querySelector(`[value="${state.logY ? "log" : "linear"}"]`).checked = true;
        drawAll();
      },
    );
    const result = section(
      "curves",
      "How the loss fell",
      make("p", {
        class: "seen",
        text:
          `Lines are medians over seeds, bands reach from the lowest to the highest seed; ` +
          `${record.target ? "a ring marks where the target was reached, " : ""}a cross a run that diverged.`,
      }),
      make("div", { class: "toolbar" }, pick, yAxis),
      legend(record, state, () => handles.forEach((handle) => handle.hide(state.hidden))),
      make("div", { class: "three" }, ...cards.map((card) => card.box)),
    );
    return { element: result, draw: drawAll };
  }

  function seen(clock, found) {
    const what = {
      examples: "For the same number of examples seen, whatever the batch.",
      updates: "For the same number of updates, whatever they cost.",
      seconds: "For the same time on this machine.",
    }[clock];
    if (!found) return what;
    const first = clock === "seconds" ? "First at the target" : `Fewest ${clock} to the target`;
    return `${what} ${first}: ${everyName(found.cadence.every)}${tied(found)}.`;
  }

  function marksOf(record, clock, key, lines, flip) {
    const marks = [];
    record.cadences.forEach((cadence, line) => {
      const stroke = lines[line].stroke;
      const reached = cadence.to_target && cadence.to_target[clock];
      if (reached && known(reached.median) && lines[line].points.length) {
        marks.push({ kind: "ring", line, stroke, x: reached.median, y: heightAt(lines[line].points, reached.median) });
      }
      for (const run of cadence.runs || []) {
        if (!known(run.diverged_at) || !run.curve || !run.curve[key]) continue;
        const last = run.curve[key].findLastIndex(known);
        if (last >= 0)
          marks.push({
            kind: "cross",
            line,
            stroke,
            x: run.curve[clock][last],
            y: flip ? 1 - run.curve[key][last] : run.curve[key][last],
          });
      }
    });
    return marks;
  }

  /* Buttons that show and hide a cadence, in all the charts above one another. */
  function legend(record, state, changed) {
    const box = make("div", { class: "legend", role: "group", "aria-label": "Cadences shown" });
    record.cadences.forEach((cadence, i) => {
      const title = everyName(cadence.every);
      const button = make(
        "button",
        {
          type: "button",
          "aria-pressed": String(!state.hidden.has(title)),
          onclick: () => {
            if (!state.hidden.delete(title)) state.hidden.add(title);
            button.setAttribute("aria-pressed", String(!state.hidden.has(title)));
            changed();
          },
        },
        make("i", { class: `swatch c${paletteIndex(i, record.cadences.length)}` }),
        title,
      );
      box.append(button);
    });
    return box;
  }

  /* ------------------------------------------------------------------ what the target takes, and the fit */

  /* Of a comparison that goes on, those cadences that were measured; else all. */
  const measured = (record) => record.cadences.filter((c) => !record.underway || c.runs);

  function needs(record) {
    if (!record.target || !record.cadences.some((c) => c.to_target)) return null;
    const sizes = record.cadences.map((c) => c.batch_size);
    const [low, high] = [Math.min(...sizes) / 1.6, Math.max(...sizes) * 1.6];
    const draws = [];
    const cards = ["updates", "examples", "seconds"].map((clock) => {
      const found = best(record, clock);
      const title = {
        updates: "Updates to the target",
        examples: "Examples to the target",
        seconds: "Time to the target",
      }[clock];
      const card = charts.card(title, needSentence(record, clock, found));
      draws.push(() => charts.chart(card.host, needSpec(record, clock, title, low, high, card.host.clientWidth)));
      return card.box;
    });
    const element = section(
      "needs",
      "What the target takes",
      formula({ class: "seen" }, fitSentence(record)),
      make("div", { class: "three" }, ...cards),
    );
    return { element, draw: () => draws.forEach((draw) => draw()) };
  }

  function fitSentence(record) {
    const fit = record.fit;
    const never = measured(record).filter((c) => !c.to_target).map((c) => everyName(c.every));
    const rest = never.length
      ? ` A hollow triangle marks what did not reach the target in every run: ${words.list(never)}.`
      : "";
    if (!fit)
      return (
        "Dots are medians over seeds, bars reach from the lowest to the highest seed." +
        `${record.underway ? "" : " No law is fitted: too few cadences reached the target."}${rest}`
      );
    const whole = (name) => count(Math.round(fit[name]));
    const range = (name) => (known(fit[`${name}_low`]) ? ` (${whole(`${name}_low`)} to ${whole(`${name}_high`)})` : "");
    const off = known(fit.residual) ? `; it misses the medians by ${roughly(fit.residual)} typically` : "";
    return (
      `The curve is S(M) = S_min (1 + B_crit / M), fitted to ${count(fit.n_points)} cadences: at least S_min = ` +
      `${whole("s_min")} updates${range("s_min")}, and a critical batch of B_crit = ${whole("b_crit")} examples` +
      `${range("b_crit")}${off}. Well below B_crit, doubling the batch halves the updates (dashed, slope −1); ` +
      `well above, it saves hardly any (dotted floor).${rest}`
    );
  }

  function needSentence(record, clock, found) {
    if (!found) return "";
    const name = everyName(found.cadence.every);
    const value = `${words.writers[clock](found.value.median)}${clock === "seconds" ? "" : ` ${clock}`}`;
    const what = {
      updates: "How often the parameters had to be changed.",
      examples: "How many examples had to be gone through.",
      seconds: "How long it took on this machine.",
    }[clock];
    return `${what} Least: ${name}, ${value}${tied(found)}.`;
  }

  function needSpec(record, clock, title, low, high, wide) {
    const n = record.cadences.length;
    const lines = [];
    const fit = clock === "seconds" ? null : record.fit;
    if (fit) {
      const grid = Array.from({ length: 90 }, (_, i) => low * (high / low) ** (i / 89));
      const times = (f) => grid.map((x) => ({ x, y: f(x) * (clock === "examples" ? x : 1) }));
      lines.push({
        title: "fit",
        points: times((m) => fit.s_min * (1 + fit.b_crit / m)),
        stroke: () => charts.css("--ink"),
        width: 1.5,
      });
      const bottom = Math.min(...lines[0].points.map((p) => p.y)) / 2;
      lines.push({
        title: "perfect scaling",
        points: times((m) => (fit.s_min * fit.b_crit) / m).filter((p) => p.y > bottom),
        stroke: () => charts.css("--muted"),
        width: 1,
        dash: [6, 4],
        quiet: true,
      });
      lines.push({
        title: "floor",
        points: times(() => fit.s_min).filter((p) => p.y > bottom),
        stroke: () => charts.css("--muted"),
        width: 1,
        dash: [2, 3],
        quiet: true,
      });
    }
    const marks = [];
    record.cadences.forEach((cadence, i) => {
      const need = cadence.to_target && cadence.to_target[clock];
      const stroke = () => charts.colour(i, n);
      if (!need || !known(need.median)) {
        if (measured(record).includes(cadence)) marks.push({ kind: "never", x: cadence.batch_size, stroke });
        return;
      }
      marks.push({ kind: "bar", x: cadence.batch_size, low: need.low, high: need.high, stroke });
      marks.push({ kind: "dot", x: cadence.batch_size, y: need.median, stroke });
      lines.push({
        title: everyName(cadence.every),
        stroke,
        width: 0,
        points: [{ x: cadence.batch_size, y: need.median, low: need.low, high: need.high }],
      });
    });
    const apart = (Math.log(high / low) * 26) / Math.max(100, wide - 90); // 26 pixels from one batch size to the next
    const ticks = [];
    for (const c of [...record.cadences].sort((a, b) => (b.every === "dataset") - (a.every === "dataset"))) {
      if (ticks.every(([size]) => Math.abs(Math.log(size / c.batch_size)) > apart))
        ticks.push([c.batch_size, shortName(c.every)]);
    }
    return {
      label: `${title} against the batch size M, both axes logarithmic`,
      height: 320,
      room: 14,
      log: { x: true, y: true },
      lines,
      marks,
      x: {
        label: "examples in a batch, M",
        ticks: ticks.sort((a, b) => a[0] - b[0]),
        range: () => [low, high],
        at: (x) => `M ≈ ${count(x < 10 ? +x.toPrecision(2) : Math.round(x))}`,
      },
      y: {
        label: `${clockName(clock)} to the target`,
        unit: clock === "seconds" ? "seconds" : "count",
        write: words.writers[clock],
        range: (u, a, b) => (known(a) ? [a / 1.5, b * 1.6] : [1, 10]),
      },
      rules:
        fit && known(fit.b_crit_low) && known(fit.b_crit_high)
          ? [{ low: fit.b_crit_low, high: fit.b_crit_high, x: fit.b_crit, text: "critical batch" }]
          : [],
    };
  }

  /* ------------------------------------------------------------------ gradient norm */

  function gradients(record, state) {
    const has = record.cadences.some((c) =>
      (c.runs || []).some((run) => run.curve && (run.curve.gradient_norm_mean || []).some(known)),
    );
    if (!has) return null;
    let handle = null;
    const card = charts.card(
      "Norm of the gradient by examples",
      "How long the mean gradient of a batch is, and how much its length varies: in a larger batch, more of the " +
        "noise of single examples averages out.",
      words.choice(
        "examples axis",
        [
          ["log", "logarithmic"],
          ["linear", "linear"],
        ],
        "log",
        (value) => {
          state.logNorm = value === "log";
          draw();
        },
      ),
    );
    function draw() {
      if (handle) handle.destroy();
      const lines = record.cadences.map((cadence, i) => {
        const mean = band(cadence, "examples", "gradient_norm_mean");
        const sd = new Map(band(cadence, "examples", "gradient_norm_sd").map((p) => [p.x, p.y]));
        const factor = (p) => 1 + (p.y ? (sd.get(p.x) || 0) / p.y : 0); // mean − deviation can be negative
        return {
          name: shortName(cadence.every),
          title: everyName(cadence.every),
          band: true,
          stroke: () => charts.colour(i, record.cadences.length),
          points: mean.map((p) => ({ x: p.x, y: p.y, low: p.y / factor(p), high: p.y * factor(p) })),
        };
      });
      handle = charts.chart(card.host, {
        label: "norm of the gradient against examples",
        height: 340,
        log: { x: state.logNorm, y: true },
        lines,
        x: { label: "examples", write: count, word: "examples" },
        y: { label: "norm of the gradient", write: (v) => number(v) },
        hidden: state.hidden,
      });
    }
    const element = section(
      "gradients",
      "How even the gradients are",
      make("p", {
        class: "seen",
        text:
          "Lines are means over stretches of updates, bands reach a factor 1 + deviation / mean up and down, " +
          "the deviation being the standard deviation within a stretch (medians over seeds).",
      }),
      card.box,
    );
    return { element, draw };
  }

  backbeat.curves = { curves, needs, gradients };
})();
