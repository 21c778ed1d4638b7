// Comfort only: every page works without it. Nothing is stored, nothing is sent but our own forms.
"use strict";

const cards = [...document.querySelectorAll("[data-card]")];
let at = -1;

function focusCard(number) {
  if (!cards.length) return;
  at = Math.max(0, Math.min(cards.length - 1, number));
  cards[at].focus();
}

function current() {
  const focused = document.activeElement && document.activeElement.closest("[data-card]");
  return focused || (at >= 0 ? cards[at] : null);
}

function follow(selector, inside) {
  const link = (inside || document).querySelector(selector);
  if (link) link.click();
  return Boolean(link);
}

document.addEventListener("focusin", (event) => {
  const card = event.target.closest("[data-card]");
  if (card) at = cards.indexOf(card);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (!document.querySelector("dialog[open]")) follow("[data-back]");
    return;
  }
  if (typing || document.querySelector("dialog[open]")) return;
  const keys = {
    "/": () => { document.querySelector("[data-search]").select(); return true; },
    j: () => focusCard(at + 1),
    ArrowDown: () => focusCard(at + 1),
    k: () => focusCard(at - 1),
    ArrowUp: () => focusCard(at - 1),
    Enter: () => event.target === current() && follow("[data-open]", current()),
    o: () => current() && follow("[data-open]", current()),
    ArrowLeft: () => follow("a[rel=prev]"),
    ArrowRight: () => follow("a[rel=next]"),
    u: () => follow("[data-key=u]"),
  };
  for (const mark of ["a", "r", "s"]) {
    // Only of the pair that is in focus, or nobody would see what was marked.
    keys[mark] = () => (current() ? follow(`[data-key=${mark}]`, current()) : focusCard(0));
  }
  if (keys[event.key] && keys[event.key]() !== false) event.preventDefault();
});

for (const field of document.querySelectorAll("[data-submit]")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}

// An image in full over the page; its link opens it where there is no script.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.enlarge");
  if (!link || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const dialog = document.createElement("dialog");
  const image = document.createElement("img");
  dialog.className = "enlarged";
  image.src = link.href;
  image.alt = link.querySelector("img").alt;
  image.addEventListener("load", () => sharpen(image));
  dialog.append(image);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
  document.body.append(dialog);
  dialog.showModal();
});

// The pixels of a small picture stay sharp when it is enlarged.
function sharpen(image) {
  if (Math.max(image.naturalWidth, image.naturalHeight) <= 160) image.classList.add("tiny");
}
// What cannot be shown says so; its link leads to the reason.
function replaceBroken(image) {
  const link = image.closest("a");
  link.className = "no-image";
  link.textContent = "cannot be shown";
}
for (const image of document.images) {
  if (image.complete && image.currentSrc) (image.naturalWidth ? sharpen : replaceBroken)(image);
  image.addEventListener("load", () => sharpen(image));
  image.addEventListener("error", () => replaceBroken(image));
}

if (window.matchMedia("(max-width: 820px)").matches) {
  const filters = document.querySelector(".filters");
  if (filters) filters.open = false;
}
if (location.hash.startsWith("#pair-")) {
  const marked = document.getElementById(location.hash.slice(1));
  const card = marked && marked.closest("[data-card]");
  if (card) focusCard(cards.indexOf(card));
}
