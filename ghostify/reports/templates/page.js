"use strict";
(() => {
  const root = document.documentElement;
  const say = (text) => { document.getElementById("said").textContent = text; };
  for (const one of document.querySelectorAll("[hidden]")) one.hidden = false;

  // Colours: the system's, or the reader's choice, which is kept where the browser allows it.
  const choose = (scheme) => {
    if (scheme === "auto") delete root.dataset.scheme; else root.dataset.scheme = scheme;
  };
  const inputs = [...document.querySelectorAll(".scheme input")];
  let kept = null;
  try { kept = localStorage.getItem("ghostify-scheme"); } catch { /* not allowed here */ }
  for (const input of inputs) {
    if (input.value === kept) { input.checked = true; choose(kept); }
    input.addEventListener("change", () => {
      choose(input.value);
      try { localStorage.setItem("ghostify-scheme", input.value); } catch { /* as above */ }
    });
  }

  // Tables: each group is sorted by itself; what has no value stays below.
  const value = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  };
  const sort = (table, heading, column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const numeric = heading.classList.contains("number");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      rows.sort((one, two) => {
        if (direction === "none") return one.dataset.place - two.dataset.place;
        if (!numeric) {
          const words = [one, two].map((row) => row.cells[column].textContent.trim());
          return sign * words[0].localeCompare(words[1], "en", { numeric: true });
        }
        const [a, b] = [value(one, column), value(two, column)];
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (a - b) || one.dataset.place - two.dataset.place;
      });
      body.append(...rows);
    }
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    if (direction !== "none") heading.setAttribute("aria-sort", direction);
    say(direction === "none" ? "Original order" : `Sorted by ${heading.textContent.trim()}, ${direction}`);
  };
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    for (const body of table.tBodies) [...body.rows].forEach((row, place) => { row.dataset.place = place; });
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      if (heading.tagName !== "TH") return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      const notes = [...heading.querySelectorAll("sup")];
      button.append(...[...heading.childNodes].filter((node) => !notes.includes(node)));
      heading.prepend(button);
      const numeric = heading.classList.contains("number");
      const first = numeric && heading.dataset.better === "higher" ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      button.addEventListener("click", () => {
        const now = heading.getAttribute("aria-sort");
        sort(table, heading, column, now === first ? second : now === second ? "none" : first);
      });
    });
  }

  // Copies: by the browser's clipboard, or by a selection where a file may not use that.
  const copy = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* next way */ }
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const done = await copy(button.dataset.copy);
      const word = button.querySelector("span");
      word.textContent = done ? "copied" : "failed";
      say(done ? "Copied" : "The browser does not allow copying");
      setTimeout(() => { word.textContent = ""; }, 1500);
    });
  }

  // Pictures as files.
  for (const button of document.querySelectorAll("button.svg")) {
    button.addEventListener("click", () => {
      const drawing = button.closest("figure").querySelector("svg");
      const svg = new XMLSerializer().serializeToString(drawing);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
      link.download = button.dataset.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // A command that is linked to is shown; all are shown on paper.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", open);
  open();
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("#commands details")) one.open = true;
  });
})();
