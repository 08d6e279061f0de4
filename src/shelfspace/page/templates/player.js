// The session player and "Where it fails". Weights, user embeddings and cosines are play.js's; the recommender's lists are stored.
(() => {
  const shelf = window.shelfspace, told = shelf?.data.player;
  if (!told) return;
  const { data, spaces, ui } = shelf, { make, all, percent, plural } = ui;
  const SHOWN = 20;
  const box = document.getElementById("play--player"), fails = document.getElementById("play--fails");
  const main = spaces.find((space) => space.name === data.embedding) ?? spaces[0];
  const nameOf = (item) => data.names[item] ?? told.extra[item - data.names.length];
  const name = (item) => make("bdi", { text: nameOf(item) });
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const days = (n) => (n < 0.05 ? `${Math.round(n * 1440)} min` : n < 2 ? `${(24 * n).toFixed(0)} h` : `${n.toFixed(0)} days`);

  // --- what was stored ---

  const products = ui.unpack(told.products, Uint32Array), codes = ui.unpack(told.codes, Int16Array);
  const parts = told.parts, width = parts.length, unit = 10 ** -told.digits;
  const shown = (code) => (code * unit).toFixed(Math.max(0, told.digits));
  let first = 0;
  const journeys = told.journeys.map((journey) => ({
    ...journey,
    steps: new Map(journey.steps.map(([visits, length, next, rank]) => [visits, { first: (first += length) - length, length, next, rank }])),
  }));
  // The stored list after some visits, ordered by the parts that are switched on: [product, codes, score as a whole number].
  const listed = (step, off = new Set()) => {
    const on = parts.map((part) => !off.has(part.name)), found = [];
    for (let i = step.first; i < step.first + step.length; i++) {
      const own = codes.subarray(i * width, (i + 1) * width);
      found.push([products[i], own, own.reduce((sum, code, j) => (on[j] ? sum + code : sum), 0)]);
    }
    return found.sort((a, b) => b[2] - a[2]);  // stable: equal ones stay as the recommender had them
  };

  // --- the state ---

  const state = { customer: 0, visit: 0, off: new Set(), own: [] };  // own: [product, days after the visit before]
  const journey = () => journeys[state.customer];
  // Products, times in days (the customer's newest visit at 0) and events of all visits.
  const line = () => {
    const { items, ages, events } = journey() ?? { items: [], ages: [], events: [] };
    const times = ages.map((age) => -age);
    for (const [, gap] of state.own) times.push((times.at(-1) ?? 0) + gap);
    return { items: [...items, ...state.own.map(([item]) => item)], times, events: [...events, ...state.own.map(() => 0)] };
  };
  const bounds = () => {
    const n = journey()?.items.length ?? 0, total = n + state.own.length;
    return [journey() ? Math.min(...journey().steps.keys()) : Math.min(1, total), total];
  };
  const weigh = (items, times) => shelf.weights(main, items, times.map((t) => times.at(-1) - t), data.decay, data.decay_time);
  const link = () => {
    const { customer, visit, off, own } = state;
    return `#player=${customer}&visit=${visit}` + (off.size ? `&off=${[...off].join(",")}` : "") + (own.length ? `&own=${own.map(([item, gap]) => `${item}@${gap}`).join(",")}` : "");
  };
  const restore = () => {
    if (!location.hash.startsWith("#player=")) return false;
    const given = new URLSearchParams(location.hash.slice(1)), known = new Set(parts.slice(0, -1).map((part) => part.name));
    const customer = Number(given.get("player"));
    state.customer = Number.isInteger(customer) && customer >= -1 && customer < journeys.length ? customer : 0;
    state.off = new Set((given.get("off") ?? "").split(",").filter((part) => known.has(part)));
    state.own = (given.get("own") ?? "").split(",").map((text) => text.split("@").map(Number))
      .filter(([item, gap]) => Number.isInteger(item) && item >= 0 && item < data.names.length && gap >= 0 && gap < 1000).slice(0, 50);
    const [least, most] = bounds(), visit = Number(given.get("visit") ?? most);
    state.visit = Math.min(most, Math.max(least, Number.isInteger(visit) ? visit : most));
    return true;
  };

  // --- the map ---

  const canvas = box.querySelector("canvas"), pen = canvas.getContext("2d");
  const spots = data.map.spots[main.name] ? Float64Array.from(ui.unpack(data.map.spots[main.name], Int16Array), (v) => v / 32767) : null;
  const placeOf = new Map(spots ? [...ui.unpack(data.map.drawn, Uint32Array)].map((item, i) => [item, [spots[2 * i], spots[2 * i + 1]]]) : []);
  canvas.parentElement.hidden = canvas.parentElement.nextElementSibling.hidden = !spots;
  // The weighted mean of the places of the products seen, of those that are drawn; null without one.
  const placed = (items, share) => {
    let x = 0, y = 0, sum = 0;
    items.forEach((item, i) => {
      const at = placeOf.get(item);
      if (at) { x += share[i] * at[0]; y += share[i] * at[1]; sum += share[i]; }
    });
    return sum > 0 ? [x / sum, y / sum] : null;
  };
  let way = [], seen = [], ahead = null, from = null, begun = 0, size = 0, colors = {}, backdrop = null;
  const at = ([x, y]) => [size * (0.5 + 0.47 * x), size * (0.5 - 0.47 * y)];
  const draw = () => {
    if (!size) return;
    const ratio = canvas.width / size;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(backdrop, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const disc = (place, r) => { pen.beginPath(); pen.arc(...at(place), r, 0, 7); };
    pen.fillStyle = colors.ink;
    for (const [place, share] of seen) { pen.globalAlpha = 0.75; disc(place, 2 + 9 * Math.sqrt(share)); pen.fill(); }
    pen.globalAlpha = 1;
    if (ahead) { pen.strokeStyle = colors.warn; pen.lineWidth = 2.5; disc(ahead, 8); pen.stroke(); }
    if (!way.length) return;
    const t = from && !still.matches ? Math.min(1, (performance.now() - begun) / 250) : 1, to = way.at(-1);
    const now = t < 1 ? [0, 1].map((k) => from[k] + t * (to[k] - from[k])) : to;
    pen.strokeStyle = colors.accent;
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (const place of [...way.slice(0, -1), now]) pen.lineTo(...at(place));
    pen.stroke();
    const [x, y] = at(now);
    for (const [stroke, line] of [[colors.paper, 6], [colors.accent, 3]]) {
      pen.strokeStyle = stroke;
      pen.lineWidth = line;
      pen.beginPath();
      pen.moveTo(x - 8, y); pen.lineTo(x + 8, y); pen.moveTo(x, y - 8); pen.lineTo(x, y + 8);
      pen.stroke();
    }
    if (t < 1) requestAnimationFrame(draw);
  };
  const themed = (element) => {
    const style = getComputedStyle(element), of = (variable) => style.getPropertyValue(`--${variable}`).trim();
    return Object.fromEntries(["ink", "muted", "rule", "accent", "warn", "paper", "card"].map((variable) => [variable, of(variable)]));
  };
  const measure = () => {
    size = canvas.clientWidth;
    if (!size) return;
    canvas.width = canvas.height = Math.round(size * Math.min(2, window.devicePixelRatio || 1));
    colors = themed(canvas);
    backdrop = document.createElement("canvas");
    backdrop.width = backdrop.height = canvas.width;
    const back = backdrop.getContext("2d"), ratio = canvas.width / size;
    back.scale(ratio, ratio);
    back.fillStyle = colors.muted;
    back.globalAlpha = 0.4;
    for (const place of placeOf.values()) { back.beginPath(); back.arc(...at(place), placeOf.size > 1000 ? 1.2 : 2, 0, 7); back.fill(); }
    draw();
  };

  // --- the player ---

  const picker = box.querySelector("select"), slider = box.querySelector("#player-visit"), output = box.querySelector("output");
  const visits = box.querySelector(".visits"), ranked = box.querySelector(".ranked"), now = box.querySelector(".now");
  const switches = box.querySelector(".switches"), gap = box.querySelector("#player-gap");
  const opened = new Set();

  const part = (label, value, text, color, scale) => make("div", { class: "part" }, label, make("span", { class: "beam" },
    make("i", { style: `--c: ${color}; left: ${(50 + Math.min(0, value) * scale).toFixed(2)}%; width: ${(Math.abs(value) * scale).toFixed(2)}%` })), make("span", { text }));
  // One recommendation: its name, its marks, its score as a bar of parts, and all parts when it is opened.
  const entry = (item, { score, bar, marks, explain }) => {
    const inside = make("div", { class: "parts" });
    const details = make("details", { "data-item": item, "data-score": score }, make("summary", {}, make("span", { class: "what" }, name(item),
      ...marks.map((mark) => make("span", { class: `mark ${mark}`, text: mark }))), make("span", { class: "beam", "aria-hidden": "true" }, ...bar), make("span", { class: "score", text: score })), inside);
    const fill = () => { if (!inside.childElementCount) inside.append(...explain()); };
    if (opened.has(item)) { details.open = true; fill(); }
    details.addEventListener("toggle", () => { if (details.open) { opened.add(item); fill(); } else opened.delete(item); });
    return make("li", {}, details);
  };
  const fromStored = (step, before) => {
    const found = listed(step, state.off), top = found.slice(0, SHOWN), on = parts.map((each, j) => j < width - 1 && !state.off.has(each.name));
    const sums = (sign) => Math.max(1, ...top.map(([, own]) => own.reduce((sum, code, j) => (on[j] && code * sign > 0 ? sum + code * sign : sum), 0)));
    const above = sums(1), below = sums(-1), scale = 100 / (above + below);
    ranked.replaceChildren(...top.map(([item, own, score]) => {
      const ends = { 1: below, "-1": below }, bar = [];
      own.forEach((code, j) => {
        if (!on[j] || !code) return;
        const sign = Math.sign(code), start = ends[sign];
        ends[sign] += code;
        bar.push(make("i", { style: `--c: ${parts[j].color}; left: ${(Math.min(start, ends[sign]) * scale).toFixed(2)}%; width: ${(Math.abs(code) * scale).toFixed(2)}%` }));
      });
      bar.push(make("i", { class: "zero", style: `left: ${(below * scale).toFixed(2)}%` }));
      const explain = () => {
        const most = Math.max(1, ...own.slice(0, -1).map(Math.abs));
        return parts.slice(0, own.at(-1) ? width : -1).map((each, j) => part(make("span", { text: state.off.has(each.name) ? `${each.label}, off` : each.label }), state.off.has(each.name) ? 0 : own[j], shown(own[j]), each.color, j < width - 1 ? 50 / most : 0));
      };
      return entry(item, { score: shown(score), bar, explain, marks: [...(before.has(item) ? ["seen"] : []), ...(item === step.next ? ["next"] : [])] });
    }));
    const place = found.findIndex(([item]) => item === step.next) + 1;
    now.replaceChildren(state.visit === journey().items.length ? "What came next: " : "The next visit: ", make("strong", {}, name(step.next)),
      `, place ${step.rank.toLocaleString("en")} of ${data.total.toLocaleString("en")}`, state.off.size ? place ? `; ${place} without the parts that are off.` : "; not among the sixty." : ".");
  };
  const fromOwn = (items, share, before) => {
    const query = shelf.embed(main, items, share), scores = shelf.cosines(main, query), length = Math.hypot(...query) || 1;
    ranked.replaceChildren(...(items.length ? shelf.best(scores, SHOWN) : []).map((item) => {
      const explain = () => {
        const of = new Map();
        items.forEach((visited, i) => {
          let dot = 0;
          for (let j = 0; j < main.dim; j++) dot += main.vectors[visited * main.dim + j] * main.vectors[item * main.dim + j];
          of.set(visited, (of.get(visited) ?? 0) + (share[i] * dot) / (length * main.norms[item]));
        });
        const most = Math.max(1e-9, ...[...of.values()].map(Math.abs));
        return [...of].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).map(([visited, value]) => part(name(visited), value, value.toFixed(3), main.color, 50 / most));
      };
      const bar = [make("i", { style: `--c: ${main.color}; left: 0; width: ${Math.max(0, 100 * scores[item]).toFixed(1)}%` })];
      return entry(item, { score: scores[item].toFixed(3), bar, explain, marks: before.has(item) ? ["seen"] : [] });
    }));
    now.textContent = items.length ? `Your own visits are answered by the page itself: nearest to the user embedding in ${main.label} (cosine), not ${told.model}.` : "No visit yet: add one.";
  };
  const update = () => {
    const { items, times, events } = line(), k = state.visit, so = [items.slice(0, k), times.slice(0, k)];
    const share = k ? weigh(...so) : [], before = new Set(so[0]), step = journey()?.steps.get(k);
    const most = Math.max(1e-9, ...share);
    all("span", visits).forEach((column, i) => {
      column.classList.toggle("newest", i === k - 1);
      column.classList.toggle("ahead", i >= k);
      column.style.setProperty("--h", `${i < k ? (100 * share[i]) / most : 0}%`);
      column.dataset.weight = share[i] ?? "";
    });
    output.textContent = k ? `Visit ${k} of ${items.length}: ${nameOf(items[k - 1])} (${told.dots.events[events[k - 1]]}), ${percent(share[k - 1])} of the weight` + (k < items.length ? `, ${days(times.at(-1) - times[k - 1])} before the last` : "") : "";
    slider.setAttribute("aria-valuetext", output.textContent);
    slider.value = String(k);
    const last = way.at(-1);
    const [least] = bounds();
    way = [];
    for (let i = Math.max(1, least); i <= k; i++) {
      const place = placed(items.slice(0, i), weigh(items.slice(0, i), times.slice(0, i)));
      if (place) way.push(place);
    }
    from = last ?? null;
    begun = performance.now();
    seen = so[0].map((item, i) => [placeOf.get(item), share[i]]).filter(([place]) => place);
    ahead = step ? placeOf.get(step.next) ?? null : null;
    switches.disabled = !step;
    if (step) fromStored(step, before);
    else fromOwn(so[0], share, before);
    box.querySelector("[data-state]").setAttribute("href", link());
    draw();
  };
  // Everything anew: another customer, or other visits.
  const rebuild = () => {
    const { items, times } = line(), [least, most] = bounds();
    state.visit = Math.min(most, Math.max(least, state.visit));
    picker.value = String(state.customer);
    slider.min = String(least);
    slider.max = String(Math.max(least, most));
    slider.disabled = most <= least;
    visits.style.setProperty("--n", Math.max(1, items.length));
    visits.replaceChildren(...items.map((item, i) => make("span", { title: nameOf(item), class: i && times[i] - times[i - 1] > 0.5 ? "pause" : "", onclick: () => { state.visit = Math.max(least, i + 1); update(); } })));
    slider.style.marginLeft = `calc(${Math.max(0, least - 1)} / ${Math.max(1, items.length)} * 100%)`;
    slider.style.width = `calc(${most - least + 1} / ${Math.max(1, items.length)} * 100%)`;
    box.querySelector(".added").replaceChildren(...state.own.map(([item, later], i) => make("li", {}, name(item), make("span", { class: "quiet", text: ` +${later} d ` }),
      make("button", { type: "button", class: "remove", "aria-label": `Remove ${nameOf(item)}`, text: "×", onclick: () => {
        state.own.splice(i, 1);
        rebuild();
        box.querySelector("#player-search").focus();
      } }))));
    for (const input of all("input", switches)) input.checked = !state.off.has(input.value);
    way = [];
    update();
  };
  const play = (customer) => { Object.assign(state, { customer, own: [], visit: Infinity }); opened.clear(); rebuild(); };

  switches.querySelector("div").append(...parts.slice(0, -1).map(({ name: value, label, color }) => make("label", {},
    make("input", { type: "checkbox", value, checked: "", onchange: (event) => { state.off[event.target.checked ? "delete" : "add"](value); update(); } }),
    make("span", { class: "swatch", style: `--c: ${color}`, "aria-hidden": "true" }), label)));
  picker.append(...journeys.map(({ items, seen: known, steps }, i) => make("option", { value: String(i), text: `${i + 1}: ${plural(items.length, "visit")}, then ${known ? "a product seen before" : "a new product"}, place ${steps.get(items.length).rank.toLocaleString("en")}` })),
    make("option", { value: "-1", text: "Nobody: my own visits" }));
  picker.addEventListener("change", () => play(Number(picker.value)));
  slider.addEventListener("input", () => { state.visit = Number(slider.value); update(); });
  box.querySelector("[data-reset]").addEventListener("click", () => { state.off.clear(); play(state.customer); });
  ui.search(box.querySelector("[data-search]"), (item) => {
    state.own.push([item, Math.min(999, Math.max(0, gap.valueAsNumber || 0))]);
    state.visit = Infinity;
    rebuild();
    box.querySelector("#player-search").focus();
  });
  const show = () => { if (restore()) { opened.clear(); rebuild(); box.scrollIntoView(); } };
  window.addEventListener("hashchange", show);
  new ResizeObserver(measure).observe(canvas);
  play(0);
  show();

  // --- where it fails ---

  const { dots } = told, ours = ui.unpack(dots.ours, Uint32Array), theirs = ui.unpack(dots.baseline, Uint32Array), kinds = ui.unpack(dots.kinds, Uint8Array);
  const KINDS = [
    ["Target", ["▲ new", "● seen before"], (kind) => kind & 1],
    ["Event", dots.events, (kind) => (kind >> 1) & 3],
    ["Popularity", dots.targets, (kind) => (kind >> 3) & 3],
    ["History", dots.histories, (kind) => (kind >> 5) & 3],
  ];
  const wanted = KINDS.map(() => -1), field = fails.querySelector("canvas"), brush = field.getContext("2d");
  const playable = new Map(journeys.map(({ dot }, i) => [dot, i]));
  const top = Math.log(Math.max(40, ...ours, ...theirs) * 1.4), EDGE = 34;
  let side = 0, shades = {}, pointed = -1;
  // Places are whole numbers: a dot is moved by up to 0.4 of a place, the same each time, so that those on one spot are seen.
  const jitter = (i, k) => (((i * 2654435761 + k * 40503) >>> 8) % 1000) / 1250 - 0.4;
  const spot = (place) => Math.log(Math.max(0.6, place) / 0.6) / (top - Math.log(0.6));
  const point = (x, y) => [EDGE + (side - EDGE - 8) * spot(x), side - EDGE - (side - EDGE - 8) * spot(y)];
  const where = (i) => point(theirs[i] + jitter(i, 1), ours[i] + jitter(i, 2));
  const counts = (i) => KINDS.every(([, , of], k) => wanted[k] < 0 || of(kinds[i]) === wanted[k]);
  const paint = () => {
    if (!side) return;
    const ratio = field.width / side;
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    brush.clearRect(0, 0, side, side);
    brush.font = `11px ${getComputedStyle(field).fontFamily}`;
    brush.fillStyle = shades.muted;
    brush.strokeStyle = shades.rule;
    brush.lineWidth = 1;
    for (let tick = 1; Math.log(tick) < top; tick *= 10) {
      const [x] = point(tick, 1), [, y] = point(1, tick);
      brush.beginPath();
      brush.moveTo(x, 8); brush.lineTo(x, side - EDGE); brush.moveTo(EDGE, y); brush.lineTo(side - 8, y);
      brush.stroke();
      brush.textAlign = "center";
      brush.fillText(tick.toLocaleString("en"), x, side - EDGE + 14);
      brush.textAlign = "right";
      brush.fillText(tick >= 10_000 ? `${tick / 1000}k` : String(tick), EDGE - 5, y + 4);
    }
    brush.textAlign = "center";
    brush.fillText(`Place by ${told.baseline}`, (side + EDGE) / 2, side - 4);
    brush.save();
    brush.translate(10, (side - EDGE) / 2);
    brush.rotate(-Math.PI / 2);
    brush.fillText(`Place by ${told.model}`, 0, 0);
    brush.restore();
    brush.strokeStyle = shades.muted;
    brush.beginPath();
    brush.moveTo(...point(0.6, 0.6));
    brush.lineTo(side - 8, 8);
    brush.stroke();
    brush.setLineDash([4, 4]);
    brush.beginPath();
    const [x, y] = point(20.5, 20.5);
    brush.moveTo(x, 8); brush.lineTo(x, side - EDGE); brush.moveTo(EDGE, y); brush.lineTo(side - 8, y);
    brush.stroke();
    brush.setLineDash([]);
    const mark = (i, r) => {
      const [px, py] = where(i);
      brush.beginPath();
      if (kinds[i] & 1) brush.arc(px, py, r, 0, 7);
      else { brush.moveTo(px, py - r * 1.3); brush.lineTo(px + r * 1.2, py + r * 0.9); brush.lineTo(px - r * 1.2, py + r * 0.9); brush.closePath(); }
    };
    const r = ours.length > 1500 ? 1.8 : 2.6;
    brush.globalAlpha = ours.length > 1500 ? 0.5 : 0.7;
    for (let i = 0; i < ours.length; i++) {
      if (!counts(i)) continue;
      brush.fillStyle = kinds[i] & 1 ? shades.accent : shades.warn;
      mark(i, r);
      brush.fill();
    }
    brush.globalAlpha = 1;
    brush.strokeStyle = shades.ink;
    brush.lineWidth = 1.5;
    for (const i of playable.keys()) if (counts(i)) { mark(i, 5); brush.stroke(); }
    if (pointed >= 0) { brush.lineWidth = 3; mark(pointed, 8); brush.stroke(); }
  };
  const tell = () => {
    const found = [0, 0, 0, 0];
    for (let i = 0; i < ours.length; i++) if (counts(i)) found[2 * (ours[i] > 20) + (theirs[i] > 20)]++;
    const of = found.reduce((sum, n) => sum + n, 0), part = (n) => (of ? `${n.toLocaleString("en")} (${Math.round((100 * n) / of)}%)` : "0");
    fails.querySelector("#fails-now").textContent = `Of ${plural(of, "target")}${dots.total > ours.length ? `, drawn from ${dots.total.toLocaleString("en")}` : ""}, both find ${part(found[0])} among twenty, only ${told.model} ${part(found[1])}, only ${told.baseline} ${part(found[2])}, neither ${part(found[3])}.`;
    fails.querySelector(".one").textContent = pointed < 0 ? "" : `This one: place ${theirs[pointed].toLocaleString("en")} and ${ours[pointed].toLocaleString("en")}, ${KINDS.map(([, names, of]) => names[of(kinds[pointed])]).join(", ")}${playable.has(pointed) ? "; customer " + (playable.get(pointed) + 1) : ""}.`;
    paint();
  };
  const open = (i) => {
    if (!playable.has(i)) return;
    play(playable.get(i));
    box.scrollIntoView();
    slider.focus({ preventScroll: true });
  };
  const hit = (event) => {
    const frame = field.getBoundingClientRect(), x = event.clientX - frame.left, y = event.clientY - frame.top;
    let found = -1, least = event.pointerType === "touch" ? 500 : 100;
    for (let i = 0; i < ours.length; i++) {
      if (!counts(i)) continue;
      const [px, py] = where(i), far = (px - x) ** 2 + (py - y) ** 2 - (playable.has(i) ? 40 : 0);  // a ring is easier to hit
      if (far < least) [found, least] = [i, far];
    }
    return found;
  };
  field.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") { pointed = hit(event); field.style.cursor = playable.has(pointed) ? "pointer" : "default"; tell(); } });
  field.addEventListener("click", (event) => { pointed = hit(event); tell(); open(pointed); });
  field.addEventListener("keydown", (event) => {
    const round = [...playable.keys()].filter(counts).sort((a, b) => where(a)[0] - where(b)[0]);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (step && round.length) pointed = round[(round.indexOf(pointed) + (step < 0 && !round.includes(pointed) ? 0 : step) + round.length) % round.length];
    else if (event.key === "Enter") open(pointed);
    else return;
    event.preventDefault();
    tell();
  });
  fails.querySelector(".filters").append(...KINDS.map(([label, names], k) => make("label", {}, make("span", { text: label }),
    make("select", { onchange: (event) => { wanted[k] = Number(event.target.value); pointed = -1; tell(); } },
      make("option", { value: "-1", text: "all" }), ...names.map((text, i) => make("option", { value: String(i), text }))))));
  const resize = () => {
    side = field.clientWidth;
    if (!side) return;
    field.width = field.height = Math.round(side * Math.min(2, window.devicePixelRatio || 1));
    shades = themed(field);
    paint();
  };
  new ResizeObserver(resize).observe(field);
  dark.addEventListener("change", () => requestAnimationFrame(() => { measure(); resize(); }));
  resize();
  tell();

  Object.assign(shelf, { player: { state, journeys, listed, line, weigh, placed, play, update, where, main } });
})();
