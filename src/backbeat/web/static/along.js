/* What the updates of a run were made with along the way: learning rate and batch size, and how long the gradient was. */
"use strict";
(() => {
  const { words, charts } = backbeat;
  const { known, count, number, make, section } = words;

  /* A column as steps: of each stretch the place where it began and the place where it ended. */
  function steps(history, clock, name) {
    const xs = history[clock];
    return history[name].flatMap((y, i) =>
      known(y) && known(xs[i])
        ? [
            { x: i ? xs[i - 1] : 0, y },
            { x: xs[i], y },
          ]
        : [],
    );
  }

  function norms(history, clock) {
    const sd = history.gradient_norm_sd || [];
    return history.gradient_norm_mean
      .map((y, i) => {
        const factor = y > 0 && known(sd[i]) ? 1 + sd[i] / y : 1; // mean − deviation can be negative
        return { x: history[clock][i], y, low: y / factor, high: y * factor };
      })
      .filter((p) => known(p.x) && known(p.y));
  }

  const KINDS = [
    {
      name: "learning_rate",
      title: "Learning rate",
      text: "γ of the last update up to each point, with whatever the schedule or the noise made of it.",
      label: "learning rate γ",
      write: (v) => number(v),
      paint: "--cadence-2",
      points: (history, clock) =>
        history[clock].map((x, i) => ({ x, y: history.learning_rate[i] })).filter((p) => known(p.x) && known(p.y)),
      constant: (v) => `the learning rate was ${number(v)}`,
      log: false,
    },
    {
      name: "batch_size",
      title: "Examples in a batch",
      text: "M, how many examples are averaged into the gradient of one update.",
      label: "examples in a batch, M",
      write: (v) => count(v),
      paint: "--cadence-5",
      points: (history, clock) => steps(history, clock, "batch_size"),
      constant: (v) => `each batch had ${words.plural(v, "example")}`,
      log: true,
    },
    {
      name: "gradient_norm_mean",
      title: "Norm of the gradient",
      text:
        "How long the mean gradient ∇L_B of a batch is: the mean over the updates since the point before; the band " +
        "reaches a factor 1 + deviation / mean up and down.",
      label: "norm of the gradient",
      write: (v) => number(v),
      paint: "--cadence-3",
      points: norms,
      band: true,
      log: true,
    },
  ];

  /* Returns {element, draw(clock, x, log)}, or null where nothing of it is recorded. */
  backbeat.along = (record) => {
    const history = record.history || {};
    const seen = (kind) => (history[kind.name] || []).filter(known);
    const recorded = KINDS.filter((kind) => seen(kind).length);
    // of a run with a schedule a single point tells only of its last update
    const steady = (kind) => kind.name !== "learning_rate" || seen(kind).length > 1 || (record.schedule || "constant") === "constant";
    const same = recorded.filter((kind) => kind.constant && new Set(seen(kind)).size === 1 && steady(kind));
    const drawn = recorded.filter((kind) => !same.includes(kind));
    if (!recorded.length) return null;
    const cards = drawn.map((kind) => charts.card(kind.title, kind.name === "batch_size" && record.followed ? record.followed : kind.text));
    const handles = [];
    function draw(clock, x, logX) {
      handles.splice(0).forEach((handle) => handle.destroy());
      drawn.forEach((kind, i) => {
        const points = kind.points(history, clock);
        const line = { title: kind.label, width: 2, band: kind.band, stroke: () => charts.css(kind.paint), points };
        handles.push(
          charts.chart(cards[i].host, {
            label: `${kind.label} against ${x.label}`,
            height: 280,
            room: 16,
            log: { x: logX, y: kind.log },
            x,
            y: { label: kind.label, write: kind.write },
            lines: [line],
          }),
        );
      });
    }
    const said = same.map((kind) => kind.constant(seen(kind)[0]));
    const sentence = said.length ? `${words.list(said)} all along.` : "";
    const element = section(
      "along",
      "What the updates were made with",
      sentence ? make("p", { class: "seen", text: sentence[0].toUpperCase() + sentence.slice(1) }) : null,
      drawn.length ? make("div", { class: drawn.length > 1 ? "two" : "" }, ...cards.map((card) => card.box)) : null,
    );
    return { element, draw };
  };
})();
