// The list of environments: filters, sorts, and draws what a row shows when it is opened.
"use strict";
const list = document.getElementById("rows");
if (list) {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filter");
  const rows = [...list.children];
  const of = (row) => data[row.dataset.i];

  const orders = {
    high: (a, b) => of(b).score - of(a).score,
    low: (a, b) => of(a).score - of(b).score,
    name: (a, b) => (of(a).id < of(b).id ? -1 : 1),
    "": (a, b) => a.dataset.i - b.dataset.i,
  };
  const reaches = {
    matched: (e) => e.matched,
    good: (e) => e.score >= 0.8 - 1e-9,
    short: (e) => e.score < 0.8 - 1e-9,
    "": () => true,
  };

  function show() {
    const want = Object.fromEntries(new FormData(form));
    const text = want.text.trim().toLowerCase();
    const fits = (e) =>
      (!want.domain || e.domain === want.domain) &&
      (!want.library || e.library === want.library) &&
      (!want.modality || e.modality === want.modality) &&
      (!want.part || e.part === want.part) &&
      (!want.base || e.base_task === want.base) &&
      reaches[want.reach](e) &&
      (!text || (e.id + " " + e.base_task + " " + e.policy).toLowerCase().includes(text));
    let count = 0;
    let sum = 0;
    for (const row of rows) {
      row.hidden = !fits(of(row));
      if (!row.hidden) {
        count += 1;
        sum += Math.min(1, Math.max(0, of(row).score));
      }
    }
    list.append(...rows.sort(orders[want.order]));
    const mean = count ? ", mean " + (sum / count).toFixed(3) : "";
    const base = want.base ? " of base task " + want.base : "";
    document.getElementById("shown").textContent =
      count + " of " + rows.length + " environments" + base + mean;
  }

  const escaped = (value) =>
    String(value).replace(/[&<>"]/g, (c) => "&#" + c.charCodeAt(0) + ";");
  const short = (value) => Number(value.toPrecision(4)).toString();

  function sample(name, values) {
    const around = values.length > 1 ? short(values[1]) + " to " + short(values[2]) : "all alike";
    return "<tr><td>" + name + '</td><td class="n">' + short(values[0]) +
      '</td><td class="n">' + around + "</td></tr>";
  }

  // Each return of the model as a dot, between the means of random play and of the reference.
  function returns(e) {
    const all = [...e.returns, e.random[0], e.reference[0]];
    const low = Math.min(...all);
    const size = Math.max(...all) - low || 1;
    const x = (value) => (14 + ((value - low) / size) * 272).toFixed(1);
    const mark = (value, css) => '<line x1="' + x(value) + '" x2="' + x(value) +
      '" y1="6" y2="54" class="' + css + '"/>';
    const name = (value, text, y) => '<text class="small" text-anchor="middle" x="' +
      Math.min(262, Math.max(38, x(value))) + '" y="' + y + '">' + text + "</text>";
    const dots = e.returns.map((value, i) =>
      '<circle class="one" r="3" cx="' + x(value) + '" cy="' + (12 + ((i * 7) % 36)) + '"/>');
    return '<svg viewBox="0 0 300 84" role="img" aria-label="returns">' +
      mark(e.random[0], "axis") + mark(e.reference[0], "axis") + mark(e.ldm[0], "mean") +
      dots.join("") + name(e.random[0], "random", 66) + name(e.reference[0], "reference", 80) + "</svg>";
  }

  function curve(values) {
    const high = Math.max(...values);
    const low = Math.min(...values, 0);
    const y = (value) => (70 - ((value - low) / (high - low || 1)) * 60).toFixed(1);
    const points = values.map((value, i) =>
      (14 + (i / Math.max(1, values.length - 1)) * 240).toFixed(1) + "," + y(value));
    const last = values[values.length - 1];
    return '<svg viewBox="0 0 300 84" role="img" aria-label="loss"><polyline class="curve thin" points="' +
      points.join(" ") + '"/><text class="small" x="258" y="' + (Number(y(last)) + 4) + '">' +
      last.toFixed(2) + '</text><text class="small" x="14" y="82">loss over the training, from ' +
      values[0].toFixed(2) + "</text></svg>";
  }

  function open(row) {
    const e = of(row);
    const ci = e.ci.length ? " (" + e.ci[0].toFixed(3) + " to " + e.ci[1].toFixed(3) + ")" : "";
    const facts = [
      ["score", e.score.toFixed(3) + ci + (e.matched ? ", matched" : "")],
      ["reference", e.policy + ", " + e.kind],
      ["weak", e.weak],
      ["base task", e.base_task],
      ["library", e.library + ", " + e.modality],
      ["seed", e.seed],
      ["faults", e.faults],
      ...(e.unseen || []).map((line) => ["unseen", line]),
    ].filter((pair) => pair[1] !== undefined && pair[1] !== "");
    const card = facts.map((pair) =>
      "<dt>" + pair[0] + "</dt><dd>" + escaped(pair[1]) + "</dd>").join("");
    const film = "ldm play " + e.id + " --model " + list.dataset.model + " --video film.mp4";
    const body = document.createElement("div");
    body.className = "open";
    body.innerHTML =
      "<div><h3>Returns of " + e.returns.length + " episodes</h3>" + returns(e) +
      '<table><thead><tr><th>policy</th><th class="n">mean</th><th class="n">95% interval</th></tr></thead>' +
      sample("random", e.random) + sample("reference", e.reference) + sample("model", e.ldm) +
      "</table></div><div><h3>Card</h3><dl>" + card + "</dl></div><div><h3>Curve</h3>" +
      (e.curve.length ? curve(e.curve) : "not trained on") +
      "<h3>Film</h3><code>" + escaped(film) + "</code></div>";
    row.append(body);
  }

  list.addEventListener("toggle", (event) => {
    if (event.target.open && event.target.children.length === 1) open(event.target);
  }, true);
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    form.elements.base.value = "";
    setTimeout(show);
  });
  for (const line of document.querySelectorAll("tr[data-key]")) {
    line.addEventListener("click", () => {
      form.reset();
      const key = line.dataset.key === "base_task" ? "base" : line.dataset.key;
      setTimeout(() => {
        form.elements[key].value = line.dataset.value;
        show();
        form.scrollIntoView({ behavior: "smooth" });
      });
    });
  }
  show();
}
