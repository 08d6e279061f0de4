// The training theatre: steps that the trainers made, shown one by one.
(() => {
  const box = document.getElementById("theatre");
  if (!box) return;
  const data = JSON.parse(document.getElementById("theatre-data").textContent), names = ["word2vec", "starspace"];
  const still = window.matchMedia("(prefers-reduced-motion: reduce)"), last = data.word2vec.length - 1;
  const slider = box.querySelector("input"), player = box.querySelector("[data-play]"), moves = [...box.querySelectorAll("[data-move]")];
  const draw = (tag, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  const at = ([x, y]) => [100 * x, -100 * y].map((value) => value.toFixed(1));
  const labels = { 0: { y: 30, "text-anchor": "middle" }, 2: { x: -10, y: 5, "text-anchor": "end" } };  // others to the right of their dots
  let step = 0, timer = 0;
  const show = () => {
    for (const name of names) {
      const { from, to, noise, loss, vectors } = data[name][step], side = box.querySelector(`[data-side=${name}]`), svg = side.querySelector("svg");
      const drawn = new Set([...from, to]), word = (i) => data.names[i];
      svg.replaceChildren(draw("path", { class: "axes", d: "M-200 0H275M0 -225V190" }),
        ...data.names.map((_, i) => draw("polyline", { class: "way", points: data[name].slice(0, step + 1).map((each) => at(each.vectors[i])).join(" ") })),
        ...from.map((i) => { const [[x1, y1], [x2, y2]] = [at(vectors[i]), at(vectors[to])]; return draw("line", { class: "pull", x1, y1, x2, y2 }); }),
        ...vectors.map((vector, i) => {
          const [x, y] = at(vector), group = draw("g", { class: drawn.has(i) ? "drawn" : noise.includes(i) ? "noise" : "", transform: `translate(${x} ${y})` });
          group.append(draw("circle", { r: 6 }), draw("text", labels[i] ?? { x: 10, y: 5 }, word(i)));
          return group;
        }));
      side.querySelector(".now").textContent = step ? `${from.map(word).join(" + ")} → ${word(to)}, away from ${noise.map(word).join(", ")}: loss ${loss.toFixed(3)}` : "At the start, both have the same vectors.";
    }
    slider.value = String(step);
    slider.setAttribute("aria-valuetext", `${step} of ${last}`);
    for (const button of moves) button.disabled = !data.word2vec[step + Number(button.dataset.move)];
  };
  const go = (to) => { step = Math.min(last, Math.max(0, to)); show(); };
  const stop = () => { clearInterval(timer); timer = 0; player.setAttribute("aria-pressed", "false"); player.textContent = "Play"; };
  for (const button of moves) button.addEventListener("click", () => { stop(); go(step + Number(button.dataset.move)); });
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
  player.addEventListener("click", () => {
    if (timer) return stop();
    if (step === last) go(0);
    player.setAttribute("aria-pressed", "true");
    player.textContent = "Pause";
    timer = setInterval(() => { go(step + 1); if (step === last) stop(); }, still.matches ? 1200 : 450);
  });
  slider.max = String(last);
  box.hidden = false;
  show();
})();
