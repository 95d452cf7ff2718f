"use strict";
document.documentElement.classList.add("scripted");

// The curves of one candidate at a time.
for (const select of document.querySelectorAll("select[data-curves]")) {
  const show = () => {
    for (const curve of document.querySelectorAll(".curve")) {
      curve.classList.toggle("chosen", curve.id === select.value);
    }
  };
  select.addEventListener("change", show);
  show();
}

// Tables sort by the values behind their cells; what has none stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        const difference = a - b;
        const order = Number.isNaN(difference) ? a.localeCompare(b) : difference;
        return rising ? order : -order;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    });
  });
}

// What is folded away on the screen belongs on paper.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
