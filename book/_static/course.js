// Lets the keyboard scroll what is wider than its box: the browser does so only for what can hold the focus.
const boxes = {
  "div.math > mjx-container": "Formula, scrolls sideways",
  ".pst-scrollable-table-container": "Table, scrolls sideways",
  "div.highlight pre": "Code, scrolls sideways",
  ".cell_output pre": "Output, scrolls sideways",
};

function markScrollable() {
  for (const [selector, name] of Object.entries(boxes)) {
    for (const box of document.querySelectorAll(selector)) {
      if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) {
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", name);
      } else if (box.getAttribute("aria-label") === name) {
        for (const attribute of ["tabindex", "role", "aria-label"]) box.removeAttribute(attribute);
      }
    }
  }
}

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  markScrollable();
});
window.addEventListener("resize", markScrollable);
