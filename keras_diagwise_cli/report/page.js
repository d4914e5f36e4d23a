"use strict";
/* Sorts the table of layers and expands its rows. Each layer is a tbody. */

const table = document.querySelector(".layers");
const unfolds = table ? [...table.querySelectorAll(".unfold")] : [];
const all = document.querySelector(".all");

function unfold(button, open) {
  button.setAttribute("aria-expanded", open);
  document.getElementById(button.getAttribute("aria-controls")).hidden = !open;
}

function isOpen(button) {
  return button.getAttribute("aria-expanded") === "true";
}

function nameAll() {
  all.textContent = unfolds.every(isOpen) ? "Collapse all" : "Expand all";
}

for (const button of unfolds) {
  button.addEventListener("click", () => {
    unfold(button, !isOpen(button));
    nameAll();
  });
}

if (all) {
  all.addEventListener("click", () => {
    const open = !unfolds.every(isOpen);
    unfolds.forEach((button) => unfold(button, open));
    nameAll();
  });
}

/* Rows without a value come last in either direction. */
function compare(one, other, isNumber, sign) {
  if (one === "" || other === "") return (one === "") - (other === "");
  if (isNumber) return sign * (one - other);
  return sign * one.localeCompare(other, undefined, { numeric: true });
}

function sortBy(head) {
  const key = head.dataset.sort;
  const isNumber = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const first = isNumber ? "descending" : "ascending";
  const second = isNumber ? "ascending" : "descending";
  const direction = before === first ? second : first;
  const sign = direction === "ascending" ? 1 : -1;
  const bodies = [...table.tBodies];
  bodies.sort(
    (one, other) =>
      compare(one.dataset[key], other.dataset[key], isNumber, sign) ||
      one.dataset.order - other.dataset.order,
  );
  table.append(...bodies);
  for (const each of table.querySelectorAll("th[data-sort]")) {
    each.setAttribute("aria-sort", each === head ? direction : "none");
  }
}

for (const head of table ? table.querySelectorAll("th[data-sort]") : []) {
  head.querySelector("button").addEventListener("click", () => sortBy(head));
}
