// Three small things that the theme lacks: a figure opens at full size, a fold says what it hides, and what can be
// scrolled sideways fades where more of it is.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll(".bd-article img")) {
    if (image.closest("a") || image.classList.contains("cover")) continue;
    const link = document.createElement("a");
    link.href = image.src;
    link.className = "full-size";
    link.title = "Open at full size";
    image.replaceWith(link);
    link.append(image);
  }
  // The first comment of a folded cell is its title; a solution says that it is one.
  for (const fold of document.querySelectorAll(".bd-article .cell details.hide")) {
    const label = fold.querySelector("summary .collapsed");
    if (!label) continue;
    const first = fold.querySelector("pre")?.textContent.trimStart().match(/^# ([^\n]+)/);
    if (fold.closest(".cell.tag_solution")) label.textContent = "Show a solution";
    else if (first) label.textContent = first[1];
  }
  for (const box of document.querySelectorAll("div.math.displaymath, .cell_output .output:has(table)")) {
    const fade = () => {
      const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
      box.classList.toggle("more-before", box.scrollLeft > 1);
      box.classList.toggle("more-after", rest > 1);
    };
    box.addEventListener("scroll", fade, { passive: true });
    new ResizeObserver(fade).observe(box);
  }
});
