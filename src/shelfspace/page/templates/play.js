// The toys of "Play with it". The maths is that of shelfspace.models.users and shelfspace.models.baselines, on the same quantised vectors.
(() => {
  const block = document.getElementById("play-data");
  if (!block) return;
  const data = JSON.parse(block.textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const NEAREST = 10, FOUND = 8;

  // --- the maths ---

  const unpack = (text, Type) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Type(bytes.buffer);
  };
  const spaces = data.spaces.map(({ codes, scales, ...space }) => {
    codes = unpack(codes, Int8Array);
    scales = unpack(scales, Float32Array);
    const vectors = new Float32Array(codes.length), norms = new Float64Array(scales.length);
    for (let i = 0, k = 0; i < scales.length; i++) {
      let sum = 0;
      for (let j = 0; j < space.dim; j++, k++) {
        vectors[k] = codes[k] * scales[i];
        sum += vectors[k] * vectors[k];
      }
      norms[i] = Math.sqrt(sum);
    }
    return { ...space, vectors, norms };
  });

  // Ages as the decay counts them, from days, oldest first; the newest visit has age 0.
  const ages = (days, clock) => {
    const newest = Math.min(...days);
    if (clock === "rank") return days.map((_, i) => days.length - 1 - i);
    return days.map((day) => (clock === "log_days" ? Math.log1p(day - newest) : day - newest));
  };
  // w_i = exp(-d t_i) / sum_j exp(-d t_j), over the products that have a vector in this space.
  const weights = (space, items, days, decay, clock) => {
    const known = items.map((item) => space.norms[item] > 0), age = ages(days, clock);
    const newest = Math.min(...age.filter((_, i) => known[i]));
    const raw = age.map((t, i) => (known[i] ? Math.exp(-decay * (t - newest)) : 0));
    const total = raw.reduce((sum, w) => sum + w, 0) || 1;
    return raw.map((w) => w / total);
  };
  const embed = (space, items, share) => {
    const found = new Float64Array(space.dim);
    items.forEach((item, i) => { for (let j = 0; j < space.dim; j++) found[j] += share[i] * space.vectors[item * space.dim + j]; });
    return found;
  };
  // The cosine of every product to a query; -2 without a vector, so that these come last.
  const cosines = (space, query) => {
    const { vectors, norms, dim } = space, found = new Float64Array(norms.length);
    const length = Math.hypot(...query) || 1;
    for (let i = 0, k = 0; i < found.length; i++) {
      let dot = 0;
      for (let j = 0; j < dim; j++, k++) dot += query[j] * vectors[k];
      found[i] = norms[i] > 0 ? dot / (norms[i] * length) : -2;
    }
    return found;
  };
  const row = (space, item) => space.vectors.subarray(item * space.dim, (item + 1) * space.dim);
  // The k products with the highest scores, best first, without those in `skip`.
  const best = (scores, k, skip = new Set()) => {
    const found = [];
    for (let i = 0; i < scores.length; i++) {
      if (scores[i] < -1.5 || skip.has(i) || (found.length === k && scores[i] <= scores[found[k - 1]])) continue;
      let at = found.length;
      while (at > 0 && scores[found[at - 1]] < scores[i]) at--;
      found.splice(at, 0, i);
      if (found.length > k) found.pop();
    }
    return found;
  };
  const nearest = (space, item, k) => {
    const scores = space.norms[item] > 0 ? cosines(space, row(space, item)) : new Float64Array(space.norms.length).fill(-2);
    return best(scores, k, new Set([item])).map((i) => [i, scores[i]]);
  };
  // 1 + products scored higher + half of the ties, rounded up (as shelfspace.measure.evaluation counts).
  const rank = (scores, item) => {
    let higher = 0, ties = 0;
    for (let i = 0; i < scores.length; i++) {
      if (scores[i] > scores[item]) higher++;
      else if (i !== item && scores[i] === scores[item]) ties++;
    }
    return 1 + higher + Math.ceil(ties / 2);
  };

  // --- small parts ---

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") element.textContent = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const name = (item) => make("bdi", { text: data.names[item] });
  const groupOf = (item) => (data.group[item] < 0 ? "" : data.groups[data.group[item]]);
  const percent = (share) => (share >= 0.0995 ? `${Math.round(100 * share)}%` : share >= 0.0005 ? `${(100 * share).toFixed(1)}%` : share > 0 ? "<0.1%" : "0%");
  const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

  // One product of a list: a button, what marks it, and its cosine as a bar and a number.
  const entry = (item, score, color, pick, marks = []) => make("li", { "data-item": item, "data-score": score },
    make("button", { type: "button", class: "product", onclick: () => pick(item) }, name(item)),
    ...(data.grouped_by === "category" && groupOf(item) ? [make("bdi", { class: "group", text: groupOf(item) })] : []),
    ...marks.map((mark) => make("span", { class: `mark ${mark}`, text: mark })),
    make("span", { class: "cosine" },
      make("span", { class: "bar", style: `--c: ${color}; --w: ${Math.max(0, 100 * score).toFixed(1)}%` }), make("span", { text: score.toFixed(3) })));
  const side = (space, children, note) => make("div", { class: "side-list", "data-space": space.name },
    make("h4", {}, make("span", { class: "swatch", style: `--c: ${space.color}`, "aria-hidden": "true" }), space.label),
    ...(note ? [make("p", { class: "quiet", text: note })] : []), make("ol", {}, ...children));

  // A box to search products in: type, go with the arrows, take with Enter or a click.
  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  let haystack = null;
  const search = (box, pick, among = null) => {
    const input = box.querySelector("input"), list = box.querySelector("ul");
    let found = [], at = -1;
    const close = () => { list.hidden = true; at = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
    const take = (item) => { input.value = ""; close(); pick(item); };
    const mark = () => {
      all("li", list).forEach((li, i) => { li.setAttribute("aria-selected", String(i === at)); if (i === at) li.scrollIntoView({ block: "nearest" }); });
      if (at >= 0) input.setAttribute("aria-activedescendant", `${list.id}-${at}`);
    };
    const look = () => {
      haystack ??= data.names.map((text, i) => plain(`${text} ${groupOf(i)}`));
      const words = plain(input.value).split(/\s+/).filter(Boolean);
      found = [];
      for (const item of among ?? haystack.keys()) {
        if (words.every((word) => haystack[item].includes(word)) && found.push(item) === FOUND) break;
      }
      list.replaceChildren(...found.map((item, i) => make("li", { role: "option", id: `${list.id}-${i}`, "aria-selected": "false",
        onpointerdown: (event) => event.preventDefault(), onclick: () => take(item) }, name(item), make("span", { class: "quiet", text: plural(data.counts[item], "event") }))));
      if (!found.length) list.append(make("li", { role: "option", "aria-disabled": "true", "aria-selected": "false", text: "No product has all of these words." }));
      list.hidden = false;
      at = -1;
      input.removeAttribute("aria-activedescendant");
      input.setAttribute("aria-expanded", "true");
    };
    input.addEventListener("input", look);
    input.addEventListener("click", look);
    input.addEventListener("blur", close);
    input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        if (list.hidden) look();
        if (found.length) at = (at + (event.key === "ArrowDown" ? 1 : at < 0 ? 0 : -1) + found.length) % found.length;
        mark();
      } else if (event.key === "Enter" && !list.hidden && found.length) take(found[Math.max(0, at)]);
      else if (event.key === "Escape" && !list.hidden) close();
      else return;
      event.preventDefault();
    });
  };

  for (const toys of all(".toys")) toys.hidden = false;

  // --- what is near what ---

  const explorer = document.getElementById("play--explorer");
  const explore = (item, quietly = false) => {
    const found = spaces.map((space) => nearest(space, item, NEAREST));
    const both = spaces.length > 1 ? found[0].map(([i]) => i).filter((i) => found.every((list) => list.some(([j]) => i === j))) : [];
    explorer.querySelector(".now").replaceChildren("Near ", make("strong", {}, name(item)),
      `, which has ${plural(data.counts[item], "event")}: ${both.length} of the ${NEAREST} nearest are the same in ${spaces.length === 2 ? "both" : "all"} spaces.`);
    const columns = spaces.map((space, s) => side(space,
      found[s].map(([i, score]) => entry(i, score, space.color, explore, both.includes(i) ? ["both"] : [])),
      found[s].length ? "" : "This product has no vector here: it occurs in no training sequence."));
    explorer.querySelector(".sides").replaceChildren(...columns);
    if (!quietly && document.activeElement === document.body) explorer.querySelector(".sides button")?.focus({ preventScroll: true });
  };
  search(explorer.querySelector("[data-search]"), explore);
  explore(0, true);

  // --- the map ---

  const chart = document.getElementById("play--map");
  if (chart) {
    const canvas = chart.querySelector("canvas"), tip = chart.querySelector(".tip"), pen = canvas.getContext("2d");
    const drawn = unpack(data.map.drawn, Uint32Array);
    const spots = Object.fromEntries(Object.entries(data.map.spots).map(([key, text]) => [key, unpack(text, Int16Array)]));
    const still = window.matchMedia("(prefers-reduced-motion: reduce)");
    const placeOf = new Map([...drawn].map((item, i) => [item, i]));
    let space = spaces.find((s) => s.name in spots), xy = Float64Array.from(spots[space.name], (v) => v / 32767);
    let chosen = -1, near = [], pointed = -1, only = -1, zoom = 1, middle = [0, 0], size = 0, colors = new Map(), ink = "", paper = "";

    const legend = chart.querySelector(".legend");
    const shape = (place) => "●■▲◆"[place % 4];
    legend.append(...data.coloured.map(({ group, color }, place) => make("li", {}, make("button", { type: "button", "aria-pressed": "false", onclick: (event) => {
      only = only === group ? -1 : group;
      for (const button of all("button", legend)) button.setAttribute("aria-pressed", String(only >= 0 && button === event.currentTarget));
      draw();
    } }, make("span", { class: "shape", style: `--c: ${color}`, "aria-hidden": "true", text: shape(place) }), make("bdi", { text: data.groups[group] })))));
    const markOf = new Map(data.coloured.map(({ group }, place) => [group, place % 4]));

    const at = (i) => [size * (0.5 + 0.48 * zoom * (xy[2 * i] - middle[0])), size * (0.5 - 0.48 * zoom * (xy[2 * i + 1] - middle[1]))];
    const dot = (x, y, r, mark) => {
      pen.beginPath();
      if (mark === 1) pen.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
      else if (mark === 2) { pen.moveTo(x, y - r * 1.2); pen.lineTo(x + r * 1.1, y + r * 0.8); pen.lineTo(x - r * 1.1, y + r * 0.8); }
      else if (mark === 3) { pen.moveTo(x, y - r * 1.25); pen.lineTo(x + r * 1.25, y); pen.lineTo(x, y + r * 1.25); pen.lineTo(x - r * 1.25, y); }
      else pen.arc(x, y, r, 0, 7);
      pen.fill();
    };
    const ring = (i, r, width) => { const [x, y] = at(i); pen.lineWidth = width; pen.beginPath(); pen.arc(x, y, r, 0, 7); pen.stroke(); };
    const draw = () => {
      if (!size) return;
      const ratio = canvas.width / size, lit = new Set([chosen, ...near]);
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, size, size);
      const r = Math.min(6, Math.max(1.6, Math.sqrt(30000 / Math.max(1, drawn.length)) * size / 1500) * Math.sqrt(zoom));
      for (const bright of [false, true]) {
        for (let i = 0; i < drawn.length; i++) {
          const group = data.group[drawn[i]], kind = colors.has(group);
          if (kind !== bright) continue;
          pen.globalAlpha = chosen >= 0 && !lit.has(i) ? 0.22 : only >= 0 && group !== only ? 0.12 : kind ? 0.85 : 0.55;
          pen.fillStyle = kind ? colors.get(group) : colors.get("other");
          dot(...at(i), kind ? r * 1.05 : r, markOf.get(group) ?? 0);
        }
      }
      pen.globalAlpha = 1;
      pen.strokeStyle = pen.fillStyle = ink;
      if (chosen >= 0) {
        pen.lineWidth = 0.8;
        for (const i of near) { pen.beginPath(); pen.moveTo(...at(chosen)); pen.lineTo(...at(i)); pen.stroke(); }
        ring(chosen, r + 4, 2);
        pen.font = `600 12px ${getComputedStyle(canvas).fontFamily}`;
        pen.textBaseline = "middle";
        near.forEach((i, place) => {
          ring(i, r + 1, 1.2);
          const [x, y] = at(i);
          pen.strokeStyle = paper;
          pen.lineWidth = 3;
          pen.strokeText(String(place + 1), x + r + 3, y);
          pen.fillText(String(place + 1), x + r + 3, y);
          pen.strokeStyle = ink;
        });
      }
      if (pointed >= 0) ring(pointed, r + 4, 1.8);
      tip.hidden = pointed < 0;
      if (pointed >= 0) {
        const [x, y] = at(pointed), group = groupOf(drawn[pointed]);
        tip.replaceChildren(name(drawn[pointed]), ...(group ? [make("bdi", { class: "group", text: group })] : []));
        tip.style.left = `${Math.min(Math.max(0, x + 12), Math.max(0, size - tip.offsetWidth))}px`;
        tip.style.top = `${y + 14 + tip.offsetHeight > size ? y - tip.offsetHeight - 12 : y + 14}px`;
      }
    };
    const measure = () => {
      const style = getComputedStyle(canvas);
      size = canvas.clientWidth;
      canvas.width = canvas.height = Math.round(size * Math.min(2, window.devicePixelRatio || 1));
      [ink, paper] = [style.color, style.backgroundColor];
      colors = new Map(all(".shape", legend).map((element, i) => [data.coloured[i].group, getComputedStyle(element).color]));
      colors.set("other", getComputedStyle(chart.querySelector(".legend-title")).color);
      draw();
    };
    const keepInside = () => {
      const room = 1 - 1 / zoom;
      middle = middle.map((value) => Math.min(room, Math.max(-room, value)));
    };
    const zoomTo = (value, [x, y]) => { zoom = Math.min(12, Math.max(1, value)); middle = [x, y]; keepInside(); draw(); };

    const say = (item) => {
      const now = chart.querySelector(".now"), group = groupOf(item);
      now.replaceChildren(make("strong", {}, name(item)), group ? ` (${data.grouped_by === "category" ? "" : "number of events: "}` : "", ...(group ? [make("bdi", { text: group }), ")"] : []),
        chosen >= 0 && drawn[chosen] === item ? ` and its ${near.length} nearest in ${space.label}:` : "");
    };
    const choose = (i) => {
      chosen = i;
      const list = i < 0 ? [] : nearest(space, drawn[i], FOUND).filter(([item]) => placeOf.has(item));
      near = list.map(([item]) => placeOf.get(item));
      chart.querySelector(".near").replaceChildren(...list.map(([item, score]) => entry(item, score, space.color, go)));
      if (i < 0) chart.querySelector(".now").textContent = "No product is chosen.";
      else say(drawn[i]);
      draw();
    };
    const go = (item) => {
      if (!placeOf.has(item)) return;
      const i = placeOf.get(item);
      pointed = i;
      choose(i);
      // So near that half of the numbered ones fill a third of the map.
      const far = near.map((j) => Math.hypot(xy[2 * j] - xy[2 * i], xy[2 * j + 1] - xy[2 * i + 1])).sort((a, b) => a - b);
      zoomTo(0.35 / (far[far.length >> 1] || 0.35), [xy[2 * i], xy[2 * i + 1]]);
    };
    const hit = (event) => {
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      let found = -1, least = event.pointerType === "touch" ? 500 : 144;
      for (let i = 0; i < drawn.length; i++) {
        const [px, py] = at(i), d = (px - x) ** 2 + (py - y) ** 2;
        if (d < least) [found, least] = [i, d];
      }
      return found;
    };
    let drag = null;
    canvas.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, y: event.clientY, middle: [...middle], moved: false }; });
    canvas.addEventListener("pointermove", (event) => {
      if (drag && event.buttons) {
        const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
        drag.moved ||= Math.hypot(dx, dy) > 5;
        if (drag.moved && zoom > 1) { middle = [drag.middle[0] - dx / (0.48 * zoom * size), drag.middle[1] + dy / (0.48 * zoom * size)]; keepInside(); draw(); return; }
      }
      const found = hit(event);
      if (found !== pointed) { pointed = found; draw(); }
      canvas.style.cursor = found >= 0 ? "pointer" : zoom > 1 ? "grab" : "default";
    });
    canvas.addEventListener("pointerleave", () => { pointed = -1; draw(); });
    canvas.addEventListener("click", (event) => { if (!drag?.moved || zoom === 1) { pointed = hit(event); choose(pointed); } drag = null; });
    canvas.addEventListener("blur", () => { pointed = -1; draw(); });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (step && !event.ctrlKey && !event.metaKey && !event.altKey) {
        if (pointed < 0) pointed = Math.max(0, chosen);
        else {
          let found = -1, least = Infinity;
          for (let i = 0; i < drawn.length; i++) {
            const dx = xy[2 * i] - xy[2 * pointed], dy = xy[2 * i + 1] - xy[2 * pointed + 1];
            const along = dx * step[0] + dy * step[1], across = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
            const far = along > 0 && across <= along ? along + 2 * across : Infinity;
            if (far < least) [found, least] = [i, far];
          }
          if (found >= 0) pointed = found;
        }
        if (zoom > 1) { middle = [xy[2 * pointed], xy[2 * pointed + 1]]; keepInside(); }
        say(drawn[pointed]);
        draw();
      } else if (event.key === "Enter" || event.key === " ") choose(pointed);
      else if (event.key === "Escape") { pointed = -1; choose(-1); zoomTo(1, [0, 0]); }
      else if (event.key === "+" || event.key === "-") zoomTo(zoom * (event.key === "+" ? 1.6 : 1 / 1.6), pointed >= 0 ? [xy[2 * pointed], xy[2 * pointed + 1]] : middle);
      else return;
      event.preventDefault();
    });
    for (const button of all("[data-zoom]", chart)) {
      button.addEventListener("click", () => zoomTo(zoom * 1.6 ** Number(button.dataset.zoom), chosen >= 0 ? [xy[2 * chosen], xy[2 * chosen + 1]] : middle));
    }
    for (const radio of all("[name=map-space]", chart)) {
      radio.addEventListener("change", () => {
        space = spaces.find((s) => s.name === radio.value);
        const from = xy, to = Float64Array.from(spots[space.name], (v) => v / 32767), begun = performance.now();
        pointed = -1;
        choose(chosen);
        const move = (time) => {
          const t = still.matches ? 1 : Math.min(1, Math.max(0, (time - begun) / 600)), s = t * t * (3 - 2 * t);
          xy = from.map((value, i) => value + s * (to[i] - value));
          draw();
          if (t < 1) requestAnimationFrame(move);
        };
        requestAnimationFrame(move);
      });
    }
    search(chart.querySelector("[data-search]"), go, [...drawn]);
    new ResizeObserver(measure).observe(canvas);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(measure));
    measure();
  }

  // --- how fast interest fades ---

  const toy = document.getElementById("play--decay");
  const slider = toy.querySelector("#decay-d"), told = toy.querySelector("output"), picker = toy.querySelector("#decay-customer");
  const body = toy.querySelector("tbody"), unseen = toy.querySelector("#decay-unseen");
  const UNIT = { days: "per day", log_days: "per ln(1 + days)", rank: "per visit" };
  const main = spaces.find((space) => space.name === data.embedding) ?? spaces[0];
  // The slider's places 1 to 100 are decays 0.01 to 10 on a logarithmic scale; 0 is no decay at all.
  const decayAt = (place) => (place === 0 ? 0 : Number((0.01 * 1000 ** ((place - 1) / 99)).toPrecision(2)));
  const placeOfDecay = (d) => (d < 0.01 ? (d < 0.005 ? 0 : 1) : Math.min(100, Math.round(1 + (99 * Math.log10(d / 0.01)) / 3)));
  const history = { items: [], days: [], next: -1 };
  let decay = data.decay, clock = data.decay_time, bars = [], plainRanks = [];

  const recommend = (space, d) => {
    const share = weights(space, history.items, history.days, d, clock);
    return { share, scores: cosines(space, embed(space, history.items, share)) };
  };
  const update = () => {
    const half = decay > 0 && clock === "days" ? `, half of the weight in ${(Math.LN2 / decay).toPrecision(2)} days` : decay > 0 && clock === "rank" ? `, half of the weight in ${(Math.LN2 / decay).toPrecision(2)} visits` : "";
    told.textContent = `${decay} ${UNIT[clock]}${decay === 0 ? ": the plain mean" : half}`;
    slider.setAttribute("aria-valuetext", told.textContent);
    const found = history.items.length ? spaces.map((space) => recommend(space, decay)) : [];
    const shown = found[spaces.indexOf(main)]?.share ?? [];
    bars.forEach(({ bar, number }, i) => {
      bar.style.setProperty("--w", `${(100 * shown[i]).toFixed(1)}%`);
      number.textContent = percent(shown[i]);
      number.title = String(shown[i]);
    });
    const seen = new Set(history.items);
    toy.querySelector(".sides").replaceChildren(...spaces.map((space, s) => side(space, found.length ? best(found[s].scores, NEAREST, unseen.checked ? seen : new Set()).map((item) =>
      entry(item, found[s].scores[item], space.color, (i) => add(i, false), [...(seen.has(item) ? ["seen"] : []), ...(item === history.next ? ["next"] : [])])) : [])));
    const now = toy.querySelector(".now");
    if (!found.length) now.textContent = "The history is empty: add a product.";
    else if (history.next >= 0) {
      const ranks = spaces.map((space, s) => `${rank(found[s].scores, history.next).toLocaleString("en")} in ${space.label} (${plainRanks[s].toLocaleString("en")} with the plain mean)`);
      now.replaceChildren("What came next was ", make("strong", {}, name(history.next)), `, on rank ${ranks.join(" and ")}.`);
    } else now.textContent = "Nearest to the user embedding of this history:";
  };
  const rebuild = () => {
    bars = history.items.map(() => ({ bar: make("span", { class: "bar", style: `--c: ${main.color}` }), number: make("span", {}) }));
    const rows = history.items.map((item, i) => make("tr", { "data-item": item },
      make("th", { scope: "row" }, name(item)),
      make("td", {}, make("input", { type: "number", min: "0", max: "9999", step: "any", value: String(history.days[i]), "aria-label": `Days ago, ${data.names[item]}`,
        oninput: (event) => { const days = event.target.valueAsNumber; if (days >= 0) { history.days[i] = Math.min(days, 9999); own(); update(); } },
        onchange: () => { sort(); rebuild(); } })),
      make("td", {}, make("span", { class: "cosine" }, bars[i].bar, bars[i].number)),
      make("td", {}, make("button", { type: "button", class: "remove", "aria-label": `Remove ${data.names[item]}`, text: "×", onclick: () => {
        history.items.splice(i, 1);
        history.days.splice(i, 1);
        own();
        rebuild();
        (body.querySelector("button") ?? toy.querySelector("#decay-search")).focus();
      } }))));
    body.replaceChildren(...rows.reverse());
    plainRanks = history.next >= 0 && history.items.length ? spaces.map((space) => rank(recommend(space, 0).scores, history.next)) : [];
    update();
  };
  const sort = () => {
    const order = history.days.map((_, i) => i).sort((a, b) => history.days[b] - history.days[a] || a - b);
    history.items = order.map((i) => history.items[i]);
    history.days = order.map((i) => history.days[i]);
  };
  const own = () => { picker.value = "own"; };
  const add = (item, focus = true) => {
    const newest = history.days.length ? Math.min(...history.days) : 0;
    history.items.push(item);
    history.days.push(newest);
    own();
    rebuild();
    if (focus) toy.querySelector("#decay-search").focus();
    else body.querySelector("input")?.focus();
  };
  const take = () => {
    const customer = data.customers[Number(picker.value)];
    if (picker.value === "own" || !customer) Object.assign(history, { items: [], days: [], next: -1 });
    else Object.assign(history, { items: [...customer.items], days: [...customer.ages], next: customer.next });
    rebuild();
  };
  picker.append(...data.customers.map((customer, i) => make("option", { value: String(i), text: `Customer ${i + 1}: ${plural(customer.items.length, "visit")} in ${customer.ages[0] < 1 ? "a day" : plural(Math.ceil(customer.ages[0]), "day")}` })),
    make("option", { value: "own", text: "My own" }));
  picker.addEventListener("change", take);
  slider.addEventListener("input", () => { decay = decayAt(Number(slider.value)); update(); });
  unseen.addEventListener("change", update);
  for (const radio of all("[name=decay-time]", toy)) radio.addEventListener("change", () => { clock = radio.value; update(); });
  search(toy.querySelector("[data-search]"), (item) => add(item));
  slider.value = String(placeOfDecay(decay));
  take();

  // For player.js and the browser's console: the data and the maths above.
  window.shelfspace = { data, spaces, ages, weights, embed, cosines, nearest, best, rank, ui: { all, make, percent, plural, search, unpack } };
})();
