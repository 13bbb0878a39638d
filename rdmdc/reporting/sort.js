// A click on a head, or Enter, sorts by its column: largest first, then turned round. A cell counts
// as the number that it begins with, otherwise as its text; empty cells and dashes stay last.
const number = /^[+-]?\d+(\.\d+)?(?![\w.-])/;
const value = (cell) => {
  const text = cell.textContent.trim();
  return text === "–" ? "" : text.match(number)?.[0] ?? text;
};
for (const head of document.querySelectorAll("th")) {
  const column = head.cellIndex;
  const body = head.closest("table").tBodies[0];
  const key = (row) => value(row.cells[column]);
  const compare = (a, b) => (isNaN(a - b) ? a.localeCompare(b) : a - b);
  const sort = () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const [full, empty] = [[], []];
    for (const row of body.rows) (key(row) === "" ? empty : full).push(row);
    full.sort((a, b) => compare(key(a), key(b)) * (down ? -1 : 1));
    body.append(...full, ...empty);
  };
  head.tabIndex = 0;
  head.title = "sort by this column";
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
}
