"use strict";
// The page reads without this script; it only adds comfort.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // One button folds and unfolds all code.
  const toggle = document.getElementById("toggle-code");
  const code = all("details.code");
  toggle.parentElement.hidden = code.length === 0;
  const label = () => {
    const open = code.length > 0 && code.every((details) => details.open);
    toggle.setAttribute("aria-pressed", String(open));
    toggle.textContent = open ? "Hide all code" : "Show all code";
  };
  toggle.addEventListener("click", () => {
    const open = toggle.getAttribute("aria-pressed") !== "true";
    document.documentElement.classList.toggle("with-code", open);  // a phone shows no folds of code until then
    for (const details of code) details.open = open;
    label();
  });
  for (const details of code) details.addEventListener("toggle", label);

  // The contents follow the scroll: the last heading above the upper third of the window is the current one.
  const links = new Map(all("#contents a").map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const marks = all("[data-follow], .chapter h3[id]").filter((mark) => links.has(mark.id));
  let current = null;
  const follow = () => {
    const line = window.innerHeight / 3;
    document.getElementById("contents").classList.toggle("left", window.scrollY > window.innerHeight);
    let found = marks[0];
    for (const mark of marks) if (mark.getBoundingClientRect().top <= line) found = mark;
    if (found === current || !found) return;
    current = found;
    for (const item of all("#contents .current")) item.classList.remove("current");
    for (const link of links.values()) link.removeAttribute("aria-current");
    const link = links.get(found.id);
    link.setAttribute("aria-current", "true");
    for (let item = link.closest("li"); item; item = item.parentElement.closest("li")) item.classList.add("current");
    const box = document.getElementById("contents");
    const place = link.getBoundingClientRect(), frame = box.getBoundingClientRect();
    if (getComputedStyle(box).position === "sticky" && (place.top < frame.top || place.bottom > frame.bottom)) {
      box.scrollTop += place.top - frame.top - frame.height / 3;
    }
  };
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; follow(); });
  };
  document.documentElement.classList.add("follows");
  window.addEventListener("scroll", soon, { passive: true });

  // Boxes that scroll sideways can be reached with the keyboard.
  const boxes = all(".scroll, .formula, pre");
  const reach = () => {
    const wide = boxes.map((box) => box.scrollWidth > box.clientWidth + 1);  // all read before any is changed: one layout
    boxes.forEach((box, i) => {
      if (wide[i]) {
        box.tabIndex = 0;
        if (box.tagName !== "PRE") box.setAttribute("role", "group");
        if (box.tagName !== "PRE") box.setAttribute("aria-label", box.matches(".formula") ? "Formula" : "Table, scrolls sideways");
      } else {
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    });
  };
  window.addEventListener("resize", () => { reach(); soon(); });
  document.addEventListener("toggle", reach, true);

  // On a narrow window the contents start folded.
  const contents = document.querySelector("#contents details");
  const narrow = window.matchMedia("(max-width: 68rem)");
  const fold = () => { contents.open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  document.querySelector(".to-contents").addEventListener("click", () => { contents.open = true; });

  // A link to what is folded unfolds it.
  const unfold = () => {
    const mark = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!mark) return;
    for (let fold = mark.querySelector("details:not(.code)") || mark; fold; fold = fold.parentElement.closest("details")) {
      if (fold.matches("details") && (fold.contains(mark) || mark.matches("#glossary, #flow"))) fold.open = true;
    }
    mark.scrollIntoView();
  };
  window.addEventListener("hashchange", unfold);

  // The choice of metric and column stands again beside each figure that follows it; all copies say the same.
  const choices = document.getElementById("choices");
  all(".chosen-figure").forEach((figure, i) => {
    if (!choices) return;
    const copy = choices.cloneNode(true);
    copy.removeAttribute("id");
    const follows = [...figure.querySelectorAll("[class*='by-']")].some((one) => /by-(all|seen|discovery)/.test(one.className));
    for (const input of all("input", copy)) {
      input.removeAttribute("id");
      if (input.name === "by-column" && !follows) input.closest("fieldset").hidden = true;
      input.name += i;
    }
    figure.prepend(copy);
  });
  document.addEventListener("change", (event) => {
    if (!event.target.closest(".choices")) return;
    for (const input of all(".choices input")) {
      if (input.name.replace(/\d+$/, "") === event.target.name.replace(/\d+$/, "")) input.checked = input.value === event.target.value;
    }
  });

  for (const button of all("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  fold();
  unfold();
  reach();
  follow();
})();
