/* How noisy a run's gradients were along the way. */
"use strict";
(() => {
  const { words, charts } = backbeat;
  const { known, number, make, section } = words;
  const FEW = 40; // rows: each is drawn with its own interval; more become a line in a band

  /* The rows that measured something: scale where it is known, the interval's ends, `high` null where there is none. */
  function measured(history, clock) {
    const column = (name) => history[name] || [];
    return history[clock]
      .map((x, i) => {
        const [y, low, high] = ["noise_scale", "noise_scale_low", "noise_scale_high"].map((name) => column(name)[i]);
        return { x, y: known(y) && y > 0 ? y : null, low: known(low) && low > 0 ? low : null, high };
      })
      .filter((p) => known(p.x) && (known(p.y) || known(p.low)));
  }

  const said = (p) => {
    const end = (value) => (known(value) ? number(value) : "∞");
    return known(p.y) ? `${number(p.y)} (${end(p.low)} to ${end(p.high)})` : `not known, at least ${number(p.exact)}`;
  };

  /* What is drawn of them: an interval without an end goes on to the edge of the chart. */
  function shapes(rows) {
    const values = rows.flatMap((p) => [known(p.y) ? p.y : p.low]);
    const least = Math.min(...values, ...rows.map((p) => p.low).filter(known));
    const [floor, top] = [Math.max(least, Math.min(...values) / 30) / 1.4, Math.max(...values) * 4];
    const stroke = () => charts.css("--cadence-2");
    const all = rows.map((p) => {
      const [low, high] = [Math.max(p.low ?? floor, floor), Math.min(p.high ?? top, top)];
      return { ...p, exact: p.low, low, high, end: p.high };
    });
    const few = rows.length <= FEW;
    const write = (_, p) => said({ ...p, low: p.exact, high: p.end });
    const found = all.filter((p) => known(p.y));
    const hidden = all.filter((p) => !known(p.y));
    const lines = [
      {
        title: "95 % interval",
        bare: true,
        quiet: true,
        band: !few,
        stroke,
        points: all.map((p) => ({ ...p, y: Math.sqrt(p.low * p.high) })),
      },
      { title: "noise scale", width: 1.6, bare: few, stroke, write, points: found },
      {
        title: "noise scale",
        bare: true,
        stroke,
        write: (_, p) => write(null, { ...p, y: null }),
        points: hidden.map((p) => ({ ...p, y: p.low })),
      },
    ];
    const marks = all.flatMap((p) => [
      { kind: "bar", x: p.x, low: p.low, high: p.high, stroke },
      ...(known(p.y) ? [{ kind: "dot", x: p.x, y: p.y, stroke }] : []),
    ]);
    return { lines, marks: few ? marks : [], range: () => [floor, top] };
  }

  /* Returns {element, draw(clock, x, log)}, or null for a run whose noise was not watched. */
  backbeat.noise = (record) => {
    const history = record.history || {};
    const noise = record.noise;
    if (!noise) return null;
    const scale = charts.card(
      "Noise scale",
      "At so many examples a batch’s noise is as long as the gradient itself. Each value is of the updates since the " +
        "one before, with its 95 % interval; one that goes on to the upper edge has no upper end.",
    );
    if (noise.sentence) {
      const sentence = `${noise.sentence[0].toUpperCase()}${noise.sentence.slice(1)}.`;
      scale.box.append(make("p", { class: "seen", text: sentence }));
    }
    const handles = [];
    function draw(clock, x, logX) {
      handles.splice(0).forEach((handle) => handle.destroy());
      const rows = measured(history, clock);
      scale.host.hidden = scale.said.hidden = !rows.length;
      const common = { height: 300, room: 16, log: { x: logX, y: true }, x };
      if (rows.length) {
        const { range, ...drawn } = shapes(rows);
        const y = { label: "noise scale, examples", write: (v) => number(v), range };
        handles.push(charts.chart(scale.host, { ...common, ...drawn, label: `noise scale against ${x.label}`, y }));
      }
    }
    return { element: section("noise", "How noisy its gradients were", scale.box), draw };
  };
})();
