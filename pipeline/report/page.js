"use strict";
// Points of figures say what they are; a click on one goes to its row. Without this script a browser shows titles.
const tip = document.getElementById("tip");
function show(spot) {
  const title = spot.querySelector("title");
  spot.dataset.text = spot.dataset.text || title.textContent;
  title.textContent = "";
  const at = spot.getBoundingClientRect();
  tip.textContent = spot.dataset.text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), edge = document.documentElement.clientWidth - box.width - 8;
  tip.style.left = Math.max(8, Math.min(at.left + at.width / 2 - box.width / 2, edge)) + "px";
  tip.style.top = (at.top > box.height + 12 ? at.top - box.height - 6 : at.bottom + 6) + "px";
}
function hide() { tip.hidden = true; }
for (const spot of document.querySelectorAll(".spot")) {
  spot.addEventListener("pointerenter", () => show(spot));
  spot.addEventListener("pointerleave", hide);
  spot.addEventListener("focus", () => show(spot));
  spot.addEventListener("blur", hide);
}
addEventListener("scroll", hide, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
// A row that a link names is opened, with the models that it rests on.
function reveal() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!row) return;
  for (let part = row.parentElement; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  for (const part of row.querySelectorAll("td.trace details")) part.open = true;
}
addEventListener("hashchange", reveal);
reveal();
// On paper all is open; afterwards as before.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const part of closed) part.open = true;
});
addEventListener("afterprint", () => { for (const part of closed) part.open = false; closed = []; });
