/*
 * The explanation: one example, a batch and the whole data set side by side, driven by hand. Where it stands is (e, phase):
 * the e-th example goes forward (1), back (2), or the batches that it completes are applied (3). All cadences have passed as
 * many examples. Each number and sentence comes from the server; nothing is computed here but where to draw it.
 */
"use strict";
(() => {
  const { make, count, seconds, number, percent } = backbeat.words;
  const { charts, explainPictures: pictures } = backbeat;
  const FIELDS = ["problem", "every", "network", "loss", "learning_rate", "seed"];
  const PACES = { phase: ["slowly, each phase", 900], example: ["each example", 260], update: ["each update of the batch", 260], epoch: ["each epoch", 700] };
  const LOSSES = { squared_error: "½(ŷ − y)²", cross_entropy: "−log p (cross-entropy)" };
  const COLOURS = ["--cadence-0", "--cadence-3", "--cadence-5"];
  const host = document.getElementById("explain");
  let offered = null; // what can be chosen
  let lesson = null;
  let choices = {};
  let position = { e: 0, phase: 3 };
  let drawn = position; // behind it while frames are on their way
  let timer = null; // while it runs
  let newest = 0; // of the requests for frames: an older answer is not drawn
  let views = [];
  let clocks = [];

  async function get(path) {
    const answer = await fetch(path, { headers: { accept: "application/json" } });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || `The server answered ${answer.status}.`);
    return found;
  }
  const query = () => new URLSearchParams(FIELDS.filter((name) => choices[name] !== undefined).map((name) => [name, choices[name]]));

  const said = make("p", { class: "problem-said", role: "alert", hidden: true });
  const where = make("p", { class: "where", role: "status" });
  const fields = make("form", { class: "fields", "aria-label": "What is learned, and how", onsubmit: (event) => event.preventDefault() });
  const columns = make("div", { class: "columns" });
  const below = make("section", {});
  const say = (text) => {
    said.textContent = text || "";
    said.hidden = !text;
  };

  const button = (text, hint, act, kind) => make("button", { type: "button", title: hint, onclick: act, class: kind, text });
  const steps = {
    start: button("Start over", "Back to the first example (Home)", () => go({ e: 0, phase: 3 })),
    back: button("← Back", "One example back (←)", () => go({ e: Math.max(0, position.e - 1), phase: 3 })),
    phase: button("Phase", "Forward, back, or apply: one at a time (P)", () => go(after.phase())),
    example: button("Example", "To the next example (→)", () => go(after.example())),
    update: button("Update", "To the next update of the batch in the middle (U)", () => go(after.update())),
    epoch: button("Epoch", "To the end of this pass over the data (E)", () => go(after.epoch())),
    run: button("Run", "Go on by itself, or stop (R)", () => (timer ? halt() : run()), "go"),
  };
  const pace = make(
    "select",
    { "aria-label": "How fast it runs" },
    ...Object.entries(PACES).map(([value, [text]]) => make("option", { value, text })),
  );
  pace.value = "example";

  const last = () => Math.max(...lesson.columns.map((column) => column.examples.at(-1)));
  const middle = () => lesson.columns[Math.min(1, lesson.columns.length - 1)];
  const after = {
    phase: () => (position.phase < 3 ? { e: position.e, phase: position.phase + 1 } : { e: position.e + 1, phase: 1 }),
    example: () => ({ e: position.e + (position.phase < 3 ? 0 : 1), phase: 3 }),
    update() {
      const done = position.phase === 3 ? position.e : position.e - 1;
      return { e: middle().examples.find((end) => end > done) ?? last(), phase: 3 };
    },
    epoch: () => ({ e: (Math.floor((position.phase === 3 ? position.e : position.e - 1) / lesson.n) + 1) * lesson.n, phase: 3 }),
  };

  /* Which update of a column the position is in, and how many of its examples were begun. */
  function placeIn(column) {
    const { e, phase } = position;
    if (e === 0) return { k: 0, j: 0, phase: 0 };
    const ends = column.examples;
    if (e > ends.at(-1)) return { k: ends.length - 1, j: 0, phase: 0 };
    let [low, high] = [1, ends.length - 1];
    while (low < high) {
      const half = (low + high) >> 1;
      if (ends[half] >= e) high = half;
      else low = half + 1;
    }
    return { k: low - 1, j: e - ends[low - 1], phase };
  }
  /* How many updates of a column have been applied. */
  const applied = (column, at) => at.k + (at.phase === 3 && at.j === column.sizes[at.k] ? 1 : 0);

  /* What is on its way is not drawn any more: it stays where it is seen to be. */
  function halt() {
    clearTimeout(timer);
    timer = null;
    newest += 1;
    position = drawn;
    steps.run.textContent = "Run";
  }
  function run() {
    steps.run.textContent = "Stop";
    const beat = async () => {
      const began = performance.now();
      if (!(await show(after[pace.value]()))) return;
      if (position.e >= last() && position.phase === 3) halt();
      else timer = setTimeout(beat, Math.max(0, PACES[pace.value][1] - (performance.now() - began)));
    };
    timer = setTimeout(beat, 0);
  }
  function go(next) {
    halt();
    return show(next);
  }

  /* Gives whether it was drawn: it is not once something else was asked for. */
  async function show(next) {
    if (!lesson) return false;
    position = { e: Math.min(next.e, last()), phase: next.e > last() ? 3 : next.phase };
    const request = ++newest;
    const places = lesson.columns.map(placeIn);
    const asked = query();
    asked.set("k", places.map((at) => at.k).join(","));
    try {
      const frames = await get(`api/frames?${asked}`);
      if (request !== newest) return false;
      say("");
      drawn = position;
      frames.forEach((frame, i) => views[i].show(frame, places[i]));
      drawClocks(places);
      tell();
      return true;
    } catch (error) {
      if (request === newest) {
        halt();
        say(error.message);
      }
      return false;
    }
  }

  function tell() {
    const { e, phase } = position;
    const epoch = Math.min(lesson.epochs, Math.max(1, Math.ceil(e / lesson.n)));
    const what = e === 0 ? "nothing is passed yet" : ["", "it goes forward", "it goes back", "it has been passed"][phase];
    where.textContent = `Example ${count(e)} of ${count(last())}, epoch ${epoch}: ${what}`;
    const over = e >= last() && phase === 3;
    for (const name of ["phase", "example", "update", "epoch", "run"]) steps[name].disabled = over;
    for (const name of ["start", "back"]) steps[name].disabled = e === 0;
  }

  /* One cadence: its counts and three pictures, each with its sentence. */
  function view(column, i) {
    const usual = { 1: "stochastic gradient descent", dataset: "gradient descent, full batch" }[column.every];
    const names = { 1: "After every example", dataset: "After the whole data set" };
    const name = names[column.every] || (column.every.includes("repeat") ? "One example until it is satisfied" : `After a batch of ${column.sizes[0]}`);
    const swatch = make("span", { class: `swatch of${COLOURS[i]}` });
    const figures = Object.fromEntries(["updates", "loss", "right"].map((key) => [key, make("dd", {})]));
    const counts = make("dl", { class: "counts" });
    for (const [key, text] of [["updates", "updates"], ["loss", "loss over all"], ["right", "right"]]) {
      if (key !== "right" || lesson.view !== "curve") counts.append(make("div", {}, make("dt", { text }), figures[key]));
    }
    const each = ["examples", "gradients", "surface"].map((what) => ({
      picture: pictures.canvas(what, what === "examples" ? 1 : 0.72),
      told: make("p", { class: "told" }),
    }));
    const forgets = make("p", { class: "forgets", hidden: true });
    const box = make(
      "article",
      { class: "card", "aria-label": name },
      make("h2", {}, swatch, make("span", { text: name }), make("small", { text: usual || "mini-batch gradient descent" })),
      counts,
      ...each.flatMap(({ picture, told }, n) => [picture.element, n === 2 ? make("div", {}, told, forgets) : told]),
    );
    if (column.every.includes("repeat")) box.querySelector("small").textContent = column.every;
    function show(frame, at) {
      const { sentences } = frame;
      const complete = !frame.done && at.phase === 3 && at.j === frame.batch.length;
      figures.updates.textContent = count(applied(column, at));
      figures.loss.textContent = number(complete ? frame.next_loss : frame.data_loss);
      figures.right.textContent = frame.accuracy === null ? "" : percent(frame.accuracy);
      const current = at.j - 1;
      const texts = [
        sentences.end || (at.phase === 1 ? sentences.forward[current] : at.phase === 2 ? sentences.back[current] : sentences.examples),
        at.j === 0 ? "Each arrow will be one example's gradient: where it alone would have the weights go, −∇ℓᵢ." : complete ? sentences.average : sentences.gathered[current],
        complete ? sentences.move : sentences.surface,
      ];
      if (frame.done) texts[1] = "No gradient is computed any more.";
      const kinds = [pictures.examples, pictures.fan, pictures.surface];
      each.forEach(({ picture, told }, n) => {
        told.textContent = texts[n];
        picture.draw(kinds[n](lesson, column, frame, at), texts[n]);
      });
      forgets.hidden = !(complete && sentences.forgets);
      forgets.textContent = sentences.forgets || "";
    }
    return { box, show, redraw: () => each.forEach(({ picture }) => picture.redraw()) };
  }

  const CLOCKS = [
    ["examples", "By examples", "All cadences have passed as many examples; the loss over all of them, ", count],
    ["updates", "By updates", "The same against updates: a larger batch makes fewer of them, each a better mean, ", count],
    ["seconds", "By time", "The same against the time that the updates took here, measured in a run of all of them, ", seconds],
  ];
  function drawCharts() {
    charts.clear();
    const cards = CLOCKS.map(([clock, title, sentence, write], n) => {
      const log = { x: clock !== "examples", y: true };
      const card = charts.card(title, `${sentence}${log.x ? "on logarithmic axes" : "on a logarithmic axis"}; a dot is where you are.`);
      const lines = lesson.columns.map((column, i) => ({
        title: views[i].box.getAttribute("aria-label"),
        stroke: () => charts.css(COLOURS[i]),
        points: column.loss.map((y, k) => ({ x: clock === "examples" ? column.examples[k] : clock === "updates" ? k : k * column.seconds, y })),
      }));
      const spec = {
        label: title, height: 230, log, lines, marks: [],
        x: { label: clock, unit: clock === "seconds" ? "seconds" : "count", write, word: clock === "seconds" ? "" : clock },
        y: { label: "loss", unit: "number", write: number },
      };
      return { card, spec, n };
    });
    const three = make("div", { class: "three" }, ...cards.map(({ card }) => card.box));
    below.replaceChildren(make("h2", { text: "The same loss on three clocks" }), three);
    clocks = cards.map(({ card, spec }) => ({ spec, handle: charts.chart(card.host, spec) }));
  }
  function drawClocks(places) {
    for (const { spec, handle } of clocks) {
      spec.marks = lesson.columns.map((column, i) => ({
        kind: "dot", line: i, stroke: () => charts.css(COLOURS[i]), ...spec.lines[i].points[applied(column, places[i])],
      }));
      handle.redraw();
    }
  }

  function field(label, name, options, kind) {
    const select = make("select", { name, onchange: () => choose(name, select.value) });
    select.append(...options.map(([value, text]) => make("option", { value, text })));
    if (!options.some(([value]) => value === String(choices[name]))) select.append(make("option", { value: choices[name], text: choices[name] }));
    select.value = choices[name];
    return make("label", { class: `field ${kind || ""}` }, label, select);
  }
  const cadence = (text) => (text.includes("repeat") ? text.replace("1 repeat until ", "one example until ").replace(" at most ", ", at most ") + " times" : text.endsWith("%") ? `${text} of the data` : `${text} examples`);
  function drawFields() {
    const problem = offered.problems.find((each) => each.name === choices.problem);
    fields.replaceChildren(
      field("What is learned", "problem", offered.problems.map((each) => [each.name, each.title])),
      field("When to update, in the middle: after", "every", offered.cadences.map((text) => [text, cadence(text)]), "main"),
      field("Network", "network", problem.networks.map((text) => [text, text])),
      field("Loss ℓ", "loss", problem.losses.map((text) => [text, LOSSES[text]])),
      field("Learning rate γ", "learning_rate", offered.rates.map((rate) => [String(rate), String(rate)])),
      field("Beginning", "seed", [0, 1, 2, 3, 4].map((seed) => [String(seed), `number ${seed + 1}`])),
    );
  }
  function choose(name, value) {
    if (name === "problem") {
      const { every, seed } = choices;
      choices = { ...offered.problems.find((each) => each.name === value).settled, every, seed };
    } else choices = { ...choices, [name]: value };
    open();
  }

  async function open() {
    halt();
    drawFields();
    history.replaceState(null, "", `#${query()}`);
    const request = ++newest;
    where.textContent = "Training all cadences, to look at each update: a few seconds";
    for (const step of Object.values(steps)) step.disabled = true;
    columns.setAttribute("aria-busy", "true");
    try {
      const found = await get(`api/lesson?${query()}`);
      if (request !== newest) return;
      lesson = { ...found, names: found.labels || [] };
      views = lesson.columns.map(view);
      columns.replaceChildren(...views.map(({ box }) => box));
      columns.style.setProperty("--n", views.length);
      drawCharts();
      await show({ e: 0, phase: 3 });
    } catch (error) {
      if (request !== newest) return;
      say(error.message);
      where.textContent = "";
    } finally {
      columns.removeAttribute("aria-busy");
    }
  }

  const keys = { ArrowRight: "example", ArrowLeft: "back", p: "phase", u: "update", e: "epoch", r: "run", Home: "start" };
  addEventListener("keydown", (event) => {
    const name = keys[event.key] || keys[event.key.toLowerCase()];
    const busy = event.target.closest("select, input, .chart");
    if (!name || busy || event.ctrlKey || event.metaKey || event.altKey || steps[name].disabled) return;
    event.preventDefault();
    steps[name].click();
  });
  function redraw() {
    for (const each of views) each.redraw();
    for (const each of marks) each();
  }
  new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  const marks = [];
  function mark(state, text) {
    const element = make("canvas", { "aria-hidden": "true", width: 28 * devicePixelRatio, height: 28 * devicePixelRatio });
    element.style.width = element.style.height = "28px";
    marks.push(() => {
      const pen = element.getContext("2d");
      pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      pen.clearRect(0, 0, 28, 28);
      pictures.dot(pen, 14, 14, 0, state === "wrong");
      pictures.ring(pen, 14, 14, 8, state === "wrong" ? "" : state);
    });
    return make("li", {}, element, text);
  }

  async function start() {
    const bar = make("header", { class: "top" }, make("span", { class: "brand", text: "backbeat" }), backbeat.themeButton());
    const main = make(
      "main",
      { class: "page" },
      make("h1", { text: "When do the weights change?" }),
      make("p", {
        class: "lead",
        text: "Back-propagation gives one gradient for each example. It may be applied at once, averaged over a batch, or averaged over the whole data set: the same examples in the same order, the same weights at the start, the same learning rate γ.",
      }),
      fields,
      said,
      make("div", { class: "steps", role: "toolbar", "aria-label": "Steps" }, ...Object.values(steps), pace, where),
      make("ul", { class: "marks" }, mark("waits", "in the batch, waits"), mark("forward", "goes forward"), mark("back", "goes back"), mark("passed", "its gradient is there"), mark("wrong", "predicted wrong")),
      columns,
      below,
      make("p", { class: "keys" }, ...Object.entries({ "→": "example", "←": "back", P: "phase", U: "update", E: "epoch", R: "run or stop", Home: "start over" }).flatMap(([key, text]) => [make("kbd", { text: key }), ` ${text}  `])),
    );
    host.replaceChildren(bar, main, make("footer", { class: "page foot", text: "Every number and sentence here is computed by the library: the same plan, the same programs." }));
    for (const draw of marks) draw();
    try {
      offered = await get("api/choices");
      const given = new URLSearchParams(location.hash.slice(1));
      const problem = offered.problems.find((each) => each.name === given.get("problem")) || offered.problems[0];
      choices = { ...problem.settled };
      for (const name of FIELDS) if (given.get(name)) choices[name] = given.get(name);
      choices.problem = problem.name;
    } catch (error) {
      say(error.message);
      return;
    }
    await open();
  }
  start();
})();
